"""Are the labels right? Images whose label is probably wrong, by confident learning (Northcutt et
al. 2021, arXiv 1911.00068), with cleanlab.

Probabilities must come from a model that never saw the images: of a held-out split, or of folds.
"""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tenfold.audit.answer import Answer, Unanswerable
from tenfold.audit.store import Store
from tenfold.audit.subject import Subject
from tenfold.data import Images
from tenfold.data.csv_tables import table_text
from tenfold.data.duplicates import exact_groups
from tenfold.data.splits import TrainingData, with_groups
from tenfold.errors import TenfoldError, missing_extra
from tenfold.evaluation.evaluate import split_of
from tenfold.evaluation.metrics import wilson_interval
from tenfold.evaluation.predictions import (
    Predictions,
    load_predictions,
    predict_images,
    save_predictions,
)
from tenfold.results.facts import Fact

NUM_DOUBTFUL = 24
"""Images with a doubtful label that are kept to be shown."""

Folds = Annotated[
    int, Field(ge=0, description="Parts of the training images, each judged without it; 0 or 2 on.")
]

WRONG_IN_CIFAR10 = (
    165, 792, 882, 1227, 1300, 1684, 1718, 1969, 2010, 2128, 2232, 2405, 2532, 2592, 2804,
    2840, 2940, 3113, 3168, 3183, 3192, 3490, 3600, 3753, 3977, 4055, 4198, 4614, 4643,
    4794, 4910, 4965, 5166, 5191, 5211, 5468, 5632, 5690, 5882, 5960, 6522, 6792, 6877,
    6966, 7311, 7657, 7846, 8058, 8296, 8620, 9227, 9352, 9643, 9793,
)  # fmt: skip
"""Positions in CIFAR-10's test set of labels that fewer than three of five people agreed with, of
the ones that confident learning had suspected (Northcutt, Athalye and Mueller 2021, arXiv
2103.14749)."""


class LabelIssue(Fact):
    """An image and how doubtful its label is.

    quality: from 0, surely wrong, to 1. given, suggested: classes. is_likely: whether confident
    learning counts it among the wrong ones.
    """

    position: int
    id: str
    given: str
    suggested: str
    quality: float
    is_likely: bool


class Recovered(Fact):
    """How wrong labels that are known rank: shares of them among the first images.

    precision, recall: of what confident learning counts as wrong. found_in: the share of the known
    ones in the first `share` of the ranking.
    """

    num_known: int
    precision: float
    recall: float
    share: float
    found_in: float


class Labels(Answer):
    """first: the most doubtful labels. known: how the ranking does on labels of CIFAR-10 that
    people have found to be wrong. folds: of the training images, where those are judged."""

    question = "Are the labels right?"
    template = "labels"

    split: str
    num_images: int
    num_judged: int
    num_likely: int
    first: tuple[LabelIssue, ...]
    known: Recovered | None
    folds: int = 0

    def summary(self) -> str:
        unjudged = self.num_images - self.num_judged
        of = "training labels" if self.folds else "labels"
        return f"{self.num_likely} of {self.num_judged:,} {of} are doubtful" + (
            f"; {unjudged:,} could not be judged" if unjudged else ""
        )


def labels(subject: Subject, *, folds: Folds = 0) -> Labels:
    """Images whose label is probably wrong, among those that training did not see; with folds
    among the training images, by as many trainings that each leave a part of them out."""
    if folds == 1:
        raise TenfoldError("One fold would leave nothing to train on; choose two or more.")
    if folds:
        images, predictions = out_of_fold(subject, folds)
    else:
        images, predictions = subject.measured, subject.measured_predictions()
    num_judged = count_judged(predictions)
    if not num_judged:
        raise Unanswerable(
            f"None of the {len(predictions.labels):,} labels could be judged: each is the only one "
            "of its class, or the model is right no more often than by chance."
        )
    ranked = rank_labels(predictions)
    first = ranked[:NUM_DOUBTFUL]
    rows = [
        [issue.id, issue.given, issue.suggested, f"{issue.quality:.6f}", str(issue.is_likely)]
        for issue in ranked
    ]
    table = table_text(["id", "given", "suggested", "quality", "likely_wrong"], rows)
    wrong = set(WRONG_IN_CIFAR10)
    return Labels(
        split="training" if folds else subject.split,
        num_images=len(ranked),
        num_judged=num_judged,
        num_likely=sum(issue.is_likely for issue in ranked),
        first=tuple(first),
        known=measure(ranked, wrong) if subject.is_of_cifar10 and not folds else None,
        folds=folds,
    ).having(
        {"first": images.pixels[np.array([issue.position for issue in first])]},
        {"labels.csv": table},
    )


