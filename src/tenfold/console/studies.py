"""How runs beside each other are shown: bars on a terminal, lines in a pipe, or JSON."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tenfold.console.output import Bars, Lines, Output
from tenfold.errors import counted
from tenfold.formatting import duration, percent

if TYPE_CHECKING:
    from tenfold.studies.definition import Trial
    from tenfold.studies.running import Record

LINE_SECONDS = 60.0
"""Between two lines within a run, in a pipe."""


class Epochs:
    """How far runs have come together, in epochs, and how long the rest will take at their pace.

    planned: epochs of each run that is to be done, as its recipe says; few images may need more,
    which a run says when it starts, and the others are taken to need in proportion. before: epochs
    of the runs that are done already.
    """

    def __init__(self, planned: Mapping[str, float], *, before: float = 0.0) -> None:
        self._planned, self._before = planned, before
        self._began = time.monotonic()
        self._first: dict[str, float] = {}
        self._done: dict[str, float] = {}
        self._steps: dict[str, int] = {}
        self._epochs: dict[str, float] = {}

    def take(self, name: str, event: Mapping[str, Any]) -> float:
        """Learn from an event of a run; how many epochs that has done."""
        if event["event"] == "started":
            self._steps[name], self._epochs[name] = event["steps_per_epoch"], event["epochs"]
            self._done[name] = event["resumed_step"] / event["steps_per_epoch"]
            self._first.setdefault(name, self._done[name])
        elif event["event"] == "step" and name in self._steps:
            self._done[name] = event["epoch"] - 1 + event["step"] / self._steps[name]
        elif event["event"] == "epoch":
            self._done[name] = event["epoch"]
        return self._done.get(name, 0.0)

    def of(self, name: str) -> float:
        """How many epochs a run has in all; 0 as long as that is not known."""
        return self._epochs.get(name, self._planned.get(name, 0.0) * self._more)

    def end(self, name: str) -> None:
        """A run is over, whether it came to its last epoch or not."""
        self._done[name] = self.of(name)

    @property
    def total(self) -> float:
        """Epochs of all runs."""
        return self._before * self._more + sum(map(self.of, self._planned))

    @property
    def done(self) -> float:
        """Epochs that are behind them."""
        return min(self._before * self._more + sum(self._done.values()), self.total)

    @property
    def _more(self) -> float:
        """How many times the planned epochs runs have that have started."""
        known = [(self._epochs[n], p) for n, p in self._planned.items() if n in self._epochs]
        return sum(has for has, _ in known) / sum(p for _, p in known) if known else 1.0

    def seconds_left(self) -> float | None:
        """Until the last one ends; None as long as nothing is known."""
        here = sum(self._done.values()) - sum(self._first.values())
        if self.done >= self.total:
            return 0.0
        return (time.monotonic() - self._began) * (self.total - self.done) / here if here else None

    def describe_left(self) -> str:
        """The same in words."""
        left = self.seconds_left()
        return f"{duration(left)} left" if left is not None else "estimating the time left"


@contextmanager
def showing_runs(output: Output) -> Iterator["RunBars"]:
    """A bar for each run that is under way; shown on a terminal alone."""
    with output.progress(with_elapsed=True) as bars:
        yield RunBars(bars)


class RunBars:
    """A bar for all runs together, one for each that is under way, and for work around them."""

    def __init__(self, bars: Bars | Lines) -> None:
        self._bars, self.live, self.end = bars, bars.live, bars.end
        self._notes: dict[str, str] = {}

    def __call__(self, label: str, done: int, total: int | None) -> None:
        """Show other work, as a Progress is told of it."""
        self._bars(label, done, total)

    def show(self, name: str, *, done: float, total: float, note: str) -> None:
        """Bring a bar up to date, or begin it."""
        self._bars.show(name, done=done, total=total, note=note, unit=" epochs" if total else "")

    def tell(self, name: str, event: Mapping[str, Any], *, done: float, total: float) -> None:
        """Show an event of a run."""
        accuracy = event.get("validation_accuracy")
        if accuracy is not None:
            self._notes[name] = f"validation {percent(accuracy)}  "
        note = {"started": "training", "ended": "evaluating"}.get(event["event"], "")
        if event["event"] == "step":
            note = f"loss {event['loss']:.3f}  {event['images_per_second']:,.0f} images/s"
        elif event["event"] == "epoch":  # Short ones say nothing of their steps.
            note = f"{event['images_per_second']:,.0f} images/s"
        if note or accuracy is not None:
            text = f"{self._notes.get(name, '')}{note}"
            self.show(name, done=done, total=total, note=text)


class StudyDisplay:
    """A study in the style of `output`, as a StudyReporter is told of it.

    In a pipe a line when a run starts and when it ends, and one every minute between; in JSON an
    object for the start of the study, and for each start, epoch and end of a run.
    """

    def __init__(self, output: Output, bars: RunBars) -> None:
        self._output, self._bars = output, bars
        self._began: dict[str, float] = {}
        self._last = time.monotonic()
        self._num_failed = 0

    def study_started(self, trials: Sequence["Trial"], to_train: Sequence["Trial"]) -> None:
        total, num_left = len(trials), len(to_train)
        self._numbers = {trial.trial: number for number, trial in enumerate(trials, start=1)}
        num_epochs = sum(trial.loaded.training.epochs for trial in trials)
        planned = {trial.trial: trial.loaded.training.epochs for trial in to_train}
        self._epochs = Epochs(planned, before=num_epochs - sum(planned.values()))
        self._num_left = num_left
        names = [trial.trial for trial in to_train]
        self._output.record("study", total=total, to_train=names, total_epochs=num_epochs)
        done = f", {total - num_left} of them done before" if num_left < total else ""
        if self._bars.live is None:
            self._output.say(f"{counted(total, 'run')}{done}")
        self._update()

    def trial_started(self, trial: "Trial") -> None:
        self._began[trial.trial] = time.monotonic()
        place = {"number": self._numbers[trial.trial], "total": len(self._numbers)}
        self._output.record("training", trial=trial.trial, variant=trial.variant, **place)
        if self._bars.live is None:
            self._output.say(self._describe(trial))
        total_epochs = self._epochs.of(trial.trial)
        self._bars.show(trial.title, done=0, total=total_epochs, note="starting")

    def trial_told(self, trial: "Trial", event: Mapping[str, Any]) -> None:
        name, title, kind = trial.trial, trial.title, event["event"]
        done = self._epochs.take(name, event)
        if kind in ("started", "epoch", "ended"):
            left = {"seconds_left": self._epochs.seconds_left()} if kind == "epoch" else {}
            values = {key: value for key, value in event.items() if key != "event"}
            self._output.record(kind, trial=name, **values, **left)
        self._bars.tell(title, event, done=done, total=self._epochs.of(name))
        self._update()
        if self._bars.live is None and time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            share = percent(self._epochs.done / self._epochs.total, 0)
            self._output.say(
                f"{title}: epoch {int(done)} of {self._epochs.of(name):.0f}  {share} of the "
                f"study, {self._epochs.describe_left()}"
            )

    def trial_ended(self, trial: "Trial", record: "Record") -> None:
        seconds = time.monotonic() - self._began[trial.trial]
        self._epochs.end(trial.trial)
        self._num_left -= 1
        self._num_failed += record.error is not None
        self._output.record(
            "trial_ended",
            **asdict(record),
            seconds=seconds,
            done_epochs=self._epochs.done,
            seconds_left=self._epochs.seconds_left(),
        )
        self._bars.end(trial.title)
        line = f"{self._describe(trial)}: {_describe_end(record, seconds)}"
        has_more = self._num_left and self._bars.live is None
        self._output.say(f"{line}  {self._epochs.describe_left()}" if has_more else line)
        self._update()

    def _describe(self, trial: "Trial") -> str:
        return f"Run {self._numbers[trial.trial]} of {len(self._numbers)}: {trial.title}"

    def _update(self) -> None:
        """Bring the bar of the whole study up to date."""
        total = len(self._numbers)
        failed = f", {self._num_failed} failed" if self._num_failed else ""
        done = f"{total - self._num_left} of {total} runs done{failed}"
        note = f"{self._epochs.describe_left()}, {done}"
        self._bars.show("study", done=self._epochs.done, total=self._epochs.total, note=note)


def _describe_end(record: "Record", seconds: float) -> str:
    """How a trial ended, in a line."""
    if record.error is not None:
        return f"failed after {duration(seconds)}"
    split = "test" if "test" in record.splits else "validation"
    right = f"{percent(record.splits[split]['accuracy'], 2)} accuracy on {split}"
    training = record.training_seconds  # Of all its sessions.
    return f"{right} in {duration(training or seconds)}"
