"""A search over the fields of a recipe: `run_search`.

The driver asks for trials and tells their ends; a trial is a `tenfold train` that knows nothing of
the search. Any number of drivers may do this at once, wherever they are, with one data base.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import optuna
from optuna.trial import Trial, TrialState

from tenfold import engine
from tenfold.data.splits import training_data
from tenfold.errors import DivergedError, OutOfMemoryError, TenfoldError, UnwritableError, counted
from tenfold.evaluation.evaluate import splitting
from tenfold.evaluation.loading import load_data
from tenfold.files import require_writable
from tenfold.interruption import leaving_at_once
from tenfold.locks import wait_until_free
from tenfold.progress import Progress
from tenfold.recipe.own_code import write_recipe
from tenfold.results.searches import Plan, SearchSummary, read_plan, read_search
from tenfold.results.searches import Trial as TrialRecord
from tenfold.run import RunFolder
from tenfold.studies.planning import require_folder_of
from tenfold.studies.running import share_of_cores, train_item
from tenfold.studies.search import store
from tenfold.studies.search.plan import (
    OWN_FILES,
    OWN_STORAGE,
    SearchPlan,
    describe_difference,
    require_comparable,
    require_equal_epochs,
    write_plan,
)
from tenfold.studies.search.space import with_values
from tenfold.studies.search.summary import (
    EPOCHS,
    NUM_VALIDATION,
    records_of,
    summarise,
    write_best,
)

FAILURES_ALIKE = 3
"""Trials that may fail in the same way, one after the other, before it must be the machine."""

MEDIAN_FROM = 0.75
"""Share of the epochs that every trial may have before it is compared with the median. While the
rate is high, accuracies say little of where they will end: of 26 trials of the pyramid, the best
was below the median halfway."""

OWN_FAULTS = (DivergedError.__name__, OutOfMemoryError.__name__)
"""Errors that are the fault of a trial's values, and tell nothing of the next one."""


class SearchWatcher(Protocol):
    """Told of the trials of this driver."""

    def began(self, record: TrialRecord, summary: SearchSummary) -> None:
        """A trial is about to be trained."""

    def told(self, record: TrialRecord, event: Mapping[str, Any]) -> None:
        """Its `tenfold train --json` has printed `event`."""

    def ended(self, record: TrialRecord, summary: SearchSummary) -> None:
        """It is over; `summary` has it already."""


@dataclass(frozen=True)
class SearchOptions:
    """Where, how and for how long to search.

    folder: of the search. storage: a URL of Optuna's or the path of an SQLite file; None for one
    in the folder. num_trials: over all drivers, those of earlier sessions included; None for no
    limit. seconds: of this driver; None for no limit. num_jobs: trials at once. threads: of each.
    skip_broken: see TrainOptions. sampler, pruner: of SAMPLERS and PRUNERS.
    """

    folder: Path
    storage: str | None = None
    num_trials: int | None = None
    seconds: float | None = None
    num_jobs: int = 1
    threads: int | None = None
    skip_broken: bool = False
    sampler: str = store.SAMPLERS[0]
    pruner: str = store.PRUNERS[0]

    @property
    def url(self) -> str:
        """Of the storage, or the path of its file."""
        return self.storage or str(self.folder / "trials.db")


class SearchOutcome(NamedTuple):
    """A search as it is now, and whether this driver stopped because its time was up."""

    summary: SearchSummary
    is_out_of_time: bool


def run_search(
    plan: SearchPlan,
    *,
    options: SearchOptions,
    watcher: SearchWatcher,
    progress: Progress | None = None,
    place: engine.Place | None = None,
) -> SearchOutcome:
    """Train trials of `plan` until there are enough or the time is up; the first is the recipe.

    Each is judged by its validation accuracy after its last epoch; the test split is not
    touched. A trial is pruned when the pruner says so, but never the recipe itself. A trial that
    fails is recorded, and the others go on; not so where one after the other fails in the same
    way. Several drivers may do this at once in one folder, or in folders that share a storage. A
    trial whose driver died is done again from its last checkpoint. progress: told of the reading
    of the data. place: where trials run; on this machine if None.

    Raises TenfoldError, before anything is trained, where folder or storage belong to another
    search, where the data can't be had or have no validation split, and later where trials fail
    one after the other; InterruptedRunError and KeyboardInterrupt with all saved. After each of
    these the same call goes on.
    """
    started = time.monotonic()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TenfoldError(
            "A search has no use for a launcher such as torchrun; start the same command several "
            "times instead, and its processes share the work."
        )
    require_comparable(plan.recipe)
    require_folder_of("search", options.folder, plan="search.json", left=OWN_FILES)
    with leaving_at_once(), store.storage_errors():
        plan = _with_data(plan, options, progress)
        require_writable(options.folder)
        deadline = float("inf") if options.seconds is None else started + options.seconds
        trials = _open_store(plan, options)
        driver = _Driver(trials, plan, options, watcher, deadline)
        try:
            with trials:
                driver.run(place)
        finally:
            summary = driver.write(is_end=True)
        return SearchOutcome(summary, driver.is_out_of_time)


