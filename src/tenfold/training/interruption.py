"""Signals during training: finish the step, save, and leave."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

WATCHED = ("SIGINT", "SIGTERM", "SIGUSR1")


class Interruption:
    """A context in which SIGINT, SIGTERM and SIGUSR1 are noted instead of ending the process.

    A second SIGINT ends the process at once. Outside the main thread, where Python can't catch
    signals, nothing is noted.
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
            os._exit(130)
        self.signal = signal.Signals(number)
