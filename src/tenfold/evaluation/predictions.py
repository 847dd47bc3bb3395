"""Logits, labels and ids of one split: computed once, saved, and the input of every metric."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.data import Images
from tenfold.errors import TenfoldError
from tenfold.evaluation.probabilities import softmax
from tenfold.files import DAMAGED, atomic_file
from tenfold.progress import Progress

if TYPE_CHECKING:
    from tenfold.evaluation.trained import TrainedModel


class Predictions(NamedTuple):
    """What a model said of the images of a split.

    logits: (N, C) float32. labels: (N,) int64, indices into class_names. ids: (N,) unicode.
    class_names: one a logit, in the model's order. images_per_second: of the forward passes, or
    None where the predictions were read from a file.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: NDArray[np.str_]
    class_names: tuple[str, ...]
    images_per_second: float | None = None

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, C) float64, the softmax of the logits."""
        return softmax(self.logits.astype(np.float64))

    @property
    def confidence(self) -> NDArray[np.float64]:
        """(N,) float64, the probability of the likeliest class."""
        return np.asarray(self.probabilities.max(axis=1))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) int64, the class given the highest probability."""
        return np.asarray(self.logits.argmax(axis=1))

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,) bool, whether that class is the true one."""
        return np.asarray(self.predicted == self.labels)


def predict_images(
    model: "TrainedModel",
    images: Images,
    *,
    frozen: bool | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """Run `model` over `images`; classes are matched by name, whatever their order.

    frozen: whether its backbone is as it was loaded, so that features are taken from the cache
    and left there; None knows it from the recipe.

    Raises TenfoldError where the images have a class that the model doesn't know, or another
    size than it takes.
    """
    labels = map_labels(images, model.class_names)
    started = time.perf_counter()
    cached = model.is_head_alone if frozen is None else frozen
    logits = (model.logits_by_features if cached else model.logits)(
        images.pixels, progress=progress
    )
    # What comes from a cache says nothing of the network's pace.
    rate = None if cached else len(images) / max(time.perf_counter() - started, 1e-9)
    return Predictions(logits, labels, images.ids, model.class_names, rate)


def map_labels(images: Images, class_names: tuple[str, ...]) -> NDArray[np.int64]:
    """The labels of `images` as indices into `class_names`, matched by name.

    Raises TenfoldError where an image's class is not among `class_names`.
    """
    position = {name: index for index, name in enumerate(class_names)}
    present = {images.class_names[label] for label in np.unique(images.labels)}
    if unknown := sorted(present - set(position)):
        raise TenfoldError(
            f"The data has the class {unknown[0]!r}, which the model was not trained on; its "
            f"classes are {', '.join(class_names)}."
        )
    table = np.array([position.get(name, -1) for name in images.class_names], dtype=np.int64)
    return table[images.labels]


def save_predictions(path: Path, predictions: Predictions) -> None:
    """Write `predictions` to an npz file, atomically."""
    with atomic_file(path) as file:
        np.savez_compressed(
            file,
            logits=predictions.logits,
            labels=predictions.labels,
            ids=predictions.ids,
            class_names=np.array(predictions.class_names),
        )


def load_predictions(path: Path) -> Predictions:
    """The predictions that `save_predictions` wrote. Raises TenfoldError where it can't be read."""
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            names = tuple(str(name) for name in file["class_names"])
            logits, labels, ids = file["logits"], file["labels"], file["ids"]
            if logits.shape != (len(labels), len(names)) or ids.shape != labels.shape:
                raise ValueError(
                    f"logits {logits.shape}, labels {labels.shape} and ids {ids.shape} don't fit"
                )
            return Predictions(logits, labels, ids, names)
    except FileNotFoundError:
        raise TenfoldError(f"There is no {path}; run `tenfold evaluate` first.") from None
    except DAMAGED as error:
        raise TenfoldError(
            f"{path} can't be read ({error}); run `tenfold evaluate` to write it again."
        ) from error
