"""Who is trained on, who is validated on and who is tested on: seeded, stratified, reproducible.

The same arguments give the same pictures on every machine: the order comes from NumPy's PCG64 bit
generator, whose stream is fixed. A larger draw with the same seed contains a smaller one, class by
class, so that runs on 1,000 and on 10,000 pictures can be compared.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tenfold.data.duplicates import exact_groups, near_groups
from tenfold.data.images import Dataset, Images
from tenfold.data.leaks import check_leaks, duplicates_across
from tenfold.errors import TenfoldError

__all__ = [
    "TrainingData",
    "check_leaks",
    "duplicates_across",
    "evaluation_split",
    "stratified_split",
    "subset",
    "training_data",
]

_Numbers = NDArray[np.int64]

# Each draw has a stream of its own, so that one seed doesn't put like-ordered pictures together.
_TEST, _VALIDATION, _TRAIN, _ANY = range(4)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """All that training may see. There is no test set in it, so nothing can be chosen by it."""

    train: Images
    validation: Images | None
    dataset_name: str
    source: str
    notes: tuple[str, ...] = ()
    checksums: Mapping[str, str] = field(default_factory=dict)
    white_level: int = 0


def stratified_split(
    labels: _Numbers, *, size: float, seed: int, groups: _Numbers | None = None
) -> tuple[_Numbers, _Numbers]:
    """Sorted indices of those that stay, and of those held out.

    labels: `(N,)` int64. size: how many to hold out, as a number or as a share below 1 of all. The
    total is met exactly, and each class gives its share by largest remainder, but never its last
    picture. groups: `(N,)` int64, equal for pictures that must stay on one side; the total may
    then be missed by less than the largest group of each class.

    Raises TenfoldError for a size that is not possible.
    """
    held_out = _Draw(labels, size, _generator(seed, _ANY), "size").held_out(groups)
    return np.delete(np.arange(len(labels)), held_out), held_out


def subset(images: Images, size: float, *, seed: int) -> Images:
    """`size` pictures, as a number or as a share below 1, drawn evenly over the classes.

    Every class keeps its share by largest remainder, and at least one picture where `size` allows
    it. The order is that of `images`. Raises TenfoldError if there aren't as many pictures.
    """
    number = _number(size, len(images), "size")
    if number > len(images):
        raise TenfoldError(
            f"size is {number:,}, but there are only {len(images):,} pictures; make it smaller."
        )
    return _take(images, _drawn(images.labels, number, _generator(seed, _ANY)))


def training_data(
    dataset: Dataset,
    *,
    train_size: int,
    validation_size: float,
    seed: int,
    test_size: float = 0.2,
) -> TrainingData:
    """What is trained and validated on, as `evaluation_split` sees it with the same arguments.

    The data set's own splits are used where it has them. Else a test split of `test_size` is first
    held out from train, with near duplicates kept on one side, then a validation split of
    `validation_size`, with near duplicates kept on one side where they were looked for, and exact
    ones otherwise; both a number or a share below 1 of what is there. Where so many pictures are
    nearly alike that this can't be, exact ones are kept on one side and a note says so. Then
    `train_size` pictures are drawn for training, or all for 0. With a `validation_size` of 0 there
    is no validation.

    Raises TenfoldError for sizes that are not possible, and for splits of unequal image sizes.
    """
    for split, images in dataset.splits().items():
        if images.size != dataset.train.size:
            (height, width), (own_height, own_width) = dataset.train.size, images.size
            raise TenfoldError(
                f"The {split} images of {dataset.name} have {own_height}x{own_width} pixels where "
                f"those for training have {height}x{width}; bring them to one size."
            )
    parts = _partition(dataset, _Sizes(train_size, validation_size, test_size, seed))
    return TrainingData(
        train=_take(dataset.train, parts.train),
        validation=_validation(dataset, parts),
        dataset_name=dataset.name,
        source=dataset.source,
        notes=(*dataset.notes, *parts.notes),
        checksums=dataset.checksums,
        white_level=dataset.white_level,
    )


def evaluation_split(
    dataset: Dataset,
    split_name: str,
    *,
    train_size: int,
    validation_size: float,
    seed: int,
    test_size: float = 0.2,
) -> Images:
    """The pictures of `train`, `validation` or `test`, under the arguments of `training_data`.

    Raises TenfoldError where there is no such split, and for sizes that are not possible.
    """
    parts = _partition(dataset, _Sizes(train_size, validation_size, test_size, seed))
    images: Images | None
    match split_name:
        case "train":
            images = _take(dataset.train, parts.train)
        case "validation":
            images = _validation(dataset, parts)
        case "test":
            images = _test(dataset, parts)
        case _:
            raise TenfoldError(
                f"There is no split {split_name!r}; choose one of train, validation, test."
            )
    if images is None:
        raise TenfoldError(
            f"There is no {split_name} split of {dataset.name}, because {split_name}_size is 0 and "
            f"there are no other pictures for it; set data.{split_name}_size to a share such as "
            "0.1."
        )
    return images


class _Sizes(NamedTuple):
    train: int
    validation: float
    test: float
    seed: int


class _Partition(NamedTuple):
    """Indices into the data set's train split; None where its own split is used, or none is."""

    train: _Numbers
    validation: _Numbers | None
    test: _Numbers | None
    own_validation: bool
    notes: tuple[str, ...]


