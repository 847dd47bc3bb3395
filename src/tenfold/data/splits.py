"""Which images are trained on, validated on and tested on: seeded, stratified, reproducible.

The same arguments give the same images on every machine: the order comes from NumPy's PCG64 bit
generator, whose stream is fixed. A larger draw with the same seed contains a smaller one, class by
class, so that runs on 1,000 and on 10,000 images can be compared.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tenfold.data.corrections import correct_training
from tenfold.data.duplicates import NearPairs, exact_groups, joined, near_pairs
from tenfold.data.images import Dataset, Images
from tenfold.errors import TenfoldError

_Numbers = NDArray[np.int64]

# Each draw has a stream of its own, so that one seed doesn't put like-ordered images together.
_STREAMS = {"test": 0, "validation": 1, "train": 2}
_VALIDATION_NOTE = (
    "So many images nearly equal each other that near duplicates of validation images are "
    "trained on: what is chosen by validation may be chosen too hopefully."
)
_TEST_NOTES = {
    True: ", and near duplicates of an image stay on its side.",
    False: ". So many images nearly equal each other that near duplicates could not be kept on one "
    "side: if they are of the same things, the test is too easy.",
}


@dataclass(frozen=True, eq=False)
class TrainingData:
    """All that training may see. There is no test set in it, so nothing can be chosen by it.

    corrections: SHA-256 of the file by which labels were corrected; empty where none was.
    """

    train: Images
    validation: Images | None
    dataset_name: str
    source: str
    notes: tuple[str, ...] = ()
    checksums: Mapping[str, str] = field(default_factory=dict)
    window: tuple[float, ...] = ()
    corrections: str = ""


class _Sizes(NamedTuple):
    train: int
    validation: float
    test: float
    seed: int


def training_data(
    dataset: Dataset,
    *,
    train_size: int,
    validation_size: float,
    seed: int,
    test_size: float = 0.2,
    corrections: str = "",
) -> TrainingData:
    """What is trained and validated on, as `evaluation_split` sees it with the same arguments.

    The data set's own splits are used where it has them. Else a test split of `test_size` is held
    out from train, then a validation split of `validation_size`, each a number or a share below 1
    of what is there; then `train_size` images are drawn for training, or all for 0. Near duplicates
    stay on one side of a made test split, and of validation where they were looked for; where too
    many images are nearly alike for that, exact ones do, and a note says so. Images of one group,
    such as a patient, always stay together. With a `validation_size` of 0 there is no validation.
    corrections: a file by which labels of the training images are corrected once all splits are
    drawn, see `tenfold.data.corrections`.

    Raises TenfoldError for sizes that are not possible, for splits of unequal image sizes, and as
    `correct_training` does.
    """
    for split, images in dataset.splits().items():
        if images.size != dataset.train.size:
            (height, width), (own_height, own_width) = dataset.train.size, images.size
            raise TenfoldError(
                f"The {split} images of {dataset.name} have {own_height}x{own_width} pixels where "
                f"those for training have {height}x{width}; bring them to one size."
            )
    sizes = _Sizes(train_size, validation_size, test_size, seed)
    train, content = _images(dataset, "train", sizes), ""
    assert train is not None
    notes = [*dataset.notes, *_partition(dataset, sizes).notes]
    if corrections:
        train, note = correct_training(train, dataset, Path(corrections))
        notes.append(note)
        content = hashlib.sha256(Path(corrections).read_bytes()).hexdigest()
    return TrainingData(
        train=train,
        validation=_images(dataset, "validation", sizes),
        dataset_name=dataset.name,
        source=dataset.source,
        notes=tuple(notes),
        checksums=dataset.checksums,
        window=dataset.window,
        corrections=content,
    )


def evaluation_split(
    dataset: Dataset,
    split_name: str,
    *,
    train_size: int,
    validation_size: float,
    seed: int,
    test_size: float = 0.2,
    corrections: str = "",
) -> Images:
    """The images of `train`, `validation` or `test`, under the arguments of `training_data`.

    Raises TenfoldError where there is no such split, and for sizes that are not possible.
    """
    if split_name not in ("train", "validation", "test"):
        raise TenfoldError(
            f"There is no split {split_name!r}; choose one of train, validation, test."
        )
    images = _images(dataset, split_name, _Sizes(train_size, validation_size, test_size, seed))
    if images is None:
        raise TenfoldError(
            f"There is no {split_name} split of {dataset.name}, because {split_name}_size is 0 and "
            f"there are no other images for it; set data.{split_name}_size to a share such as 0.1."
        )
    if corrections and split_name == "train":
        images = correct_training(images, dataset, Path(corrections)).train
    return images


def with_groups(exact: _Numbers, groups: NDArray[np.str_] | None) -> _Numbers:
    """For each image the first of all that are exact duplicates of it or of its group."""
    if groups is None:
        return exact
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    members = np.flatnonzero(groups != "")
    alike = np.ones(len(members), np.float32)
    return joined(exact, NearPairs(first[inverse[members]], members, alike))


class _Partition(NamedTuple):
    """Indices into the data set's train split of each split that is made of it."""

    indices: Mapping[str, _Numbers]
    notes: tuple[str, ...]


def _images(dataset: Dataset, split: str, sizes: _Sizes) -> Images | None:
    """One of the splits; its own where the data set has it."""
    own = {"validation": dataset.validation if sizes.validation else None, "test": dataset.test}
    if (images := own.get(split)) is not None:
        return images
    indices = _partition(dataset, sizes).indices.get(split)
    if indices is None or len(indices) == len(dataset.train):
        return None if indices is None else dataset.train  # Without a copy.
    return dataset.train.take(indices)


# Training and evaluation ask the same of one data set, and looking for duplicates takes a while.
_known: WeakKeyDictionary[Dataset, dict[_Sizes, _Partition]] = WeakKeyDictionary()


