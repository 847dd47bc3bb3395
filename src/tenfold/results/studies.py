"""What a study plans and found: `study.json` and `summary.json`."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo, field_validator

from tenfold.errors import TenfoldError, counted
from tenfold.formatting import hundredths, percent
from tenfold.results.facts import Fact, Gap, read_fact
from tenfold.results.runs import Provenance

Verdict = Literal["beaten", "met", "within the interval", "below", "lower"]
BELOW: Verdict = "below"
LOWER: Verdict = "lower"
VERDICTS: dict[Verdict, str] = {
    "beaten": "beaten",
    "met": "met",
    "within the interval": "within the interval",
    BELOW: "not reproduced",
    LOWER: "above ours, settings partly assumed",
}
"""What a summary calls each verdict, and what a reader is told."""


def _assumed(settings: object) -> object:
    return "assumed" if settings == "guessed" else settings


Settings = Annotated[Literal["source", "assumed"], BeforeValidator(_assumed)]
"""Whose a recipe's settings are; older studies say `guessed` of those that are partly assumed."""


class PublishedResult(Fact):
    """What somebody else reported for a variant, after `epoch` epochs or at the end of training.

    settings: `source` where the recipe has all of the source's. training_mode: whether it was
    measured with the network in training mode.
    """

    accuracy: float
    source: str = ""
    epoch: int | None = None
    settings: Settings = "assumed"
    training_mode: bool = False


class PlannedTrial(Fact):
    """A run of a study: a variant with a seed. recipe: resolved, of whatever version planned it."""

    trial: str
    variant: str = ""
    overrides: tuple[str, ...] = ()
    seed: int
    recipe: dict[str, Any]

    @property
    def title(self) -> str:
        """Its name for people, such as `Leaky ReLU, seed 2`."""
        return f"{self.variant}, seed {self.seed}"


class PlannedVariant(Fact):
    """A variant of a study, and what is published of it."""

    label: str
    published: tuple[PublishedResult, ...] = ()


class StudyPlan(Fact):
    """A study's `study.json`."""

    name: str = ""
    title: str = ""
    question: str = ""
    limits: tuple[str, ...] = ()
    baseline: str | None = None
    variants: tuple[PlannedVariant, ...] = ()
    trials: tuple[PlannedTrial, ...]


def _of_today(over: str) -> str:
    return "images" if over == "pictures" else over


IntervalOver = Annotated[Literal["seeds", "images"], BeforeValidator(_of_today)]
"""Of which older summaries say `pictures` for images."""


class Estimate(Fact):
    """The mean of `values`, one a seed, with a 95 % interval.

    sd: the sample standard deviation, None for one value. interval_over: what the interval lets
    vary. Over `seeds`, it is where the mean of ever more seeds would settle on these images;
    over `images`, where this one network's accuracy would settle on ever more images.
    """

    mean: float
    sd: float | None
    low: float
    high: float
    n: int
    values: tuple[float, ...]
    interval_over: IntervalOver

    @property
    def in_brackets(self) -> str:
        """The interval, `(60.9 to 61.7)`."""
        return f"({hundredths(self.low)} to {hundredths(self.high)})"

    @property
    def in_words(self) -> str:
        """An accuracy, `61.3 % (60.9 to 61.7)`."""
        return f"{percent(self.mean)} {self.in_brackets}"


class Point(Fact):
    """What a variant came to after `epoch` epochs, beside what was published for that.

    training_mode: as `test` or `validation` with the network in training mode, where measured.
    """

    epoch: int
    is_end: bool
    test: Estimate | None
    validation: Estimate | None
    training_mode: Estimate | None = None
    published: PublishedResult | None
    verdict: Verdict | None
    _split: str = PrivateAttr("test")

    @property
    def ours(self) -> Estimate | None:
        """The accuracy on the split that the study is judged by."""
        return self.test if self._split == "test" else self.validation

    @property
    def compared(self) -> Estimate | None:
        """What the published result is held against."""
        in_training_mode = self.published is not None and self.published.training_mode
        return self.training_mode if in_training_mode else self.ours

    @property
    def is_reached(self) -> bool:
        """Whether what was published is within our interval or below it."""
        return self.verdict not in (None, BELOW, LOWER)


