"""What do its mistakes have in common? Groups of errors that look alike to the network."""

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, Field

from tenfold.audit.answer import Answer, Arrays
from tenfold.audit.subject import Subject
from tenfold.errors import counted
from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.probabilities import unit
from tenfold.results.facts import Fact

NUM_GROUPS, NUM_IN_GROUP = 6, 8


class Error(Fact):
    """An image of another class than was predicted."""

    id: str
    true: str
    predicted: str = Field(validation_alias=AliasChoices("predicted", "guess"))


class Group(Fact):
    """Errors that look alike: how many, the commonest pairs of true and predicted class with their
    number, and the most typical ones."""

    num_images: int
    pairs: tuple[tuple[str, str, int], ...]
    examples: tuple[Error, ...] = Field(validation_alias=AliasChoices("examples", "pictures"))


class Errors(Answer):
    """All errors on the images of `split`, in groups, the largest first."""

    question = "Errors: what do they have in common?"
    template = "errors"

    split: str
    num_wrong: int
    groups: tuple[Group, ...] = ()

    def summary(self) -> str:
        return f"{counted(self.num_wrong, 'mistake')} in {counted(len(self.groups), 'group')}"

    def images(self, number: int) -> list[tuple[str, NDArray[np.uint8]]]:
        """The most typical images of a group, each with its label."""
        labels = [
            f"{each.true}, predicted {each.predicted}" for each in self.groups[number].examples
        ]
        return list(zip(labels, self.arrays[f"group{number}"], strict=True))


def errors(subject: Subject) -> Errors:
    """Groups of errors that look alike to the network."""
    from sklearn.cluster import KMeans

    predictions = subject.measured_predictions()
    wrong = np.flatnonzero(~predictions.right)
    if len(wrong) < 2:
        return Errors(split=subject.split, num_wrong=len(wrong), groups=())
    features = unit(subject.features[wrong])
    number = min(NUM_GROUPS, max(len(wrong) // 5, 1))
    found = KMeans(number, n_init=4, random_state=subject.seed).fit(features)
    # Features that are all alike make fewer groups than were asked for.
    sizes = np.bincount(found.labels_)
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    groups, arrays = [], Arrays()
    for place, group in enumerate(order):
        members = np.flatnonzero(found.labels_ == group)
        away = np.linalg.norm(features[members] - found.cluster_centers_[group], axis=1)
        nearest = wrong[members[np.argsort(away, kind="stable")[:NUM_IN_GROUP]]]
        groups.append(_group(predictions, wrong[members], nearest))
        arrays[f"group{place}"] = subject.measured.pixels[nearest]
    return Errors(split=subject.split, num_wrong=len(wrong), groups=tuple(groups)).having(arrays)


def _group(
    predictions: Predictions, members: NDArray[np.int64], typical: NDArray[np.int64]
) -> Group:
    names, labels, predicted = predictions.class_names, predictions.labels, predictions.predicted
    pairs, counts = np.unique(
        np.stack([labels[members], predicted[members]], axis=1), axis=0, return_counts=True
    )
    commonest = np.argsort(-counts, kind="stable")[:3]
    return Group(
        num_images=len(members),
        pairs=tuple((names[pairs[i][0]], names[pairs[i][1]], int(counts[i])) for i in commonest),
        examples=tuple(
            Error(id=str(predictions.ids[i]), true=names[labels[i]], predicted=names[predicted[i]])
            for i in typical
        ),
    )
