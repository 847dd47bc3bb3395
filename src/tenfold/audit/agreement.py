"""Does it see what people see? Is it unsure where they are, and wrong where they are not?

The answers of 50 people and more to each of CIFAR-10's test images (CIFAR-10H, Peterson et al.
2019, arXiv 1908.07086, licensed CC BY-NC-SA 4.0). Entropies and cross-entropies are in nats.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.audit.answer import Answer, Unanswerable
from tenfold.audit.subject import Subject
from tenfold.data.sources.origins import PublishedFile, obtain
from tenfold.errors import TenfoldError
from tenfold.evaluation.calibration import with_temperature
from tenfold.evaluation.predictions import Predictions
from tenfold.formatting import percent
from tenfold.results.facts import Fact

ANSWERS = PublishedFile(
    "https://github.com/jcpeterson/cifar-10h/raw/master/data/cifar10h-probs.npy",
    "436ae98620e00073f9d08585ac870573b588853e7af9f54eb1647408114af77d",
)

CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
"""In the order of the answers."""

NUM_EXAMPLES = 10


class Case(Fact):
    """A test image: the entropies of the model and of people, its class, the model's prediction,
    and the two commonest answers of people with their shares."""

    position: int
    model_entropy: float
    human_entropy: float
    id: str
    true: str
    model: str
    people: tuple[tuple[str, float], ...]


class Agreement(Answer):
    """A model beside people.

    soft_cross_entropy: of the model's probabilities with people's answers; floor: what people
    themselves would reach, the mean entropy of their answers. majority: share of images where the
    model says what most people say. second_best: the same of the second likeliest class, where at
    least one person gave another answer than most. human_accuracy: mean share of people who are
    right; majority_accuracy: share of images where most are. entropy_correlation: of the model's
    entropies with people's, by ranks. model_alone, people_alone: images that only one of them is
    unsure about, the clearest first.
    """

    question = "Human agreement: does it see what people see?"
    template = "agreement"

    soft_cross_entropy: float
    floor: float
    majority: float
    second_best: float
    human_accuracy: float
    majority_accuracy: float
    entropy_correlation: float
    model_alone: tuple[Case, ...]
    people_alone: tuple[Case, ...]

    def summary(self) -> str:
        return (
            f"says what most people say for {percent(self.majority)} of the images; loss "
            f"against their answers {self.soft_cross_entropy:.3f}, theirs {self.floor:.3f}"
        )


def agreement(subject: Subject, *, human: Path | None = None) -> Agreement:
    """The model beside people, for CIFAR-10. human: the file of ANSWERS, fetched where None."""
    if not subject.is_of_cifar10:
        raise Unanswerable("People's answers are known for the test images of CIFAR-10 alone.")
    answers = np.load(obtain(ANSWERS, human, progress=subject.progress), allow_pickle=False)
    calibrated = with_temperature(subject.measured_predictions(), subject.temperature)
    found, pixels = compare_with_people(calibrated, answers), subject.measured.pixels
    return found.having(
        {
            name: pixels[[case.position for case in getattr(found, name)]]
            for name in ("model_alone", "people_alone")
        }
    )


def compare_with_people(predictions: Predictions, answers: NDArray[np.float64]) -> Agreement:
    """`predictions` on CIFAR-10's test set beside people's `answers` (10000, 10).

    Raises TenfoldError where they are about other images or classes.
    """
    names, labels = predictions.class_names, predictions.labels
    if len(labels) != len(answers) or set(names) != set(CLASS_NAMES):
        raise TenfoldError(
            f"People's answers are about the {len(answers):,} test images of CIFAR-10, and these "
            f"are predictions of {len(labels):,} images in {len(names)} classes; evaluate a run "
            "of CIFAR-10 on its test split."
        )
    from scipy.stats import entropy, spearmanr

    people = answers[:, [CLASS_NAMES.index(name) for name in names]]
    model, everyone = predictions.probabilities, np.arange(len(labels))
    unsure, disputed = entropy(model, axis=1), entropy(people, axis=1)
    is_ordered = min(np.ptp(unsure), np.ptp(disputed)) > 0  # All alike have no order.
    same_second = (_second(model) == _second(people))[people.max(axis=1) < 1]

    def clearest(difference: NDArray[np.float64]) -> tuple[Case, ...]:
        return tuple(
            Case(
                position=int(i),
                model_entropy=float(unsure[i]),
                human_entropy=float(disputed[i]),
                id=str(predictions.ids[i]),
                true=names[labels[i]],
                model=names[model[i].argmax()],
                people=tuple(
                    (names[k], float(people[i, k]))
                    for k in np.argsort(-people[i], kind="stable")[:2]
                ),
            )
            for i in np.argsort(-difference, kind="stable")[:NUM_EXAMPLES]
        )

    return Agreement(
        soft_cross_entropy=float(-(people * np.log(np.maximum(model, 1e-300))).sum(axis=1).mean()),
        floor=float(disputed.mean()),
        majority=float((model.argmax(axis=1) == people.argmax(axis=1)).mean()),
        second_best=float(same_second.mean()) if len(same_second) else 1.0,
        human_accuracy=float(people[everyone, labels].mean()),
        majority_accuracy=float((people.argmax(axis=1) == labels).mean()),
        entropy_correlation=float(spearmanr(unsure, disputed).statistic) if is_ordered else 0.0,
        model_alone=clearest(unsure - disputed),
        people_alone=clearest(disputed - unsure),
    )


def _second(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.asarray(np.argsort(-shares, axis=1, kind="stable")[:, 1])