def _partition(dataset: Dataset, sizes: _Sizes) -> _Partition:
    known = _known.setdefault(dataset, {})
    if sizes not in known:
        known[sizes] = _drawn(dataset, sizes)
    return known[sizes]


def _drawn(dataset: Dataset, sizes: _Sizes) -> _Partition:
    images, notes = dataset.train, []
    own = {"test": dataset.test, "validation": dataset.validation}
    made = [split for split in own if own[split] is None and getattr(sizes, split) != 0]
    found, rest, near = {}, np.arange(len(images)), None
    exact = exact_groups([images.pixels]) if made else rest
    together = with_groups(exact, images.groups)
    if "test" in made:
        near = joined(together, near_pairs([images.pixels], groups=exact))
    for split in made:
        held_out, apart = _hold_out(images, rest, split, sizes, near=near, together=together)
        if split == "test":
            notes.append(
                f"The data has no test split: {len(held_out):,} of its {len(images):,} images were "
                f"held out{_TEST_NOTES[apart]}"
            )
        elif near is not None and not apart:
            notes.append(_VALIDATION_NOTE)
        near = near if apart else None
        found[split] = held_out
        rest = np.setdiff1d(rest, held_out, assume_unique=True)
    if sizes.train:
        rest = rest[_training_draw(images.labels[rest], sizes)]
    return _Partition({**found, "train": rest}, tuple(notes))


def _hold_out(
    images: Images,
    rest: _Numbers,
    split: str,
    sizes: _Sizes,
    *,
    near: _Numbers | None,
    together: _Numbers,
) -> tuple[_Numbers, bool]:
    """Sorted indices of `rest` that are held out for `split`, its size met class by class.

    near: groups of near duplicates, where they were looked for, which are kept whole if each class
    can then give at least half of what it should, and an image if it should give any; else those
    that are kept `together` anyhow are. The bool says whether the first were.
    """
    labels, what = images.labels[rest], f"{split}_size"
    counts = np.bincount(labels)
    number = _number(getattr(sizes, split), len(labels), what)
    most = np.maximum(counts - 1, 0)
    if number > most.sum():
        raise TenfoldError(
            f"{what} is {number:,} of {len(labels):,} images, which leaves no image of "
            f"some class to train on; {most.sum():,} can be held out at most."
        )
    quotas = _quotas(counts, number, least=np.zeros_like(counts), most=most)
    order = _order(len(labels), split, sizes)
    if near is not None:
        chosen = _whole_groups(labels, order, quotas, near[rest])
        given = np.bincount(labels[chosen], minlength=len(quotas))
        if (given >= np.maximum(quotas // 2, np.minimum(quotas, 1))).all():
            return np.sort(rest[chosen]), True
    chosen = _whole_groups(labels, order, quotas, together[rest])
    if not len(chosen):
        raise TenfoldError(
            f"None of the {len(labels):,} images can be held out for {what}, because those of each "
            "class equal each other, or are of few patients or groups that stay together; make "
            f"data.{what} larger, or supply that split yourself."
        )
    return np.sort(rest[chosen]), False


def _training_draw(labels: _Numbers, sizes: _Sizes) -> _Numbers:
    """Sorted indices of `train_size` images, at least one of each class if that is possible."""
    number = _number(sizes.train, len(labels), "train_size")
    if number > len(labels):
        raise TenfoldError(
            f"train_size is {number:,}, but there are only {len(labels):,} images left to train "
            "on; make it smaller, or 0 for all of them."
        )
    counts = np.bincount(labels)
    present = np.minimum(counts, 1)
    least = present if number >= present.sum() else np.zeros_like(counts)
    quotas = _quotas(counts, number, least=least, most=counts)
    order = _order(len(labels), "train", sizes)
    chosen = [order[labels[order] == label][:quota] for label, quota in enumerate(quotas)]
    return np.sort(np.concatenate(chosen))


def _order(number: int, split: str, sizes: _Sizes) -> _Numbers:
    generator = np.random.Generator(np.random.PCG64([sizes.seed, _STREAMS[split]]))
    return np.argsort(generator.random(number), kind="stable")


def _number(size: float, available: int, what: str) -> int:
    if not math.isfinite(size) or size <= 0 or (size >= 1 and size != int(size)):
        raise TenfoldError(
            f"{what} must be a number of images or a share between 0 and 1 of the "
            f"{available:,} that there are, not {size:g}."
        )
    return int(size) if size >= 1 else max(1, round(size * available))


def _quotas(counts: _Numbers, total: int, *, least: _Numbers, most: _Numbers) -> _Numbers:
    """How many of each class, by largest remainder within bounds; they add up to `total`."""
    shares = counts * (total / max(1, int(counts.sum())))
    quotas: _Numbers = np.clip(np.floor(shares).astype(np.int64), least, most)
    while (missing := total - int(quotas.sum())) != 0:
        step = 1 if missing > 0 else -1
        room = quotas < most if step > 0 else quotas > least
        order = np.argsort(step * (quotas - shares), kind="stable")
        quotas[order[room[order]][: abs(missing)]] += step
    return quotas


def _whole_groups(
    labels: _Numbers, order: _Numbers, quotas: _Numbers, groups: _Numbers
) -> _Numbers:
    """The first of each class in `order` up to its quota, taking all images of a group or none;
    one that won't fit is passed over."""
    members: dict[int, list[int]] = {}
    for index in order.tolist():
        members.setdefault(int(groups[index]), []).append(index)
    room, chosen = quotas.copy(), []
    for group in members.values():
        needs = np.bincount(labels[group], minlength=len(room))
        if (room >= needs).all():
            chosen += group
            room -= needs
    return np.array(chosen, dtype=np.int64)
