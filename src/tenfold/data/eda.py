"""A first look at a data set, in numbers; `tenfold.reporting.eda.page` makes a page of them.

Classes, colours and normalisation are described from the training pictures alone, so that nobody
learns about the test set by exploring; counts, sizes, quality and duplicates are of every split.

Shape letters: C classes, N pictures of H by W pixels.
"""

import base64
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.images import Dataset, Images
from tenfold.data.leaks import Overlap, find_overlaps
from tenfold.data.normalisation import Normalisation, channel_statistics
from tenfold.data.quality import QualityFlag, find_flags, measure
from tenfold.files import without_folders
from tenfold.progress import Progress

NUM_BINS = 32
NUM_SAMPLES = 12
MAX_COMPARED = 150_000
"""Pictures beyond which near duplicates are not looked for: the work grows with the square."""

_BLOCK_VALUES = 12_000_000
_MOST_COMMON_SIZES = 5


@dataclass(frozen=True)
class SplitCounts:
    """How many pictures a split has, in all and by class.

    imbalance: pictures of the largest class to those of the smallest that has any; 1 is balanced.
    missing: names of classes without pictures.
    """

    name: str
    num_pictures: int
    class_counts: tuple[int, ...]
    imbalance: float
    missing: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ClassLook:
    """What the training pictures of one class look like.

    sample_indices, sample_ids: NUM_SAMPLES at most, drawn at random, the same each time.
    mean_image: `(H, W, 3)` uint8. mean_rgb, std_rgb: over all pixels, in [0, 255]; NaN for a class
    without pictures. histograms: `(3, 32)` float64, shares of the red, green and blue values.
    """

    name: str
    num_pictures: int
    sample_indices: tuple[int, ...]
    sample_ids: tuple[str, ...]
    mean_image: NDArray[np.uint8]
    mean_rgb: tuple[float, float, float]
    std_rgb: tuple[float, float, float]
    histograms: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers; the mean image as its bytes in base64, with its shape."""
        has_pictures = self.num_pictures > 0
        return {
            "name": self.name,
            "num_pictures": self.num_pictures,
            "sample_indices": list(self.sample_indices),
            "sample_ids": list(self.sample_ids),
            "mean_rgb": list(self.mean_rgb) if has_pictures else None,
            "std_rgb": list(self.std_rgb) if has_pictures else None,
            "histograms": dict(
                zip(("red", "green", "blue"), self.histograms.round(6).tolist(), strict=True)
            ),
            "mean_image": {
                "shape": list(self.mean_image.shape),
                "uint8_base64": base64.b64encode(self.mean_image.tobytes()).decode("ascii"),
            },
        }


@dataclass(frozen=True)
class OriginalSizes:
    """Heights and widths before resizing, in pixels, over all splits.

    most_common: (height, width, how many pictures), the commonest first.
    num_enlarged: pictures that were smaller than they are now, in height or width.
    """

    num_distinct: int
    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    most_common: tuple[tuple[int, int, int], ...]
    num_enlarged: int


@dataclass(frozen=True, eq=False)
class Exploration:
    """All that `explore` finds. original_sizes: None where every picture has its own size still.

    normalisation: mean and deviation of each channel of the training pictures, in [0, 1].
    """

    name: str
    source: str
    notes: tuple[str, ...]
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    splits: tuple[SplitCounts, ...]
    classes: tuple[ClassLook, ...]
    original_sizes: OriginalSizes | None
    quality: tuple[QualityFlag, ...]
    duplicates: tuple[Overlap, ...]
    normalisation: Normalisation

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers, without NaN."""
        return {
            "name": self.name,
            "source": self.source,
            "notes": list(self.notes),
            "class_names": list(self.class_names),
            "image_size": list(self.image_size),
            "splits": [asdict(split) for split in self.splits],
            "normalisation": {
                "mean": list(self.normalisation.mean),
                "std": list(self.normalisation.std),
            },
            "original_sizes": None if self.original_sizes is None else asdict(self.original_sizes),
            "quality": [asdict(flag) for flag in self.quality],
            "duplicates": [asdict(overlap) for overlap in self.duplicates],
            "classes": [look.to_json() for look in self.classes],
        }


def explore(dataset: Dataset, *, progress: Progress | None = None) -> Exploration:
    """Look at every picture of every split; CIFAR-10 takes about half a minute on two cores.

    Near duplicates are left out beyond MAX_COMPARED pictures.
    """
    splits = dataset.splits()
    measured = {name: measure(images, progress=progress) for name, images in splits.items()}
    num_pictures = sum(map(len, splits.values()))
    return Exploration(
        name=dataset.name,
        source=without_folders(dataset.source),
        notes=dataset.notes,
        class_names=dataset.class_names,
        image_size=dataset.train.size,
        splits=tuple(_counts(name, images) for name, images in splits.items()),
        classes=_looks(dataset.train, progress=progress),
        original_sizes=_original_sizes(splits),
        quality=find_flags(splits, measured),
        duplicates=find_overlaps(splits, near=num_pictures <= MAX_COMPARED, progress=progress),
        normalisation=channel_statistics(dataset.train),
    )


