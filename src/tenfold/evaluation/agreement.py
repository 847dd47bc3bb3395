"""A model beside people: is it unsure where they are, and wrong where they are not?

The answers of 50 people and more to each of CIFAR-10's test pictures (CIFAR-10H, Peterson et al.
2019, arXiv 1908.07086, licensed CC BY-NC-SA 4.0).

N pictures, C classes; entropies and cross-entropies are in nats.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.data.sources.published import PublishedFile, obtain
from tenfold.errors import TenfoldError
from tenfold.evaluation.predictions import Predictions
from tenfold.progress import Progress
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


class Disagreement(Fact):
    """A picture: its position in the test set, and the entropies of the model and of people."""

    position: int
    model_entropy: float
    human_entropy: float


class Agreement(Fact):
    """A model beside people.

    soft_cross_entropy: of the model's probabilities with people's answers; floor: what people
    themselves would reach, the mean entropy of their answers. majority: share of pictures where the
    model says what most people say. second_best: the same of the second guess, where at least one
    person gave another answer than most. human_accuracy: mean share of people who are right;
    majority_accuracy: share of pictures where most are. entropy_correlation: of the model's
    entropies with people's, by ranks. model_alone, people_alone: pictures that only one of them is
    unsure about, the clearest first.
    """

    soft_cross_entropy: float
    floor: float
    majority: float
    second_best: float
    human_accuracy: float
    majority_accuracy: float
    entropy_correlation: float
    model_alone: tuple[Disagreement, ...]
    people_alone: tuple[Disagreement, ...]


def load_answers(
    file: Path | None = None, *, progress: Progress | None = None
) -> NDArray[np.float64]:
    """Shares of people's answers, (10000, 10), in the order of the test set and of CLASS_NAMES.

    file: where they are, which the cache then keeps; None takes the cache or fetches them. Raises
    TenfoldError where they can't be had or are others than published.
    """
    answers: NDArray[np.float64] = np.load(
        obtain(ANSWERS, file, progress=progress), allow_pickle=False
    )
    return answers


def compare_with_people(predictions: Predictions, answers: NDArray[np.float64]) -> Agreement:
    """`predictions` on CIFAR-10's test set beside people's `answers` (10000, 10).

    Raises TenfoldError where they are about other pictures or classes.
    """
    if len(predictions.labels) != len(answers) or set(predictions.class_names) != set(CLASS_NAMES):
        raise TenfoldError(
            f"People's answers are about the {len(answers):,} test pictures of CIFAR-10, and these "
            f"are predictions of {len(predictions.labels):,} pictures in "
            f"{len(predictions.class_names)} classes; evaluate a run of CIFAR-10 on its test split."
        )
    people = answers[:, [CLASS_NAMES.index(name) for name in predictions.class_names]]
    model = predictions.probabilities
    labels, everyone = predictions.labels, np.arange(len(model))
    model_entropy, human_entropy = _entropy(model), _entropy(people)
    disputed = people.max(axis=1) < 1
    same_second = (_second(model) == _second(people))[disputed]
    return Agreement(
        soft_cross_entropy=float(-(people * np.log(np.maximum(model, 1e-300))).sum(axis=1).mean()),
        floor=float(human_entropy.mean()),
        majority=float((model.argmax(axis=1) == people.argmax(axis=1)).mean()),
        second_best=float(same_second.mean()) if len(same_second) else 1.0,
        human_accuracy=float(people[everyone, labels].mean()),
        majority_accuracy=float((people.argmax(axis=1) == labels).mean()),
        entropy_correlation=_rank_correlation(model_entropy, human_entropy),
        model_alone=_clearest(model_entropy - human_entropy, model_entropy, human_entropy),
        people_alone=_clearest(human_entropy - model_entropy, model_entropy, human_entropy),
    )


def _entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(-(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1))


def _second(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.asarray(np.argsort(-shares, axis=1, kind="stable")[:, 1])


def _rank_correlation(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    from scipy.stats import spearmanr

    if min(np.ptp(ours), np.ptp(theirs)) == 0:  # All alike have no order.
        return 0.0
    return float(spearmanr(ours, theirs).statistic)


def _clearest(
    difference: NDArray[np.float64], model: NDArray[np.float64], people: NDArray[np.float64]
) -> tuple[Disagreement, ...]:
    order = np.argsort(-difference, kind="stable")[:NUM_EXAMPLES]
    return tuple(
        Disagreement(position=int(i), model_entropy=float(model[i]), human_entropy=float(people[i]))
        for i in order
    )
