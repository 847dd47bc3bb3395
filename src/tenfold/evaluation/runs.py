"""Run folders, read into values that pages, studies and Python can count on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tenfold.errors import TenfoldError
from tenfold.evaluation.calibration import fitted_of, with_temperature
from tenfold.evaluation.predictions import Predictions, load_predictions
from tenfold.files import read_json
from tenfold.results.runs import (
    DataFacts,
    Epoch,
    Metrics,
    Provenance,
    Result,
    Score,
    Training,
    UseOfTest,
    read_epochs,
    read_provenance,
    read_result,
)
from tenfold.results.studies import computed_in
from tenfold.run import open_run

SPLITS = ("test", "validation")

END = 0
"""Stands for the end of training where an epoch is meant."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder's content; what an unfinished run lacks is None or empty.

    recipe: as the run has it, of whatever version. answers: its predictions by split, with logits
    divided by the run's temperature.
    """

    folder: Path
    label: str
    recipe: Mapping[str, Any]
    provenance: Provenance
    epochs: tuple[Epoch, ...]
    result: Result | None
    answers: Mapping[str, Predictions]

    @property
    def training(self) -> Training | None:
        """What the training took; None until the run is finished."""
        return self.result.training if self.result else None

    @property
    def computed_in(self) -> str:
        """What stands beside its figures: `float32 on AMD EPYC 7B13, AVX2, 2 cores`."""
        return computed_in(self.provenance)

    @property
    def scores(self) -> Mapping[str, Metrics]:
        """The metrics of every split that was evaluated."""
        return self.result.splits if self.result else {}

    @property
    def test_uses(self) -> tuple[UseOfTest, ...]:
        """Every look at the test split."""
        return self.result.test_uses if self.result else ()

    @property
    def num_parameters(self) -> int | None:
        """How many the network has."""
        return self.result.model.num_parameters if self.result else None

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """The last epoch of each stage but the last, of a run that is finished."""
        return self.training.stage_ends if self.training is not None else ()

    @property
    def deciding_epoch(self) -> Epoch | None:
        """The epoch whose weights were kept; None where none is done."""
        best = self.training.best_epoch if self.training else None
        return next((e for e in self.epochs if e.number == best), (self.epochs or (None,))[-1])

    @property
    def finished(self) -> bool:
        """Whether the training came to its end and was evaluated."""
        return self.result is not None

    @property
    def model_name(self) -> str:
        """What kind of network it is, such as `cnn`."""
        return str((self.recipe.get("model") or {}).get("name", "model"))

    @property
    def seed(self) -> int | None:
        """The seed the run was started with."""
        seed = self.recipe.get("seed", self.provenance.seed)
        return None if seed is None else int(seed)

    @property
    def data(self) -> DataFacts:
        """What the provenance says about the data set."""
        return self.provenance.data

    @property
    def data_name(self) -> str:
        """The data set's name."""
        return str(self.data.name or (self.recipe.get("data") or {}).get("name", "data"))

    @property
    def milestones(self) -> Mapping[int, Mapping[str, Score]]:
        """Scores by split after each epoch that was evaluated on the way."""
        return {each.epoch: each.splits for each in (self.result.milestones if self.result else ())}

    def accuracy(
        self, split: str, *, epoch: int = END, in_training_mode: bool = False
    ) -> float | None:
        """The accuracy on `split` after `epoch`; None where it was not evaluated."""
        at_end = epoch == END or (self.training is not None and epoch == self.training.epochs)
        splits: Mapping[str, Metrics | Score] = (
            self.scores if at_end else self.milestones.get(epoch, {})
        )
        if (found := splits.get(split)) is None:
            return None
        return found.accuracy_in_training_mode if in_training_mode else found.accuracy

    def num_images(self, split: str) -> int | None:
        """How many images `split` has."""
        scores = self.scores.get(split)
        return scores.num_images if scores else self.data.splits.get(split)

    @property
    def shown_split(self) -> str | None:
        """The split whose scores count: test where there is one, else validation, else none."""
        return next((split for split in SPLITS if split in self.scores), None)

    @property
    def shown_scores(self) -> Metrics | None:
        """The scores of that split."""
        return None if self.shown_split is None else self.scores[self.shown_split]

    @property
    def shown_answers(self) -> Predictions | None:
        """The answers to that split, where they were kept."""
        return None if self.shown_split is None else self.answers.get(self.shown_split)


def read_runs(folders: Sequence[Path]) -> tuple[Run, ...]:
    """The runs in `folders`, with labels that tell them apart; raises what `read_run` does."""
    runs = [read_run(folder) for folder in folders]
    names = [run.label for run in runs]
    labels = [
        name if names.count(name) == 1 else f"{name}/{folder.resolve().name}"
        for name, folder in zip(names, folders, strict=True)
    ]
    if len(set(labels)) < len(labels):
        labels = [str(folder) for folder in folders]
    return tuple(replace(run, label=label) for run, label in zip(runs, labels, strict=True))


def read_run(folder: Path) -> Run:
    """The run in `folder`, whose label is its recipe's name.

    Raises TenfoldError where `folder` is no run folder, or where a file in it is damaged.
    """
    files = open_run(folder)
    recipe = read_json(files.recipe)
    if not isinstance(recipe, dict):
        raise TenfoldError(f"{files.recipe} must hold a JSON object; restore it or train again.")
    result = read_result(files.result) if files.is_finished() else None
    fitted = fitted_of(result) if result else None
    answers = {
        split: load_predictions(files.predictions(split))
        for split in SPLITS
        if files.predictions(split).exists()
    }
    if fitted:
        answers = {s: with_temperature(found, fitted.temperature) for s, found in answers.items()}
    return Run(
        folder=folder,
        label=str(recipe.get("name") or folder.resolve().parent.name),
        recipe=recipe,
        provenance=read_provenance(files.provenance),
        epochs=read_epochs(files.metrics, files.timings),
        result=result,
        answers=answers,
    )
