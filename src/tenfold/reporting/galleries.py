"""Which pictures a report shows, and how their pixels come back."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tenfold.data.checksums import changed_array
from tenfold.data.images import Dataset
from tenfold.data.sources import NAMES
from tenfold.errors import TenfoldError
from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.runs import Run
from tenfold.reporting.pictures import picture_uri

NUM_PICTURES = 12

logger = logging.getLogger("tenfold")

Loader = Callable[[Run], Dataset]
"""Gives back the data set that a run was trained on."""


@dataclass(frozen=True)
class Guess:
    """One of a model's guesses and the probability that it gave."""

    name: str
    probability: float
    right: bool


@dataclass(frozen=True)
class Card:
    """A picture with its true class and the guesses of one or two runs, by the run's label."""

    id: str
    uri: str | None
    true: str
    guesses: Mapping[str, tuple[Guess, ...]]


class Pictures:
    """Pixels by id, from the data set that is loaded when the first picture is asked for.

    Only those of the run's shown split, which is the data set's own or was held out from its
    training images.
    """

    def __init__(self, run: Run, loader: Loader) -> None:
        self._run = run
        self._loader = loader
        self._dataset: Dataset | None = None
        self.problem: str | None = None
        """Why there are no pictures, as a sentence; None while nothing has gone wrong."""

    def uris(self, ids: Sequence[str]) -> dict[str, str]:
        """A data URI for each id that the data set has."""
        if not ids or not self._is_loaded():
            return {}
        assert self._dataset is not None
        images = self._dataset.splits().get(self._run.shown_split or "", self._dataset.train)
        found = {
            str(images.ids[index]): picture_uri(images.pixels[index])
            for index in np.flatnonzero(np.isin(images.ids, np.array(ids)))
        }
        if not found:
            self.problem = "The data set that was found now does not have these pictures."
        return found

    def _is_loaded(self) -> bool:
        if self._dataset is None and self.problem is None:
            try:
                self._dataset = self._loader(self._run)
            # The page is worth having without its pictures, whatever keeps them away.
            except Exception as error:
                reason = (str(error) or type(error).__name__).rstrip(".")
                self.problem = f"The data set could not be opened again: {reason}."
                logger.warning("The report has no pictures: %s", reason)
        return self._dataset is not None


def load_dataset(run: Run, *, place: str | None = None) -> Dataset:
    """The run's data set, found again where the run found it or at `place`.

    Raises TenfoldError, which asks for --data, where it isn't there or has changed since.
    """
    from tenfold import data

    known = place or run.data.location or run.data_name
    if known not in NAMES and not os.path.exists(os.path.expanduser(known)):
        raise TenfoldError(f"nothing is at {known}; say with --data where its images are")
    size = run.data.image_size
    side = size[0] if size and size[0] == size[1] else 0
    # What could not be read while training has no answers to show now.
    dataset = data.load(known, image_size=side, skip_broken=True)
    if changed := changed_array(dataset, run.data.checksums):
        raise TenfoldError(
            f"{known} has changed since the training ({changed} has another checksum); say with "
            "--data where the images are as they were"
        )
    return dataset


def right_cards(answers: Predictions, label: str, pictures: Pictures) -> tuple[Card, ...]:
    """Right answers at even distances, so that they are neither the best nor the worst."""
    return cards(_evenly(np.flatnonzero(answers.right)), {label: answers}, pictures)


def wrong_cards(answers: Predictions, label: str, pictures: Pictures) -> tuple[Card, ...]:
    """The mistakes that the model was surest of, at most two of a true class while there are
    others."""
    wrong = np.flatnonzero(~answers.right)
    surest = wrong[np.argsort(-answers.probabilities.max(axis=1)[wrong], kind="stable")]
    return cards(_varied(surest, answers.labels), {label: answers}, pictures)


def unsure_cards(answers: Predictions, label: str, pictures: Pictures) -> tuple[Card, ...]:
    """The pictures whose two best guesses lie closest together."""
    if answers.probabilities.shape[1] < 2:
        return ()
    best_two = np.partition(answers.probabilities, -2, axis=1)[:, -2:]
    order = np.argsort(best_two[:, 1] - best_two[:, 0], kind="stable")
    return cards(_varied(order, answers.labels), {label: answers}, pictures)


def disputed_cards(
    ids: NDArray[np.str_], winner: Run, loser: Run, pictures: Pictures
) -> tuple[Card, ...]:
    """Pictures with these ids, those first that the loser was surest of and wrong."""
    first, second = winner.shown_answers, loser.shown_answers
    if first is None or second is None:
        return ()
    places = np.flatnonzero(np.isin(second.ids, ids))
    surest = places[np.argsort(-second.probabilities.max(axis=1)[places], kind="stable")]
    chosen = _varied(surest, second.labels)
    where = {str(picture): index for index, picture in enumerate(first.ids)}
    in_first = np.array([where[str(second.ids[index])] for index in chosen], dtype=np.int64)
    return cards(in_first, {winner.label: first, loser.label: second}, pictures)


def cards(
    indices: NDArray[np.int64], answers: Mapping[str, Predictions], pictures: Pictures
) -> tuple[Card, ...]:
    """Cards for the pictures at `indices` of the first answers, with everybody's guesses."""
    first = next(iter(answers.values()))
    ids = [str(first.ids[index]) for index in indices]
    uris = pictures.uris(ids)
    places = {
        label: {str(picture): place for place, picture in enumerate(one.ids)}
        for label, one in answers.items()
    }
    return tuple(
        Card(
            picture,
            uris.get(picture),
            first.class_names[first.labels[index]],
            {label: _guesses(one, places[label][picture]) for label, one in answers.items()},
        )
        for index, picture in zip(indices, ids, strict=True)
    )


def _guesses(answers: Predictions, index: int) -> tuple[Guess, ...]:
    probabilities = answers.probabilities[index]
    return tuple(
        Guess(
            answers.class_names[label],
            float(probabilities[label]),
            bool(label == answers.labels[index]),
        )
        for label in np.argsort(-probabilities, kind="stable")[:3]
    )


def _evenly(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(indices) <= NUM_PICTURES:
        return indices
    return indices[np.linspace(0, len(indices) - 1, NUM_PICTURES).astype(np.int64)]


def _varied(ordered: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first few, passing over a class that has had two while others remain."""
    chosen: list[int] = []
    passed_over: list[int] = []
    seen: dict[int, int] = {}
    for index in ordered:
        if len(chosen) == NUM_PICTURES:
            break
        label = int(labels[index])
        seen[label] = seen.get(label, 0) + 1
        (chosen if seen[label] <= 2 else passed_over).append(int(index))
    missing = NUM_PICTURES - len(chosen)
    return np.array(chosen + passed_over[:missing], dtype=np.int64)
