"""Learning-rate schedules: pure functions of the step, and the one that watches the validation.

A schedule says what the learning rate is multiplied by at a step, counted from 0; a run that ends
by the clock has fractions of steps.
"""

import itertools
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Annotated, NamedTuple

from pydantic import Field

from tenfold.registry import PartOptions, rule

logger = logging.getLogger("tenfold")


WarmUp = Annotated[
    float,
    Field(ge=0, description="Epochs in which the rate rises to its full value in a straight line."),
]
Share = Annotated[float, Field(ge=0, le=1)]
Final = Annotated[Share, Field(description="Rate at the end, as a share of the full rate.")]
Factor = Annotated[Share, Field(description="What a cut multiplies the rate by.")]


def constant(
    done: float, *, total_steps: int, steps_per_epoch: int, warmup_epochs: WarmUp = 0.0
) -> float:
    """The same rate throughout, after the warm-up."""
    return _warmed(done, total_steps, warmup_epochs * steps_per_epoch, lambda _: 1.0)


@rule("every_epochs", "more than 0", lambda o: o.every_epochs > 0)
@rule(
    "cuts",
    "rising numbers above 0",
    lambda o: all(a < b for a, b in itertools.pairwise((0, *o.cuts))),
)
def step(
    done: float,
    *,
    total_steps: int,
    steps_per_epoch: int,
    warmup_epochs: WarmUp = 0.0,
    every_epochs: Annotated[float, Field(description="Epochs between two cuts.")] = 10.0,
    cuts: Annotated[
        tuple[float, ...],
        Field(description="Epochs after which the rate is cut, in place of `every_epochs`."),
    ] = (),
    factor: Factor = 0.1,
) -> float:
    """The rate is multiplied by `factor` every `every_epochs` epochs, or at `cuts`."""
    # 1.1 epochs of 10 steps are 11.000000000000002 steps, and step 11 is still the first cut.
    num_cuts = math.floor(done / (every_epochs * steps_per_epoch) + 1e-9)
    if cuts:
        num_cuts = sum(done >= cut * steps_per_epoch - 1e-9 for cut in cuts)
    warmup_steps = warmup_epochs * steps_per_epoch
    return _warmed(done, total_steps, warmup_steps, lambda _: factor**num_cuts)


def cosine(
    done: float,
    *,
    total_steps: int,
    steps_per_epoch: int,
    warmup_epochs: WarmUp = 0.0,
    final: Final = 0.0,
) -> float:
    """Half a cosine from the full rate to `final` times it."""
    warmup_steps = warmup_epochs * steps_per_epoch

    def falling(share: float) -> float:
        return final + (1 - final) * ((1 + math.cos(math.pi * share)) / 2)

    return _warmed(done, total_steps, warmup_steps, falling)


def linear(
    done: float,
    *,
    total_steps: int,
    steps_per_epoch: int,
    warmup_epochs: WarmUp = 0.0,
    final: Final = 0.0,
) -> float:
    """A straight line from the full rate to `final` times it."""
    warmup_steps = warmup_epochs * steps_per_epoch
    return _warmed(done, total_steps, warmup_steps, lambda share: final + (1 - final) * (1 - share))


def one_cycle(
    done: float,
    *,
    total_steps: int,
    steps_per_epoch: int,
    peak: Annotated[
        Share, Field(description="Share of the training at which the rate is highest.")
    ] = 0.25,
    initial: Annotated[
        Share, Field(description="Rate at the start, as a share of the full rate.")
    ] = 0.1,
    final: Final = 0.0,
) -> float:
    """Up from `initial` to the full rate by `peak`, then down to `final` (Smith 2018)."""
    del steps_per_epoch
    share = done / total_steps
    if share < peak:
        return initial + (1 - initial) * share / peak
    return final + (1 - final) * (1 - share) / max(1 - peak, 1e-12)


def plateau(
    done: float,
    *,
    total_steps: int,
    steps_per_epoch: int,
    warmup_epochs: WarmUp = 0.0,
    factor: Factor = 0.1,
    patience: Annotated[
        int,
        Field(ge=0, description="Epochs without a better validation loss before the rate falls."),
    ] = 5,
) -> float:
    """The rate is multiplied by `factor` when the validation loss has stopped falling."""
    del factor, patience  # See `Plateau`.
    return _warmed(done, total_steps, warmup_epochs * steps_per_epoch, lambda _: 1.0)


def _warmed(
    done: float, total_steps: int, warmup_steps: float, after: Callable[[float], float]
) -> float:
    """A line that reaches 1 at the end of the warm-up, then `after` the share of the steps left."""
    warmup_steps = min(warmup_steps, float(total_steps))
    if done < warmup_steps:
        return (done + 1) / (warmup_steps + 1)
    return after((done - warmup_steps) / max(total_steps - warmup_steps, 1))


@dataclass
class Plateau:
    """The factor of a `plateau` schedule, which depends on the validation losses so far."""

    factor: float = 1.0
    best_loss: float = math.inf
    epochs_since_best: int = 0

    def update(self, schedule: PartOptions, validation_loss: float) -> None:
        """Take in an epoch's validation loss, and cut the rate after `patience` without gain."""
        if validation_loss < self.best_loss:
            self.best_loss, self.epochs_since_best = validation_loss, 0
            return
        self.epochs_since_best += 1
        if self.epochs_since_best > schedule.patience:
            self.factor *= schedule.factor
            self.epochs_since_best = 0


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
