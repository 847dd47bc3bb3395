"""The clock of a training that is to end at a given time, whatever the machine does meanwhile."""

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn

logger = logging.getLogger("tenfold")

LOOK_AT = 0.75
"""Share of the time after which the machine is measured once more."""

LOOK_SECONDS = 0.5

MOST_CHANGE = 3.0
"""Times faster or slower than planned that a measurement is believed to be."""


class Closing(NamedTuple):
    """What a plan left for evaluation and for the page, and the seconds of a forward pass a picture
    from which the first was told."""

    evaluation_seconds: float
    page_seconds: float
    picture_seconds: float

    @property
    def seconds(self) -> float:
        """All that follows training."""
        return self.evaluation_seconds + self.page_seconds


class Clock:
    """How much of the time is over, from 0 to 1.

    limit: seconds of training, from its set-up on. closing: what follows, if that should be
    corrected on the way: a machine that was busy when the plan was made may be idle now.
    """

    def __init__(self, limit: float, closing: Closing | None = None) -> None:
        self._limit, self._closing = limit, closing
        self._since, self._share = 0.0, 0.0

    def share(self, elapsed: float) -> float:
        """The share that is over after `elapsed` seconds; it never falls."""
        rest = (elapsed - self._since) / max(self._limit - self._since, 1e-9)
        return min(self._share + (1 - self._share) * max(rest, 0.0), 1.0)

    def left(self, elapsed: float) -> float:
        """Seconds that are left; below 0 where it is over."""
        return self._limit - elapsed

    def wants_look(self, elapsed: float) -> bool:
        """Whether it is time for `correct`."""
        return self._closing is not None and self.share(elapsed) >= LOOK_AT

    def correct(self, elapsed: float, picture_seconds: float) -> None:
        """Give to training what evaluation will not need, or the other way round, once.

        picture_seconds: of a forward pass a picture, as measured now.
        """
        assert self._closing is not None, "wants_look comes first"
        ratio = picture_seconds / self._closing.picture_seconds
        ratio = min(max(ratio, 1 / MOST_CHANGE), MOST_CHANGE)
        self._share, self._since = self.share(elapsed), elapsed
        self._limit = max(self._limit + self._closing.evaluation_seconds * (1 - ratio), elapsed)
        self._closing = None


def step_share(
    time_share: float, *, sizes: Sequence[int], until: Sequence[float], side: int
) -> float:
    """The share of a recipe's steps that lies behind after `time_share` of its time.

    Small pictures come first and take less time, as many times less as they have fewer pixels.
    sizes, until: the recipe's; side: of whole pictures.
    """
    if not sizes:
        return time_share
    weights, begun = [], 0.0
    for size, end in zip((*sizes, side), (*until, 1.0), strict=True):
        steps = max(end - begun, 0.0)
        weights.append((steps, steps * min(size / side, 1.0) ** 2))
        begun = max(begun, end)
    total = sum(cost for _, cost in weights)
    done, left = 0.0, time_share * total
    for steps, cost in weights:
        if cost > 0 and left < cost:
            return done + steps * left / cost
        done, left = done + steps, left - cost
    return 1.0


def forward_seconds(network: nn.Module, inputs: Tensor, *, seconds: float = LOOK_SECONDS) -> float:
    """Of a forward pass a picture, measured for about `seconds` on `inputs` (N, 3, H, W)."""
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        network(inputs)
        started = time.perf_counter()
        number = 0
        while number < 2 or time.perf_counter() - started < seconds:
            network(inputs)
            number += 1
            if inputs.device.type == "cuda":
                torch.cuda.synchronize()
    took = time.perf_counter() - started
    network.train(was_training)
    return took / (number * len(inputs))


class StepTimes:
    """Says once that steps have become far slower than the first ones of the same image size."""

    FEW = 20
    """Steps that are compared, by their median."""
    FAR = 3.0
    """Times slower that is worth a word."""

    def __init__(self) -> None:
        self._seconds: defaultdict[int, list[float]] = defaultdict(list)
        self._has_warned = False

    def note(self, seconds: float, *, size: int) -> None:
        """A step with images of `size` pixels took so long."""
        times = self._seconds[size]
        times.append(seconds)
        if self._has_warned or len(times) % self.FEW or len(times) < 2 * self.FEW:
            return
        first, last = median(times[: self.FEW]), median(times[-self.FEW :])
        if last > self.FAR * first:
            self._has_warned = True
            logger.warning(
                "A step takes %.2g s now and took %.2g s at first; other programs on these "
                "cores slow training down.",
                last,
                first,
            )
