"""Run folders as they grow: what is known of each by now, read again where something was added."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tenfold.errors import TenfoldError
from tenfold.files import read_json
from tenfold.reporting.templating import Card
from tenfold.results.runs import Epoch, Metrics, read_epochs, read_result
from tenfold.run import RunFolder
from tenfold.training.reporters import Plan

MOST_DEEP = 3
"""Folders below the one that is watched; `runs/STUDY/runs/TRIAL` would be the fourth."""

STALE_SECONDS = 2.0
"""For so long nobody is asked again whether a run is being written."""

STATES = ("running", "waiting", "stopped", "pruned", "failed", "finished")
"""Of a run, in the order in which they are listed."""


class LiveRun:
    """A run in a folder that another process may be writing.

    plan: None until training begins. steps: step, mean loss and images a second.
    is_trained: whether no step is to come.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._folder = RunFolder(path)
        self._seen: dict[Path, tuple[int, int]] = {}
        self._asked, self._offset = 0.0, 0
        self._images: list[dict[str, str]] = []
        self._predicted: tuple[int, list[Any]] = 0, []
        self._began = self._stepped = time.time()
        self.state, self.problem, self.is_trained = "waiting", "", False
        self.plan: Plan | None = None
        self.epochs: tuple[Epoch, ...] = ()
        self.steps: list[tuple[int, float, float]] = []
        self.scores: dict[str, Metrics] = {}
        self.changed = 0.0

    def refresh(self, *, at_once: bool = False) -> None:
        """Read what has been added. at_once: whether it runs, too, however shortly ago that was
        asked."""
        run = self._folder
        with contextlib.suppress(TenfoldError, OSError):  # Half written, or gone.
            if self._has_changed(run.progress):
                self._read_progress()
            if self._has_changed(run.metrics) | self._has_changed(run.timings):
                self.epochs = read_epochs(run.metrics, run.timings)
            if self._has_changed(run.result):
                self.scores = read_result(run.result).splits
        self.changed = max((at for at, _ in self._seen.values()), default=0) / 1e9
        if at_once or time.monotonic() - self._asked > STALE_SECONDS:
            self.state, self._asked = self._find_state(), time.monotonic()

    def _has_changed(self, path: Path) -> bool:
        try:
            found = os.stat(path)
        except OSError:
            return False
        now = found.st_mtime_ns, found.st_size
        before, self._seen[path] = self._seen.get(path), now
        return now != before

    def _find_state(self) -> str:
        if self._folder.is_finished():
            return "finished"
        with contextlib.suppress(TenfoldError, TypeError, KeyError):
            failure = self.path / "failure.json"
            if failure.exists():
                self.problem = str(read_json(failure)["error"])
                return "failed"
        if self._folder.is_held():
            return "running"
        return "stopped" if self.plan or self.epochs else "waiting"

    def _read_progress(self) -> None:
        with open(self._folder.progress, "rb") as file:
            file.seek(self._offset)
            *lines, rest = file.read().split(b"\n")
            self._offset = file.tell() - len(rest)
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                event = json.loads(line)
                self._take(event["event"], event)

    def _take(self, kind: str, event: dict[str, Any]) -> None:
        if kind == "started":
            self.plan, self._began, self.is_trained = Plan(**event["plan"]), event["time"], False
            self._images = event.get("images", self._images)
            # Steps after the last checkpoint of a run that is resumed are done again.
            self.steps = [each for each in self.steps if each[0] <= self.plan.resumed_step]
        elif kind == "step":
            self.steps.append((event["step"], event["loss"], event["images_per_second"]))
            self._stepped = event["time"]
        elif kind == "epoch":
            self._predicted = event["epoch"], event["samples"]
        elif kind == "ended":
            self.is_trained = self.plan is not None and self.plan.is_last

    @property
    def last(self) -> Epoch | None:
        """The newest epoch that was validated."""
        return self.epochs[-1] if self.epochs else None

    @property
    def best(self) -> Epoch | None:
        """The epoch of the highest validation accuracy."""
        known = [epoch for epoch in self.epochs if epoch.validation_accuracy is not None]
        return max(known, key=lambda epoch: epoch.validation_accuracy or 0.0, default=None)

    @property
    def steps_done(self) -> int:
        """Steps of all epochs, as far as is known."""
        last = self.last.step or 0 if self.last else 0
        return max(last, self.steps[-1][0] if self.steps else 0)

    @property
    def num_steps(self) -> int:
        """Steps of all epochs that are planned; 0 where that is not known."""
        return self.plan.epochs * self.plan.steps_per_epoch if self.plan else 0

    @property
    def epoch(self) -> int:
        """The epoch that is under way, or was the last."""
        done = self.last.number if self.last else 0
        goes_on = self.state == "running" and not self.is_trained
        return done + (goes_on and self.plan is not None and done < self.plan.epochs)

    @property
    def images_per_second(self) -> float | None:
        """In training, of the newest steps."""
        if self.state == "running" and self.steps:
            return self.steps[-1][2]
        return self.last.images_per_second if self.last else None

    @property
    def seconds_left(self) -> float | None:
        """Until the end of training, or of its present stage, by the pace of this session."""
        plan, now = self.plan, time.time()
        if self.state != "running" or self.is_trained or plan is None:
            return None
        if (done := self.steps_done - plan.resumed_step) <= 0:
            return None
        at = self._stepped if self.steps and self.steps[-1][0] == self.steps_done else self.changed
        left = (at - self._began) / done * (self.num_steps - self.steps_done) - (now - at)
        if plan.seconds_left is not None:
            left = min(left, plan.seconds_left - (now - self._began))
        return max(left, 0.0)

    @property
    def predicted_epoch(self) -> int:
        """The epoch after which the samples were predicted; 0 before there is one."""
        return self._predicted[0]

    @property
    def samples(self) -> list[Card]:
        """A few validation images, and the newest predictions of them."""
        found = []
        for image, likeliest in zip(self._images, self._predicted[1], strict=False):
            shown = [(name, share, name == image["true"]) for name, share in likeliest]
            found.append(Card(image["id"], image["uri"], image["true"], {self.name: shown}))
        return found


