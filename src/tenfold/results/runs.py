"""What a run found: `result.json`, `metrics.jsonl`, `timings.jsonl` and `provenance.json`."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, ValidationError

from tenfold.errors import TenfoldError
from tenfold.results.facts import Fact, Gap, read_fact
from tenfold.validation import sentence_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


Ends = tuple[float, float]
"""Of a 95 % interval."""


class ClassScore(Fact):
    """How one class fared, against the rest; None where it has no images, or nothing else has.

    recall: also called sensitivity. auc: of the ROC curve of the class's probability.
    average_precision: of its precision-recall curve.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    num_images: int
    recall_interval: Ends | None = None
    specificity: float | None = None
    specificity_interval: Ends | None = None
    auc: float | None = None
    auc_interval: Ends | None = None
    average_precision: float | None = None


class Mistake(Fact):
    """Images of one class that were taken for another: how many, and which share of the class."""

    true: str
    predicted: str
    count: int
    share: float


class ConfidenceHistogram(Fact):
    """Predictions by confidence: edges of the bins, and how many in each are right and wrong."""

    bin_edges: tuple[float, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]


class LabelMetrics(Fact):
    """What labels alone say of predictions. confusion: a row for each true class.

    accuracy_interval: 95 %. macro_f1, balanced_accuracy: means of F1 and of recall over the classes
    that have images.
    """

    num_images: int
    accuracy: float
    accuracy_interval: Ends
    matthews_correlation: float
    macro_f1: float | None = None
    balanced_accuracy: float | None = None
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    most_confused: tuple[Mistake, ...]

    @property
    def matrix(self) -> "NDArray[np.int64]":
        """The confusion matrix as `(C, C)` int64."""
        import numpy as np

        return np.array(self.confusion, dtype=np.int64)


class Metrics(LabelMetrics):
    """The metrics of one split. loss: mean cross-entropy in nats.

    num_trained_on: how many of its images the run was trained on, in an earlier session or
    elsewhere. accuracy_in_training_mode: with dropout and the statistics of each batch.
    """

    top5_accuracy: float | None = None
    loss: float
    confidence: ConfidenceHistogram
    images_per_second: float | None = None
    accuracy_in_training_mode: float | None = None
    num_trained_on: int = 0

    @property
    def unseen(self) -> str:
        """Words about its images, where they are true of all."""
        return "" if self.num_trained_on else " that it was not trained on"


class Stage(Fact):
    """A part of the training in which `trains` learned `num_trained` parameters, or why not."""

    trains: str
    epochs: int
    num_trained: int
    validation_accuracy: float | None
    skipped: str | None = None


class Training(Fact):
    """What the training took. `ended` is `finished`, `early stopping` or `time limit`.

    flop: counted, of all steps: forward and backward passes, convolutions and matrix products
    alone. training_seconds: spent in steps. wall_seconds: with validation and everything else.
    process_seconds: of all cores, until the training's end.
    """

    epochs: int
    steps: int
    flop: float | None = None
    training_seconds: float | None = None
    compile_seconds: float = 0.0
    wall_seconds: float
    process_seconds: float | None = None
    images_per_second: float | None = None
    peak_memory_bytes: int | None = None
    ended: str = "finished"
    best_epoch: int | None = None
    stages: tuple[Stage, ...] = ()

    @property
    def seconds(self) -> float:
        """What is shown as training time: spent in steps, or in all where that is not known."""
        return self.training_seconds or self.wall_seconds

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """The last epoch of each stage but the last."""
        epochs = [stage.epochs for stage in self.stages if stage.skipped is None]
        return tuple(itertools.accumulate(epochs[:-1]))


class Cost(Fact):
    """What a whole run took, from reading the data to the written result, as a bench measures it.

    core_seconds: of all cores. product_rate: of float32 matrix products on this machine meanwhile,
    in FLOP/s. matmul_equivalents: seconds times product_rate, the FLOP that the machine could have
    spent on such products in that time, whatever the run computed. utilisation: counted FLOP of
    the training over what its seconds had room for, at the fastest rate of the run's precision.
    """

    seconds: float
    core_seconds: float
    product_rate: float
    matmul_equivalents: float
    utilisation: float | None = None

    def without(self, seconds: float) -> Self:
        """The cost of the rest where `seconds` went into something else."""
        rest = self.matmul_equivalents - seconds * self.product_rate
        return self.model_copy(
            update={"seconds": self.seconds - seconds, "matmul_equivalents": rest}
        )


class Network(Fact):
    """The model that was trained. weights: where a pretrained one has its own from, in words."""

    name: str
    num_parameters: int
    weights: str | None = None


class UseOfTest(Fact):
    """One time that the test split was opened, and what for."""

    time: str
    split: str = "test"
    purpose: str
    accuracy: float | None = None


class Score(Fact):
    """What the weights of a milestone reach on a split."""

    accuracy: float
    loss: float | None = None
    accuracy_in_training_mode: float | None = None


class Milestone(Fact):
    """Scores by split after `epoch` epochs."""

    epoch: int
    splits: dict[str, Score]


class Threshold(Fact):
    """A confidence from which on a model answers.

    accuracy: what is asked of the answers. confidence: the threshold; above 1 where none promises
    that accuracy. coverage, reached: the share of images that are answered, and that of right
    answers among them, where the threshold was chosen. num_images: validation images that it was
    fitted on; 0 for one of an older version, which promised what half of the fits didn't hold.
    """

    accuracy: float
    confidence: float
    coverage: float
    reached: float
    num_images: int = 0


class Fitted(Fact):
    """What was fitted on validation images, for predictions of others.

    temperature: what logits are divided by. thresholds: confidences from which on answers are as
    accurate as asked. sets: for each promised coverage, the probability from which on a class
    belongs to a set. num_images: how many images it was fitted on.
    """

    temperature: float
    thresholds: tuple[Threshold, ...]
    sets: tuple[tuple[float, float], ...]
    num_images: int


