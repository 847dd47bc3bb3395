"""A search over the fields of a recipe: `run_search`.

The driver asks for trials and tells their ends; a trial is a `tenfold train` that knows nothing of
the search. Any number of drivers may do this at once, wherever they are, with one data base.
"""

import math
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from tenfold.own_parts import sum_of
from tenfold.progress import Progress
from tenfold.recipe import recipe_from_dict
from tenfold.recipe.own_code import own_code, write_recipe
from tenfold.results.runs import read_epochs
from tenfold.results.searches import Plan, SearchFile, SearchSummary, read_plan, read_search
from tenfold.results.searches import Trial as TrialRecord
from tenfold.run import RunFolder
from tenfold.studies.running import RunOptions, require_folder_of
from tenfold.studies.search import store
from tenfold.studies.search.plan import (
    describe_difference,
    require_equal_epochs,
    write_best,
    write_plan,
)
from tenfold.studies.search.space import in_its_folder, with_values

OWN_STORAGE = "a data base in its folder"

OWN_FILES = ("search.lock", "space.toml", "trials.db", "trials.db-journal", "trials.db.lock")
"""What a process that died before the plan was written may leave."""

FAILURES_ALIKE = 3
"""Trials that may fail in the same way, one after the other, before it must be the machine."""

MEDIAN_FROM = 0.75
"""Share of the epochs that every trial may have before it is compared with the median. While the
rate is high, accuracies say little of where they will end: of 26 trials of the pyramid, the best
was below the median halfway."""

OWN_FAULTS = (DivergedError.__name__, OutOfMemoryError.__name__)
"""Errors that are the fault of a trial's values, and tell nothing of the next one."""


class SearchWatcher(Protocol):
    """Told of this driver's trials: one is about to be trained, its `tenfold train --json` has
    printed an event, it is over; `summary` has it already."""

    def began(self, record: TrialRecord, summary: SearchSummary) -> None: ...
    def received(self, record: TrialRecord, event: Mapping[str, Any]) -> None: ...
    def ended(self, record: TrialRecord, summary: SearchSummary) -> None: ...


@dataclass(frozen=True, kw_only=True)
class SearchOptions(RunOptions):
    """Where, how and for how long to search.

    folder: of the search. storage: a URL of Optuna's or the path of an SQLite file; None for one
    in the folder. num_trials: over all drivers, those of earlier sessions included. seconds: of
    this driver. sampler, pruner: of SAMPLERS and PRUNERS.
    """

    folder: Path
    storage: str | None = None
    num_trials: float = math.inf
    seconds: float = math.inf
    sampler: str = "tpe"
    pruner: str = "median"

    @property
    def url(self) -> str:
        """Of the storage, or the path of its file."""
        return self.storage or str(self.folder / "trials.db")


class SearchOutcome(NamedTuple):
    """A search as it is now, and whether this driver stopped because its time was up."""

    summary: SearchSummary
    is_out_of_time: bool


