"""A study's summary.json as values, for its page and for the document of all results."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tenfold.errors import TenfoldError
from tenfold.files import read_json

BELOW, LOWER = "below", "lower"
VERDICTS = {
    "beaten": "beaten",
    "met": "met",
    "within the interval": "within the interval",
    BELOW: "not reproduced",
    LOWER: "above ours, settings partly guessed",
}
"""What a summary calls each verdict, and what a reader is told."""


@dataclass(frozen=True)
class Estimate:
    """The mean of `values`, one a seed, with a 95 % interval over seeds or over test pictures.

    Accuracies are shares, times seconds. sd, low and high are None where they are not known.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    values: tuple[float, ...]
    interval_over: str

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None where one is missing."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Point:
    """What a variant came to after `epoch` epochs, beside what was published for that.

    ours: its accuracy on the test split, or on the validation split where the data has no test.
    training_mode: the same with the network in training mode, where that was measured.
    is_of_source: whether all settings are those of what was published.
    """

    epoch: int
    is_end: bool
    ours: Estimate | None
    training_mode: Estimate | None
    published: float | None
    source: str
    is_of_source: bool
    is_in_training_mode: bool
    verdict: str | None

    @property
    def is_reached(self) -> bool:
        """Whether what was published is within our interval or below it."""
        return self.verdict not in (None, BELOW, LOWER)


