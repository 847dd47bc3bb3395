"""Does it do as well on new pictures? CIFAR-10.1 beside the test set."""

from pathlib import Path

from tenfold.audit.answer import Answer, Unanswerable
from tenfold.audit.subject import Subject
from tenfold.evaluation.metrics import wilson_interval
from tenfold.evaluation.new_test_set import load_new_test_set
from tenfold.evaluation.predictions import map_labels
from tenfold.formatting import percent


class NewPictures(Answer):
    """Accuracy on the images of CIFAR-10.1, with its 95 % interval, and on the test set."""

    question = "Does it do as well on new pictures?"
    template = "new-pictures"

    num_images: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    test_accuracy: float

    def summary(self) -> str:
        return (
            f"{percent(self.accuracy)} right of CIFAR-10.1's, {percent(self.test_accuracy)} of the "
            "test set's"
        )


def new_pictures(subject: Subject, *, new_test_set: Path | None = None) -> NewPictures:
    """Accuracy on CIFAR-10.1 beside that on the test set."""
    if not subject.is_of_cifar10:
        raise Unanswerable("New pictures of the same kind are known for CIFAR-10 alone.")
    images = load_new_test_set(new_test_set, progress=subject.progress)
    model = subject.model
    right = model.logits(images.pixels).argmax(axis=1) == map_labels(images, model.class_names)
    return NewPictures(
        num_images=len(images),
        accuracy=float(right.mean()),
        accuracy_interval=wilson_interval(int(right.sum()), len(right)),
        test_accuracy=float(subject.measured_predictions().right.mean()),
    )
