"""Run folders, read into values that the report can count on."""

import itertools
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import TenfoldError
from tenfold.evaluation.calibration import fitted_of
from tenfold.evaluation.probabilities import softmax
from tenfold.files import read_json

SPLITS = ("test", "validation")


@dataclass(frozen=True)
class Epoch:
    """One line of metrics.jsonl, with what timings.jsonl adds to it where that is there."""

    number: int
    learning_rate: float | None
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    training_seconds: float | None = None
    images_per_second: float | None = None


@dataclass(frozen=True)
class ClassScore:
    """How one class fared; precision is None where the class was never predicted."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    num_images: int


@dataclass(frozen=True)
class Mistake:
    """Pictures of one class that were taken for another: how many, and which share of the class."""

    true: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True, eq=False)
class Scores:
    """The metrics of one split. confusion: `(C, C)` int64, rows are true classes. num_trained_on:
    how many of its images the run was trained on, in an earlier session or elsewhere."""

    num_images: int
    accuracy: float
    interval: tuple[float, float]
    top5_accuracy: float | None
    loss: float
    matthews_correlation: float
    per_class: tuple[ClassScore, ...]
    confusion: NDArray[np.int64]
    most_confused: tuple[Mistake, ...]
    confidence_edges: tuple[float, ...]
    confidence_right: tuple[int, ...]
    confidence_wrong: tuple[int, ...]
    images_per_second: float | None
    num_trained_on: int = 0

    @property
    def unseen(self) -> str:
        """Words about its images, where they are true of all."""
        return "" if self.num_trained_on else " that it did not learn from"


@dataclass(frozen=True)
class Stage:
    """A part of the training in which `trains` learned; accuracy is that on validation."""

    trains: str
    epochs: int
    num_trained: int
    accuracy: float | None


@dataclass(frozen=True)
class Training:
    """What the training took. `ended` is `finished`, `early stopping` or `time limit`."""

    epochs: int
    steps: int
    wall_seconds: float
    images_per_second: float | None
    peak_memory_bytes: int | None
    ended: str
    best_epoch: int | None
    stages: tuple[Stage, ...] = ()

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """The last epoch of each stage but the last."""
        return tuple(itertools.accumulate(stage.epochs for stage in self.stages[:-1]))


@dataclass(frozen=True)
class UseOfTest:
    """One time that the test split was opened, and what for."""

    time: str
    purpose: str
    accuracy: float | None


@dataclass(frozen=True, eq=False)
class Answers:
    """A model's answers to one split, picture by picture.

    probabilities: `(N, C)` float32, the softmax of the logits over the run's temperature; labels:
    `(N,)` int64; ids: `(N,)` unicode.
    """

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: NDArray[np.str_]
    class_names: tuple[str, ...]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """`(N,)` int64, the class given the highest probability."""
        indices: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return indices

    @property
    def right(self) -> NDArray[np.bool_]:
        """`(N,)` bool, whether that class is the true one."""
        right: NDArray[np.bool_] = self.predicted == self.labels
        return right


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder's content; what an unfinished run lacks is None or empty."""

    folder: Path
    label: str
    recipe: Mapping[str, Any]
    provenance: Mapping[str, Any]
    epochs: tuple[Epoch, ...]
    num_parameters: int | None
    weights: str | None
    training: Training | None
    scores: Mapping[str, Scores]
    test_uses: tuple[UseOfTest, ...]
    answers: Mapping[str, Answers]

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """The last epoch of each stage but the last, of a run that is finished."""
        return self.training.stage_ends if self.training is not None else ()

    @property
    def finished(self) -> bool:
        """Whether the training came to its end and was evaluated."""
        return self.training is not None

    @property
    def model_name(self) -> str:
        """What kind of network it is, such as `cnn`."""
        return str(_table(self.recipe, "model").get("name", "model"))

    @property
    def seed(self) -> int | None:
        """The seed the run was started with."""
        seed = self.recipe.get("seed", self.provenance.get("seed"))
        return None if seed is None else int(seed)

    @property
    def data(self) -> Mapping[str, Any]:
        """What the provenance says about the data set."""
        return _table(self.provenance, "data")

    @property
    def data_name(self) -> str:
        """The data set's name."""
        return str(self.data.get("name") or _table(self.recipe, "data").get("name", "data"))

    @property
    def data_notes(self) -> tuple[str, ...]:
        """What a reader must know about the data set."""
        return tuple(str(note) for note in self.data.get("notes") or ())

    @property
    def shown_split(self) -> str | None:
        """The split whose scores count: test where there is one, else validation, else none."""
        return next((split for split in SPLITS if split in self.scores), None)

    @property
    def shown_scores(self) -> Scores | None:
        """The scores of that split."""
        return None if self.shown_split is None else self.scores[self.shown_split]

    @property
    def shown_answers(self) -> Answers | None:
        """The answers to that split, where they were kept."""
        return None if self.shown_split is None else self.answers.get(self.shown_split)


def read_runs(folders: Sequence[Path]) -> tuple[Run, ...]:
    """The runs in `folders`, with labels that tell them apart; raises what `read_run` does."""
    names = [_recipe_name(_recipe_of(folder), folder) for folder in folders]
    labels = [
        name if names.count(name) == 1 else f"{name}/{folder.resolve().name}"
        for name, folder in zip(names, folders, strict=True)
    ]
    if len(set(labels)) < len(labels):
        labels = [str(folder) for folder in folders]
    return tuple(
        read_run(folder, label=label) for folder, label in zip(folders, labels, strict=True)
    )


