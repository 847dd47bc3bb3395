"""Signals: in training, finish the step, save and leave; around it, leave at once.

A command that another one drives leaves as on SIGTERM when that has gone: `leave_with_driver`.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, Self

from tenfold.errors import InterruptedRunError

WATCHED = ("SIGINT", "SIGTERM", "SIGUSR1")

DRIVEN = "TENFOLD_DRIVEN"
"""The variable of the environment of a command whose standard input its driver keeps open."""


def leave_with_driver() -> None:
    """Where a driver started this process, send it SIGTERM at the end of its standard input."""
    if not os.environ.get(DRIVEN):
        return

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1 << 16):
                pass
        if os.name == "posix":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            import _thread

            _thread.interrupt_main(signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="tenfold-driver").start()


@contextlib.contextmanager
def _handled(names: Sequence[str], handler: Any) -> Iterator[None]:
    """Give these signals to `handler`; outside the main thread Python can't catch any."""
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


class Interruption(contextlib.ExitStack):
    """A context in which SIGINT, SIGTERM and SIGUSR1 are noted instead of ending the process.

    A second SIGINT raises KeyboardInterrupt at once. Outside the main thread nothing is noted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.signal: signal.Signals | None = None

    def __enter__(self) -> Self:
        self.enter_context(_handled(WATCHED, self._note))
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


@contextlib.contextmanager
def ending_on(*names: str) -> Iterator[None]:
    """A context that these signals end, for what does nothing but wait."""

    def end(number: int, frame: FrameType | None) -> None:
        raise _Signalled

    with contextlib.suppress(_Signalled), _handled(names, end):
        yield


class _Signalled(BaseException):
    """Not an Exception, so that nothing on its way takes it for a failure and goes on."""


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """A context that SIGTERM and SIGUSR1 end with InterruptedRunError, wherever it is.

    For the time around training, in which there is nothing to save: images are read, or the
    weights that were saved are evaluated. Outside the main thread nothing is changed.
    """
    owner = os.getpid()

    def leave(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # A fork; it ends as it would without this.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise _Signalled(signal.Signals(number).name)

    try:
        with _handled([name for name in WATCHED if name != "SIGINT"], leave):
            yield
    except _Signalled as signalled:
        raise InterruptedRunError(
            f"Interrupted by {signalled}; the same command goes on from what was saved."
        ) from None
