"""How a study's progress is shown: bars on a terminal, lines in a pipe, or JSON."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tenfold.console.output import Output
from tenfold.errors import counted
from tenfold.formatting import duration, percent

if TYPE_CHECKING:
    from rich.progress import TaskID

    from tenfold.studies.pace import Pace
    from tenfold.studies.results import Record
    from tenfold.studies.running import Job, StudyReporter, TrialReporter
    from tenfold.training.reporters import Plan


@contextmanager
def showing_study(output: Output) -> Iterator["StudyReporter"]:
    """What shows a study in the style of `output`."""
    if output.style == "rich":
        bars = _StudyBars(output)
        with bars.live:
            yield bars
    else:
        yield _StudyLines(output)


def _describe_end(job: "Job", record: "Record", seconds: float) -> str:
    """How a trial ended, in a line."""
    name = f"Run {job.number} of {job.total}: {job.trial.title}"
    if record["error"] is not None:
        return f"{name}: failed after {duration(seconds)}"
    accuracies = [
        f"{percent(record['splits'][split]['accuracy'], 2)} right on {split}"
        for split in ("test", "validation")
        if split in record["splits"]
    ]
    training = record["training_seconds"]  # Of all its sessions.
    return f"{name}: {', '.join(accuracies[:1])} in {duration(training or seconds)}"


def _describe_left(pace: "Pace") -> str:
    left = pace.seconds_left()
    return f"{duration(left)} left" if left is not None else "estimating the time left"


class _Display:
    """What all styles know: the pace, and when each trial began."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._began: dict[int, float] = {}

    def study_started(self, pace: "Pace", *, jobs: Sequence["Job"], total: int) -> None:
        self.pace = pace
        self._num_left = len(jobs)

    def _begin(self, job: "Job") -> None:
        self._began[job.number] = time.monotonic()

    def _finish(self, job: "Job") -> float:
        """One run fewer to go; the seconds that it took."""
        self._num_left -= 1
        return time.monotonic() - self._began[job.number]


class _StudyLines(_Display):
    """A line when a run starts and when it ends, and one every minute between; in JSON an object
    for the start of the study, and for each start, epoch and end of a run."""

    SECONDS = 60.0

    def study_started(self, pace: "Pace", *, jobs: Sequence["Job"], total: int) -> None:
        super().study_started(pace, jobs=jobs, total=total)
        self.last = time.monotonic()
        names, epochs = [job.trial.name for job in jobs], pace.total_epochs
        self.output.record("study", total=total, to_train=names, total_epochs=epochs)
        done = f", {total - len(jobs)} of them done before" if len(jobs) < total else ""
        self.output.say(f"{counted(total, 'run')}{done}")

    def trial_started(self, job: "Job") -> "TrialReporter":
        self._begin(job)
        trial, number, total = job.trial, job.number, job.total
        self.output.record(
            "training", trial=trial.name, variant=trial.variant, number=number, total=total
        )
        self.output.say(f"Run {number} of {total}: {trial.title}")
        return _TrialLines(self, job)

    def trial_ended(self, job: "Job", record: "Record") -> None:
        seconds = self._finish(job)
        self.output.record(
            "trial_ended",
            **record,
            seconds=seconds,
            done_epochs=self.pace.done_epochs,
            seconds_left=self.pace.seconds_left(),
        )
        line = _describe_end(job, record, seconds)
        self.output.say(f"{line}  {_describe_left(self.pace)}" if self._num_left else line)

    def say_now_and_then(self, line: str) -> None:
        if time.monotonic() - self.last >= self.SECONDS:
            self.last = time.monotonic()
            share = percent(self.pace.done_epochs / self.pace.total_epochs, 0)
            self.output.say(f"{line}  {share} of the study, {_describe_left(self.pace)}")


