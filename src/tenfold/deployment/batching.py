"""A micro-batcher: images that come while the model computes are computed together next."""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from starlette.exceptions import HTTPException

from tenfold.deployment.predictor import Floats, Pixels

MOST_WAITING, MOST_TOGETHER = 1024, 64  # Images in the queue, and in a batch.
STOPPED = "The model has stopped and the service is about to end"

logger = logging.getLogger("tenfold")

Item = tuple[Pixels, "asyncio.Future[Floats]"]


def busy(reason: str) -> HTTPException:
    """A request that had better come again."""
    return HTTPException(503, f"{reason}; try again", {"retry-after": "1"})


class Batcher:
    """Computes the logits of all requests on one thread; used from one event loop.

    compute: pixels (N, H, W, 3) uint8 -> (N, C) float32. on_death: is called if computing ends by
    anything but an Exception, such as SystemExit. work: what is being computed now.
    """

    def __init__(self, compute: Callable[[Pixels], Floats]) -> None:
        self._compute, self.is_alive = compute, True
        self.on_death: Callable[[], None] = lambda: None
        self.waiting: deque[Item] = deque()
        self.work: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "inference")

    async def logits(self, pixels: Pixels) -> Floats:
        """Logits (N, C) of images (N, H, W, 3): of all of them, or of none.

        Whoever stops waiting takes back those that are not computed yet. Raises HTTPException
        where too many wait already, and where the thread that computes is gone.
        """
        if not self.is_alive:
            raise busy(STOPPED)
        if len(self.waiting) + len(pixels) > MOST_WAITING:
            raise busy("Too many images wait")
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in pixels]
        self.waiting.extend(zip(pixels, futures, strict=True))
        self.work = self.work or loop.create_task(self._compute_all())
        return np.stack(await asyncio.gather(*futures))

    async def _compute_all(self) -> None:
        loop, items = asyncio.get_running_loop(), list[Item]()
        try:
            while self.waiting:
                number = min(MOST_TOGETHER, len(self.waiting))
                items = [self.waiting.popleft() for _ in range(number)]
                # A client that has gone needs no logits.
                items = [item for item in items if not item[1].cancelled()]
                images = [pixels for pixels, _ in items]
                _settle(items, await loop.run_in_executor(self._thread, self._one_batch, images))
        except BaseException:
            logger.exception("The thread that computes has died.")
            self.is_alive = False
            _settle([*items, *self.waiting], itertools.repeat(busy(STOPPED)))
            self.waiting.clear()
            self.on_death()
        finally:
            self.work = None

    def _one_batch(self, images: list[Pixels]) -> list[Floats | Exception]:
        try:
            return list(self._compute(np.stack(images))) if images else []
        except Exception as error:
            if len(images) == 1:
                return [error]
        # One of them may be to blame: each for itself.
        return [found for image in images for found in self._one_batch([image])]


def _settle(items: list[Item], found: Iterable[Floats | Exception]) -> None:
    for (_, future), each in zip(items, found, strict=False):
        if future.done():  # Cancelled: whoever waited has gone.
            continue
        if isinstance(each, Exception):
            future.set_exception(each)
        else:
            future.set_result(each)
