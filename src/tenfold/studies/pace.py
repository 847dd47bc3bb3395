"""How far a study has come and how long the rest will take, from the pace of its own epochs."""

import heapq
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

from tenfold.studies.trials import Trial


@dataclass
class _Progress:
    """A trial that is being trained: the epochs at which it started, and where it is."""

    first: float
    done: float
    began: float
    warm: tuple[float, float] | None = None
    """Seconds and epochs after the first step, which takes longer than others."""


class Pace:
    """Epochs done and to do of all trials, and an estimate of the seconds that are left.

    epochs: of each trial, in the order in which they are trained. num_jobs: how many are trained
    at once. An epoch of a trial is taken to cost what one of its variant's costs, as soon as that
    is known, and until then the mean over the known variants.
    """

    def __init__(
        self,
        epochs: Mapping[Trial, int],
        *,
        num_jobs: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._epochs: dict[Trial, float] = {**epochs}
        self._num_jobs = num_jobs
        self._clock = clock
        self._left = dict.fromkeys(epochs)
        self._running: dict[Trial, _Progress] = {}
        self._costs: dict[str, float] = {}

    @property
    def total_epochs(self) -> float:
        """Epochs of all trials."""
        return sum(self._epochs.values())

    @property
    def done_epochs(self) -> float:
        """Epochs behind the study, those of failed trials too."""
        ended = sum(n for trial, n in self._epochs.items() if trial not in self._left)
        return ended + sum(progress.done for progress in self._running.values())

    def skip(self, trial: Trial, *, training_seconds: float | None = None) -> None:
        """`trial` was done before, in so many seconds of training."""
        self._left.pop(trial, None)
        if training_seconds is not None:
            self._costs.setdefault(trial.variant, training_seconds / self._epochs[trial])

    def start(self, trial: Trial, *, epochs: float, done: float = 0.0) -> None:
        """`trial` trains for `epochs` in all, of which `done` were done in an earlier session."""
        self._epochs[trial] = epochs
        self._running[trial] = _Progress(done, done, self._clock())

    def advance(self, trial: Trial, done: float) -> None:
        """`trial` has come to `done` epochs."""
        if trial in self._running:
            progress = self._running[trial]
            progress.done = done
            progress.warm = progress.warm or (self._clock(), done)

    def end(self, trial: Trial) -> None:
        """`trial` is over, whether it came to its last epoch or not."""
        self._left.pop(trial, None)
        progress = self._running.pop(trial, None)
        if progress is not None and progress.done - progress.first >= 1:
            # Evaluating counts too, since every run ends with it.
            seconds = self._clock() - progress.began
            self._costs[trial.variant] = seconds / (progress.done - progress.first)

    def seconds_left(self) -> float | None:
        """Until the last trial ends; None as long as nothing is known."""
        costs = {**self._costs}
        for trial, progress in self._running.items():
            if trial.variant in self._costs or progress.warm is None:
                continue
            since, first = progress.warm
            if progress.done - first > 0.05:  # Less than that says little.
                costs[trial.variant] = (self._clock() - since) / (progress.done - first)
        if not costs:
            return None if self._left else 0.0
        typical = fmean(costs.values())
        slots, waiting = [0.0] * self._num_jobs, []
        for trial in self._left:
            done = self._running[trial].done if trial in self._running else 0.0
            seconds = (self._epochs[trial] - done) * costs.get(trial.variant, typical)
            if trial in self._running:
                heapq.heapreplace(slots, seconds)
            else:
                waiting.append(seconds)
        for seconds in waiting:
            heapq.heapreplace(slots, slots[0] + seconds)
        return max(slots)
