"""What a recipe predicts for its own training images, each by a network that never saw it."""

import numpy as np
from numpy.typing import NDArray

from tenfold.audit.store import Store
from tenfold.audit.subject import Subject
from tenfold.data import Images
from tenfold.data.duplicates import exact_groups
from tenfold.data.splits import TrainingData, with_groups
from tenfold.errors import TenfoldError
from tenfold.evaluation.evaluate import split_of
from tenfold.evaluation.predictions import (
    Predictions,
    load_predictions,
    predict_images,
    save_predictions,
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
    content = Store(run).content()[:16]
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
