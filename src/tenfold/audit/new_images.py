"""Does it do as well on new images? CIFAR-10.1: two thousand images, chosen as CIFAR-10's were
(Recht et al. 2018, arXiv 1806.00451), on which all models of their time lost 4 to 10 points."""

from pathlib import Path

import numpy as np

from tenfold.audit.answer import Answer, Unanswerable
from tenfold.audit.subject import Subject
from tenfold.data.cifar import CIFAR10_CLASS_NAMES
from tenfold.data.sources.origins import PublishedFile, obtain
from tenfold.evaluation.metrics import wilson_interval
from tenfold.formatting import percent

_PLACE = "https://github.com/modestyachts/CIFAR-10.1/raw/master/datasets"

IMAGES = PublishedFile(
    f"{_PLACE}/cifar10.1_v6_data.npy",
    "2997188e5816f5bd545dc77771b6227828c28146049fcecf3fa10775474cacc6",
)
LABELS = PublishedFile(
    f"{_PLACE}/cifar10.1_v6_labels.npy",
    "ae40beda001693674edc94d925ee8268cfe68905f8f9aff800c8dcdfcd6c9448",
)


class NewImages(Answer):
    """Accuracy on the images of CIFAR-10.1, with its 95 % interval, and on the test set."""

    question = "New test set: does it do as well on new images?"
    template = "new-images"

    num_images: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    test_accuracy: float

    def summary(self) -> str:
        return (
            f"{percent(self.accuracy)} on CIFAR-10.1, {percent(self.test_accuracy)} on the test set"
        )


def new_images(subject: Subject, *, new_test_set: Path | None = None) -> NewImages:
    """Accuracy on CIFAR-10.1 beside that on the test set.

    new_test_set: where its two files are; None takes the cache or fetches them.
    """
    if not subject.is_of_cifar10:
        raise Unanswerable("New images of the same kind are known for CIFAR-10 alone.")
    pixels, labels = (
        np.load(
            obtain(file, new_test_set and new_test_set / file.name, progress=subject.progress),
            allow_pickle=False,
        )
        for file in (IMAGES, LABELS)
    )
    predicted = np.array(subject.model.class_names)[subject.model.logits(pixels).argmax(axis=1)]
    right = predicted == np.array(CIFAR10_CLASS_NAMES)[labels]
    return NewImages(
        num_images=len(right),
        accuracy=float(right.mean()),
        accuracy_interval=wilson_interval(int(right.sum()), len(right)),
        test_accuracy=float(subject.measured_predictions().right.mean()),
    )