class Rates(Fact):
    """What a threshold does to the images of a class, and to the others, of a split."""

    num_positive: int
    num_negative: int
    sensitivity: float | None
    sensitivity_interval: Ends | None
    specificity: float | None
    specificity_interval: Ends | None
    precision: float | None


class OperatingPoint(Fact):
    """From which probability on an image counts as one of `class_name`.

    sensitivity: the share of the class's images that is found, with 95 % certainty, as far as the
    validation images say. temperature: of the probabilities that it was chosen on. splits: what it
    does on the validation images and on others.
    """

    class_name: str
    sensitivity: float
    threshold: float
    temperature: float
    splits: dict[str, Rates]


class Unfitted(Fact):
    """Why nothing could be fitted, as a sentence."""

    unfitted: str


class Result(Fact):
    """A run's `result.json`; `splits` has a key such as `test of photos` for other data."""

    model: Network
    training: Training
    splits: dict[str, Metrics]
    test_uses: tuple[UseOfTest, ...] = ()
    calibration: Fitted | Unfitted | None = None
    milestones: tuple[Milestone, ...] = ()
    cost: Cost | None = None
    operating_points: tuple[OperatingPoint, ...] = ()

    def with_operating_point(self, point: OperatingPoint) -> Self:
        """The same with `point` in the place of an earlier one of its class."""
        others = [each for each in self.operating_points if each.class_name != point.class_name]
        return self.model_copy(update={"operating_points": (*others, point)})

    def with_use(self, use: UseOfTest) -> Self:
        """The same with one more look at test images; other splits are not listed."""
        if not use.split.startswith("test"):
            return self
        return self.model_copy(update={"test_uses": (*self.test_uses, use)})

    def with_metrics(self, metrics: Metrics, use: UseOfTest) -> Self:
        """The same with the metrics of the split that `use` looked at."""
        splits = {**self.splits, use.split: metrics}
        return self.model_copy(update={"splits": splits}).with_use(use)


class Epoch(Fact):
    """One line of metrics.jsonl, with what timings.jsonl adds to it where that is there."""

    number: int = Field(alias="epoch")
    step: int | None = None
    learning_rate: float | None = None
    train_loss: Gap
    train_accuracy: Gap
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    training_seconds: float | None = None
    images_per_second: float | None = None


class Git(Fact):
    """The checkout that tenfold ran from."""

    commit: str = ""
    dirty: bool = False


class Hardware(Fact):
    """The machine. device: as runs of early versions have it."""

    cpu: str | None = None
    cores: int | None = None
    memory_bytes: int | None = None
    device: str | None = None


class DataFacts(Fact):
    """What a run was trained on; splits and class_counts hold numbers of images, corrections the
    SHA-256 of the file by which labels were corrected."""

    name: str | None = None
    location: str | None = None
    source: str | None = None
    checksums: dict[str, str] = Field(default_factory=dict)
    corrections: str | None = None
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    image_size: tuple[int, int] | None = None
    splits: dict[str, int] = Field(default_factory=dict)
    class_counts: dict[str, tuple[int, ...]] = Field(default_factory=dict)


class Session(Fact):
    """One command that worked on a run."""

    started: str = ""
    command: str = ""
    resumed_at_step: int | None = None


class Provenance(Fact):
    """A run's `provenance.json`: what it was made with."""

    tenfold: str | None = None
    git: Git | None = None
    python: str | None = None
    platform: str | None = None
    libraries: dict[str, str] = Field(default_factory=dict)
    code: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the files that parts of one's own are from."""
    teacher: str | None = None
    """SHA-256 of the weights that were learned from, where a network taught this one."""
    hardware: Hardware = Hardware()
    device: str | None = None
    arithmetic: str | None = None
    matmul_precision: str | None = None
    """Of float32 products, as torch names it: `highest`, or `high` for TF32 on a GPU."""
    instructions: str | None = None
    """What the processor computes with, such as `AVX2`."""
    processes: int | None = None
    threads: int | None = None
    seed: int | None = None
    closing: dict[str, Any] | None = None
    data: DataFacts = DataFacts()
    sessions: tuple[Session, ...] = ()


def read_result(path: Path) -> Result:
    """The result of a finished run. Raises TenfoldError as `read_fact` does."""
    return read_fact(path, Result, remedy="restore it, or remove it and evaluate the run again")


def read_provenance(path: Path) -> Provenance:
    """What a run was made with; empty where there is no such file. Raises as `read_fact` does."""
    if not path.exists():
        return Provenance()
    return read_fact(path, Provenance, remedy="restore it or remove it")


def read_epochs(metrics: Path, timings: Path) -> tuple[Epoch, ...]:
    """The epochs in a run's logs. A line cut off at the end is one that is being written now.

    Raises TenfoldError where another line is none.
    """
    seconds = _by_epoch(timings)
    lines = sorted(_by_epoch(metrics).items())
    try:
        return tuple(Epoch.model_validate({**seconds.get(n, {}), **line}) for n, line in lines)
    except ValidationError as error:
        raise TenfoldError(
            sentence_of(error, metrics, kind=Epoch, remedy="remove that line")
        ) from error


def _by_epoch(path: Path) -> dict[int, dict[str, Any]]:
    if not path.exists():
        return {}
    lines: Sequence[str] = path.read_text(encoding="utf-8", errors="replace").splitlines()
    epochs: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            epochs[int(values["epoch"])] = values
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise TenfoldError(
                    f"{path}, line {number}, is not one epoch in JSON; remove that line."
                ) from error
    return epochs
