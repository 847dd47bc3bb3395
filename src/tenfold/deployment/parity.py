"""Whether an exported file says the same as the run, on real images."""

import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.data import Dataset, Images
from tenfold.deployment.graph import INPUT
from tenfold.deployment.predictor import open_session
from tenfold.errors import TenfoldError
from tenfold.evaluation.evaluate import split_of
from tenfold.evaluation.predictions import map_labels
from tenfold.evaluation.probabilities import softmax
from tenfold.evaluation.trained import TrainedModel
from tenfold.progress import Progress

NUM_COMPARED = 10_000
"""Images of the gate at most: of the test split, or of another where there is none."""

MOST_LOGIT_ERROR = 1e-4
MOST_POINTS_LOST = 0.01


class Gate(NamedTuple):
    """What the comparison of an exported file with the run came to.

    num_images: images compared, of `split`. same_class: share with the same class, or with two
    that are as likely. logit_error, probability_error: the largest difference of two of them.
    accuracy, accuracy_before: of the file and of the run, one view each; of a file of eight bits
    on the kind of processor where it does worse. num_judged: images by which a file of eight
    bits is judged, those of the validation split too. num_lost, num_gained: of them, those that
    only the run and only the file gets right.
    """

    num_images: int
    split: str
    same_class: float
    logit_error: float
    probability_error: float
    accuracy: float
    accuracy_before: float
    num_judged: int
    num_lost: int
    num_gained: int

    @property
    def least_lost(self) -> float:
        """The lower end of the 95 % interval of the accuracy lost, for paired predictions (Agresti
        and Min 2005: half an image is added to each of the four kinds)."""
        lost, gained, number = self.num_lost + 0.5, self.num_gained + 0.5, self.num_judged + 2
        mean = (lost - gained) / number
        return mean - 1.96 * math.sqrt(((lost + gained) / number - mean**2) / number)


def compare(
    path: Path,
    model: TrainedModel,
    images: Images,
    *,
    split: str = "test",
    int8: bool = False,
    progress: Progress | None = None,
) -> Gate:
    """The predictions of the file at `path` beside those of `model`, one view of each image.

    int8: compute it both as this processor does and as the best do, and take the worse.
    """
    labels = map_labels(images, model.class_names)
    one_view = model.recipe.but(evaluation=model.recipe.evaluation.but(views="one"))
    expected = replace(model, recipe=one_view).logits(images.pixels, progress=progress)
    ways = (outputs_of(path, images.pixels, exact=exact) for exact in ((False, True)[: 1 + int8]))
    logits, probabilities = min(
        ways, key=lambda found: float((found[1].argmax(axis=1) == labels).mean())
    )
    classes, before = probabilities.argmax(axis=1), expected.argmax(axis=1)
    two = np.sort(expected, axis=1)[:, -2:]
    as_likely = two[:, 1] - two[:, 0] < 2 * MOST_LOGIT_ERROR
    right, right_before = classes == labels, before == labels
    shares = softmax(expected / np.float32(model.temperature))
    return Gate(
        len(images),
        split,
        float(((classes == before) | as_likely).mean()),
        float(np.abs(logits - expected).max()),
        float(np.abs(probabilities - shares).max()),
        float(right.mean()),
        float(right_before.mean()),
        len(images),
        int((right_before & ~right).sum()),
        int((right & ~right_before).sum()),
    )


def outputs_of(
    path: Path, pixels: NDArray[np.uint8], *, exact: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits and probabilities of the file at `path`."""
    session = open_session(path, exact=exact)
    parts = [
        session.run(["logits", "probabilities"], {INPUT: pixels[start : start + 64]})
        for start in range(0, len(pixels), 64)
    ]
    logits, probabilities = (np.concatenate(each) for each in zip(*parts, strict=True))
    return logits, probabilities


def compared_images(dataset: Dataset, model: TrainedModel, *, own: bool) -> tuple[str, Images]:
    """Real images and their split: test, or validation or training where there is none."""
    for split in ("test", "validation", "train"):
        try:
            images = split_of(dataset, split, model.recipe.data, own=own)
        except TenfoldError:
            continue
        return split if own else f"{split} of {dataset.name}", drawn(images, NUM_COMPARED)
    raise TenfoldError(f"{dataset.name} has no pictures to compare the export on.")


def with_validation(
    gate: Gate, path: Path, model: TrainedModel, dataset: Dataset, *, own: bool
) -> Gate:
    """`gate` of eight bits with images of the validation split among those it is judged by."""
    room = NUM_COMPARED - gate.num_images
    if gate.split != "test" or room <= 0:
        return gate
    try:
        images = drawn(split_of(dataset, "validation", model.recipe.data, own=own), room)
    except TenfoldError:
        return gate
    more = compare(path, model, images, split="validation", int8=True)
    return gate._replace(
        num_judged=gate.num_judged + more.num_judged,
        num_lost=gate.num_lost + more.num_lost,
        num_gained=gate.num_gained + more.num_gained,
    )


def drawn(images: Images, number: int) -> Images:
    """At most so many of them, always the same."""
    if len(images) <= number:
        return images
    chosen = np.random.default_rng(0).choice(len(images), number, replace=False)
    return images.take(np.sort(chosen).astype(np.int64))


def require_parity(gate: Gate, *, int8: bool, force: bool, path: Path) -> None:
    """Raise TenfoldError where the file loses too much, or says something else."""
    if int8:
        if gate.least_lost > MOST_POINTS_LOST and not force:
            raise TenfoldError(
                f"{path} is not written: in eight bits {100 * gate.accuracy:.2f} % of "
                f"{gate.num_images:,} pictures are right and {100 * gate.accuracy_before:.2f} % in "
                f"floats; of {gate.num_judged:,}, {gate.num_lost:,} are lost and "
                f"{gate.num_gained:,} gained, which is at least {100 * gate.least_lost:.1f} points "
                "where one may be lost; export floats, or add --force."
            )
        return
    # So written that what is no number fails too.
    errors = (gate.logit_error, gate.probability_error)
    if gate.same_class < 1 or not all(error <= MOST_LOGIT_ERROR for error in errors):
        raise TenfoldError(
            f"{path} is not written: of {gate.num_images:,} pictures "
            f"{100 * gate.same_class:.2f} % have the class that the run gives, and logits differ "
            f"by up to {gate.logit_error:.1e}; please report this with the run's recipe."
        )
