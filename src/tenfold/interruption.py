"""Signals: in training, finish the step, save and leave; around it, leave at once.

A command that another one drives leaves as on SIGTERM when that has gone: `leave_with_driver`.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

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


class Interruption:
    """A context in which SIGINT, SIGTERM and SIGUSR1 are noted instead of ending the process.

    A second SIGINT raises KeyboardInterrupt at once. Outside the main thread, where Python can't
    catch signals, nothing is noted.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for name in WATCHED:
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


class _Signalled(BaseException):
    """Not an Exception, so that nothing on its way takes it for a failure and goes on."""


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """A context that SIGTERM and SIGUSR1 end with InterruptedRunError, wherever it is.

    For the time around training, in which there is nothing to save: pictures are read, or the
    weights that were saved are evaluated. Outside the main thread nothing is changed.
    """
    owner = os.getpid()

    def leave(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # A fork; it ends as it would without this.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise _Signalled(signal.Signals(number).name)

    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, n) for n in WATCHED if n != "SIGINT" and hasattr(signal, n)]
        previous = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    except _Signalled as signalled:
        raise InterruptedRunError(
            f"Interrupted by {signalled}; the same command goes on from what was saved."
        ) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
