"""Which images a report shows, and how their pixels come back."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tenfold.data.images import Dataset, Images, changed_array
from tenfold.data.sources import is_known
from tenfold.errors import TenfoldError
from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.probabilities import softmax
from tenfold.evaluation.runs import Run
from tenfold.reporting.templating import Card
from tenfold.reporting.thumbnails import thumbnail_uri

NUM_IMAGES = 12

logger = logging.getLogger("tenfold")

Loader = Callable[[Run], Dataset]
"""Gives back the data set that a run was trained on."""


class SplitImages:
    """Images by id, from the data set that is loaded when the first is asked for.

    Only those of the run's shown split, which is the data set's own or was held out from its
    training images.
    """

    def __init__(self, run: Run, loader: Loader) -> None:
        self._run, self._loader = run, loader
        self.problem = ""
        """Why there are no images, as a sentence; empty while nothing has gone wrong."""

    def uris(self, ids: Sequence[str]) -> dict[str, str]:
        """A data URI for each id that the data set has."""
        return {name: thumbnail_uri(pixels) for name, pixels in self.pixels(ids).items()}

    def pixels(self, ids: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
        """The pixels (H, W, 3) of each id that the data set has."""
        if not ids or (images := self._images) is None:
            return {}
        found = {
            str(images.ids[index]): images.pixels[index]
            for index in np.flatnonzero(np.isin(images.ids, np.array(ids)))
        }
        if not found:
            self.problem = "The data set that was found now does not have these images."
        return found

    @cached_property
    def _images(self) -> Images | None:
        try:
            dataset = self._loader(self._run)
        # The page is worth having without its images, whatever keeps them away.
        except Exception as error:
            reason = (str(error) or type(error).__name__).rstrip(".")
            self.problem = f"The data set could not be opened again: {reason}."
            logger.warning("The report has no images: %s", reason)
            return None
        return dataset.splits().get(self._run.shown_split or "", dataset.train)


def load_dataset(run: Run, *, place: str | None = None) -> Dataset:
    """The run's data set, found again where the run found it or at `place`.

    Raises TenfoldError, which asks for --data, where it isn't there or has changed since.
    """
    from tenfold import data

    known = place or run.data.location or run.data_name
    if not is_known(known) and not os.path.exists(os.path.expanduser(known)):
        raise TenfoldError(f"nothing is at {known}; say with --data where its images are")
    size = run.data.image_size
    side = size[0] if size and size[0] == size[1] else 0
    # What could not be read while training has no answers to show now.
    window = tuple((run.recipe.get("data") or {}).get("window") or ())
    dataset = data.load(known, image_size=side, skip_broken=True, window=window)
    if changed := changed_array(dataset, run.data.checksums):
        raise TenfoldError(
            f"{known} has changed since the training ({changed} has another checksum); say with "
            "--data where the images are as they were"
        )
    return dataset


def galleries(run: Run, images: SplitImages) -> dict[str, list[Card]]:
    """Cards of errors, unsure and correct predictions of the run; none where it kept none."""
    if (predictions := run.shown_answers) is None:
        return {}
    kinds = {"wrong": wrong, "unsure": unsure, "right": right}
    return {
        kind: cards(predictions.ids[choose(predictions)], {run.label: predictions}, images)
        for kind, choose in kinds.items()
    }


def right(predictions: Predictions) -> NDArray[np.int64]:
    """Indices of correct ones at even distances, neither the best nor the worst."""
    return evenly(np.flatnonzero(predictions.right), NUM_IMAGES)


def evenly(indices: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """At most `number` of `indices`, at even distances."""
    number = min(number, len(indices))
    return indices[np.linspace(0, len(indices) - 1, number).astype(np.int64)]


def wrong(predictions: Predictions, among: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Indices of the errors of the highest confidence, at most two of a true class while there are
    others. among: which images are chosen from, all where None."""
    chosen = ~predictions.right if among is None else ~predictions.right & among
    order = np.argsort(-predictions.confidence, kind="stable")
    return _varied(order[chosen[order]], predictions.labels)


def unsure(predictions: Predictions) -> NDArray[np.int64]:
    """Indices of the images whose two likeliest classes lie closest together."""
    if predictions.probabilities.shape[1] < 2:
        return np.array([], dtype=np.int64)
    best_two = np.partition(predictions.probabilities, -2, axis=1)[:, -2:]
    order = np.argsort(best_two[:, 1] - best_two[:, 0], kind="stable")
    return _varied(order, predictions.labels)


def disputed_cards(
    ids: NDArray[np.str_], winner: Run, loser: Run, images: SplitImages
) -> list[Card]:
    """Those of `ids` first that the loser was surest of and wrong."""
    first, second = winner.shown_answers, loser.shown_answers
    if first is None or second is None:
        return []
    chosen = wrong(second, np.isin(second.ids, ids))
    return cards(second.ids[chosen], {winner.label: first, loser.label: second}, images)


def cards(
    ids: NDArray[np.str_], by_run: Mapping[str, Predictions], images: SplitImages
) -> list[Card]:
    """Cards for the images with these ids, with the three likeliest classes of each run."""
    uris, found = images.uris(ids.tolist()), []
    for name in ids.tolist():
        true, likeliest = [], {}
        for label, one in by_run.items():
            (index,) = np.flatnonzero(one.ids == name)[:1]
            true.append(one.class_names[one.labels[index]])
            shares = softmax(one.logits[[index]].astype(np.float64))[0]
            likeliest[label] = [
                (one.class_names[k], float(shares[k]), one.class_names[k] == true[-1])
                for k in np.argsort(-shares, kind="stable")[:3]
            ]
        found.append(Card(name, uris.get(name), true[0], likeliest))
    return found


def _varied(ordered: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first few, passing over a class that has had two while others remain."""
    seen: Counter[int] = Counter()
    chosen: list[int] = []
    passed_over: list[int] = []
    for index in ordered.tolist():
        seen[labels[index]] += 1
        (chosen if seen[labels[index]] <= 2 else passed_over).append(index)
        if len(chosen) == NUM_IMAGES:
            break
    return np.array([*chosen, *passed_over][:NUM_IMAGES], dtype=np.int64)
