"""Training that ends at a given time: how far it is, and whether the machine has slowed down."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

logger = logging.getLogger("tenfold")


class Phase(NamedTuple):
    """A share of a recipe's steps, and the side in pixels of their images."""

    share: float
    side: int


def phases(sizes: Sequence[int], until: Sequence[float], *, side: int) -> list[Phase]:
    """How images grow: sizes, until are the recipe's, and side that of whole images."""
    found, begun = [], 0.0
    for size, end in zip((*sizes, side), (*until, 1.0), strict=True):
        found.append(Phase(max(end - begun, 0.0), min(size, side)))
        begun = max(begun, end)
    return found


def step_share(
    time_share: float, *, sizes: Sequence[int], until: Sequence[float], side: int
) -> float:
    """The share of a recipe's steps that lies behind after `time_share` of its time.

    Small images come first and take less time, as many times less as they have fewer pixels.
    sizes, until: the recipe's; side: of whole images.
    """
    if not sizes:
        return time_share
    weights = [
        (steps, steps * (size / side) ** 2) for steps, size in phases(sizes, until, side=side)
    ]
    total = sum(cost for _, cost in weights)
    done, left = 0.0, time_share * total
    for steps, cost in weights:
        if cost > 0 and left < cost:
            return done + steps * left / cost
        done, left = done + steps, left - cost
    return 1.0


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
