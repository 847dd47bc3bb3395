"""Requests that wait for a moment, so that the model sees several pictures at once."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger("tenfold")

Answer = NDArray[np.float32]
_END = None


class FullError(Exception):
    """As many pictures wait as are allowed to."""


class StoppedError(Exception):
    """The thread that computes is gone."""


@dataclass(frozen=True)
class _Item:
    pixels: NDArray[np.uint8]
    future: "Future[Answer]"


class Batcher:
    """One thread that computes the answers of all requests.

    compute: pixels (N, H, W, 3) uint8 -> (N, C) float32. most_waiting: pictures in the queue, above
    which `submit` refuses. most_together: pictures in a batch. patience_seconds: the longest that a
    picture waits for others. on_death: is called from the thread if it ends by anything but `stop`.
    """

    def __init__(
        self,
        compute: Callable[[NDArray[np.uint8]], Answer],
        *,
        most_waiting: int = 1024,
        most_together: int = 64,
        patience_seconds: float = 0.002,
        on_death: Callable[[], None] = lambda: None,
        seen: Callable[[int, float], None] = lambda number, seconds: None,
    ) -> None:
        self._compute = compute
        self._most_together, self._patience = most_together, patience_seconds
        self._on_death, self._seen = on_death, seen
        self._queue: queue.Queue[_Item | None] = queue.Queue(most_waiting)
        self._is_alive = True
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether answers can still be had."""
        return self._is_alive and self._thread.is_alive()

    @property
    def num_waiting(self) -> int:
        """Pictures in the queue now."""
        return self._queue.qsize()

    async def answer(self, pixels: NDArray[np.uint8]) -> Answer:
        """The answer (C,) to one picture (H, W, 3). Raises FullError and StoppedError."""
        return await asyncio.wrap_future(self.submit(pixels))

    def submit(self, pixels: NDArray[np.uint8]) -> "Future[Answer]":
        """The answer to come. Raises FullError and StoppedError."""
        if not self.is_alive:
            raise StoppedError
        item = _Item(pixels, Future())
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            raise FullError from None
        return item.future

    def stop(self, *, seconds: float) -> None:
        """Answer what waits, and end; at most so long."""
        self._is_alive = False
        self._queue.put(_END)
        self._thread.join(seconds)

    def _run(self) -> None:
        items: list[_Item] = []
        try:
            while True:
                items, is_end = self._next_batch()
                if items:
                    self._answer(items)
                items = []
                if is_end:
                    return
        except BaseException:
            logger.exception("The thread that computes has died.")
            self._is_alive = False
            self._fail(items)
            self._on_death()

    def _next_batch(self) -> tuple[list[_Item], bool]:
        """What is computed together, and whether it is the last."""
        first = self._queue.get()
        if first is _END:
            return [], True
        items = [first]
        deadline = time.monotonic() + self._patience
        while len(items) < self._most_together:
            try:
                item = self._queue.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                break
            if item is _END:
                return items, True
            items.append(item)
        return items, False

    def _answer(self, items: list[_Item]) -> None:
        # A client that has gone needs no answer.
        items = [item for item in items if item.future.set_running_or_notify_cancel()]
        if not items:
            return
        started = time.perf_counter()
        try:
            answers = list(self._compute(np.stack([item.pixels for item in items])))
        except Exception:
            answers = []
        self._seen(len(items), time.perf_counter() - started)
        if len(answers) == len(items):
            for item, answer in zip(items, answers, strict=True):
                item.future.set_result(answer)
            return
        # One of them may be to blame: each for itself.
        for item in items:
            try:
                item.future.set_result(self._compute(item.pixels[None])[0])
            except Exception as error:
                item.future.set_exception(error)

    def _fail(self, items: list[_Item]) -> None:
        """Tell everybody who waits that no answer will come."""
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is not None:
                items.append(item)
        for item in items:
            if not item.future.done():
                item.future.set_exception(StoppedError())