class _Driver:
    """Takes trials and tells their ends, as the engine.Watch of their commands."""

    def __init__(
        self,
        trials: store.Store,
        plan: SearchPlan,
        options: SearchOptions,
        watcher: SearchWatcher,
        deadline: float,
    ) -> None:
        self._store, self._plan, self._options = trials, plan, options
        self._watcher, self._deadline = watcher, deadline
        self._limit = float("inf") if options.num_trials is None else options.num_trials
        self._trials: dict[str, Trial] = {}
        self._records: dict[str, TrialRecord] = {}
        self._steps: dict[str, set[int]] = {}  # Those of training that epochs ended with.
        self._is_last: dict[str, bool] = {}
        self._pruned: set[str] = set()
        self._failures: list[str] = []
        self.is_out_of_time = False

    def run(self, place: engine.Place | None) -> None:
        """Train trials until there are none left, or until the time is up."""
        while True:
            engine.run(self._items(), jobs=self._options.num_jobs, watch=self, place=place)
            self.is_out_of_time |= time.monotonic() >= self._deadline
            if self.is_out_of_time or not self._store.has_more(self._limit):
                return

    def write(self, *, is_end: bool = False) -> SearchSummary:
        """Write what is known now; alone, so that nothing older is written after it."""
        folder = self._options.folder
        with store.alone(folder):
            summary = summarise(self._store.study, self._plan, with_importances=is_end)
            summary.write(folder / "trials.json")
            write_best(folder, self._plan, summary)
        return summary

    def started(self, item: engine.Item) -> None:
        summary = self.write()
        record = summary.trials[self._trials[item.name].number]
        self._records[item.name] = record
        self._watcher.began(record, summary)

    def told(self, item: engine.Item, event: dict[str, Any]) -> bool:
        """Report an epoch; stop the trial where the pruner says so or the time is up."""
        name, trial = item.name, self._trials[item.name]
        self._watcher.told(self._records[name], event)
        if event["event"] == "started":
            trial.set_user_attr(EPOCHS, event["epochs"])
            trial.set_user_attr(NUM_VALIDATION, event["num_validation"])
            self._is_last[name] = event["is_last"]
        elif event["event"] == "epoch" and name not in self._pruned:
            if name not in self._steps:  # A run that is resumed had epochs before.
                lines = _epochs(RunFolder(item.folder))
                self._report(name, [line for line in lines if line["step"] < event["step"]])
            self._report(name, [event])
            if self._should_prune(name, event["epoch"]):
                self._pruned.add(name)
        self.is_out_of_time |= time.monotonic() > self._deadline
        return name in self._pruned or self.is_out_of_time

    def ended(self, item: engine.Item, ended: engine.Ended) -> None:
        trial = self._trials[item.name]
        self._end(trial, RunFolder(item.folder), item.name, ended)
        summary = self.write()
        record = summary.trials[trial.number]
        if record.state != "interrupted":
            self._watcher.ended(record, summary)
        # These may be the fault of the machine.
        is_suspect = record.state == "failed" and ended.kind not in OWN_FAULTS
        self._failures = [*self._failures, str(record.error)] if is_suspect else []
        last = self._failures[-FAILURES_ALIKE:]
        # The sentences may name the run, or an address in memory.
        kinds = {re.sub(r"\d+", "", failure) for failure in last}
        if len(last) == FAILURES_ALIKE and len(kinds) == 1:
            raise TenfoldError(
                f"The last {FAILURES_ALIKE} trials failed in the same way, so the search stops: "
                f"{last[-1]} The same command goes on when that is mended."
            )

    def _items(self) -> Iterator[engine.Item]:
        while time.monotonic() < self._deadline:
            with store.alone(self._options.folder, self._options.url):
                trial = self._store.take(self._limit)
            if trial is None:
                return
            item = self._item(trial)
            if RunFolder(item.folder).is_finished():  # Its driver died before it was told.
                self.started(item)
                self.ended(item, engine.Ended(0))
            else:
                yield item

    def _item(self, trial: Trial) -> engine.Item:
        run = RunFolder(self._options.folder / "runs" / trial.user_attrs[store.RUN])
        name = f"trial {trial.number}"
        self._trials[name] = trial
        recipe = with_values(self._plan.recipe, store.draw(trial, self._plan), source=name)
        wait_until_free([run.path])
        if not run.is_finished():
            write_recipe(recipe, run.recipe)
        # A run that another driver began may have had other threads, which is no reason to lose it.
        options = ["--no-test", "--allow-changes"]
        options += ["--skip-broken"] if self._options.skip_broken else []
        threads = self._options.threads or share_of_cores(self._options.num_jobs)
        return train_item(name, run, threads=threads, options=options)

    def _report(self, name: str, lines: list[Any]) -> None:
        steps = self._steps.setdefault(name, set())
        for line in lines:
            if line["step"] not in steps:  # As after the loss of a node.
                steps.add(line["step"])
                value = float(line["validation_accuracy"])
                self._trials[name].report(value, step=len(steps))

    def _should_prune(self, name: str, epoch: int) -> bool:
        trial, epochs = self._trials[name], self._trials[name].user_attrs[EPOCHS]
        # The head alone, which the first of several stages trains, says little of what comes after.
        may_end = epoch < epochs and self._is_last[name] and store.BASELINE not in trial.user_attrs
        if self._options.pruner == "median":
            may_end = may_end and epoch >= MEDIAN_FROM * epochs
        return may_end and trial.should_prune()

    def _end(self, trial: Trial, run: RunFolder, name: str, ended: engine.Ended) -> None:
        """Tell the store how a trial ended.

        Whatever is wrong with it is its own affair, but where the recipe itself can't be trained or
        nothing can be written, no trial can be: then TenfoldError.
        """
        is_pruned = name in self._pruned
        if run.is_finished() and not is_pruned:
            lines = _epochs(run)
            self._report(name, lines)
            self._store.tell(trial, lines[-1]["validation_accuracy"])
            return
        if ended.was_interrupted and not is_pruned:
            self._store.put_back(trial)
            return
        if not is_pruned:
            error = ended.error or "It ended without a result."
            is_recipe = store.BASELINE in trial.user_attrs and ended.kind != DivergedError.__name__
            if is_recipe or ended.kind == UnwritableError.__name__:
                self._store.put_back(trial)
                raise TenfoldError(error)
            trial.set_user_attr(store.ERROR, error)
        self._store.tell(trial, state=TrialState.PRUNED if is_pruned else TrialState.FAIL)
        # What is large and of no use in a run that is over without being finished.
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        run.model.unlink(missing_ok=True)


