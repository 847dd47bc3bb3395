"""How the command line shows things: tables and bars on a terminal, lines in a pipe, or JSON."""

import functools
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

from tenfold.errors import counted
from tenfold.formatting import duration, memory, percent
from tenfold.interruption import DRIVEN
from tenfold.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from tenfold.training.reporters import Plan, Reporter

    class TrainingReporter(Reporter, Progress, Protocol):
        """Told of training, and of the reading and evaluating around it."""


Style = Literal["rich", "plain", "json"]

json_stream: TextIO | None = None
"""Where JSON goes while libraries write to standard error instead; None is standard output."""


class Output:
    """Where a command's results go, in one of three styles.

    `rich` on a terminal: tables, colours and live bars. `plain` in a pipe or a log: one line an
    event. `json`: one JSON object a line on standard output, and nothing else there. logs: show
    the library's notices, too.
    """

    def __init__(self, *, as_json: bool = False, logs: bool = True) -> None:
        self.style: Style = "json" if as_json else "rich" if sys.stdout.isatty() else "plain"
        if not logs:
            return
        logger = logging.getLogger("tenfold")
        logger.handlers = [_LogHandler(self)]
        logger.setLevel(logging.INFO)
        logger.propagate = False

    @functools.cached_property
    def console(self) -> "Console":
        """The terminal; made when first asked for, since Rich takes time to import."""
        from rich.console import Console

        return Console(highlight=False, markup=False, emoji=False)

    def say(self, text: str, *, bold: bool = False, passing: bool = False) -> None:
        """A line for people; nothing in JSON. passing: until the next, where that can be shown."""
        if self.style == "rich":
            self.console.print(text, style="bold" if bold else "")
        elif self.style == "plain":
            print(text, flush=True)

    def shout(self, text: str) -> None:
        """A line that nobody should miss; on standard error unless on a terminal."""
        if self.style == "rich":
            from rich.panel import Panel

            self.console.print(Panel(text, border_style="yellow"))
        else:
            print(f"*** {text}", file=sys.stderr, flush=True)

    def record(self, event: str, **values: Any) -> None:
        """An object for machines; nothing in the other styles."""
        if self.style == "json":
            line = json.dumps({"event": event, **values})
            print(line, flush=True, file=json_stream or sys.stdout)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows of text under headings; columns of numbers are aligned to the right.

        A row of one cell where there are more columns heads a group of rows.
        """
        whole = [row for row in rows if len(row) == len(columns)]
        cells = list(zip(*whole, strict=True)) if whole else [() for _ in columns]
        numeric = [bool(whole) and all(map(_looks_numeric, column)) for column in cells]
        if self.style == "rich":
            from rich.table import Table

            table = Table(title=title, title_justify="left")
            for column, is_numeric in zip(columns, numeric, strict=True):
                table.add_column(column, justify="right" if is_numeric else "left")
            for row in rows:
                is_heading = len(row) < len(columns)
                if is_heading:
                    table.add_section()
                table.add_row(*row, style="bold" if is_heading else "")
            self.console.print(table)
        elif self.style == "plain":
            widths = [max(map(len, each)) for each in zip(columns, *whole, strict=True)]
            print(title)
            for row in (columns, *rows):
                if len(row) < len(columns):
                    print(f"\n{row[0]}")
                    continue
                placed = zip(row, widths, numeric, strict=True)
                print("  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in placed).rstrip())
            sys.stdout.flush()

    @contextmanager
    def progress(self, *, with_elapsed: bool = False) -> Iterator["Bars | Lines"]:
        """A bar for each piece of work; a line every ten seconds in a pipe.

        with_elapsed: time since the start of each in the place of time until its end.
        """
        if self.style == "rich":
            bars = Bars(self.console, with_elapsed=with_elapsed)
            with bars.live:
                yield bars
        else:
            yield Lines(self)

    @contextmanager
    def training(self) -> Iterator["TrainingReporter"]:
        """What shows training, and the work around it, in this style."""
        with self.progress() as progress:
            yield _Training(self, progress)


def _looks_numeric(text: str) -> bool:
    return (text[:1].isdigit() and "(" not in text) or text in ("", "-", "–")


class _LogHandler(logging.Handler):
    """Shows the library's notices as part of a command's output."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        message, is_warning = record.getMessage(), record.levelno >= logging.WARNING
        self._output.record(record.levelname.lower(), message=message)
        if self._output.style == "rich":
            self._output.console.print(message, style="yellow" if is_warning else "dim")
        elif self._output.style == "plain":
            print("warning: " * is_warning + message, file=sys.stderr, flush=True)


