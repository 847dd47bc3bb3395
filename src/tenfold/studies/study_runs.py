"""What a study's folder holds: its plan, and the finished runs of each variant."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import TenfoldError
from tenfold.evaluation.predictions import load_predictions
from tenfold.files import read_json
from tenfold.run import RunFolder
from tenfold.studies.results import Record, read_log

END = 0
"""Stands for the end of training where an epoch is meant."""


@dataclass(frozen=True)
class Answers:
    """Which pictures a run got right: ids (N,), sorted and distinct, and right (N,) bool."""

    ids: NDArray[np.str_]
    right: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run with its result. metrics: a mapping an epoch, as the run logged them."""

    seed: int
    folder: RunFolder
    result: Mapping[str, Any]
    provenance: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]

    @property
    def epochs(self) -> int | None:
        """How many it was trained for."""
        epochs = self.result.get("training", {}).get("epochs")
        return None if epochs is None else int(epochs)

    @property
    def milestones(self) -> dict[int, Mapping[str, Any]]:
        """Scores by split after each epoch that was evaluated on the way."""
        entries = self.result.get("milestones") or []
        return {int(entry["epoch"]): entry["splits"] for entry in entries}

    def accuracy(self, split: str, *, epoch: int = END, key: str = "accuracy") -> float | None:
        """The accuracy on `split` after `epoch`; None where it was not evaluated."""
        splits = self.result["splits"]
        if epoch not in (END, self.epochs):
            splits = self.milestones.get(epoch, {})
        return finite(splits.get(split, {}).get(key))

    def num_pictures(self, split: str) -> int | None:
        """How many pictures `split` has."""
        number = self.result["splits"].get(split, {}).get("num_images")
        number = number or self.provenance.get("data", {}).get("splits", {}).get(split)
        return None if number is None else int(number)

    def answers(self, split: str) -> Answers | None:
        """Its answers at the end of training; None where they were not kept."""
        path = self.folder.predictions(split)
        if not path.exists():
            return None
        predictions = load_predictions(path)
        ids, first = np.unique(predictions.ids, return_index=True)
        right = predictions.logits.argmax(axis=1) == predictions.labels
        return Answers(ids, right[first])


@dataclass(frozen=True, eq=False)
class VariantRuns:
    """A variant of a study: what is published of it, what was planned and what is finished.

    recipe: that of its first trial. published: mappings with the fields of `Published`. runs: by
    seed, in rising order.
    """

    label: str
    published: Sequence[Mapping[str, Any]]
    recipe: Mapping[str, Any]
    num_planned: int
    runs: tuple[FinishedRun, ...]

    @property
    def last_epoch(self) -> int:
        """How many epochs its longest run was trained for, or is to be."""
        known = [run.epochs for run in self.runs if run.epochs]
        return max(known) if known else int(self.recipe.get("training", {}).get("epochs", 0))

    @property
    def milestones(self) -> list[int]:
        """The epochs on the way after which a run was evaluated, or is to be."""
        planned = self.recipe.get("training", {}).get("milestones") or []
        epochs = {int(epoch) for epoch in planned}.union(*(run.milestones for run in self.runs))
        return sorted(epoch for epoch in epochs if epoch < self.last_epoch)

    def accuracies(
        self, split: str, *, epoch: int = END, key: str = "accuracy"
    ) -> dict[int, float]:
        """The accuracy on `split` after `epoch` of each seed that has one."""
        found = {run.seed: run.accuracy(split, epoch=epoch, key=key) for run in self.runs}
        return {seed: value for seed, value in found.items() if value is not None}

    def num_pictures(self, split: str) -> int | None:
        """How many pictures `split` has, as its first run that knows says."""
        return next((n for run in self.runs if (n := run.num_pictures(split))), None)