@dataclass(frozen=True)
class Band:
    """A value for each epoch with its range over seeds, NaN where there is none."""

    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is no value at all."""
        return all(math.isnan(value) for value in self.mean)


@dataclass(frozen=True)
class Curves:
    """How a variant learned, epoch by epoch."""

    epochs: tuple[int, ...]
    train_accuracy: Band
    validation_accuracy: Band
    train_loss: Band
    validation_loss: Band


@dataclass(frozen=True)
class Variant:
    """One of the things that a study sets side by side; without a run it has no seeds."""

    label: str
    recipe: str
    model: str
    num_parameters: int | None
    planned_seeds: int
    seeds: tuple[int, ...]
    training_seconds: Estimate | None
    process_seconds: Estimate | None
    points: tuple[Point, ...]
    curves: Curves | None

    @property
    def end(self) -> Point | None:
        """The point at the end of training."""
        return next((point for point in reversed(self.points) if point.is_end), None)

    @property
    def result(self) -> Estimate | None:
        """The accuracy at the end of training."""
        return self.end.ours if self.end else None


@dataclass(frozen=True)
class Difference:
    """A variant against the baseline: test accuracies subtracted, as shares."""

    variant: str
    baseline: str
    epoch: int | None
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    mcnemar_p: float | None
    num_seeds: tuple[int, ...]
    sentence: str


@dataclass(frozen=True)
class Machine:
    """Where the runs were trained; threads are those of one run."""

    cpu: str
    cores: int | None
    device: str
    threads: int | None


class Failure(NamedTuple):
    """A trial that ended with an error, in one sentence."""

    trial: str
    error: str


class Published(NamedTuple):
    """A published number: the variant that stands for it and the point it belongs to."""

    variant: Variant
    point: Point


@dataclass(frozen=True)
class Study:
    """A study as its summary tells it.

    command: what carries it out again; empty where no short one does. split: what its accuracies
    are of.
    """

    name: str
    title: str
    question: str
    limits: tuple[str, ...]
    command: str
    baseline: str | None
    split: str
    num_planned: int
    num_finished: int
    num_failed: int
    failures: tuple[Failure, ...]
    machines: tuple[Machine, ...]
    variants: tuple[Variant, ...]
    differences: tuple[Difference, ...]
    findings: tuple[str, ...]

    @property
    def num_missing(self) -> int:
        """How many planned runs have neither finished nor failed."""
        return max(self.num_planned - self.num_finished - self.num_failed, 0)

    @property
    def was_cut_short(self) -> bool:
        """Whether a planned run has no result."""
        return self.num_missing > 0 or self.num_failed > 0

    @property
    def followed(self) -> tuple[Variant, ...]:
        """The variants that were measured on the way as well, not only at the end."""
        return tuple(variant for variant in self.variants if len(variant.points) > 1)

    @property
    def has_milestones(self) -> bool:
        """Whether there are such variants."""
        return bool(self.followed)

    @property
    def milestones(self) -> tuple[int, ...]:
        """Every epoch that one of them was measured at, in order."""
        return tuple(sorted({point.epoch for v in self.followed for point in v.points}))

    @property
    def published(self) -> tuple[Published, ...]:
        """Every published number, reproduced or not, in the order of variants and epochs."""
        return tuple(
            Published(variant, point)
            for variant in self.variants
            for point in variant.points
            if point.published is not None
        )

    @property
    def kinds_of_interval(self) -> set[str]:
        """What the intervals of the accuracies are over: `seeds`, `pictures`, or both."""
        return {point.ours.interval_over for v in self.variants for point in v.points if point.ours}


def read_study(folder: Path) -> Study:
    """The study that `folder/summary.json` describes.

    Raises TenfoldError where that file is missing, or is not a study's summary.
    """
    path = folder / "summary.json"
    if not path.exists():
        raise TenfoldError(
            f"There is no summary of a study in {folder}: {path.name} is missing; `tenfold study` "
            "writes it there."
        )
    value = read_json(path)
    try:
        return _study(value)
    except KeyError as error:
        problem = f"{error} is missing"
    except (TypeError, ValueError, AttributeError) as error:
        problem = str(error)
    raise TenfoldError(
        f"{path} is not the summary of a study ({problem}); remove it and repeat the command of "
        "the study, which writes it again."
    )


def _study(value: Mapping[str, Any]) -> Study:
    machines = value.get("machines") or [value.get("machine")]
    split = _split(value["variants"])
    return Study(
        name=str(value["name"]),
        title=str(value["title"]),
        question=str(value["question"]),
        limits=_texts(value["limits"]),
        command=str(value.get("command") or ""),
        baseline=value["baseline"],
        split=split,
        num_planned=int(value["planned"]),
        num_finished=int(value["finished"]),
        num_failed=int(value["failed"]),
        failures=tuple(Failure(str(f["trial"]), str(f["error"])) for f in value["failures"]),
        machines=tuple(_machine(machine) for machine in machines if machine),
        variants=tuple(_variant(variant, split) for variant in value["variants"]),
        differences=tuple(_difference(one) for one in value["comparisons"]),
        findings=_texts(value["findings"]),
    )


def _split(variants: Sequence[Mapping[str, Any]]) -> str:
    """`validation` where that alone was measured."""
    points = [point for variant in variants for point in variant["points"]]
    has_test = any(point["test"] for point in points)
    return "test" if has_test or not any(point["validation"] for point in points) else "validation"


def _variant(value: Mapping[str, Any], split: str) -> Variant:
    number = value["num_parameters"]
    return Variant(
        label=str(value["label"]),
        recipe=str(value["recipe"] or ""),
        model=str(value["model"] or ""),
        num_parameters=None if number is None else int(number),
        planned_seeds=int(value["planned_seeds"]),
        seeds=tuple(int(seed) for seed in value["seeds"]),
        training_seconds=_estimate(value["training_seconds"]),
        process_seconds=_estimate(value["process_seconds"]),
        points=tuple(_point(point, split) for point in value["points"]),
        curves=_curves(value["curves"]),
    )


def _point(value: Mapping[str, Any], split: str) -> Point:
    published = value["published"]
    verdict = value["verdict"]
    if verdict is not None and verdict not in VERDICTS:
        raise ValueError(f"the verdict {verdict!r} is none of {', '.join(VERDICTS)}")
    return Point(
        epoch=int(value["epoch"]),
        is_end=bool(value["is_end"]),
        ours=_estimate(value[split]),
        training_mode=_estimate(value.get("training_mode")),
        published=float(published["accuracy"]) if published else None,
        source=str(published.get("source") or "") if published else "",
        is_of_source=bool(published) and published.get("settings") == "source",
        is_in_training_mode=bool(published) and bool(published.get("training_mode")),
        verdict=verdict,
    )


def _estimate(value: Mapping[str, Any] | None) -> Estimate | None:
    mean = _number(value["mean"]) if value else None
    if value is None or mean is None:
        return None
    return Estimate(
        mean=mean,
        sd=_number(value["sd"]),
        low=_number(value["low"]),
        high=_number(value["high"]),
        values=tuple(float(one) for one in value["values"]),
        interval_over=str(value["interval_over"]),
    )


def _curves(value: Mapping[str, Any] | None) -> Curves | None:
    if not value or not value["epoch"]:
        return None
    epochs = tuple(int(epoch) for epoch in value["epoch"])
    names = ("train_accuracy", "validation_accuracy", "train_loss", "validation_loss")
    return Curves(epochs, *(_band(value[name], len(epochs)) for name in names))


def _band(value: Mapping[str, Any] | None, length: int) -> Band:
    sides = []
    for side in ("mean", "low", "high"):
        numbers = [_number(one) for one in value[side]] if value else []
        if value and len(numbers) != length:
            raise ValueError(f"a curve has {len(numbers)} values for {length} epochs")
        found = tuple(math.nan if number is None else number for number in numbers)
        sides.append(found or (math.nan,) * length)
    return Band(*sides)


def _difference(value: Mapping[str, Any]) -> Difference:
    epoch = value.get("epoch")
    return Difference(
        variant=str(value["variant"]),
        baseline=str(value["baseline"]),
        epoch=None if epoch is None else int(epoch),
        difference=float(value["difference"]),
        low=_number(value["low"]),
        high=_number(value["high"]),
        p=_number(value["p"]),
        p_holm=_number(value["p_holm"]),
        mcnemar_p=_number(value.get("mcnemar_p")),
        num_seeds=tuple(int(number) for number in value.get("n") or ()),
        sentence=str(value["sentence"]),
    )


def _machine(value: Mapping[str, Any]) -> Machine:
    return Machine(
        cpu=str(value.get("cpu") or ""),
        cores=value.get("cores"),
        device=str(value.get("device") or ""),
        threads=value.get("threads"),
    )


def _texts(value: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(one) for one in value)


def _number(value: Any) -> float | None:
    """A finite number, or None: a diverged loss or a missing value is shown as a gap."""
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None