class Bars:
    """One bar for each label, while it lasts."""

    def __init__(self, console: "Console", *, with_elapsed: bool = False) -> None:
        from rich import progress
        from rich.table import Column

        # Where the terminal is narrow, a column keeps so many characters.
        column = functools.partial(Column, no_wrap=True)
        time_column = progress.TimeElapsedColumn if with_elapsed else progress.TimeRemainingColumn
        self.live = progress.Progress(
            progress.TextColumn(
                "{task.description}", markup=False, table_column=column(min_width=16)
            ),
            progress.BarColumn(bar_width=10, table_column=column(min_width=4)),
            progress.TextColumn("{task.fields[count]}", table_column=column(min_width=14)),
            time_column(table_column=column(min_width=7)),
            progress.TextColumn("{task.fields[note]}", markup=False, table_column=column()),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, label: str, done: int, total: int | None) -> None:
        """Show work, as a Progress is told of it."""
        self.show(label, done=done, total=total)
        if done == total:
            self.end(label)

    def show(
        self, label: str, *, done: float, total: float | None, note: str = "", unit: str = ""
    ) -> None:
        """Bring a bar up to date, or begin it."""
        if label not in self._tasks:
            self._tasks[label] = self.live.add_task(label, total=total, count="", note="")
        of = f"/{int(total):,}" if total else ""
        count = f"{int(done):,}{of}{unit}" if of or done else ""
        task = self._tasks[label]
        self.live.update(task, completed=done, total=total or None, count=count, note=note)

    def end(self, label: str) -> None:
        """Take a bar away."""
        if label in self._tasks:
            self.live.remove_task(self._tasks.pop(label))


class Lines:
    """A line when ten seconds have passed since the last one; JSON the same."""

    seconds = 10.0
    live = None

    def __init__(self, output: Output) -> None:
        self._output = output
        self._last = time.monotonic()

    def __call__(self, label: str, done: int, total: int | None) -> None:
        """Show work, as a Progress is told of it."""
        if time.monotonic() - self._last < self.seconds:
            return
        self._last = time.monotonic()
        share = f"{percent(done / total, 0)} of {total:,}" if total else f"{done:,}"
        self._output.say(f"{label}: {share}", passing=True)
        self._output.record("progress", label=label, done=done, total=total)

    def show(self, *label: str, **values: Any) -> None:
        """Nothing: there are no bars here to show or to end."""

    end = show


def _describe_plan(plan: "Plan") -> str:
    ranks = f", {counted(plan.processes, 'process')}" if plan.processes > 1 else ""
    resumed = (
        f"; resumed after step {plan.resumed_step:,}" if plan.resumed_step > plan.first_step else ""
    )
    epochs = f"{counted(plan.epochs, 'epoch')} of {counted(plan.steps_per_epoch, 'step')}"
    if plan.min_steps:
        epochs += f" (for training.min_steps = {plan.min_steps})"
    if plan.seconds_left is not None:
        epochs = f"{duration(plan.seconds_left)}, but at most {epochs},"
    needs = f", in some {memory(plan.memory_bytes)} of memory" if plan.memory_bytes else ""
    learns = "" if plan.trains == "all" else f" that learn ({plan.trains})"
    return (
        f"{plan.recipe}: {plan.model} with {plan.num_parameters:,} parameters{learns}, "
        f"{plan.num_train:,} training and {counted(plan.num_validation, 'validation image')}, "
        f"{epochs} on {plan.device} with {counted(plan.threads, 'thread')}{ranks}{needs}{resumed}"
    )


def _which_epoch(epoch: int, plan: "Plan") -> str:
    """Its number, of how many where that is known before the end."""
    return f"epoch {epoch}/{plan.epochs}" if plan.seconds_left is None else f"epoch {epoch}"


def _describe_epoch(metrics: dict[str, Any], timings: dict[str, Any], plan: "Plan") -> str:
    parts = [_which_epoch(metrics["epoch"], plan)]
    for split in ("train", "validation"):
        if (accuracy := metrics[f"{split}_accuracy"]) is not None:
            parts.append(f"{split} loss {metrics[f'{split}_loss']:.3f}")
            parts.append(f"{split} accuracy {percent(accuracy)}")
    parts.append(f"{timings['images_per_second']:,.0f} images/s")
    return "  ".join([*parts, f"{duration(timings['training_seconds'])} of training"])


