"""What do its mistakes have in common? Groups of errors that look alike to the network."""

from collections import Counter

import numpy as np

from tenfold.audit.answer import Answer, Arrays
from tenfold.audit.subject import Subject
from tenfold.errors import counted
from tenfold.evaluation.probabilities import unit
from tenfold.results.facts import Fact

NUM_GROUPS, NUM_IN_GROUP = 6, 8


class Error(Fact):
    """An image of another class than was predicted."""

    id: str
    true: str
    guess: str

    def __str__(self) -> str:
        return f"{self.true}, predicted {self.guess}"


class Group(Fact):
    """Errors that look alike: how many, the commonest pairs of true and predicted class with their
    number, and the most typical ones."""

    num_images: int
    pairs: tuple[tuple[str, str, int], ...]
    pictures: tuple[Error, ...]


class Errors(Answer):
    """All errors on the images of `split`, in groups, the largest first."""

    question = "Errors: what do they have in common?"
    template = "errors"

    split: str
    num_wrong: int
    groups: tuple[Group, ...] = ()

    def summary(self) -> str:
        return f"{counted(self.num_wrong, 'mistake')} in {counted(len(self.groups), 'group')}"


def errors(subject: Subject) -> Errors:
    """Groups of errors that look alike to the network."""
    from sklearn.cluster import KMeans

    predictions = subject.measured_predictions()
    names, labels, predicted = predictions.class_names, predictions.labels, predictions.predicted
    wrong = np.flatnonzero(~predictions.right)
    if len(wrong) < 2:
        return Errors(split=subject.split, num_wrong=len(wrong))
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
        typical = wrong[members[np.argsort(away, kind="stable")[:NUM_IN_GROUP]]]
        pairs = Counter((int(labels[i]), int(predicted[i])) for i in wrong[members])
        # Of equals those of the first classes.
        commonest = sorted(pairs, key=lambda pair: (-pairs[pair], pair))[:3]
        pictures = [
            Error(id=str(predictions.ids[i]), true=names[labels[i]], guess=names[predicted[i]])
            for i in typical
        ]
        named = tuple((names[a], names[b], pairs[a, b]) for a, b in commonest)
        groups.append(Group(num_images=len(members), pairs=named, pictures=tuple(pictures)))
        arrays[f"group{place}"] = subject.measured.pixels[typical]
    return Errors(split=subject.split, num_wrong=len(wrong), groups=tuple(groups)).having(arrays)
