"""Evaluate a finished run on a split of its data or of other data, and write that down."""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.data import Dataset, Images, load
from tenfold.data.images import changed_array
from tenfold.data.sources import is_known
from tenfold.data.splits import evaluation_split
from tenfold.errors import TenfoldError
from tenfold.evaluation.loading import load_data
from tenfold.evaluation.metrics import (
    IN_TRAINING_MODE,
    compare_labels,
    compute_metrics,
    cross_entropy,
)
from tenfold.evaluation.predictions import (
    Predictions,
    load_predictions,
    map_labels,
    predict_images,
    save_predictions,
)
from tenfold.evaluation.trained import TrainedModel, load_model
from tenfold.files import DAMAGED, atomic_file
from tenfold.progress import Progress
from tenfold.recipe import DataOptions
from tenfold.results.runs import (
    DataFacts,
    Metrics,
    Milestone,
    Result,
    Score,
    UseOfTest,
    read_provenance,
    read_result,
)
from tenfold.run import RunFolder, now

SPLITS = ("validation", "test", "train")

logger = logging.getLogger("tenfold")


def evaluate_run(
    run: RunFolder,
    *,
    split: str = "test",
    data: str | None = None,
    skip_broken: bool = False,
    recall: bool = False,
    purpose: str = "tenfold evaluate",
    progress: Progress | None = None,
) -> Metrics:
    """Metrics of `run` on `split`, which are also written into the run folder.

    data: name or path of another data set than the run's; classes are matched by name, and the
    result is kept beside the run's own, under `<split> of <data>`. Where it is what the run was
    trained on, its own splits count. skip_broken: leave out images that can't be read. recall:
    compute nothing that the run has saved; a look at test it is all the same, and is written down.
    Raises TenfoldError where the run is not finished, where its data is
    no longer what it was trained on, and where the data has no such split or classes.

    >>> from tenfold import train
    >>> run = train("ann", data="digits", epochs=1, training__min_steps=0, progress=False)
    >>> evaluate_run(RunFolder(run.path)).num_images
    355
    """
    options: dict[str, Any] = {"split": split, "data": data, "skip_broken": skip_broken}
    return evaluate_split(run, **options, recall=recall, purpose=purpose, progress=progress).metrics


class Evaluated(NamedTuple):
    """The metrics of a split, and what it is called in the run's results."""

    key: str
    metrics: Metrics


def evaluate_split(
    run: RunFolder,
    *,
    split: str,
    data: str | None = None,
    skip_broken: bool = False,
    recall: bool = False,
    purpose: str,
    progress: Progress | None = None,
) -> Evaluated:
    """As `evaluate_run`."""
    if recall and data is None and saved_predictions(run, split) is not None:
        with run.writer():
            result = read_result(run.result)
            metrics = result.splits[split]
            use = use_of(split, metrics.accuracy, purpose=purpose)
            result.with_use(use).write(run.result)
        return Evaluated(split, metrics)
    model, key, images = open_split(
        run, split=split, data=data, skip_broken=skip_broken, progress=progress
    )
    with run.writer():
        metrics = score_images(run, model, images, split=key, progress=progress)
        use = use_of(key, metrics.accuracy, purpose=purpose)
        read_result(run.result).with_metrics(metrics, use).write(run.result)
    return Evaluated(key, metrics)


def predict_split(
    run: RunFolder,
    *,
    split: str,
    data: str | None = None,
    skip_broken: bool = False,
    progress: Progress | None = None,
) -> Predictions:
    """What `run` says of the images of `split`; nothing is written, and no accuracy shown.

    Arguments and errors are those of `evaluate_run`. The run's saved predictions are used where
    there are some, as `saved_predictions` finds them, and need no data.
    """
    if data is None and (saved := saved_predictions(run, split)) is not None:
        logger.info("%s has the predictions already.", run.predictions(split))
        return saved
    model, key, images = open_split(
        run, split=split, data=data, skip_broken=skip_broken, progress=progress
    )
    if number := count_trained_on(run, images, own=key in SPLITS):
        logger.warning("%s was trained on %d of the images of %s.", run.path, number, key)
    return predict_images(model, images, progress=progress)