def out_of_fold(subject: Subject, folds: int) -> tuple[Images, Predictions]:
    """The training images of a run, and what its recipe predicts for each from training on the
    `folds - 1` of `folds` parts that the image isn't in.

    A part that was predicted is kept in the run folder, so that an interruption costs no more than
    one training. Logits are divided by the run's temperature. Raises TenfoldError where a class
    has fewer images than there are parts, and as `fit` does.
    """
    from tenfold.training.trainer import fit

    model, dataset, run = subject.model, subject.dataset, subject.run
    train = split_of(dataset, "train", model.recipe.data)
    parts = _parts(train, folds, seed=subject.seed)
    training = model.recipe.training
    # Without validation there is nothing to stop by, and what is compiled once is trained once.
    recipe = model.recipe.but(training=training.but(early_stopping=0, milestones=(), compile=False))
    logits = np.empty((len(train), train.num_classes), dtype=np.float32)
    content = Store(run).content[:16]
    for part in range(folds):
        held = np.flatnonzero(parts == part)
        path = run.path / "audit" / f"fold-{part + 1}-of-{folds}-{content}.npz"
        found = load_predictions(path) if path.exists() else None
        if found is None or not np.array_equal(found.ids, train.ids[held]):
            data = TrainingData(
                train=train.take(np.flatnonzero(parts != part)),
                validation=None,
                dataset_name=dataset.name,
                source=dataset.source,
                window=dataset.window,
            )
            found = predict_images(fit(recipe, data).model, train.take(held))
            save_predictions(path, found)
        logits[held] = found.logits / subject.temperature
        if subject.progress is not None:
            subject.progress("folds", part + 1, folds)
    return train, Predictions(logits, train.labels, train.ids, train.class_names)


def _parts(images: Images, folds: int, *, seed: int) -> NDArray[np.int64]:
    """The part of each image, the same for equal ones and for those of a group; each class is
    spread over all parts."""
    groups = with_groups(exact_groups([images.pixels]), images.groups)
    counts = np.unique(images.labels[groups == np.arange(len(images))], return_counts=True)[1]
    if counts.min() < folds:
        raise TenfoldError(
            f"A class has {counts.min()} different training images, too few for {folds} folds; "
            "choose fewer with --folds."
        )
    parts = np.empty(len(images), dtype=np.int64)
    order = np.random.default_rng((seed, folds)).permutation(len(images))
    for label in np.unique(images.labels):
        own = order[images.labels[order] == label]
        own = own[groups[own] == own]
        parts[own] = np.arange(len(own)) % folds
    return parts[groups]


def count_judged(predictions: Predictions) -> int:
    """How many labels can be judged: not one that is the only one of its class, and none at all
    where the model isn't better, beyond chance, than calling everything by the commonest one."""
    labels, counts = predictions.labels, np.bincount(predictions.labels)
    if wilson_interval(int(predictions.right.sum()), len(labels))[0] <= counts.max() / len(labels):
        return 0
    return int(counts[counts > 1].sum())


def rank_labels(predictions: Predictions) -> list[LabelIssue]:
    """All images, the most doubtful label first. Raises TenfoldError without cleanlab."""
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        raise missing_extra("Looking for wrong labels needs cleanlab", "audit") from None
    probabilities, labels = predictions.probabilities, predictions.labels
    if len(np.unique(labels)) < 2:
        raise TenfoldError("Wrong labels can't be told where all images have the same one.")
    quality: NDArray[np.float64] = get_label_quality_scores(
        labels, probabilities, method="normalized_margin"
    )
    likely = find_label_issues(labels, probabilities, n_jobs=1)
    names = predictions.class_names
    # What an image would be called if not by its label.
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1
    suggested = others.argmax(axis=1)
    return [
        LabelIssue(
            position=int(index),
            id=str(predictions.ids[index]),
            given=names[labels[index]],
            suggested=names[suggested[index]],
            quality=float(quality[index]),
            is_likely=bool(likely[index]),
        )
        for index in np.argsort(quality, kind="stable")
    ]


def measure(ranked: list[LabelIssue], known: set[int], *, share: float = 0.03) -> Recovered:
    """How many of the images `known` to be labelled wrongly the ranking puts first."""
    likely = {issue.position for issue in ranked if issue.is_likely}
    first = {issue.position for issue in ranked[: round(share * len(ranked))]}
    hits = len(likely & known)
    return Recovered(
        num_known=len(known),
        precision=hits / len(likely) if likely else 0.0,
        recall=hits / len(known) if known else 0.0,
        share=share,
        found_in=len(first & known) / len(known) if known else 0.0,
    )