# Training and evaluation ask the same of one data set, and looking for duplicates takes a while.
_known: WeakKeyDictionary[Dataset, dict[_Sizes, _Partition]] = WeakKeyDictionary()


def _partition(dataset: Dataset, sizes: _Sizes) -> _Partition:
    known = _known.setdefault(dataset, {})
    if sizes not in known:
        known[sizes] = _make_partition(dataset, sizes)
    return known[sizes]


def _make_partition(dataset: Dataset, sizes: _Sizes) -> _Partition:
    images = dataset.train
    rest = np.arange(len(images))
    test, validation = None, None
    notes: tuple[str, ...] = ()
    groups, is_near = None, False
    if dataset.test is None and sizes.test != 0:
        groups = near_groups([images.pixels])
        draw = _Draw(images.labels, sizes.test, _generator(sizes.seed, _TEST), "test_size")
        apart = draw.is_possible(groups)
        if not apart:
            groups = exact_groups([images.pixels])
        is_near = apart
        test = draw.held_out(groups)
        notes = (_note(len(test), len(images), apart=apart),)
        rest = np.setdiff1d(rest, test, assume_unique=True)
    if dataset.validation is None and sizes.validation != 0:
        groups = exact_groups([images.pixels]) if groups is None else groups
        generator = _generator(sizes.seed, _VALIDATION)
        draw = _Draw(images.labels[rest], sizes.validation, generator, "validation_size")
        if is_near and not draw.is_possible(groups[rest]):
            groups = exact_groups([images.pixels])
            notes += (_VALIDATION_NOTE,)
        held_out = draw.held_out(groups[rest])
        rest, validation = np.delete(rest, held_out), rest[held_out]
    if sizes.train != 0:
        rest = rest[_training_draw(images.labels[rest], sizes)]
    own_validation = dataset.validation is not None and sizes.validation != 0
    return _Partition(rest, validation, test, own_validation, notes)


_VALIDATION_NOTE = (
    "So many pictures nearly equal each other that near duplicates of validation pictures are "
    "trained on: what is chosen by validation may be chosen too hopefully."
)


def _note(number: int, total: int, *, apart: bool) -> str:
    held_out = f"The data has no test split: {number:,} of its {total:,} pictures were held out"
    if apart:
        return f"{held_out}, and near duplicates of a picture stay on its side."
    return (
        f"{held_out}. So many pictures nearly equal each other that near duplicates could not be "
        "kept on one side: if they are of the same things, the test is too easy."
    )


def _training_draw(labels: _Numbers, sizes: _Sizes) -> _Numbers:
    number = _number(sizes.train, len(labels), "train_size")
    if number > len(labels):
        raise TenfoldError(
            f"train_size is {number:,}, but there are only {len(labels):,} pictures left to train "
            "on; make it smaller, or 0 for all of them."
        )
    return _drawn(labels, number, _generator(sizes.seed, _TRAIN))


