"""Learning-rate schedules: pure functions of the step, and the one that watches the validation.

A schedule says what the learning rate is multiplied by at a step, counted from 0; a run that ends
by the clock has fractions of steps.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from tenfold.registry import PartOptions, rule

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