def saved_predictions(run: RunFolder, split: str) -> Predictions | None:
    """The predictions in the run folder, if they are those of the run's result; otherwise None.

    They are if they come to the same classes and the same confusion matrix.
    """
    file = run.predictions(split)
    if split not in SPLITS or not run.is_finished() or not file.exists():
        return None
    try:
        found = load_predictions(file)
        recorded = read_result(run.result).splits[split]
        names = tuple(score.name for score in recorded.per_class)
        compared = compare_labels(found.labels, found.predicted, class_names=names)
        if (names, len(found.ids)) == (found.class_names, recorded.num_images) and (
            compared.confusion == recorded.confusion
        ):
            return found
    except (TenfoldError, KeyError, TypeError, ValueError, IndexError):
        pass
    logger.warning("%s does not fit the run's result and is passed over.", file)
    return None


class OpenedSplit(NamedTuple):
    """A finished run's model, and images for it.

    key: what the split is called in the run's results: `test`, or `test of photos` for other data.
    """

    model: TrainedModel
    key: str
    images: Images


def open_split(
    run: RunFolder,
    *,
    split: str,
    data: str | None = None,
    skip_broken: bool = False,
    progress: Progress | None = None,
) -> OpenedSplit:
    """The model of `run` and the images of `split`; arguments and errors as `evaluate_run`."""
    if not run.is_finished():
        # A result written now would say that nothing is left to train or to evaluate.
        raise TenfoldError(
            f"{run.path} is not finished; run its `tenfold train` command again to finish it."
        )
    model = load_model(run.model)
    dataset, own = open_data(run, model, data, skip_broken=skip_broken, progress=progress)
    location = _trained_on(run).location
    is_there = bool(location and data) and Path(str(data)).resolve() == Path(str(location))
    if not own and is_there and not run.trained_on.exists():
        logger.warning(
            "%s has changed since %s was trained on it, and it may have learnt from some of these "
            "very images; what it gets right of them says little.",
            data,
            run.path,
        )
    images = split_of(dataset, split, model.recipe.data, own=own)
    return OpenedSplit(model, split if own else f"{split} of {dataset.name}", images)


class OpenedData(NamedTuple):
    """Images for a run. own: whether they are those that it was trained on."""

    dataset: Dataset
    own: bool


def open_data(
    run: RunFolder,
    model: TrainedModel,
    place: str | None = None,
    *,
    skip_broken: bool = False,
    progress: Progress | None = None,
) -> OpenedData:
    """What `run` was trained on, where it was then; or what is at `place`, which may be that too.

    Raises TenfoldError, which asks for --data, where it is no longer there or has changed since.
    """
    trained_on = model.recipe.data.name
    is_there = is_known(trained_on) or os.path.exists(os.path.expanduser(trained_on))
    if place is None and is_there:
        dataset = load_data(model.recipe, skip_broken=skip_broken, progress=progress)
        require_unchanged(run, dataset)
        return OpenedData(dataset, True)
    known = _trained_on(run)
    where = place or known.location or trained_on
    if place is None and not os.path.exists(where):
        raise TenfoldError(
            f"{run.path} was trained on {where}, where nothing is now; say with --data where its "
            "images are."
        )
    height, width = model.image_size
    dataset = load(
        where,
        image_size=height if height == width else 0,
        skip_broken=skip_broken,
        window=model.window,
        progress=progress,
    )
    if place is None:
        require_unchanged(run, dataset)
        return OpenedData(dataset, True)
    is_same = bool(known.checksums) and known.checksums == dict(dataset.checksums)
    return OpenedData(dataset, is_same)


def _trained_on(run: RunFolder) -> DataFacts:
    """What the run remembers of its data."""
    return read_provenance(run.provenance).data


def require_unchanged(run: RunFolder, dataset: Dataset) -> None:
    """Raise TenfoldError where the run was trained on other images: what was then in train may
    now be in test."""
    changed = changed_array(dataset, _trained_on(run).checksums)
    if changed:
        raise TenfoldError(
            f"{dataset.name} has changed since {run.path} was trained on it ({changed} has another "
            "checksum); restore it, or say with --data where it is as it was (`tenfold evaluate` "
            "and `tenfold export` take other data there as well)."
        )


def split_of(dataset: Dataset, split: str, options: DataOptions, *, own: bool = True) -> Images:
    """The images of `split`, the same ones that training left out.

    own: whether this is the data that the run was trained on; other data keeps the splits it has,
    and data without splits is taken whole as its test.
    """
    if split not in SPLITS:
        raise TenfoldError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
    if own:
        return evaluation_split(dataset, split, **splitting(options))
    splits = dataset.splits()
    if split not in splits and len(splits) == 1:
        return dataset.train
    if split not in splits:
        raise TenfoldError(
            f"{dataset.name} has no {split} split; it has {', '.join(splits)}: choose with --split."
        )
    return splits[split]