class Band(Fact):
    """A value for each epoch with its range over seeds."""

    mean: tuple[Gap, ...]
    low: tuple[Gap, ...]
    high: tuple[Gap, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is no value at all."""
        return all(math.isnan(value) for value in self.mean)


class Curves(Fact):
    """How a variant learned, epoch by epoch."""

    epochs: tuple[int, ...] = Field(alias="epoch")
    train_accuracy: Band
    validation_accuracy: Band
    train_loss: Band
    validation_loss: Band

    def of(self, quantity: str) -> tuple[Band, Band]:
        """`accuracy` or `loss`, in training and in validation."""
        if quantity == "accuracy":
            return self.train_accuracy, self.validation_accuracy
        return self.train_loss, self.validation_loss

    @field_validator("*", mode="before")
    @classmethod
    def _without_values(cls, value: Any, info: ValidationInfo) -> Any:
        gaps = (None,) * len(info.data.get("epochs", ()))
        return {"mean": gaps, "low": gaps, "high": gaps} if value is None else value


class VariantSummary(Fact):
    """One of the things that a study sets side by side; without a run it has no seeds."""

    label: str
    recipe: str | None
    model: str | None
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


class Difference(Fact):
    """The accuracy of one model less that of another, as a share, with its 95 % interval.

    p: two-sided, of no difference. num_seeds: of the one and of the other; where a side has a
    single one, the luck of its seed is not in the interval.
    """

    difference: float
    low: float
    high: float
    p: float
    num_seeds: tuple[int, ...] = Field((), alias="n")


class Comparison(Difference):
    """A variant against the baseline at the end of training.

    p_holm: corrected for there being other comparisons. mcnemar_p: of the runs with the first seed
    that both have, None where they share none.
    """

    variant: str
    baseline: str
    epoch: int | None = None
    p_holm: float
    mcnemar_p: float | None = None
    sentence: str


class Machine(Fact):
    """Where the runs were trained; threads are those of one run."""

    cpu: str | None = None
    instructions: str | None = None
    cores: int | None = None
    device: str | None = None
    threads: int | None = None

    @classmethod
    def of(cls, made: Provenance) -> Self:
        """That of one run."""
        hardware, device = made.hardware, made.device or made.hardware.device
        return cls(
            cpu=hardware.cpu,
            instructions=made.instructions,
            cores=hardware.cores,
            device=device,
            threads=made.threads,
        )

    @property
    def in_words(self) -> str:
        """`AMD EPYC 7B13, AVX2, 2 cores, 1 thread a run`."""
        parts = [self.cpu or "an unnamed processor"]
        if self.instructions:
            parts.append(self.instructions)
        if self.cores:
            parts.append(counted(self.cores, "core"))
        if self.device and self.device != "cpu":
            parts.append(f"on {self.device}")
        if self.threads:
            parts.append(f"{counted(self.threads, 'thread')} a run")
        return ", ".join(parts)


def computed_in(made: Provenance) -> str:
    """`float32 on AMD EPYC 7B13, AVX2, 2 cores`; empty for a run that doesn't say its precision."""
    if made.arithmetic is None:
        return ""
    in_tf32 = made.arithmetic == "float32" and made.matmul_precision not in (None, "highest")
    machine = Machine.of(made).in_words.removesuffix(" a run")
    return f"{'TF32' if in_tf32 else made.arithmetic} on {machine}"


class Failure(Fact):
    """A trial that ended with an error, in one sentence."""

    trial: str
    error: str | None


class Published(NamedTuple):
    """A published result, the variant that stands for it and the point it belongs to."""

    variant: VariantSummary
    point: Point
    result: PublishedResult


class StudySummary(Fact):
    """A study's `summary.json`.

    command: what carries it out again; None where no short one does. data: each data set with the
    sizes of its splits, in words. planned, finished, failed: numbers of runs.
    machine: None where there were several `machines`.
    """

    name: str
    title: str
    question: str
    limits: tuple[str, ...]
    command: str | None = None
    data: tuple[str, ...] = ()
    baseline: str | None
    planned: int
    finished: int
    failed: int
    failures: tuple[Failure, ...]
    machine: Machine | None = None
    machines: tuple[Machine, ...] = ()
    variants: tuple[VariantSummary, ...]
    comparisons: tuple[Comparison, ...]
    findings: tuple[str, ...]

    def model_post_init(self, _: Any) -> None:
        for point in self._points():
            point._split = self.split

    @property
    def split(self) -> str:
        """What its accuracies are of: `validation` where that alone was measured, else `test`."""
        has_test = any(point.test for point in self._points())
        measured = has_test or not any(point.validation for point in self._points())
        return "test" if measured else "validation"

    @property
    def all_machines(self) -> tuple[Machine, ...]:
        """The one machine, or all of several."""
        return self.machines or ((self.machine,) if self.machine else ())

    @property
    def num_missing(self) -> int:
        """How many planned runs have neither finished nor failed."""
        return max(self.planned - self.finished - self.failed, 0)

    @property
    def was_cut_short(self) -> bool:
        """Whether a planned run has no result."""
        return self.num_missing > 0 or self.failed > 0

    @property
    def followed(self) -> tuple[VariantSummary, ...]:
        """The variants that were measured on the way as well, not only at the end."""
        return tuple(variant for variant in self.variants if len(variant.points) > 1)

    @property
    def milestones(self) -> tuple[int, ...]:
        """Every epoch that one of them was measured at, in order."""
        return tuple(sorted({point.epoch for v in self.followed for point in v.points}))

    @property
    def published(self) -> tuple[Published, ...]:
        """Every published result, reproduced or not, in the order of variants and epochs."""
        return tuple(
            Published(variant, point, point.published)
            for variant in self.variants
            for point in variant.points
            if point.published
        )

    @property
    def kinds_of_interval(self) -> set[str]:
        """What the intervals of the accuracies are over: `seeds`, `images`, or both."""
        return {point.ours.interval_over for point in self._points() if point.ours}

    @property
    def over_images(self) -> tuple[VariantSummary, ...]:
        """The variants of which a single seed was run, so that an interval is over images."""
        return tuple(
            variant
            for variant in self.variants
            if any(p.ours and p.ours.interval_over == "images" for p in variant.points)
        )

    def _points(self) -> list[Point]:
        return [point for variant in self.variants for point in variant.points]


def read_plan(folder: Path) -> StudyPlan:
    """The plan of the study in `folder`. Raises TenfoldError where there is none, or a damaged."""
    path = folder / "study.json"
    if not path.exists():
        raise TenfoldError(f"There is no study in {folder}; `tenfold study` makes one.")
    remedy = "it is not the plan of a study: restore it, or give another --folder"
    return read_fact(path, StudyPlan, remedy=remedy)


def read_study(folder: Path) -> StudySummary:
    """What `folder/summary.json` says. Raises TenfoldError where it is missing or damaged."""
    path = folder / "summary.json"
    if not path.exists():
        raise TenfoldError(
            f"There is no summary of a study in {folder}: {path.name} is missing; `tenfold study` "
            "writes it there."
        )
    remedy = "it is not the summary of a study: remove it and repeat the command of the study"
    return read_fact(path, StudySummary, remedy=remedy)