def _validation(dataset: Dataset, parts: _Partition) -> Images | None:
    if parts.own_validation:
        return dataset.validation
    return None if parts.validation is None else _take(dataset.train, parts.validation)


def _test(dataset: Dataset, parts: _Partition) -> Images | None:
    if dataset.test is not None:
        return dataset.test
    return None if parts.test is None else _take(dataset.train, parts.test)


def _take(images: Images, indices: _Numbers) -> Images:
    """As `Images.take`, but without a copy where all are wanted."""
    return images if len(indices) == len(images) else images.take(indices)


def _generator(seed: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, purpose]))


class _Draw:
    """Pictures held out of `labels`: an order drawn once, and how many of each class."""

    def __init__(
        self, labels: _Numbers, size: float, generator: np.random.Generator, what: str
    ) -> None:
        self._labels, self._what = labels, what
        counts = np.bincount(labels)
        number = _number(size, len(labels), what)
        most = np.maximum(counts - 1, 0)
        if number > most.sum():
            raise TenfoldError(
                f"{what} is {number:,} of {len(labels):,} pictures, which leaves no picture of "
                f"some class to train on; {most.sum():,} can be held out at most."
            )
        self._quotas = _quotas(counts, number, least=np.zeros_like(counts), most=most)
        self._order = np.argsort(generator.random(len(labels)), kind="stable")

    def held_out(self, groups: _Numbers | None) -> _Numbers:
        """Sorted indices, with groups kept whole."""
        if groups is None:
            return np.sort(_first_of_each(self._labels, self._order, self._quotas))
        indices = _whole_groups(self._labels, self._order, self._quotas, groups)
        if not len(indices):
            raise TenfoldError(
                f"None of the {len(self._labels):,} pictures can be held out for {self._what}, "
                "because those of each class equal each other; supply that split yourself."
            )
        return np.sort(indices)

    def is_possible(self, groups: _Numbers) -> bool:
        """Whether each class gives at least half of what it should, and a picture if it should
        give any, with groups kept whole."""
        indices = _whole_groups(self._labels, self._order, self._quotas, groups)
        given = np.bincount(self._labels[indices], minlength=len(self._quotas))
        return bool((given >= np.maximum(self._quotas // 2, np.minimum(self._quotas, 1))).all())


def _drawn(labels: _Numbers, number: int, generator: np.random.Generator) -> _Numbers:
    """Sorted indices of `number` pictures, at least one of each class if that is possible."""
    counts = np.bincount(labels)
    present = np.minimum(counts, 1)
    least = present if number >= present.sum() else np.zeros_like(counts)
    quotas = _quotas(counts, number, least=least, most=counts)
    order = np.argsort(generator.random(len(labels)), kind="stable")
    return np.sort(_first_of_each(labels, order, quotas))


def _number(size: float, available: int, what: str) -> int:
    if not math.isfinite(size) or size <= 0 or (size >= 1 and size != int(size)):
        raise TenfoldError(
            f"{what} must be a number of pictures or a share between 0 and 1 of the "
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


def _first_of_each(labels: _Numbers, order: _Numbers, quotas: _Numbers) -> _Numbers:
    chosen = [order[labels[order] == label][:quota] for label, quota in enumerate(quotas)]
    return np.concatenate([np.empty(0, dtype=np.int64), *chosen])


def _whole_groups(
    labels: _Numbers, order: _Numbers, quotas: _Numbers, groups: _Numbers
) -> _Numbers:
    """As `_first_of_each`, taking all pictures of a group or none; one that won't fit is passed."""
    members: dict[int, list[int]] = {}
    for index in order.tolist():
        members.setdefault(int(groups[index]), []).append(index)
    room = quotas.tolist()
    names = labels.tolist()
    chosen: list[int] = []
    for group in members.values():
        needs = [names[index] for index in group]
        if all(room[label] >= needs.count(label) for label in set(needs)):
            chosen += group
            for label in needs:
                room[label] -= 1
    return np.array(chosen, dtype=np.int64)
