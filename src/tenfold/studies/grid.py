"""Trials, each trained in a run folder of its own, resumable: `run_study`."""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenfold.errors import InterruptedRunError, TenfoldError, counted, sentence_of
from tenfold.locks import hold
from tenfold.recipe import Recipe
from tenfold.results.runs import read_result
from tenfold.run import RunFolder
from tenfold.studies.definition import Study
from tenfold.studies.pace import Pace
from tenfold.studies.plan import agree_on_plan, load_recipes, require_study_folder
from tenfold.studies.pool import WORKER, train_in_workers
from tenfold.studies.results import Record, append_record, drop_torn_line, read_log
from tenfold.studies.reuse import origin_of, remove_unfinished_copies, take_over
from tenfold.studies.running import (
    Job,
    StudyReporter,
    TrainTrial,
    TrialReporter,
    note_other_threads,
    run_trial,
    threads_for,
    train_trial,
)
from tenfold.studies.trials import Trial
from tenfold.training.interruption import leaving_at_once
from tenfold.training.reporters import Plan

__all__ = ["Record", "StudyOptions", "StudyOutcome", "run_study"]

logger = logging.getLogger("tenfold")


@dataclass(frozen=True)
class StudyOptions:
    """How a study is carried out, which changes none of its results but for `threads`.

    num_jobs: trials trained at once, each in a process of its own if there are several.
    threads: of each; None gives each its share of the cores, or what OMP_NUM_THREADS says, and
    a run that is resumed those that it began with. retry_failed: train those again that failed
    in an earlier call. skip_broken: leave out pictures that can't be read. reuse: folders of
    studies or runs whose finished runs are taken over where their recipes are equal.
    """

    num_jobs: int = 1
    threads: int | None = None
    retry_failed: bool = False
    skip_broken: bool = False
    reuse: tuple[Path, ...] = ()


@dataclass(frozen=True)
class StudyOutcome:
    """What is known of a study's trials, in their order.

    num_run: the trials that this call trained; num_reused: those it took over from elsewhere; the
    others were done before.
    """

    records: tuple[Record, ...]
    num_finished: int
    num_failed: int
    num_run: int
    num_reused: int = 0


def run_study(
    study: Study,
    *,
    folder: Path,
    options: StudyOptions | None = None,
    reporter: StudyReporter | None = None,
    train: TrainTrial = train_trial,
    worker: Sequence[str] = WORKER,
) -> StudyOutcome:
    """Train every trial of `study` that `folder` has no result of.

    train: trains one in this process. worker: the command of a process that does; used where
    `options` ask for several jobs.

    A trial that raises, or whose worker dies, is recorded as failed, and the others go on.
    InterruptedRunError and KeyboardInterrupt end the study, which the same call resumes. Trials may
    be added to a study that exists. Raises TenfoldError before anything is written where a trial's
    values don't fit its recipe, and where the folder holds something else, another study, or a
    driver that is at work.
    """
    options = options or StudyOptions()
    recipes = load_recipes(study)
    require_study_folder(folder)
    with hold(folder), leaving_at_once():
        recipes = agree_on_plan(folder, study, recipes)
        session = _Session(folder, recipes, options, reporter)
        num_reused = session.take_over()
        jobs = session.jobs()
        try:
            session.run(jobs, train=train, worker=worker)
        except InterruptedRunError as error:
            raise type(error)(
                f"{error} Finished so far: {session.num_finished} of "
                f"{counted(len(recipes), 'run')}."
            ) from None
        return session.outcome(num_run=len(jobs), num_reused=num_reused)


class _Session:
    """A driver's work on a study whose folder it holds."""

    def __init__(
        self,
        folder: Path,
        recipes: Mapping[Trial, Recipe],
        options: StudyOptions,
        reporter: StudyReporter | None,
    ) -> None:
        self._folder, self._recipes, self._options = folder, recipes, options
        self._records = _open_results(folder, recipes)
        self._pace = Pace(
            {trial: recipe.training.epochs for trial, recipe in recipes.items()},
            num_jobs=options.num_jobs,
        )
        self._reporter = reporter

    @property
    def num_finished(self) -> int:
        return sum(r["status"] == "finished" for r in self._records.values())

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
        """What has to be trained; the rest is recorded, if a dead driver has not done so.

        Raises TenfoldError where a run was begun with other threads than are now asked for.
        """
        to_train = set(self._to_train())
        jobs = []
        for number, (trial, recipe) in enumerate(self._recipes.items(), start=1):
            run = _run_of(self._folder, trial)
            if trial in to_train:
                threads = threads_for(
                    run, asked=self._options.threads, num_jobs=self._options.num_jobs
                )
                skip_broken = self._options.skip_broken
                jobs.append(
                    Job(trial, recipe, run, number, len(self._recipes), threads, skip_broken)
                )
                continue
            record = self._records.get(trial.name)
            if record is None or (record["status"] == "failed" and run.is_finished()):
                record = self._record(trial, failure=None)
            self._pace.skip(trial, training_seconds=record["training_seconds"])
        note_other_threads(jobs, [_run_of(self._folder, trial) for trial in self._recipes])
        return jobs

    def run(self, jobs: Sequence[Job], *, train: TrainTrial, worker: Sequence[str]) -> None:
        """Train `jobs`, and record each when it has ended."""
        if self._reporter is not None:
            self._reporter.study_started(self._pace, jobs=jobs, total=len(self._recipes))
        if self._options.num_jobs == 1:
            _train_here(jobs, start=self._start, end=self._end, train=train)
        else:
            train_in_workers(
                jobs,
                num_jobs=self._options.num_jobs,
                start=self._start,
                end=self._end,
                command=worker,
            )

    def outcome(self, *, num_run: int, num_reused: int) -> StudyOutcome:
        """What there is at the end."""
        records = tuple(self._records[trial.name] for trial in self._recipes)
        num_failed = len(records) - self.num_finished
        if num_failed:
            logger.warning(
                "%d of %d trials failed; the same command with --retry-failed trains them again.",
                num_failed,
                len(records),
            )
        return StudyOutcome(records, self.num_finished, num_failed, num_run, num_reused)

    def _to_train(self) -> Iterator[Trial]:
        for trial in self._recipes:
            record, run = self._records.get(trial.name), _run_of(self._folder, trial)
            has_failed = record is not None and record["status"] == "failed"
            if has_failed and not self._options.retry_failed:
                continue
            if has_failed and run.is_finished() and not _is_readable(run.result):
                run.result.unlink()
            # A driver that died between a run's end and its record left a finished run; a record
            # whose run somebody removed is worth nothing.
            if not run.is_finished():
                yield trial

    def _start(self, job: Job) -> TrialReporter:
        shown = self._reporter.trial_started(job) if self._reporter is not None else None
        return _Paced(job.trial, self._pace, shown)

    def _end(self, job: Job, failure: str | None) -> None:
        self._pace.end(job.trial)
        record = self._record(job.trial, failure=failure)
        if self._reporter is not None:
            self._reporter.trial_ended(job, record)

    def _record(self, trial: Trial, *, failure: str | None) -> Record:
        record = _describe_run(self._folder, trial, failure)
        if record["error"] is not None:
            logger.warning("%s failed: %s", trial.name, record["error"])
        append_record(_results(self._folder), record)
        self._records[trial.name] = record
        return record


