"""`python -m tenfold.studies.worker`: trains one trial in a process of its own.

The request is a line of JSON on standard input, which then stays open for as long as somebody
wants the result: its end, however it comes about, stops the training as SIGTERM does. Events go
to standard output, an object a line; the last is how it ended.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tenfold.errors import InterruptedRunError, sentence_of
from tenfold.recipe import recipe_from_dict
from tenfold.run import RunFolder
from tenfold.studies.running import TrainTrial, run_trial, train_trial
from tenfold.training.reporters import Plan

EVENT_SECONDS = 0.2
"""Least time between two reports within an epoch."""


def serve(train: TrainTrial) -> None:
    """Read a request, train with `train`, and report.

    The request has the resolved `recipe`, the run `folder`, `threads` or null, `skip_broken`, and
    the `command` to be written into the run's provenance.
    """
    # Whatever prints must not spoil the events.
    events = _Events(os.dup(1))
    os.dup2(2, 1)
    request = _read_request()
    if request is None:
        return  # Nobody is there any more.
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    sys.argv = request["command"]
    logger = logging.getLogger("tenfold")
    logger.handlers, logger.propagate = [_EventHandler(events)], False
    logger.setLevel(logging.DEBUG)
    try:
        run_trial(
            recipe_from_dict(request["recipe"]),
            RunFolder(Path(request["folder"])),
            threads=request["threads"],
            skip_broken=request["skip_broken"],
            reporter=_EventReporter(events),
            train=train,
        )
    except InterruptedRunError as error:
        events.send("end", status="interrupted", message=str(error))
    except Exception as error:
        logger.debug("Why it failed:", exc_info=True)
        events.send("end", status="failed", message=sentence_of(error))
    else:
        events.send("end", status="finished", message=None)


class _Events:
    """Lines of JSON to whoever started this; nothing where that has gone."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, event: str, **values: Any) -> None:
        """One line, whole."""
        line = json.dumps({"event": event, **values}).encode() + b"\n"
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                # The driver is dead. Training goes on until the end of the input is noticed, in
                # a moment, and must be able to save then.
                return


class _EventReporter:
    """Sends what a reporter is told; within an epoch not more than a few events a second."""

    def __init__(self, events: _Events) -> None:
        self._events = events
        self._last = 0.0

    def __call__(self, label: str, done: int, total: int | None) -> None:
        if done == total or self._is_time():
            self._events.send("progress", label=label, done=done, total=total)

    def started(self, plan: Plan) -> None:
        self._events.send("started", plan=asdict(plan))

    def stepped(self, *, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        if self._is_time():
            self._events.send(
                "stepped", epoch=epoch, step=step, loss=loss, images_per_second=images_per_second
            )

    def epoch_ended(self, metrics: dict[str, Any], timings: dict[str, Any]) -> None:
        self._events.send("epoch_ended", metrics=metrics, timings=timings)

    def ended(self, reason: str) -> None:
        self._events.send("ended", reason=reason)

    def _is_time(self) -> bool:
        if time.monotonic() - self._last < EVENT_SECONDS:
            return False
        self._last = time.monotonic()
        return True


class _EventHandler(logging.Handler):
    """Sends the library's notices."""

    def __init__(self, events: _Events) -> None:
        super().__init__()
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        self._events.send("log", level=record.levelno, message=self.format(record))


def _read_request() -> dict[str, Any] | None:
    """The line on the input; None where that ended before."""
    text = b""
    while not text.endswith(b"\n"):
        piece = os.read(0, 1 << 16)
        if not piece:
            return None
        text += piece
    request: dict[str, Any] = json.loads(text)
    return request


def _stop_at_end_of_input() -> None:
    while os.read(0, 1 << 16):
        pass
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        import _thread

        _thread.interrupt_main(signal.SIGTERM)


if __name__ == "__main__":
    serve(train_trial)
