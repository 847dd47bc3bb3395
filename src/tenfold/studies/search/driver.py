"""A search over the fields of a recipe, by as many processes as like to take part: `run_search`."""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import optuna

from tenfold.data.splits import training_data
from tenfold.errors import DivergedError, OutOfMemoryError, TenfoldError, counted
from tenfold.evaluation.evaluate import splitting
from tenfold.evaluation.loading import load_data
from tenfold.files import require_writable
from tenfold.interruption import leaving_at_once
from tenfold.progress import Progress
from tenfold.results.searches import SearchSummary, Trial
from tenfold.studies.search.best import write_best
from tenfold.studies.search.plan import (
    SearchPlan,
    agree_on_plan,
    require_comparable,
    require_equal_epochs,
    require_same_plan,
    require_search_folder,
)
from tenfold.studies.search.queue import Queue, working_in
from tenfold.studies.search.storage import (
    alone,
    missing_file,
    open_storage,
    quiet,
    storage_errors,
    without_password,
)
from tenfold.studies.search.summary import (
    is_same_trial,
    recorded_trials,
    records_of,
    summarise,
)
from tenfold.studies.search.trial import TimeIsUpError, Trainer, baseline_params
from tenfold.training.train import TrainOptions

PRUNING_AFTER = 5
"""Complete trials that there must be before any other is compared with their median."""


FAILURES_ALIKE = 3
"""Trials that may fail in the same way, one after the other, before it must be the machine."""


class SearchWatcher(Protocol):
    """Told of the trials of this process."""

    def began(self, record: Trial, summary: SearchSummary) -> Progress | None:
        """A trial is about to be trained; what is returned is told of its steps."""

    def ended(self, record: Trial, summary: SearchSummary) -> None:
        """It is over; `summary` has it already."""


@dataclass(frozen=True)
class SearchOptions:
    """Where and for how long to search.

    folder: of the search. storage: the path of a journal file or any URL of Optuna's; None for a
    journal in the folder. num_trials: over all processes, those of earlier sessions included; None
    for no limit. seconds: of this process; None for no limit. threads, skip_broken: see
    TrainOptions.
    """

    folder: Path
    storage: str | None = None
    num_trials: int | None = None
    seconds: float | None = None
    threads: int | None = None
    skip_broken: bool = False


class SearchOutcome(NamedTuple):
    """A search as it is now, and whether this process stopped because its time was up."""

    summary: SearchSummary
    is_out_of_time: bool


def run_search(
    plan: SearchPlan,
    *,
    options: SearchOptions,
    watcher: SearchWatcher | None = None,
    progress: Progress | None = None,
) -> SearchOutcome:
    """Train trials of `plan` until there are enough or the time is up; the first is the recipe.

    Each is judged by its validation accuracy after its last epoch; the test split is not
    touched. From three quarters of its epochs on a trial is pruned when its best so far is
    below the median of the complete ones at the same epoch, but never the recipe itself. A
    trial that fails is recorded, and the others go on; not so where one after the other fails
    in the same way. Several processes may do this at once in one folder, or in folders that
    share a storage. A trial whose process died is done again from its last checkpoint.
    progress: told of the reading of the data.

    Raises TenfoldError, before anything is trained, where folder or storage belong to another
    search, where the data can't be had or have no validation split, and later where trials fail
    one after the other; InterruptedRunError and KeyboardInterrupt with all saved. After each of
    these the same call goes on.
    """
    started = time.monotonic()
    _require_single_process()
    require_comparable(plan.recipe)
    require_search_folder(options.folder)
    with leaving_at_once(), storage_errors():
        plan = _with_data(plan, options, progress)
        require_writable(options.folder)
        with working_in(options.folder) as worker:
            queue = _open_queue(plan, options, worker)
            queue.begin(baseline_params(plan))
            deadline = float("inf") if options.seconds is None else started + options.seconds
            is_out_of_time = _train_trials(queue, plan, options, deadline, watcher)
            return SearchOutcome(_write(queue, plan, is_end=True), is_out_of_time)