def read_run(folder: Path, *, label: str | None = None) -> Run:
    """The run in `folder`; `label` is the recipe's name unless another is given.

    Raises TenfoldError where `folder` is no run folder, or where a file in it is damaged.
    """
    recipe = _recipe_of(folder)
    provenance_path = folder / "provenance.json"
    result_path = folder / "result.json"
    result = read_json(result_path) if result_path.exists() else {}
    try:
        training, fitted = result.get("training"), fitted_of(result)
        return Run(
            folder=folder,
            label=label or _recipe_name(recipe, folder),
            recipe=recipe,
            provenance=read_json(provenance_path) if provenance_path.exists() else {},
            epochs=_read_epochs(folder),
            num_parameters=_table(result, "model").get("num_parameters"),
            weights=_table(result, "model").get("weights"),
            training=None if training is None else _training_from(training),
            scores={
                split: _scores_from(scores)
                for split, scores in _table(result, "splits").items()
                if scores
            },
            test_uses=tuple(
                UseOfTest(use["time"], use["purpose"], use.get("accuracy"))
                for use in result.get("test_uses") or ()
            ),
            answers={
                split: _read_answers(path, temperature=fitted.temperature if fitted else 1.0)
                for split in SPLITS
                if (path := folder / f"predictions-{split}.npz").exists()
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TenfoldError(
            f"{folder} holds a result.json, metrics.jsonl or provenance.json that isn't in "
            f"tenfold's form ({type(error).__name__}: {error}); evaluate the run again."
        ) from error


def _recipe_of(folder: Path) -> Mapping[str, Any]:
    path = folder / "recipe.json"
    if not path.is_file():
        raise TenfoldError(
            f"{folder} is not a run folder: recipe.json is missing there; "
            "name a folder that `tenfold train` wrote, such as runs/cnn/1."
        )
    recipe = read_json(path)
    if not isinstance(recipe, dict):
        raise TenfoldError(f"{path} must hold a JSON object; restore it or train again.")
    return recipe


def _recipe_name(recipe: Mapping[str, Any], folder: Path) -> str:
    return str(recipe.get("name") or folder.resolve().parent.name)


def _table(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = values.get(key)
    return value if isinstance(value, dict) else {}


def _read_epochs(folder: Path) -> tuple[Epoch, ...]:
    timings = _by_epoch(folder / "timings.jsonl")
    return tuple(
        Epoch(
            number=number,
            learning_rate=line.get("learning_rate"),
            train_loss=line["train_loss"],
            train_accuracy=line["train_accuracy"],
            validation_loss=line.get("validation_loss"),
            validation_accuracy=line.get("validation_accuracy"),
            training_seconds=timings.get(number, {}).get("training_seconds"),
            images_per_second=timings.get(number, {}).get("images_per_second"),
        )
        for number, line in sorted(_by_epoch(folder / "metrics.jsonl").items())
    )


def _by_epoch(path: Path) -> dict[int, dict[str, Any]]:
    """Lines by epoch. A line cut off at the end is one that is being written now."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
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


def _training_from(values: Mapping[str, Any]) -> Training:
    return Training(
        epochs=values["epochs"],
        steps=values["steps"],
        wall_seconds=values["wall_seconds"],
        images_per_second=values.get("images_per_second"),
        peak_memory_bytes=values.get("peak_memory_bytes"),
        ended=values.get("ended", "finished"),
        best_epoch=values.get("best_epoch"),
        stages=tuple(
            Stage(
                stage["trains"], stage["epochs"], stage["num_trained"], stage["validation_accuracy"]
            )
            for stage in values.get("stages") or ()
        ),
    )


def _scores_from(values: Mapping[str, Any]) -> Scores:
    low, high = values["accuracy_interval"]
    confidence = values["confidence"]
    return Scores(
        num_images=values["num_images"],
        accuracy=values["accuracy"],
        interval=(low, high),
        top5_accuracy=values.get("top5_accuracy"),
        loss=values["loss"],
        matthews_correlation=values["matthews_correlation"],
        per_class=tuple(
            ClassScore(
                score["name"],
                score["precision"],
                score["recall"],
                score["f1"],
                score["num_images"],
            )
            for score in values["per_class"]
        ),
        confusion=np.array(values["confusion"], dtype=np.int64),
        most_confused=tuple(
            Mistake(pair["true"], pair["predicted"], pair["count"], pair["share"])
            for pair in values["most_confused"]
        ),
        confidence_edges=tuple(confidence["bin_edges"]),
        confidence_right=tuple(confidence["right"]),
        confidence_wrong=tuple(confidence["wrong"]),
        images_per_second=values.get("images_per_second"),
        num_trained_on=values.get("num_trained_on", 0),
    )


def _read_answers(path: Path, *, temperature: float) -> Answers:
    try:
        # numpy leaves a file open whose archive is damaged, so it is opened here.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            logits = arrays["logits"].astype(np.float32)
            labels, ids = arrays["labels"], arrays["ids"]
            class_names = tuple(str(name) for name in arrays["class_names"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TenfoldError(
            f"{path} can't be read as predictions ({error}); evaluate the run again."
        ) from error
    if logits.shape != (len(labels), len(class_names)) or ids.shape != labels.shape:
        raise TenfoldError(
            f"{path} holds arrays that don't fit together (logits {logits.shape}, labels "
            f"{labels.shape}, ids {ids.shape}); evaluate the run again."
        )
    logits /= temperature
    return Answers(softmax(logits), labels, ids, class_names)
