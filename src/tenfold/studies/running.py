"""Trials, each trained in a run folder of its own, resumable: `run_study`."""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tenfold import engine
from tenfold.errors import HeldError, InterruptedRunError, TenfoldError, counted
from tenfold.files import read_json
from tenfold.interruption import leaving_at_once
from tenfold.locks import hold, is_held, wait_until_free
from tenfold.recipe import Recipe
from tenfold.recipe.own_code import write_recipe
from tenfold.results.studies import read_plan
from tenfold.run import RunFolder
from tenfold.studies.definition import Study
from tenfold.studies.planning import agree_on_plan, load_recipes, require_study_folder
from tenfold.studies.records import Record, forget, read_records, run_of, write_failure
from tenfold.studies.takeover import remove_unfinished_copies, take_over
from tenfold.studies.trials import Trial

logger = logging.getLogger("tenfold")


@dataclass(frozen=True)
class StudyOptions:
    """How a study is carried out, which changes none of its results but for `threads`.

    num_jobs: trials trained at once. threads: of each; None gives each its share of the cores, or
    what OMP_NUM_THREADS says, and a run that is resumed those that it began with. retry_failed:
    train those again that failed in an earlier call. skip_broken: leave out images that can't be
    read. reuse: folders of studies or runs whose finished runs are taken over where their recipes
    are equal. part: train only the i-th of n parts of the trials, from 1.
    """

    num_jobs: int = 1
    threads: int | None = None
    retry_failed: bool = False
    skip_broken: bool = False
    reuse: tuple[Path, ...] = ()
    part: tuple[int, int] | None = None


@dataclass(frozen=True)
class StudyOutcome:
    """What is known of a study's trials, in their order; of a part, of that part's.

    num_run: the trials that this call trained; num_reused: those it took over from elsewhere; the
    others were done before.
    """

    records: tuple[Record, ...]
    num_finished: int
    num_failed: int
    num_run: int
    num_reused: int = 0


@dataclass(frozen=True)
class Job:
    """A trial that is to be trained, the `number`-th of `total`."""

    trial: Trial
    recipe: Recipe
    number: int
    total: int


class StudyReporter(Protocol):
    """Told how a study goes."""

    def study_started(self, jobs: Sequence[Job], *, total: int, num_epochs: int) -> None:
        """`jobs` of all `total` trials are to be trained; all have `num_epochs` together."""

    def trial_started(self, job: Job) -> None:
        """A trial is about to be trained."""

    def trial_told(self, job: Job, event: Mapping[str, Any]) -> None:
        """Its `tenfold train --json` has printed `event`."""

    def trial_ended(self, job: Job, record: Record) -> None:
        """A trial is over, finished or failed."""


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
    recipes = load_recipes(study)
    require_study_folder(folder)
    with _holding(folder, options.part), leaving_at_once():
        recipes = agree_on_plan(folder, study, recipes)
        if options.part is not None:
            place_of, parts = options.part
            recipes = dict(list(recipes.items())[place_of - 1 :: parts])
        session = _Session(folder, recipes, options, reporter)
        num_reused = session.take_over()
        jobs = session.jobs()
        try:
            session.run(jobs, place)
        except InterruptedRunError as error:
            done = sum(record.status == "finished" for record in session.records())
            raise type(error)(
                f"{error} Finished so far: {done} of {counted(len(recipes), 'run')}."
            ) from None
        return session.outcome(num_run=len(jobs), num_reused=num_reused)


@contextlib.contextmanager
def _holding(folder: Path, part: tuple[int, int] | None) -> Iterator[None]:
    """Hold a study, or a part of it beside drivers of other parts, as its only driver."""
    parts = folder / "parts"
    mine = folder if part is None else parts / f"{part[0]}-of-{part[1]}"
    with hold(mine):
        others = [folder] if part is not None else [*parts.glob("*-of-*")]
        if busy := [path for path in others if is_held(path)]:
            raise HeldError(
                f"{busy[0]} is being written by another process; wait for it to end, or choose "
                "another folder."
            )
        yield