@dataclass(frozen=True, eq=False)
class StudyRuns:
    """A study as it stands.

    failed: the records of the trials that failed. missing: names of trials that are recorded as
    finished but have no result any more. planned: the number of trials.
    """

    name: str
    title: str
    question: str
    limits: tuple[str, ...]
    baseline: str | None
    variants: tuple[VariantRuns, ...]
    planned: int
    failed: tuple[Record, ...]
    missing: tuple[str, ...]

    @property
    def runs(self) -> list[FinishedRun]:
        """All finished runs, variant by variant."""
        return [run for variant in self.variants for run in variant.runs]

    @cached_property
    def split(self) -> str:
        """The split that results are of: test, or validation where no run has a test."""
        has_test = any("test" in run.result["splits"] for run in self.runs)
        return "test" if has_test or not self.runs else "validation"


def read_study_runs(folder: Path) -> StudyRuns:
    """The study in `folder`, with the runs that are finished by now.

    Plans without variants, as tenfold 0.1 wrote them, have one for each combination of overrides.
    Raises TenfoldError where there is no study, or where a file of it is damaged.
    """
    path = folder / "study.json"
    if not path.exists():
        raise TenfoldError(f"There is no study in {folder}; `tenfold study` makes one.")
    plan = read_json(path)
    try:
        trials = [{**trial, "variant": _label(trial)} for trial in plan["trials"]]
        planned = plan.get("variants") or [{"label": label} for label in _labels(trials)]
        name = str(plan.get("name") or folder.resolve().name)
        title, question = str(plan.get("title") or name), str(plan.get("question") or "")
        limits, baseline = tuple(plan.get("limits") or ()), plan.get("baseline") or None
        recorded = _latest_records(folder, [str(trial["trial"]) for trial in trials])
        finished = [record for record in recorded if record["status"] == "finished"]
        runs = {r["trial"]: run for r in finished if (run := _read_run(folder, r)) is not None}
        variants = tuple(_variant(entry, trials, runs) for entry in planned)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TenfoldError(
            f"{path} is not the plan of a study ({type(error).__name__}: {error}); restore it, or "
            "give another --folder."
        ) from error
    return StudyRuns(
        name=name,
        title=title,
        question=question,
        limits=limits,
        baseline=baseline,
        variants=variants,
        planned=len(trials),
        failed=tuple(record for record in recorded if record["status"] == "failed"),
        missing=tuple(r["trial"] for r in finished if r["trial"] not in runs),
    )


def _latest_records(folder: Path, names: Sequence[str]) -> list[Record]:
    """The latest record of each of these trials that has one."""
    latest = {record["trial"]: record for record in read_log(folder / "results.jsonl").records}
    return [latest[name] for name in names if name in latest]


def finite(value: Any) -> float | None:
    """`value` as a number; None where there is none or it is infinite."""
    if value is None or not math.isfinite(value):
        return None
    return float(value)


def _label(trial: Mapping[str, Any]) -> str:
    overrides = ", ".join(trial.get("overrides") or ())
    return str(trial.get("variant") or overrides or trial["recipe"].get("name") or "the recipe")


def _labels(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(trial["variant"] for trial in trials))


def _variant(
    entry: Mapping[str, Any],
    trials: Sequence[Mapping[str, Any]],
    runs: Mapping[str, FinishedRun],
) -> VariantRuns:
    own = [trial for trial in trials if trial["variant"] == entry["label"]]
    finished = (runs[trial["trial"]] for trial in own if trial["trial"] in runs)
    return VariantRuns(
        label=str(entry["label"]),
        published=tuple(entry.get("published") or ()),
        recipe=own[0]["recipe"] if own else {},
        num_planned=len(own),
        runs=tuple(sorted(finished, key=lambda run: run.seed)),
    )


def _read_run(folder: Path, record: Record) -> FinishedRun | None:
    run = RunFolder(folder / record["run"])
    if not run.is_finished():
        return None
    result = read_json(run.result)
    if not isinstance(result, dict) or not isinstance(result.get("splits"), dict):
        raise TenfoldError(f"{run.result} is not the result of a run; restore it or remove it.")
    provenance = read_json(run.provenance) if run.provenance.exists() else {}
    return FinishedRun(record["seed"], run, result, provenance, _read_metrics(run.metrics))


def _read_metrics(path: Path) -> list[Mapping[str, Any]]:
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise TenfoldError(f"{path} can't be read ({error}); restore it or remove it.") from error