class _Paced:
    """Keeps the pace of the study up to date, and tells the one who shows it."""

    def __init__(self, trial: Trial, pace: Pace, shown: TrialReporter | None) -> None:
        self._trial, self._pace, self._shown = trial, pace, shown
        self._steps_per_epoch = 1

    def __call__(self, label: str, done: int, total: int | None) -> None:
        if self._shown is not None:
            self._shown(label, done, total)

    def started(self, plan: Plan) -> None:
        self._steps_per_epoch = plan.steps_per_epoch
        done = plan.resumed_step / plan.steps_per_epoch
        self._pace.start(self._trial, epochs=plan.epochs, done=done)
        if self._shown is not None:
            self._shown.started(plan)

    def stepped(self, *, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        self._pace.advance(self._trial, epoch - 1 + step / self._steps_per_epoch)
        if self._shown is not None:
            self._shown.stepped(
                epoch=epoch, step=step, loss=loss, images_per_second=images_per_second
            )

    def epoch_ended(self, metrics: dict[str, Any], timings: dict[str, Any]) -> None:
        self._pace.advance(self._trial, metrics["epoch"])
        if self._shown is not None:
            self._shown.epoch_ended(metrics, timings)

    def ended(self, reason: str) -> None:
        if self._shown is not None:
            self._shown.ended(reason)


def _train_here(
    jobs: Iterable[Job],
    *,
    start: Callable[[Job], TrialReporter],
    end: Callable[[Job, str | None], None],
    train: TrainTrial,
) -> None:
    """Train `jobs` in this process, one after the other; as `train_in_workers` otherwise."""
    for job in jobs:
        failure = None
        try:
            run_trial(
                job.recipe,
                job.run,
                threads=job.threads,
                skip_broken=job.skip_broken,
                reporter=start(job),
                train=train,
            )
        except InterruptedRunError:
            raise
        except Exception as error:
            # Whatever went wrong in this one, the others are worth having.
            logger.debug("%s failed", job.trial.name, exc_info=True)
            failure = sentence_of(error)
        end(job, failure)


def _describe_run(folder: Path, trial: Trial, failure: str | None) -> Record:
    """The record of a trial whose run is over, or failed with a sentence."""
    record = Record(
        trial=trial.name,
        overrides=list(trial.overrides),
        seed=trial.seed,
        run=f"runs/{trial.name}",
        status="failed",
        error=failure,
        splits={},
        training_seconds=None,
        reused=None,
    )
    if failure is not None:
        return record
    run = _run_of(folder, trial)
    try:
        result = read_result(run.result)
        record["splits"] = {name: {"accuracy": m.accuracy} for name, m in result.splits.items()}
        record["training_seconds"] = result.training.training_seconds
        record["reused"] = origin_of(run)
    except TenfoldError as error:
        return {**record, "splits": {}, "error": sentence_of(error)}
    return {**record, "status": "finished"}


def _results(folder: Path) -> Path:
    return folder / "results.jsonl"


def _is_readable(result: Path) -> bool:
    with contextlib.suppress(TenfoldError):
        return bool(read_result(result))
    return False


def _run_of(folder: Path, trial: Trial) -> RunFolder:
    return RunFolder(folder / "runs" / trial.name)


def _open_results(folder: Path, recipes: Mapping[Trial, Recipe]) -> dict[str, Record]:
    """The latest record of each trial, after the removal of a last line that a crash tore."""
    path = _results(folder)
    log = read_log(path)
    records = {record["trial"]: record for record in log.records}
    if log.num_torn_bytes:
        logger.warning(
            "The last line of %s is torn; it is dropped, and its trial is run again.", path
        )
        # A run without its result is trained again from its last checkpoint. This comes before
        # the line is dropped, so that a crash between the two loses nothing.
        for trial in recipes:
            if trial.name not in records:
                _run_of(folder, trial).result.unlink(missing_ok=True)
        drop_torn_line(path, log)
    return records