def _train_trials(
    queue: Queue,
    plan: SearchPlan,
    options: SearchOptions,
    deadline: float,
    watcher: SearchWatcher | None,
) -> bool:
    """Take trials until there are none left; whether it was the time that ended it."""
    trainer = Trainer(queue, plan, partial(_train_options, options), deadline=deadline)
    failures: list[str] = []
    limit = float("inf") if options.num_trials is None else options.num_trials
    while time.monotonic() < deadline:
        trial = queue.take(limit)
        if trial is None:
            return False
        values = trainer.draw(trial)
        summary = summarise(queue.study, plan)
        shown = watcher.began(_record(summary, trial.number), summary) if watcher else None
        try:
            failure = trainer.train(trial, values, progress=shown)
        except TimeIsUpError:
            break
        finally:
            summary = _write(queue, plan)
        record = _record(summary, trial.number)
        if watcher is not None:
            watcher.ended(record, summary)
        # These are the fault of a trial's values, and tell nothing of the next one.
        own = isinstance(failure, DivergedError | OutOfMemoryError)
        failures = [] if failure is None or own else [*failures, str(record.error)]
        _require_progress(failures)
    return True


def _require_progress(failures: Sequence[str]) -> None:
    """Raise TenfoldError where the last trials failed alike, as all others then would."""
    last = failures[-FAILURES_ALIKE:]
    # The sentences may name the run, or an address in memory.
    kinds = {re.sub(r"\d+", "", failure) for failure in last}
    if len(last) == FAILURES_ALIKE and len(kinds) == 1:
        raise TenfoldError(
            f"The last {FAILURES_ALIKE} trials failed in the same way, so the search stops: "
            f"{last[-1]} The same command goes on when that is mended."
        )


def _train_options(options: SearchOptions, folder: Path) -> TrainOptions:
    # A run that another process began may have had other threads, which is no reason to lose it.
    return TrainOptions(
        folder=folder,
        allow_changes=True,
        threads=options.threads,
        skip_broken=options.skip_broken,
        evaluate_test=False,
    )


def _open_queue(plan: SearchPlan, options: SearchOptions, worker: str) -> Queue:
    """The trials of this search in its storage, which must be about the same plan."""
    storage = options.storage or str(options.folder / "trials.journal")
    shown = without_password(storage) if options.storage else "its own journal"
    with alone(options.folder), quiet():
        identity = agree_on_plan(options.folder, plan, storage=shown)
        recorded = recorded_trials(options.folder)
        if recorded and (missing := missing_file(storage)) is not None:
            raise _lost_trials(options.folder, len(recorded), f"{missing}, which does not exist")
        name = f"tenfold {plan.recipe.name}"
        study = optuna.create_study(
            storage=open_storage(storage),
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=PRUNING_AFTER),
        )
        if "plan" not in study.user_attrs:
            study.set_user_attr("plan", plan.to_dict())
        require_same_plan(
            study.user_attrs["plan"], plan, where=f"The search in {shown}", remedy="--storage"
        )
        held = {record.number: record for record in records_of(study.get_trials(), plan)}
        lost = [record for record in recorded if not is_same_trial(record, held)]
        if lost:
            raise _lost_trials(options.folder, len(lost), shown)
    return Queue(study, options.folder, identity, worker, plan.recipe.seed)


def _lost_trials(folder: Path, number: int, place: str) -> TenfoldError:
    return TenfoldError(
        f"{folder / 'trials.json'} has {counted(number, 'trial')} that can't be found in "
        f"{place}; start the search where it was begun, since a relative --storage is seen from "
        "there, or give another --folder."
    )


def _write(queue: Queue, plan: SearchPlan, *, is_end: bool = False) -> SearchSummary:
    """Write what is known now; alone, so that nothing older is written after it."""
    with alone(queue.folder):
        summary = summarise(queue.study, plan, with_importances=is_end)
        summary.write(queue.folder / "trials.json")
        write_best(queue.folder, plan, summary)
    return summary


def _record(summary: SearchSummary, number: int) -> Trial:
    return next(record for record in summary.trials if record.number == number)


def _require_single_process() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TenfoldError(
            "A search has no use for a launcher such as torchrun; start the same command several "
            "times instead, and its processes share the work."
        )


def _with_data(plan: SearchPlan, options: SearchOptions, progress: Progress | None) -> SearchPlan:
    """The plan with the checksums of its data.

    They are read here once, so that what is wrong with them is said once, and before any trial.
    """
    recipe = plan.recipe
    dataset = load_data(recipe, skip_broken=options.skip_broken, progress=progress)
    data = training_data(dataset, **splitting(recipe.data))
    if data.validation is None:
        raise TenfoldError(
            "A search needs validation pictures to judge by, and there are none; set "
            "data.validation_size, such as --set data.validation_size=0.1."
        )
    require_equal_epochs(plan, len(data.train))
    return replace(plan, checksums=dict(dataset.checksums))
