"""Requests that wait for a moment, so that the model sees several pictures at once."""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger("tenfold")

T = TypeVar("T")
Answer = NDArray[np.float32]
_END = None


class FullError(Exception):
    """As many pictures wait as are allowed to."""


class StoppedError(Exception):
    """The thread that computes is gone."""


@dataclass(frozen=True, eq=False)
class _Item:
    """A picture that waits for its answer."""

    pixels: NDArray[np.uint8]
    future: "Future[Answer]"


@dataclass(frozen=True, eq=False)
class _Call:
    """Something else for the same thread, computed by itself."""

    function: Callable[[], Any]
    future: "Future[Any]"


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
        patience_seconds: float = 0.0005,
        on_death: Callable[[], None] = lambda: None,
        seen: Callable[[int, float], None] = lambda number, seconds: None,
    ) -> None:
        self._compute = compute
        self._most_together, self._patience = most_together, patience_seconds
        self._on_death, self._seen = on_death, seen
        self._most_waiting = most_waiting
        self._queue: queue.Queue[_Item | _Call | None] = queue.Queue()
        self._putting = threading.Lock()
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

    async def answer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The answers (N, C) to pictures (N, H, W, 3). Raises FullError and StoppedError.

        Whoever stops waiting for them takes back those that are not computed yet.
        """
        futures = self.submit(pixels)
        try:
            found = await asyncio.gather(*map(asyncio.wrap_future, futures))
        finally:
            for future in futures:
                future.cancel()
        return np.stack(found)

    async def call(self, function: Callable[[], T]) -> T:
        """What `function` returns on the thread that computes. Raises as `answer` does."""
        future: Future[T] = Future()
        self._put([_Call(function, future)])
        return await asyncio.wrap_future(future)

    def submit(self, pixels: NDArray[np.uint8]) -> "list[Future[Answer]]":
        """The answers to come to pictures (N, H, W, 3): to all of them, or to none.

        Raises FullError and StoppedError.
        """
        items = [_Item(picture, Future()) for picture in pixels]
        self._put(items)
        return [item.future for item in items]

    def _put(self, items: Sequence[_Item | _Call]) -> None:
        with self._putting:
            if not self.is_alive:
                raise StoppedError
            if self._queue.qsize() + len(items) > self._most_waiting:
                raise FullError
            for item in items:
                self._queue.put_nowait(item)

    def stop(self, *, seconds: float) -> None:
        """Answer what waits, and end; at most so long."""
        with self._putting:  # Nothing comes behind the end.
            self._is_alive = False
            self._queue.put_nowait(_END)
        self._thread.join(seconds)

    def _run(self) -> None:
        items: list[_Item | _Call] = []
        try:
            while True:
                items, is_end = self._next_batch()
                self._answer([item for item in items if isinstance(item, _Item)])
                for item in items:
                    if isinstance(item, _Call):
                        _settle(item)
                items = []
                if is_end:
                    return
        except BaseException:
            logger.exception("The thread that computes has died.")
            self._fail(items)
            self._on_death()

    def _next_batch(self) -> tuple[list[_Item | _Call], bool]:
        """What is computed together, and whether it is the last."""
        first = self._queue.get()
        if first is _END:
            return [], True
        items: list[_Item | _Call] = [first]
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

    def _fail(self, items: list[_Item | _Call]) -> None:
        """Tell everybody who waits that no answer will come."""
        with self._putting:
            self._is_alive = False
            while not self._queue.empty():
                item = self._queue.get_nowait()
                if item is not _END:
                    items.append(item)
        for item in items:
            # Who has stopped waiting in this moment needs to hear nothing.
            with contextlib.suppress(InvalidStateError):
                item.future.set_exception(StoppedError())


def _settle(call: _Call) -> None:
    if not call.future.set_running_or_notify_cancel():
        return
    try:
        call.future.set_result(call.function())
    except Exception as error:
        call.future.set_exception(error)