def run_search(
    plan: SearchFile,
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
    require_equal_epochs(plan)
    require_folder_of("search", options.folder, plan="search.json", left=OWN_FILES)
    with in_its_folder(plan.source), leaving_at_once(), store.storage_errors():
        plan = _with_data(plan, options, progress)
        require_writable(options.folder)
        trials = _open_store(plan, options)
        driver = _Driver(trials, plan, options, watcher, started + options.seconds)
        try:
            with trials:
                driver.run(place)
        finally:
            summary = driver.write(is_end=True)
        return SearchOutcome(summary, driver.is_out_of_time)


@dataclass
class _Taken:
    """A trial that this driver trains. epoch: the last one that the storage knows of."""

    trial: Trial
    run: RunFolder
    record: TrialRecord | None = None
    epoch: int = 0
    in_last_stage: bool = True
    is_pruned: bool = False

    def report(self, epoch: int, accuracy: float | None) -> None:
        """Tell the storage of an epoch, once, as also after the loss of a node."""
        if epoch > self.epoch:
            self.trial.report(float(accuracy or 0.0), step=epoch)
            self.epoch = epoch

    def catch_up(self, *, before: float = math.inf) -> None:
        """Tell it of those that are in the run's log."""
        for line in read_epochs(self.run.metrics, self.run.timings):
            if line.number < before:
                self.report(line.number, line.validation_accuracy)


class _Driver:
    """Takes trials and tells their ends, as the engine.Watch of their commands."""

    def __init__(
        self,
        trials: store.Store,
        plan: SearchFile,
        options: SearchOptions,
        watcher: SearchWatcher,
        deadline: float,
    ) -> None:
        self._store, self._plan, self._options = trials, plan, options
        self._watcher, self._deadline = watcher, deadline
        self._taken: dict[str, _Taken] = {}
        self._failures: list[str] = []
        self.is_out_of_time = False

    def run(self, place: engine.Place | None) -> None:
        """Train trials until there are none left, or until the time is up."""
        while True:
            engine.run(self._items(), jobs=self._options.num_jobs, watch=self, place=place)
            self.is_out_of_time |= time.monotonic() >= self._deadline
            if self.is_out_of_time or not self._store.has_more(self._options.num_trials):
                return

    def write(self, *, is_end: bool = False) -> SearchSummary:
        """Write what is known now; alone, so that nothing older is written after it."""
        folder = self._options.folder
        with store.alone(folder):
            summary = store.summarise(self._store.study, self._plan, with_importances=is_end)
            summary.write(folder / "trials.json")
            write_best(folder, summary)
        return summary

    def started(self, item: engine.Item) -> None:
        taken, summary = self._taken[item.name], self.write()
        taken.record = summary.trials[taken.trial.number]
        self._watcher.began(taken.record, summary)

    def received(self, item: engine.Item, event: dict[str, Any]) -> bool:
        """Report an epoch; stop the trial where the pruner says so or the time is up."""
        taken = self._taken[item.name]
        assert taken.record is not None
        self._watcher.received(taken.record, event)
        if event["event"] == "started":
            taken.trial.set_user_attr(store.EPOCHS, event["epochs"])
            taken.trial.set_user_attr(store.NUM_VALIDATION, event["num_validation"])
            taken.in_last_stage = event["is_last"]
        elif event["event"] == "epoch" and not taken.is_pruned:
            if event["epoch"] > taken.epoch + 1:  # A run that is resumed had epochs before.
                taken.catch_up(before=event["epoch"])
            taken.report(event["epoch"], event["validation_accuracy"])
            taken.is_pruned = self._should_prune(taken, event["epoch"])
        self.is_out_of_time |= time.monotonic() > self._deadline
        return taken.is_pruned or self.is_out_of_time

    def ended(self, item: engine.Item, ended: engine.Ended) -> None:
        taken = self._taken[item.name]
        self._end(taken, ended)
        summary = self.write()
        record = summary.trials[taken.trial.number]
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
        options = self._options
        while time.monotonic() < self._deadline:
            with store.alone(options.folder, options.url):
                trial = self._store.take(options.num_trials)
            if trial is None:
                return
            name = f"trial {trial.number}"
            run = RunFolder(options.folder / "runs" / trial.user_attrs[store.RUN])
            self._taken[name] = _Taken(trial, run)
            recipe = with_values(self._plan.recipe, self._draw(trial), source=name)
            wait_until_free([run.path])
            # Another driver may have begun it with other threads, which is no reason to lose it.
            item = options.item(name, run, "--no-test", "--allow-changes")
            if not run.is_finished():
                write_recipe(recipe, run.recipe)
                yield item
            else:  # Its driver died before it was told.
                self.started(item)
                self.ended(item, engine.Ended(0))

    def _draw(self, trial: Trial) -> dict[str, Any]:
        """The values of the fields that a trial changes; none for the recipe as it is."""
        is_recipe = store.BASELINE in trial.user_attrs
        wanted = [s for s in self._plan.space if not is_recipe or s.stored(s.own) is not None]
        values = {setting.key: setting.suggest(trial) for setting in wanted}
        return {} if is_recipe else values

    def _should_prune(self, taken: _Taken, epoch: int) -> bool:
        epochs = taken.trial.user_attrs[store.EPOCHS]
        earliest = MEDIAN_FROM * epochs if self._options.pruner == "median" else 0
        # The head alone, which the first of several stages trains, says little of what comes after.
        may_end = earliest <= epoch < epochs and taken.in_last_stage
        is_recipe = store.BASELINE in taken.trial.user_attrs
        return may_end and not is_recipe and taken.trial.should_prune()

    def _end(self, taken: _Taken, ended: engine.Ended) -> None:
        """Tell the store how a trial ended.

        Whatever is wrong with it is its own affair, but where the recipe itself can't be trained or
        nothing can be written, no trial can be: then TenfoldError.
        """
        trial, run = taken.trial, taken.run
        if taken.is_pruned:
            self._store.tell(trial, state=TrialState.PRUNED)
        elif run.is_finished():
            taken.catch_up()
            self._store.tell(trial, read_epochs(run.metrics, run.timings)[-1].validation_accuracy)
            return
        elif ended.was_interrupted:
            self._store.put_back(trial)
            return
        else:
            error = ended.error or "It ended without a result."
            is_recipe = store.BASELINE in trial.user_attrs and ended.kind != DivergedError.__name__
            if is_recipe or ended.kind == UnwritableError.__name__:
                self._store.put_back(trial)
                raise TenfoldError(error)
            trial.set_user_attr(store.ERROR, error)
            self._store.tell(trial, state=TrialState.FAIL)
        # What is large and of no use in a run that is over without being finished.
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        run.model.unlink(missing_ok=True)


def _open_store(plan: SearchFile, options: SearchOptions) -> store.Store:
    """The trials of this search in its storage, which must be about the same plan."""
    folder, url, is_own = options.folder, options.url, options.storage is None
    shown, file = OWN_STORAGE if is_own else store.without_password(url), folder / "search.json"
    with store.alone(folder, url), store.quiet():
        is_begun = file.exists()
        if is_begun and (before := read_plan(folder).storage) != shown:
            raise TenfoldError(
                f"The search in {folder} keeps its trials in {before}, not in {shown}; give it as "
                "--storage, or give another --folder."
            )
        path = store.sqlite_file(url)
        if path is not None and not path.exists():
            _require_held(folder, [], shown)
        study = optuna.create_study(
            storage=store.open_storage(url),
            study_name=f"tenfold {plan.recipe['name']}",
            direction="maximize",
            load_if_exists=True,
            pruner=store.PRUNERS[options.pruner](plan.recipe["training"]["epochs"]),
        )
        if is_new := "plan" not in study.user_attrs:
            study.set_user_attr("plan", plan.to_dict())
        if difference := describe_difference(Plan(**study.user_attrs["plan"]), plan):
            raise TenfoldError(
                f"The search in {folder if is_own else shown} is another one: {difference}; give "
                f"another {'--folder' if is_own else '--storage'}, or repeat the command that "
                "began it."
            )
        _require_held(folder, store.records_of(study.trials, plan), shown)
        if is_new or not is_begun:
            write_plan(folder, plan.model_copy(update={"storage": shown}))
        if not any(store.BASELINE in trial.user_attrs for trial in study.trials):
            # Values outside the ranges teach the sampler nothing, since it draws none like them.
            known = {s.key: stored for s in plan.space if (stored := s.stored(s.own)) is not None}
            study.enqueue_trial(known, user_attrs={store.BASELINE: True})
        return store.Store(study, seed=plan.recipe["seed"], sampler=options.sampler)


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


def _with_data(plan: SearchFile, options: SearchOptions, progress: Progress | None) -> SearchFile:
    """The plan with the checksums of its data and of parts of one's own.

    They are read here once, so that what is wrong with them is said once, and before any trial.
    """
    recipe = recipe_from_dict(plan.recipe)
    dataset = load_data(recipe, skip_broken=options.skip_broken, progress=progress)
    data = training_data(dataset, **splitting(recipe.data))
    if data.validation is None:
        raise TenfoldError(
            "A search needs validation images to judge by, and there are none; set "
            "data.validation_size, such as --set data.validation_size=0.1."
        )
    require_equal_epochs(plan, num_train=len(data.train))
    code = {name: sum_of(path) for name, path in own_code(recipe).items()}
    return plan.model_copy(update={"checksums": dict(dataset.checksums), "code": code})
