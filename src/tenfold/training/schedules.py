"""Learning-rate schedules: pure functions of the step, and the one that watches the validation."""

import math
from dataclasses import dataclass

from tenfold.recipe import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    OneCycleSchedule,
    PlateauSchedule,
    ScheduleOptions,
    StepSchedule,
)


def multiplier(
    schedule: ScheduleOptions, step: float, *, total_steps: int, steps_per_epoch: int
) -> float:
    """What the recipe's learning rate is multiplied by at `step`, counted from 0.

    A run that ends by the clock has fractions of steps.

    Warm-up rises in a straight line and reaches the full rate at its end; decays are spread over
    the steps after it, and would reach their final value at `total_steps`.
    """
    if isinstance(schedule, OneCycleSchedule):
        return _one_cycle(schedule, step / total_steps)
    warmup_steps = min(schedule.warmup_epochs * steps_per_epoch, float(total_steps))
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if isinstance(schedule, StepSchedule):
        # 1.1 epochs of 10 steps are 11.000000000000002 steps, and step 11 is still the first cut.
        num_cuts = math.floor(step / (schedule.every_epochs * steps_per_epoch) + 1e-9)
        if schedule.cuts:
            num_cuts = sum(step >= cut * steps_per_epoch - 1e-9 for cut in schedule.cuts)
        return schedule.factor**num_cuts
    if isinstance(schedule, CosineSchedule | LinearSchedule):
        done = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        curve = (1 + math.cos(math.pi * done)) / 2
        remaining = curve if isinstance(schedule, CosineSchedule) else 1 - done
        return schedule.final + (1 - schedule.final) * remaining
    assert isinstance(schedule, ConstantSchedule | PlateauSchedule)
    return 1.0


def _one_cycle(schedule: OneCycleSchedule, done: float) -> float:
    """Straight lines: up to the peak, down to the end."""
    if done < schedule.peak:
        return schedule.initial + (1 - schedule.initial) * done / schedule.peak
    return schedule.final + (1 - schedule.final) * (1 - done) / max(1 - schedule.peak, 1e-12)


@dataclass
class Plateau:
    """The factor of a `plateau` schedule, which depends on the validation losses so far."""

    factor: float = 1.0
    best_loss: float = math.inf
    epochs_since_best: int = 0

    def update(self, schedule: PlateauSchedule, validation_loss: float) -> None:
        """Take in an epoch's validation loss, and cut the rate after `patience` without gain."""
        if validation_loss < self.best_loss:
            self.best_loss, self.epochs_since_best = validation_loss, 0
            return
        self.epochs_since_best += 1
        if self.epochs_since_best > schedule.patience:
            self.factor *= schedule.factor
            self.epochs_since_best = 0