class _Session:
    """A driver's work on a study whose folder it holds; told how its trials go as engine.Watch."""

    def __init__(
        self,
        folder: Path,
        recipes: Mapping[Trial, Recipe],
        options: StudyOptions,
        reporter: StudyReporter | None,
    ) -> None:
        self._folder, self._recipes, self._options = folder, recipes, options
        self._reporter = reporter
        self._jobs: dict[str, Job] = {}
        self._said: set[str] = set()
        names = {trial.name for trial in recipes}
        self._planned = tuple(t for t in read_plan(folder).trials if t.trial in names)

    def records(self) -> list[Record]:
        """Of the trials that are over by now, in their order."""
        return [*read_records(self._folder, self._planned).values()]

    def take_over(self) -> int:
        """Take finished runs from elsewhere for what has to be trained; how many there were."""
        remove_unfinished_copies(self._folder / "runs")
        if not self._options.reuse:
            return 0
        wanted = {trial: self._recipes[trial] for trial in self._to_train()}
        taken = take_over(
            self._options.reuse,
            wanted,
            runs=self._folder / "runs",
            skip_broken=self._options.skip_broken,
        )
        if taken:
            logger.info("%d of %d runs are taken over from elsewhere.", len(taken), len(wanted))
        return len(taken)

    def jobs(self) -> list[Job]:
        """What has to be trained."""
        to_train, total = set(self._to_train()), len(self._recipes)
        return [
            Job(trial, recipe, number, total)
            for number, (trial, recipe) in enumerate(self._recipes.items(), start=1)
            if trial in to_train
        ]

    def run(self, jobs: Sequence[Job], place: engine.Place | None) -> None:
        """Train `jobs`. Raises TenfoldError where one was begun with other threads."""
        items = [self._item(job) for job in jobs]
        self._jobs = {item.name: job for item, job in zip(items, jobs, strict=True)}
        _note_other_threads(items, [run_of(self._folder, trial.name) for trial in self._recipes])
        if self._reporter is not None:
            epochs = sum(recipe.training.epochs for recipe in self._recipes.values())
            self._reporter.study_started(jobs, total=len(self._recipes), num_epochs=epochs)
        wait_until_free([item.folder for item in items])
        engine.run(items, jobs=self._options.num_jobs, watch=self, place=place)

    def outcome(self, *, num_run: int, num_reused: int) -> StudyOutcome:
        """What there is at the end."""
        records = tuple(self.records())
        num_finished = sum(record.status == "finished" for record in records)
        num_failed = len(records) - num_finished
        if num_failed:
            logger.warning(
                "%d of %d trials failed; the same command with --retry-failed trains them again.",
                num_failed,
                len(records),
            )
        return StudyOutcome(records, num_finished, num_failed, num_run, num_reused)

    def started(self, item: engine.Item) -> None:
        """See engine.Watch."""
        job = self._jobs[item.name]
        run = RunFolder(item.folder)
        forget(run)
        write_recipe(job.recipe, run.recipe)
        if self._reporter is not None:
            self._reporter.trial_started(job)

    def told(self, item: engine.Item, event: dict[str, Any]) -> None:
        """See engine.Watch."""
        pass_notice_on(item.name, event, self._said)
        if self._reporter is not None:
            self._reporter.trial_told(self._jobs[item.name], event)

    def ended(self, item: engine.Item, ended: engine.Ended) -> None:
        """See engine.Watch."""
        job, run = self._jobs[item.name], RunFolder(item.folder)
        if not run.is_finished():
            write_failure(run, ended.error or "it ended without a result")
        planned = tuple(trial for trial in self._planned if trial.trial == item.name)
        record = read_records(self._folder, planned)[item.name]
        if record.error is not None:
            logger.warning("%s failed: %s", item.name, record.error)
        if self._reporter is not None:
            self._reporter.trial_ended(job, record)

    def _to_train(self) -> Iterator[Trial]:
        records = {record.trial: record for record in self.records()}
        for trial in self._recipes:
            record = records.get(trial.name)
            if record is None or (record.status == "failed" and self._options.retry_failed):
                yield trial
            elif record.status == "failed" and run_of(self._folder, trial.name).is_finished():
                logger.warning(
                    "%s; it is dropped, and its trial is run again.",
                    (record.error or "").rstrip("."),
                )
                yield trial

    def _item(self, job: Job) -> engine.Item:
        run = run_of(self._folder, job.trial.name)
        asked, jobs = self._options.threads, self._options.num_jobs
        return train_item(
            job.trial.name,
            run,
            threads=threads_for(run, asked=asked, num_jobs=jobs),
            options=["--skip-broken"] if self._options.skip_broken else [],
        )


def train_item(
    name: str, run: RunFolder, *, threads: int | None, options: Sequence[str] = ()
) -> engine.Item:
    """The `tenfold train` of the recipe in the run folder `run`, begun or gone on with there.

    threads: None stands for what the environment says, or an earlier session had.
    """
    path = run.path.resolve()
    fixed = ("train", str(path / run.recipe.name), "--folder", str(path), "--json", "--no-report")
    computes = ("--threads", str(threads)) if threads is not None else ()
    return engine.Item(name, (*fixed, *computes, *options), path, threads or engine.num_cores())


def pass_notice_on(name: str, event: Mapping[str, Any], said: set[str]) -> None:
    """Log what an item's library has said, each notice once; said: those that were."""
    level = {"info": logging.INFO, "warning": logging.WARNING}.get(event["event"])
    if level is not None and (message := str(event.get("message"))) not in said:
        said.add(message)
        logger.log(level, "%s: %s", name, message)


def threads_for(run: RunFolder, *, asked: int | None, num_jobs: int) -> int | None:
    """How many threads the run of a trial is to compute with, if `num_jobs` run at once.

    asked: by the user, if at all. None stands for what the environment says. Raises TenfoldError
    where the run was begun with another number than is asked for.
    """
    begun_with = _threads_of(run) if any(run.checkpoints.glob("*.json")) else None
    if asked is not None and begun_with not in (None, asked):
        raise TenfoldError(
            f"{run.path} was begun with --threads {begun_with}, on which its result depends; leave "
            f"out --threads {asked}, or remove that folder."
        )
    if asked is not None or begun_with is not None:
        return asked or begun_with
    if num_jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return None
    return max(engine.num_cores() // num_jobs, 1)


def _threads_of(run: RunFolder) -> int | None:
    with contextlib.suppress(TenfoldError, KeyError, TypeError, ValueError):
        return int(read_json(run.provenance)["threads"])
    return None


def _note_other_threads(items: Sequence[engine.Item], runs: Sequence[RunFolder]) -> None:
    """Tell of it where `items` will compute with other threads than finished `runs`."""
    finished = {_threads_of(run) for run in runs if items and run.is_finished()} - {None}
    to_come = {item.threads for item in items}
    if finished and len(finished | to_come) > 1:
        before, now = (" or ".join(sorted(map(str, numbers))) for numbers in (finished, to_come))
        logger.warning(
            "Finished runs of this study were computed with --threads %s, and the others will be "
            "with %s, on which their results depend a little; repeat the command with --threads "
            "%s to have all alike.",
            before,
            now,
            before,
        )