def splitting(options: DataOptions) -> dict[str, Any]:
    """What a recipe says of splits, as the keywords of `tenfold.data.splits`."""
    return {
        "train_size": options.train_size,
        "validation_size": options.validation_size,
        "test_size": options.test_size,
        "seed": options.split_seed,
        "corrections": options.corrections,
    }


def score_images(
    run: RunFolder,
    model: TrainedModel,
    images: Images,
    *,
    split: str,
    progress: Progress | None = None,
) -> Metrics:
    """Predict, save the predictions in the run folder and return the metrics.

    split: as in the run's results.
    """
    predictions = predict_images(model, images, progress=progress)
    save_predictions(run.predictions(split), predictions)
    more: dict[str, float] = _in_training_mode(model, images, progress=progress)
    if number := count_trained_on(run, images, own=split in SPLITS):
        more["num_trained_on"] = number
    return compute_metrics(predictions).model_copy(update=more)


def _in_training_mode(
    model: TrainedModel, images: Images, *, progress: Progress | None
) -> dict[str, float]:
    """The accuracy with dropout and on the statistics of each batch, where the recipe wants it."""
    if not model.recipe.evaluation.training_mode or len(images) < 2:
        return {}
    batch_size = model.recipe.training.batch_size
    logits = model.logits(
        images.pixels, batch_size=batch_size, training_mode=True, progress=progress
    )
    right = logits.argmax(axis=1) == map_labels(images, model.class_names)
    return {IN_TRAINING_MODE: float(right.mean())}


def score_milestones(
    run: RunFolder,
    result: Result,
    parts: Mapping[str, Images | None],
    *,
    epochs: Sequence[int],
    progress: Progress | None = None,
) -> Result:
    """`result` with accuracy and loss of the weights after each of `epochs`, for each split.

    Each use of a test split is listed as such.
    """
    milestones = []
    for epoch in epochs:
        model = load_model(run.milestone(epoch))
        scores: dict[str, Score] = {}
        for split, images in parts.items():
            if images is None or not len(images):
                continue
            predictions = predict_images(model, images, progress=progress)
            score = scores[split] = Score(
                accuracy=float(predictions.right.mean()),
                loss=cross_entropy(predictions),
                **_in_training_mode(model, images, progress=progress),
            )
            result = result.with_use(use_of(split, score.accuracy, purpose=f"after epoch {epoch}"))
        milestones.append(Milestone(epoch=epoch, splits=scores))
    return result.model_copy(update={"milestones": tuple(milestones)}) if milestones else result


def use_of(split: str, accuracy: float, *, purpose: str) -> UseOfTest:
    """A look at the images of `split` now."""
    return UseOfTest(time=now(), split=split, purpose=purpose, accuracy=accuracy)


# -- which images a run was trained on, known again by sums of their pixels ------------------------

_Sums = NDArray[np.uint64]


def keep_sums(run: RunFolder, images: Images, *, goes_on: bool) -> None:
    """Write down that `run` is trained on `images` from now on.

    goes_on: from weights that learnt from the images of its earlier sessions, which then count
    among those it was trained on, whatever split they are in now.
    """
    now = sums_of(images)
    before = _kept_sums(run, "sums") if goes_on else now
    with atomic_file(run.trained_on) as file:
        np.savez(file, sums=np.union1d(before, now), earlier=np.setdiff1d(before, now))


def count_trained_on(run: RunFolder, images: Images, *, own: bool) -> int:
    """How many of `images` the run was trained on; 0 where it kept nothing.

    own: of a split of the run's own data, those that an earlier session was trained on and the
    last was not; of what else is in two splits the data set's notes speak.
    """
    kept = _kept_sums(run, "earlier" if own else "sums")
    return int(np.isin(sums_of(images), kept).sum()) if len(kept) else 0


def sums_of(images: Images) -> _Sums:
    """`(N,)` uint64, equal for images of equal pixels; the same on every machine."""
    pixels = np.ascontiguousarray(images.pixels)
    sums = [hashlib.blake2b(image.data, digest_size=8).digest() for image in pixels]
    return np.frombuffer(b"".join(sums), dtype="<u8")


def _kept_sums(run: RunFolder, name: str) -> _Sums:
    try:
        with open(run.trained_on, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            kept: _Sums = file[name].astype(np.uint64)
            return kept
    except DAMAGED:  # An earlier version kept none; or it is damaged, and no result needs it.
        return np.empty(0, dtype=np.uint64)
