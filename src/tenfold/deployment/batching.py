"""A micro-batcher: images that come while the model computes are computed together next."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tenfold.deployment.guards import busy

STOPPED = "The model has stopped and the service is about to end"

logger = logging.getLogger("tenfold")

T = TypeVar("T")
Logits = NDArray[np.float32]


class _Item(NamedTuple):
    pixels: NDArray[np.uint8]
    future: "asyncio.Future[Logits]"


@dataclass(eq=False)
class Batcher:
    """Computes the logits of all requests on one thread; used from one event loop.

    compute: pixels (N, H, W, 3) uint8 -> (N, C) float32. most_waiting: images in the queue,
    above which `logits` refuses. most_together: images in a batch. on_death: is called if computing
    ends by anything but an Exception, such as SystemExit. seen: is told images and seconds of each
    batch.
    """

    compute: Callable[[NDArray[np.uint8]], Logits]
    most_waiting: int = 1024
    most_together: int = 64
    on_death: Callable[[], None] = lambda: None
    seen: Callable[[int, float], None] = lambda number, seconds: None
    is_alive: bool = field(default=True, init=False)
    """Whether logits can still be had."""

    def __post_init__(self) -> None:
        self._waiting: deque[_Item] = deque()
        self._thread = ThreadPoolExecutor(1, "inference")
        self._work: asyncio.Task[None] | None = None

    @property
    def num_waiting(self) -> int:
        """Images in the queue now."""
        return len(self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether something is being computed."""
        return self._work is not None

    async def logits(self, pixels: NDArray[np.uint8]) -> Logits:
        """Logits (N, C) of images (N, H, W, 3): of all of them, or of none.

        Whoever stops waiting takes back those that are not computed yet. Raises HTTPException
        where too many wait already, and where the thread that computes is gone.
        """
        if not self.is_alive:
            raise busy(STOPPED)
        if len(self._waiting) + len(pixels) > self.most_waiting:
            raise busy("Too many images wait")
        loop = asyncio.get_running_loop()
        items = [_Item(image, loop.create_future()) for image in pixels]
        self._waiting += items
        if self._work is None:
            self._work = loop.create_task(self._compute_all())
        return np.stack(await asyncio.gather(*(item.future for item in items)))

    async def call(self, function: Callable[[], T]) -> T:
        """What `function` returns on the thread that computes."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def stop(self) -> None:
        """Compute nothing more; nobody waits for what is being computed."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _compute_all(self) -> None:
        items: list[_Item] = []
        try:
            while self._waiting:
                number = min(self.most_together, len(self._waiting))
                items = [self._waiting.popleft() for _ in range(number)]
                # A client that has gone needs no logits.
                items = [item for item in items if not item.future.cancelled()]
                if items:
                    started = time.perf_counter()
                    found = await self.call(partial(self._one_batch, items))
                    self.seen(len(items), time.perf_counter() - started)
                    _settle(items, found)
        except BaseException:
            logger.exception("The thread that computes has died.")
            self.is_alive = False
            items += self._waiting
            self._waiting.clear()
            _settle(items, [busy(STOPPED)] * len(items))
            self.on_death()
        finally:
            self._work = None

    def _one_batch(self, items: list[_Item]) -> list[Logits | Exception]:
        try:
            return list(self.compute(np.stack([item.pixels for item in items])))
        except Exception as error:
            if len(items) == 1:
                return [error]
        # One of them may be to blame: each for itself.
        return [found for item in items for found in self._one_batch([item])]


def _settle(items: list[_Item], found: "Sequence[Logits | Exception]") -> None:
    for item, each in zip(items, found, strict=True):
        if item.future.done():  # Cancelled: whoever waited has gone.
            continue
        if isinstance(each, Exception):
            item.future.set_exception(each)
        else:
            item.future.set_result(each)