class _Training:
    """A line an epoch; on a terminal bars for epochs and steps, with loss, speed and time left, and
    elsewhere a line every thirty seconds within long epochs. JSON is without the latter, but for a
    driver every second."""

    step_seconds = 30.0

    def __init__(self, output: Output, progress: Bars | Lines) -> None:
        self._output, self._progress = output, progress
        self._last = time.monotonic()
        self._is_driven = bool(os.environ.get(DRIVEN))
        if progress.live or self._is_driven:
            self.step_seconds = 0.1 if progress.live else 1.0

    def __call__(self, label: str, done: int, total: int | None) -> None:
        self._progress(label, done, total)

    def started(self, plan: "Plan") -> None:
        self._plan, self._began = plan, time.monotonic()
        self._output.record("started", **asdict(plan))
        self._output.say(_describe_plan(plan), bold=True)
        epochs, steps = divmod(plan.resumed_step, plan.steps_per_epoch)
        self._show_epochs(epochs)
        self._progress.show("steps", done=steps, total=plan.steps_per_epoch)

    def stepped(self, *, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        if time.monotonic() - self._last < self.step_seconds:
            return
        self._last = time.monotonic()
        if self._is_driven:
            values = {"loss": loss, "images_per_second": images_per_second}
            self._output.record("step", epoch=epoch, step=step, **values)
        left, total = self._time_left(epoch, step), self._plan.steps_per_epoch
        note = f"loss {loss:.3f}  {images_per_second:,.0f} images/s  {left}"
        if self._progress.live:
            self._progress.show("steps", done=step, total=total, note=note)
        else:
            line = f"{_which_epoch(epoch, self._plan)}  step {step}/{total}  {note}"
            self._output.say(line, passing=True)

    def epoch_ended(self, metrics: dict[str, Any], timings: dict[str, Any]) -> None:
        self._last = time.monotonic()
        epoch, accuracy = metrics["epoch"], metrics["validation_accuracy"]
        left = self._time_left(epoch, self._plan.steps_per_epoch)
        self._output.record("epoch", **{**timings, **metrics})
        self._output.say(f"{_describe_epoch(metrics, timings, self._plan)}  {left}")
        note = f"validation accuracy {percent(accuracy)}" if accuracy is not None else ""
        self._show_epochs(epoch, note)
        self._progress.show("steps", done=0, total=self._plan.steps_per_epoch)

    def ended(self, reason: str) -> None:
        self._output.record("ended", reason=reason)
        for label in ("epochs", "steps"):
            self._progress.end(label)
        if reason != "finished":
            what = "Training" if self._plan.is_last else "This stage"
            self._output.say(f"{what} ended by {reason}.")

    def _time_left(self, epoch: int, step: int) -> str:
        """Until the end of the run or of its stage, by the pace of this session."""
        plan, worked = self._plan, time.monotonic() - self._began
        done = (epoch - 1) * plan.steps_per_epoch + step
        pace = worked / max(done - plan.resumed_step, 1)
        seconds = pace * (plan.epochs * plan.steps_per_epoch - done)
        if plan.seconds_left is not None:
            seconds = min(seconds, max(plan.seconds_left - worked, 0.0))
        return f"{duration(seconds)} left{'' if plan.is_last else ' of this stage'}"

    def _show_epochs(self, done: int, note: str = "") -> None:
        total = self._plan.epochs if self._plan.seconds_left is None else None
        self._progress.show("epochs", done=done, total=total, note=note)


class NotebookOutput(Output):
    """One output of a notebook's cell, which is written anew as training goes on."""

    NUM_LINES = 12

    def __init__(self) -> None:
        from IPython.display import display

        super().__init__(logs=False)
        self.style = "plain"
        self._lines: list[str] = []
        self._passes = False
        self._handle = display(self, display_id=True)

    def say(self, text: str, *, bold: bool = False, passing: bool = False) -> None:
        """A line below the others, in the place of the one before if that was passing."""
        if self._passes:
            self._lines.pop()
        self._lines.append(text)
        self._passes = passing
        self._handle.update(self)

    @contextmanager
    def training(self) -> Iterator["TrainingReporter"]:
        """As everywhere, every second."""
        lines = Lines(self)
        training = _Training(self, lines)
        lines.seconds = training.step_seconds = 1.0
        try:
            yield training
        finally:
            if self._passes:
                self._lines.pop()
                self._passes = False
                self._handle.update(self)

    def _repr_html_(self) -> str:
        first, others = self._lines[:1], self._lines[1:][-self.NUM_LINES :]
        text = escape(chr(10).join([*first, *others]))
        return f'<pre style="word-break: normal">{text}</pre>'  # Jupyter breaks words elsewhere.