def find_runs(folder: Path) -> Iterator[Path]:
    """The run folders in `folder`, or itself, in the order of their names."""
    level = [folder]
    for _ in range(MOST_DEEP + 1):
        below = []
        for each in level:
            if (each / "recipe.json").exists():
                yield each
            else:
                with contextlib.suppress(OSError):
                    below += sorted(path for path in each.iterdir() if path.is_dir())
        level = below


def pruned_runs(folder: Path) -> set[Path]:
    """Of a search in `folder`, the runs that it has ended for being worse than others."""
    with contextlib.suppress(TenfoldError, TypeError, KeyError):
        trials = read_json(folder / "trials.json")["trials"]
        return {folder / each["run"] for each in trials if each["state"] == "pruned"}
    return set()


class Whole(NamedTuple):
    """What the runs belong to. kind: `run`, `study`, `search` or `runs`; num_planned: runs that are
    to come in all, where that is known."""

    kind: str
    title: str
    num_planned: int = 0


def name_of(folder: Path) -> str:
    """A folder by its name; the folder of a run with what its recipe is called."""
    *_, parent, name = ("", *folder.resolve().parts)
    return f"{parent}/{name}" if name.isdecimal() else name


def describe(folder: Path) -> Whole:
    """What is in `folder`. Raises TenfoldError where there is no such folder."""
    if not folder.is_dir():
        raise TenfoldError(
            f"There is no folder {folder}; name a run, a study, a search, or the folder of all "
            "runs, such as runs."
        )
    name = name_of(folder)
    with contextlib.suppress(TenfoldError, TypeError, AttributeError):
        if (folder / "study.json").exists():
            plan = read_json(folder / "study.json")
            return Whole("study", str(plan.get("title") or name), len(plan.get("trials", ())))
        if (folder / "search.json").exists():
            return Whole("search", name)
    return Whole("run" if (folder / "recipe.json").exists() else "runs", name)