def _open_store(plan: SearchPlan, options: SearchOptions) -> store.Store:
    """The trials of this search in its storage, which must be about the same plan."""
    folder, url, is_own = options.folder, options.url, options.storage is None
    shown = OWN_STORAGE if is_own else store.without_password(url)
    with store.alone(folder, url), store.quiet():
        if is_own and store.adopt_journal(folder, url):
            kept = read_plan(folder).model_copy(update={"storage": shown})
            kept.write(folder / "search.json")
        is_begun = (folder / "search.json").exists()
        if is_begun and (before := read_plan(folder).storage) != shown:
            raise TenfoldError(
                f"The search in {folder} keeps its trials in {before}, not in {shown}; give it as "
                "--storage, or give another --folder."
            )
        file = store.sqlite_file(url)
        if file is not None and not file.exists():
            _require_held(folder, [], shown)
        study = optuna.create_study(
            storage=store.open_storage(url),
            study_name=f"tenfold {plan.recipe.name}",
            direction="maximize",
            load_if_exists=True,
            pruner=store.make_pruner(options.pruner, plan.recipe.training.epochs),
        )
        if is_new := "plan" not in study.user_attrs:
            study.set_user_attr("plan", plan.fact().to_dict())
        if difference := describe_difference(Plan(**study.user_attrs["plan"]), plan):
            raise TenfoldError(
                f"The search in {folder if is_own else shown} is another one: {difference}; give "
                f"another {'--folder' if is_own else '--storage'}, or repeat the command that "
                "began it."
            )
        _require_held(folder, records_of(study.get_trials(), plan), shown)
        if is_new or not is_begun:
            write_plan(folder, plan, storage=shown)
        trials = store.Store(study, seed=plan.recipe.seed, sampler=options.sampler)
        trials.begin(store.baseline_params(plan))
        return trials


def _require_held(folder: Path, records: Sequence[TrialRecord], place: str) -> None:
    """Raise TenfoldError where `folder` knows of trials that are not among the `records`."""
    if not (folder / "trials.json").exists():
        return
    held = {record.number: (record.accuracy, record.to_dict()["params"]) for record in records}
    known = read_search(folder).of_state("complete", "pruned", "failed")
    lost = [each for each in known if held.get(each.number) != (each.accuracy, each.params)]
    if lost:
        raise TenfoldError(
            f"{folder / 'trials.json'} has {counted(len(lost), 'trial')} that can't be found in "
            f"{place}; start the search where it was begun, since a relative --storage is seen "
            "from there, or give another --folder."
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
            "A search needs validation images to judge by, and there are none; set "
            "data.validation_size, such as --set data.validation_size=0.1."
        )
    require_equal_epochs(plan, len(data.train))
    return replace(plan, checksums=dict(dataset.checksums))


def _epochs(run: RunFolder) -> list[dict[str, Any]]:
    """The lines of a run's log; none where it has not begun one."""
    if not run.metrics.exists():
        return []
    return [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
