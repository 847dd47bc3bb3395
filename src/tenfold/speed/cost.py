"""What a run costs: seconds, and seconds times what the machine computed a second meanwhile.

The second is comparable between machines, and between hours of a machine that others use too: its
matrix product is timed before the run, between its epochs and after it.
"""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

from tenfold.training.reporters import Reporters


class Cost(NamedTuple):
    """seconds: without those of the probes. product_rate: mean of the probes over that time, in
    FLOP/s. operations: seconds times product_rate."""

    seconds: float
    product_rate: float
    operations: float

    def without(self, seconds: float) -> "Cost":
        """The cost of the rest where `seconds` went into something else."""
        return Cost(
            self.seconds - seconds, self.product_rate, self.operations - seconds * self.product_rate
        )


class Meter(Reporters):
    """A reporter that probes the machine at the ends of epochs, and takes that out of the time.

    probe: returns FLOP/s. Time counts from here on.
    """

    def __init__(self, probe: Callable[[], float]) -> None:
        super().__init__()
        self._probe = probe
        self._marks: list[tuple[float, float]] = [(0.0, probe())]
        self._started = time.perf_counter()
        self._probing = 0.0

    def mark(self) -> None:
        """Probe once more."""
        now = time.perf_counter()
        worked = now - self._started - self._probing
        self._marks.append((worked, self._probe()))
        self._probing += time.perf_counter() - now

    @property
    def cost(self) -> Cost:
        """Of the time from the start to the last mark."""
        operations = 0.0
        for (before, first), (after, second) in pairwise(self._marks):
            operations += (after - before) * (first + second) / 2
        seconds = self._marks[-1][0]
        return Cost(seconds, operations / seconds if seconds else self._marks[0][1], operations)

    def epoch_ended(self, metrics: dict[str, Any], timings: dict[str, Any]) -> None:
        """Probe between epochs."""
        self.mark()
