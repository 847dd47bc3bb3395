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


class ClassScore(Fact):
    """How one class fared; None where the class has no images, or was never predicted."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    num_images: int


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

    accuracy_interval: 95 %.
    """

    num_images: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    matthews_correlation: float
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
        return "" if self.num_trained_on else " that it did not learn from"


class Stage(Fact):
    """A part of the training in which `trains` learned `num_trained` parameters, or why not."""

    trains: str
    epochs: int
    num_trained: int
    validation_accuracy: float | None
    skipped: str | None = None


class Training(Fact):
    """What the training took. `ended` is `finished`, `early stopping` or `time limit`."""

    epochs: int
    steps: int
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
    def stage_ends(self) -> tuple[int, ...]:
        """The last epoch of each stage but the last."""
        epochs = [stage.epochs for stage in self.stages if stage.skipped is None]
        return tuple(itertools.accumulate(epochs[:-1]))


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
    hardware: Hardware = Hardware()
    device: str | None = None
    arithmetic: str | None = None
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
