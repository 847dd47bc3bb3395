"""One trial of a search: trained in a run folder of its own, pruned where it falls behind."""

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from tenfold.errors import DivergedError, InterruptedRunError, TenfoldError, UnwritableError
from tenfold.progress import Progress
from tenfold.recipe.dotted import flatten
from tenfold.run import RunFolder
from tenfold.studies.search.plan import SearchPlan
from tenfold.studies.search.queue import BASELINE, BEAT, BEAT_SECONDS, ERROR, RUN, Queue
from tenfold.studies.search.space import with_values
from tenfold.studies.search.summary import EPOCHS, NUM_VALIDATION
from tenfold.training.reporters import Plan
from tenfold.training.train import TrainOptions, train

logger = logging.getLogger("tenfold")


PRUNING_FROM = 0.75
"""Share of the epochs that every trial may have. While the rate is high, accuracies say little of
where they will end: of 26 trials of the pyramid, the best was below the median halfway."""


class TimeIsUpError(Exception):
    """The search has had its time; the trial in training is put back."""


@dataclass(frozen=True)
class Trainer:
    """Trains the trials of one process.

    deadline: when to stop, on `time.monotonic`. options: how to train in a trial's folder.
    """

    queue: Queue
    plan: SearchPlan
    options: Callable[[Path], TrainOptions]
    deadline: float = float("inf")

    def draw(self, trial: Trial) -> dict[str, Any]:
        """The values of the fields that a trial changes; none for the recipe as it is."""
        if BASELINE not in trial.user_attrs:
            return {chosen.key: chosen.suggest(trial) for chosen in self.plan.space}
        known = baseline_params(self.plan)
        for chosen in self.plan.space:
            if chosen.key in known:
                chosen.suggest(trial)
        return {}

    def train(
        self, trial: Trial, values: Mapping[str, Any], *, progress: Progress | None = None
    ) -> Exception | None:
        """Train a trial with the drawn `values` to its end and write down how that was.

        progress: told of its steps, and of the work around them. Returns why it failed, if it did.

        Whatever is wrong with it is its own affair, but where the recipe itself can't be trained or
        nothing can be written, no trial can be. Raises TimeIsUpError, InterruptedRunError and
        KeyboardInterrupt, and TenfoldError in those cases, after putting the trial back.
        """
        run = RunFolder(self.queue.folder / "runs" / trial.user_attrs[RUN])
        try:
            accuracy = self._accuracy(trial, run, values, progress)
            self.queue.study.tell(trial, accuracy, skip_if_finished=True)
        except optuna.TrialPruned:
            self.queue.study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
            _drop_weights(run)
        except UpdateFinishedTrialError:
            logger.warning(
                "Trial %d was taken for dead by another process, which does it again.", trial.number
            )
        except (InterruptedRunError, TimeIsUpError, UnwritableError):
            self.queue.put_back(trial)
            raise
        except Exception as error:
            if BASELINE in trial.user_attrs and not isinstance(error, DivergedError):
                self.queue.put_back(trial)
                raise
            self._fail(trial, error)
            _drop_weights(run)
            return error
        except BaseException:
            self.queue.put_back(trial)
            raise
        return None

    def _accuracy(
        self, trial: Trial, run: RunFolder, values: Mapping[str, Any], progress: Progress | None
    ) -> float:
        recipe = with_values(self.plan.recipe, values, source=f"trial {trial.number}")
        reporter = _TrialReporter(trial, run, deadline=self.deadline, progress=progress)
        # A process that died between the end of a run and its record left a finished run.
        if not run.is_finished():
            train(recipe, options=self.options(run.path), reporter=reporter, progress=progress)
        return reporter.report_epochs()

    def _fail(self, trial: Trial, error: Exception) -> None:
        if isinstance(error, TenfoldError):
            sentence = str(error)
        else:
            sentence = f"{type(error).__name__}: {error}"
            logger.debug("Trial %d failed", trial.number, exc_info=True)
        with contextlib.suppress(UpdateFinishedTrialError):
            trial.set_user_attr(ERROR, sentence)
            self.queue.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)


def baseline_params(plan: SearchPlan) -> dict[str, Any]:
    """What the storage keeps of the recipe's own values: those that are within their ranges.

    From the others the sampler can learn nothing, since it draws none like them.
    """
    own = flatten(plan.recipe.to_dict())
    stored = {chosen.key: chosen.stored(own[chosen.key]) for chosen in plan.space}
    return {key: value for key, value in stored.items() if value is not None}


class _TrialReporter:
    """Tells the storage of each epoch, and stops a trial that falls behind or runs out of time."""

    def __init__(
        self, trial: Trial, run: RunFolder, *, deadline: float, progress: Progress | None
    ) -> None:
        self._trial, self._run = trial, run
        self._deadline, self._progress = deadline, progress
        self._reported = 0
        self._beaten = time.monotonic()
        self._num_beats = 0

    def started(self, plan: Plan) -> None:
        """See Reporter."""
        self._plan = plan
        self._trial.set_user_attr(EPOCHS, plan.epochs)
        self._trial.set_user_attr(NUM_VALIDATION, plan.num_validation)

    def stepped(self, *, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        """See Reporter."""
        now = time.monotonic()
        if now > self._deadline:
            raise TimeIsUpError
        if now - self._beaten > BEAT_SECONDS:
            self._beaten = now
            self._num_beats += 1
            self._trial.set_user_attr(BEAT, self._num_beats)
        if self._progress is not None:
            done = (epoch - 1) * self._plan.steps_per_epoch + step
            total = self._plan.epochs * self._plan.steps_per_epoch
            self._progress(f"trial {self._trial.number}", done, total)

    def epoch_ended(self, metrics: dict[str, Any], timings: dict[str, Any]) -> None:
        """See Reporter."""
        self.report_epochs()
        plan = self._plan  # Of the stage; the head alone says little of what comes after it.
        may_end = PRUNING_FROM * plan.epochs <= metrics["epoch"] < plan.epochs and plan.is_last
        if may_end and BASELINE not in self._trial.user_attrs and self._trial.should_prune():
            raise optuna.TrialPruned

    def ended(self, reason: str) -> None:
        """See Reporter."""

    def report_epochs(self) -> float:
        """Report what the run's log has and the storage has not; the accuracy after the last epoch.

        A run that was resumed trained its first epochs as another trial.
        """
        lines = self._run.metrics.read_text(encoding="utf-8").splitlines()
        accuracies = [float(json.loads(line)["validation_accuracy"]) for line in lines]
        for number in range(self._reported, len(accuracies)):
            self._trial.report(accuracies[number], step=number + 1)
        self._reported = len(accuracies)
        return accuracies[-1]


def _drop_weights(run: RunFolder) -> None:
    """Remove what is large and of no use in a run that is over without being finished."""
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    run.model.unlink(missing_ok=True)