def _counts(name: str, images: Images) -> SplitCounts:
    counts = np.bincount(images.labels, minlength=images.num_classes)
    present = counts[counts > 0]
    return SplitCounts(
        name,
        len(images),
        tuple(counts.tolist()),
        round(float(present.max() / present.min()), 3) if len(present) else 1.0,
        tuple(images.class_names[label] for label in np.flatnonzero(counts == 0)),
    )


def _looks(images: Images, *, progress: Progress | None) -> tuple[ClassLook, ...]:
    sums, counts = _sums_and_histograms(images, progress=progress)
    numbers = np.bincount(images.labels, minlength=images.num_classes)
    samples = _samples(images)
    return tuple(
        _look(images, label, int(numbers[label]), sums[label], counts[label], samples[label])
        for label in range(images.num_classes)
    )


def _look(
    images: Images,
    label: int,
    number: int,
    sums: NDArray[np.int64],
    counts: NDArray[np.int64],
    sample: NDArray[np.int64],
) -> ClassLook:
    """sums: `(H, W, 3)` of pixel values. counts: `(3, 256)` of each value of each channel."""
    values = np.arange(256)
    total = max(1, int(counts[0].sum()))
    mean = counts @ values / total
    std = np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0))
    if number == 0:
        mean, std = np.full(3, np.nan), np.full(3, np.nan)
    return ClassLook(
        name=images.class_names[label],
        num_pictures=number,
        sample_indices=tuple(sample.tolist()),
        sample_ids=tuple(str(name) for name in images.ids[sample]),
        mean_image=np.rint(sums / max(1, number)).astype(np.uint8),
        mean_rgb=_triple(mean),
        std_rgb=_triple(std),
        histograms=counts.reshape(3, NUM_BINS, -1).sum(axis=2) / total,
    )


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = (round(float(value), 3) for value in values)
    return red, green, blue


def _sums_and_histograms(
    images: Images, *, progress: Progress | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """By class: sums of pixels, `(C, H, W, 3)`, and counts of values, `(C, 3, 256)`."""
    (height, width), number = images.size, len(images)
    sums = np.zeros((images.num_classes, height, width, 3), dtype=np.int64)
    counts = np.zeros((images.num_classes, 3, 256), dtype=np.int64)
    step = max(1, _BLOCK_VALUES // (height * width * 3))
    for start in range(0, number, step):
        labels = images.labels[start : start + step]
        block = images.pixels[start : start + step]
        for label in np.unique(labels):
            pictures = block[labels == label]
            sums[label] += pictures.sum(axis=0, dtype=np.int64)
            for channel in range(3):
                counts[label, channel] += np.bincount(pictures[..., channel].ravel(), minlength=256)
        if progress is not None:
            progress("classes and colours", min(start + step, number), number)
    return sums, counts


def _samples(images: Images) -> list[NDArray[np.int64]]:
    order = np.argsort(np.random.Generator(np.random.PCG64(0)).random(len(images)), kind="stable")
    labels = images.labels[order]
    return [
        np.sort(order[np.flatnonzero(labels == label)[:NUM_SAMPLES]])
        for label in range(images.num_classes)
    ]


def _original_sizes(splits: Mapping[str, Images]) -> OriginalSizes | None:
    known = [images.original_sizes for images in splits.values()]
    sizes = np.concatenate([size for size in known if size is not None and len(size)] or [_NONE])
    if not len(sizes):
        return None
    height, width = splits["train"].size
    common = Counter(map(tuple, sizes.tolist())).most_common()
    areas = sizes[:, 0].astype(np.int64) * sizes[:, 1]
    return OriginalSizes(
        num_distinct=len(common),
        smallest=_size(sizes[areas.argmin()]),
        median=_size(np.median(sizes, axis=0)),
        largest=_size(sizes[areas.argmax()]),
        most_common=tuple((h, w, n) for (h, w), n in common[:_MOST_COMMON_SIZES]),
        num_enlarged=int(np.count_nonzero((sizes[:, 0] < height) | (sizes[:, 1] < width))),
    )


_NONE = np.empty((0, 2), dtype=np.int32)


def _size(values: NDArray[Any]) -> tuple[int, int]:
    return round(float(values[0])), round(float(values[1]))