class _TrialLines:
    """One trial of a study in a pipe, or for machines."""

    def __init__(self, study: _StudyLines, job: "Job") -> None:
        self._study, self._job = study, job
        self._epochs, self._note = 0, ""

    def __call__(self, label: str, done: int, total: int | None) -> None:
        self._study.say_now_and_then(f"{self._job.trial.title}: {label}")

    def _record(self, event: str, **values: Any) -> None:
        self._study.output.record(event, trial=self._job.trial.name, **values)

    def started(self, plan: "Plan") -> None:
        self._record("started", **asdict(plan))
        self._epochs = plan.epochs

    def stepped(self, *, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        self._study.say_now_and_then(
            f"{self._job.trial.title}: epoch {epoch}/{self._epochs}  loss {loss:.3f}  "
            f"{images_per_second:,.0f} images/s{self._note}"
        )

    def epoch_ended(self, metrics: dict[str, Any], timings: dict[str, Any]) -> None:
        left = self._study.pace.seconds_left()
        self._record("epoch", **{**timings, **metrics}, seconds_left=left)
        accuracy = metrics["validation_accuracy"]
        if accuracy is not None:
            self._note = f"  validation accuracy {percent(accuracy)}"

    def ended(self, reason: str) -> None:
        self._record("ended", reason=reason)


class _StudyBars(_Display):
    """A bar for the epochs of the whole study, and one for each run that is under way."""

    def __init__(self, output: Output) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        super().__init__(output)

        def column(*, width: int = 0) -> Column:
            """Where the terminal is narrow, a column keeps so many characters."""
            return Column(no_wrap=True, min_width=width)

        self.live = Progress(
            TextColumn("{task.description}", markup=False, table_column=column(width=16)),
            BarColumn(bar_width=10, table_column=column(width=4)),
            TextColumn("{task.fields[epochs]}", table_column=column(width=14)),
            TimeElapsedColumn(table_column=column(width=7)),
            TextColumn("{task.fields[note]}", markup=False, table_column=column()),
            console=output.console,
            transient=True,
        )
        self._tasks: dict[int, TaskID] = {}
        self._num_failed = 0

    def study_started(self, pace: "Pace", *, jobs: Sequence["Job"], total: int) -> None:
        super().study_started(pace, jobs=jobs, total=total)
        self._total = total
        self._whole = self.live.add_task("study", total=pace.total_epochs, epochs="", note="")
        self.update()

    def trial_started(self, job: "Job") -> "TrialReporter":
        self._begin(job)
        self._tasks[job.number] = self.live.add_task(
            job.trial.title, total=job.recipe.training.epochs, epochs="", note="starting"
        )
        return _TrialBar(self, self._tasks[job.number])

    def trial_ended(self, job: "Job", record: "Record") -> None:
        seconds = self._finish(job)
        self._num_failed += record["error"] is not None
        self.live.remove_task(self._tasks.pop(job.number))
        self.output.say(_describe_end(job, record, seconds))
        self.update()

    def update(self) -> None:
        """Bring the bar of the whole study up to date."""
        done, total = self.pace.done_epochs, self.pace.total_epochs
        failed = f", {self._num_failed} failed" if self._num_failed else ""
        self.live.update(
            self._whole,
            completed=done,
            total=total,
            epochs=f"{int(done):,}/{int(total):,} epochs",
            note=f"{_describe_left(self.pace)}, {self._total - self._num_left} of {self._total} "
            f"runs done{failed}",
        )


class _TrialBar:
    """One trial of a study on a terminal."""

    SECONDS = 0.1

    def __init__(self, study: _StudyBars, task: "TaskID") -> None:
        self._study, self._task = study, task
        self._shown = 0.0
        self._accuracy = ""

    def __call__(self, label: str, done: int, total: int | None) -> None:
        if self._is_time():
            self._study.live.update(self._task, note=label)

    def started(self, plan: "Plan") -> None:
        self._plan = plan
        done = plan.resumed_step / plan.steps_per_epoch
        epochs = f"{int(done):,}/{plan.epochs:,} epochs"
        self._study.live.update(self._task, total=plan.epochs, completed=done, epochs=epochs)

    def stepped(self, *, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        if self._is_time():
            self._study.live.update(
                self._task,
                completed=epoch - 1 + step / self._plan.steps_per_epoch,
                note=f"{self._accuracy}loss {loss:.3f}  {images_per_second:,.0f} images/s",
            )
            self._study.update()

    def epoch_ended(self, metrics: dict[str, Any], timings: dict[str, Any]) -> None:
        done = metrics["epoch"]
        if metrics["validation_accuracy"] is not None:
            self._accuracy = f"validation {percent(metrics['validation_accuracy'])}  "
        epochs = f"{done:,}/{self._plan.epochs:,} epochs"
        self._study.live.update(self._task, completed=done, epochs=epochs)
        self._study.update()

    def ended(self, reason: str) -> None:
        self._study.live.update(self._task, note="evaluating")

    def _is_time(self) -> bool:
        if time.monotonic() - self._shown < self.SECONDS:
            return False
        self._shown = time.monotonic()
        return True
