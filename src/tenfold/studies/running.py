"""Trials, each trained in a run folder of its own, resumable: `run_study`.

A study's folder holds its plan, `study.json`, and `runs/<trial>`; the run folders are its record.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from tenfold import engine
from tenfold.errors import HeldError, InterruptedRunError, TenfoldError, counted
from tenfold.files import read_json, write_json
from tenfold.interruption import leaving_at_once
from tenfold.locks import LOCK_FILES, hold, is_held, wait_until_free
from tenfold.recipe import recipe_from_dict
from tenfold.recipe.dotted import flatten
from tenfold.recipe.own_code import write_recipe
from tenfold.results.runs import read_provenance, read_result
from tenfold.results.studies import (
    PlannedTrial,
    PlannedVariant,
    PublishedResult,
    StudyPlan,
    read_plan,
)
from tenfold.run import RunFolder
from tenfold.studies.definition import Study, Trial, load_trials, trial_of
from tenfold.studies.takeover import origin_of, take_over

logger = logging.getLogger("tenfold")

FAILURE = "failure.json"
"""The file in a run folder that says why its run failed."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How many runs go on at once, and how each is trained.

    threads: of each; None gives each its share of the cores, or what OMP_NUM_THREADS says.
    skip_broken: leave out images that can't be read.
    """

    num_jobs: int = 1
    threads: int | None = None
    skip_broken: bool = False

    @property
    def share_of_cores(self) -> int | None:
        """The threads of each run; None where the environment says, or there is but one run."""
        if self.threads or self.num_jobs == 1 or "OMP_NUM_THREADS" in os.environ:
            return self.threads
        return max(engine.num_cores() // self.num_jobs, 1)

    def item(
        self, name: str, run: RunFolder, *options: str, threads: int | None = None
    ) -> engine.Item:
        """The `tenfold train` of the recipe in the run folder `run`, begun or gone on with there.

        threads: if it was begun with other ones.
        """
        path, threads = run.path.resolve(), threads or self.share_of_cores
        arguments = ["train", str(path / run.recipe.name), "--folder", str(path), "--json"]
        arguments += ["--no-report", *(["--threads", str(threads)] if threads else []), *options]
        arguments += ["--skip-broken"] if self.skip_broken else []
        return engine.Item(name, tuple(arguments), path, threads or engine.usual_threads())


@dataclass(frozen=True, kw_only=True)
class StudyOptions(RunOptions):
    """How a study is carried out, which changes none of its results but for `threads`.

    retry_failed: train those again that failed in an earlier call. reuse: folders of studies or
    runs whose finished runs are taken over where their recipes are equal. part: train only the i-th
    of n parts of the trials, from 1.
    """

    retry_failed: bool = False
    reuse: tuple[Path, ...] = ()
    part: tuple[int, int] | None = None


@dataclass(frozen=True)
class Record:
    """How a trial ended.

    run: its run folder, seen from the study's folder. error: why it failed. splits: the accuracy on
    each split that was evaluated, as `{"test": {"accuracy": 0.75}}`; empty where it failed. reused:
    the run folder that it was taken over from, None where it was trained here.
    """

    trial: str
    overrides: tuple[str, ...]
    seed: int
    run: str
    status: Literal["finished", "failed"]
    error: str | None = None
    splits: dict[str, dict[str, float]] = field(default_factory=dict)
    training_seconds: float | None = None
    reused: str | None = None


@dataclass(frozen=True)
class StudyOutcome:
    """What is known of a study's trials, in their order; of a part, of that part's.

    num_run: the trials that this call trained; num_reused: those it took over from elsewhere; the
    others were done before.
    """

    records: tuple[Record, ...]
    num_run: int
    num_reused: int = 0

    @property
    def num_finished(self) -> int:
        """Trials that have a result."""
        return len(self.records) - self.num_failed

    @property
    def num_failed(self) -> int:
        """Trials that ended with an error."""
        return sum(record.status == "failed" for record in self.records)


class StudyReporter(Protocol):
    """Told how a study goes: which of its trials have no result, and of each that is trained when
    it starts, what its `tenfold train --json` prints, and how it ended."""

    def study_started(self, trials: Sequence[Trial], to_train: Sequence[Trial]) -> None: ...
    def trial_started(self, trial: Trial) -> None: ...
    def trial_told(self, trial: Trial, event: Mapping[str, Any]) -> None: ...
    def trial_ended(self, trial: Trial, record: Record) -> None: ...


def run_study(
    study: Study,
    *,
    folder: Path,
    options: StudyOptions | None = None,
    reporter: StudyReporter | None = None,
    place: engine.Place | None = None,
) -> StudyOutcome:
    """Train every trial of `study` that `folder` has no result of, each by a `tenfold train`.

    place: where; on this machine if None. A trial that fails is recorded, and the others go on.
    InterruptedRunError and KeyboardInterrupt end the study, which the same call resumes. Trials may
    be added to a study that exists. Raises TenfoldError before anything is written where a trial's
    values don't fit its recipe, and where the folder holds something else, another study, or a
    driver that is at work.
    """
    options = options or StudyOptions()
    trials = load_trials(study)
    require_folder_of("study", folder, plan="study.json", left=(*LOCK_FILES, "parts"))
    with _holding(folder, options.part), leaving_at_once():
        trials = agree_on_plan(folder, study, trials)
        if options.part is not None:
            number, parts = options.part
            trials = trials[number - 1 :: parts]
        driver = _Driver(folder, trials, options, reporter)
        num_reused = driver.take_over()
        to_train = driver.to_train()
        try:
            driver.run(to_train, place)
        except InterruptedRunError as error:
            done = sum(record.status == "finished" for record in driver.records().values())
            raise type(error)(
                f"{error} Finished so far: {done} of {counted(len(trials), 'run')}."
            ) from None
    outcome = StudyOutcome((*driver.records().values(),), len(to_train), num_reused)
    if outcome.num_failed:
        logger.warning(
            "%d of %d trials failed; the same command with --retry-failed trains them again.",
            outcome.num_failed,
            len(outcome.records),
        )
    return outcome


def require_folder_of(what: str, folder: Path, *, plan: str, left: Sequence[str]) -> None:
    """Raise TenfoldError where `folder` is something else, such as a run folder or a home.

    plan: the file that says what it is. left: what a process may leave that died before that.
    """
    if not folder.exists() or (folder / plan).exists():
        return
    if not folder.is_dir():
        raise TenfoldError(f"{folder} is not a folder; give another --folder.")
    others = [p.name for p in folder.iterdir() if p.name not in left and p.suffix != ".tmp"]
    if others:
        raise TenfoldError(
            f"{folder} holds other things than a {what}, such as {min(others)}; give another "
            "--folder."
        )


@contextlib.contextmanager
def _holding(folder: Path, part: tuple[int, int] | None) -> Iterator[None]:
    """Hold a study, or a part of it beside drivers of other parts, as its only driver."""
    parts = folder / "parts"
    mine = folder if part is None else parts / f"{part[0]}-of-{part[1]}"
    with hold(mine):
        others = sorted(parts.glob("*-of-*"))
        if part is not None:  # One of another number of parts has trials in common with this one.
            others = [folder, *(p for p in others if not p.match(f"*-of-{part[1]}"))]
        if busy := [path for path in others if is_held(path)]:
            raise HeldError(
                f"{busy[0]} is being written by another process; wait for it to end, or choose "
                "another folder."
            )
        yield


def agree_on_plan(folder: Path, study: Study, trials: Sequence[Trial]) -> list[Trial]:
    """Write `folder/study.json`, or bring the one that is there up to date; the trials to run.

    More trials may come to those that are there. These keep the description that they had, so that
    rewording a recipe stops nothing. Raises TenfoldError, with the difference, where a trial that
    is there would be dropped or changed.
    """
    path = folder / "study.json"
    planned = read_plan(folder).trials if path.exists() else ()
    before = {trial.trial: _known_recipe(trial.recipe) for trial in planned}
    agreed = []
    for trial in trials:
        if old := before.get(trial.trial):
            recipe = trial.loaded.but(description=old.get("description", ""))
            trial = trial_of(trial.variant, trial.overrides, trial.seed, recipe)
        agreed.append(trial)
    now = {trial.trial: trial.recipe for trial in agreed}
    differences = [
        f"it has the trial {name}, which was not asked for now"
        for name in before
        if name not in now
    ]
    changes = {name: describe_change(before[name], now[name]) for name in before.keys() & now}
    differences += [f"in its trial {name}, {change}" for name, change in changes.items() if change]
    if differences:
        raise TenfoldError(
            f"The study in {folder} is another one: {min(differences)}; give another --folder, or "
            "repeat the command that began it."
        )
    variants = [
        PlannedVariant(
            label=variant.label,
            published=tuple(
                PublishedResult(**each.model_dump() | {"epoch": each.epoch or None})
                for each in variant.published
            ),
        )
        for variant in study.variants
    ]
    plan = StudyPlan(
        **study.model_dump(include={"name", "title", "question", "limits"}),
        baseline=study.baseline or None,
        variants=tuple(variants),
        trials=tuple(agreed),
    )
    if not path.exists() or read_json(path) != plan.to_dict():
        plan.write(path)
    return agreed


def _known_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """A planned recipe with fields that have come to the schema since; as it is, where it can't be
    loaded now."""
    try:
        return recipe_from_dict(recipe).to_dict()
    except TenfoldError:
        return recipe


def describe_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """The first field in which two recipes differ, in words; None where they are the same."""
    before, now = (flatten(json.loads(json.dumps(recipe))) for recipe in (old, new))
    for key in before | now:
        if before.get(key) != now.get(key):
            return f"{key} was {before.get(key)!r} and is {now.get(key)!r} now"
    return None


def run_of(folder: Path, trial: str) -> RunFolder:
    """The run folder of the trial of that name in the study in `folder`."""
    return RunFolder(folder / "runs" / trial)


def read_records(folder: Path, trials: Iterable[PlannedTrial]) -> dict[str, Record]:
    """The record of each of the `trials` that is over, by its name; a damaged result is a failure,
    and a damaged note of a failure nothing."""
    found = {}
    for trial in trials:
        run, error = run_of(folder, trial.trial), None
        with contextlib.suppress(TenfoldError, KeyError, TypeError):
            error = str(read_json(run.path / FAILURE)["error"])
        try:
            result = read_result(run.result) if run.is_finished() else None
        except TenfoldError as damaged:
            result, error = None, str(damaged)
        where = (trial.trial, trial.overrides, trial.seed, f"runs/{trial.trial}")
        if result is not None:
            splits = {key: {"accuracy": m.accuracy} for key, m in result.splits.items()}
            seconds, origin = result.training.training_seconds, origin_of(run)
            found[trial.trial] = Record(*where, "finished", None, splits, seconds, origin)
        elif error is not None:
            found[trial.trial] = Record(*where, "failed", error)
    return found


class _Driver:
    """Trains trials of a study whose folder it holds, as the engine.Watch of their commands."""

    def __init__(
        self,
        folder: Path,
        trials: Sequence[Trial],
        options: StudyOptions,
        reporter: StudyReporter | None,
    ) -> None:
        self._folder, self._options, self._reporter = folder, options, reporter
        self._trials = {trial.trial: trial for trial in trials}

    def records(self) -> dict[str, Record]:
        """Of the trials that are over by now, in their order."""
        return read_records(self._folder, self._trials.values())

    def take_over(self) -> int:
        """Take finished runs from elsewhere for what has to be trained; how many there were."""
        runs, options = self._folder / "runs", self._options
        for copy in runs.glob(".*.tmp"):  # What a kill left of runs that were being taken over.
            shutil.rmtree(copy, ignore_errors=True)
        if not options.reuse:
            return 0
        wanted = self.to_train()
        num = take_over(options.reuse, wanted, runs=runs, skip_broken=options.skip_broken)
        if num:
            logger.info("%d of %d runs are taken over from elsewhere.", num, len(wanted))
        return num

    def to_train(self) -> list[Trial]:
        """What has no result, or a damaged one, or failed and is to be tried again."""
        records, found = self.records(), []
        for name, trial in self._trials.items():
            record = records.get(name)
            if record is None or (record.error and self._options.retry_failed):
                found.append(trial)
            elif record.error and run_of(self._folder, name).is_finished():
                error = record.error.rstrip(".")
                logger.warning("%s; it is dropped, and its trial is run again.", error)
                found.append(trial)
        return found

    def run(self, to_train: Sequence[Trial], place: engine.Place | None) -> None:
        """Train these. Raises TenfoldError where one was begun with other threads."""
        runs = {name: run_of(self._folder, name) for name in self._trials}
        items = [
            self._options.item(name, run, threads=begun_with(run, self._options.threads))
            for name, run in ((trial.trial, runs[trial.trial]) for trial in to_train)
        ]
        finished = {_threads_of(run) for run in runs.values() if run.is_finished()} - {None}
        if finished and items and finished != {item.threads for item in items}:
            logger.warning(
                "Finished runs of this study were computed with other --threads than the others "
                "will be, on which results depend a little; repeat the command with --threads %s "
                "to have all alike.",
                " or ".join(sorted(map(str, finished))),
            )
        if self._reporter is not None:
            self._reporter.study_started([*self._trials.values()], to_train)
        wait_until_free([item.folder for item in items])
        engine.run(items, jobs=self._options.num_jobs, watch=self, place=place)

    def started(self, item: engine.Item) -> None:
        trial, run = self._trials[item.name], RunFolder(item.folder)
        (run.path / FAILURE).unlink(missing_ok=True)
        run.result.unlink(missing_ok=True)  # A damaged one.
        write_recipe(trial.loaded, run.recipe)
        if self._reporter is not None:
            self._reporter.trial_started(trial)

    def received(self, item: engine.Item, event: dict[str, Any]) -> None:
        if self._reporter is not None:
            self._reporter.trial_told(self._trials[item.name], event)

    def ended(self, item: engine.Item, ended: engine.Ended) -> None:
        trial, run = self._trials[item.name], RunFolder(item.folder)
        if not run.is_finished():
            error = ended.error or "it ended without a result"
            write_json(run.path / FAILURE, {"error": error})
        record = read_records(self._folder, [trial])[item.name]
        if record.error is not None:
            logger.warning("%s failed: %s", item.name, record.error)
        if self._reporter is not None:
            self._reporter.trial_ended(trial, record)


def begun_with(run: RunFolder, asked: int | None) -> int | None:
    """The threads that a run was begun with, if it was. Raises TenfoldError for other ones."""
    threads = _threads_of(run) if any(run.checkpoints.glob("*.json")) else None
    if asked is not None and threads not in (None, asked):
        raise TenfoldError(
            f"{run.path} was begun with --threads {threads}, on which its result depends; leave "
            f"out --threads {asked}, or remove that folder."
        )
    return threads


def _threads_of(run: RunFolder) -> int | None:
    with contextlib.suppress(TenfoldError):
        return read_provenance(run.provenance).threads
    return None
