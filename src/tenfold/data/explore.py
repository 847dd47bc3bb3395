"""A first look at a data set, in numbers; `tenfold.reporting.eda` makes a page of them.

Classes, colours and normalisation are described from the training images alone, so that nobody
learns about the test set by exploring; counts, sizes, quality and duplicates are of every split.

An image is flagged where it is unusual for its data set and poor by itself. Unusual means outside
Tukey's fence of the training images (1.5 interquartile ranges beyond the quartile, 3 for low
information), so a data set of night scenes isn't flagged whole; poor means beyond a fixed limit, so
a data set of fine images isn't flagged for its lesser ones. A flag is a reason to look, no verdict.

Shape letters: C classes, N images of H by W pixels.
"""

import base64
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.images import LUMA, Dataset, Images
from tenfold.data.leaks import Overlap, find_overlaps
from tenfold.data.normalisation import Normalisation, channel_statistics, value_counts
from tenfold.files import without_folders
from tenfold.progress import Progress

_NUM_BINS = 32
_NUM_SHOWN = 12
_MAX_COMPARED = 150_000
"""Images beyond which near duplicates are not looked for: the work grows with the square."""
_BLOCK_VALUES = 12_000_000

_Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SplitCounts:
    """How many images a split has, in all and by class.

    imbalance: images of the largest class to those of the smallest that has any; 1 is balanced.
    missing: names of classes without images.
    """

    name: str
    num_images: int
    class_counts: tuple[int, ...]
    imbalance: float
    missing: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ClassLook:
    """What the training images of one class look like.

    sample_indices, sample_ids: 12 at most, drawn at random, the same each time.
    mean_image: `(H, W, 3)` uint8. mean_rgb, std_rgb: over all pixels, in [0, 255]; NaN for a class
    without images. histograms: `(3, 32)` float64, shares of the red, green and blue values.
    """

    name: str
    num_images: int
    sample_indices: tuple[int, ...]
    sample_ids: tuple[str, ...]
    mean_image: NDArray[np.uint8]
    mean_rgb: tuple[float, ...]
    std_rgb: tuple[float, ...]
    histograms: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers; the mean image as its bytes in base64, with its shape."""
        shares = self.histograms.round(6).tolist()
        return asdict(self) | {
            "mean_rgb": self.mean_rgb if self.num_images else None,
            "std_rgb": self.std_rgb if self.num_images else None,
            "histograms": dict(zip(("red", "green", "blue"), shares, strict=True)),
            "mean_image": {
                "shape": self.mean_image.shape,
                "uint8_base64": base64.b64encode(self.mean_image.tobytes()).decode("ascii"),
            },
        }


@dataclass(frozen=True)
class OriginalSizes:
    """Heights and widths before resizing, in pixels, over all splits.

    most_common: (height, width, how many images), the commonest five first.
    num_enlarged: images that were smaller than they are now, in height or width.
    """

    num_distinct: int
    smallest: tuple[int, ...]
    median: tuple[int, ...]
    largest: tuple[int, ...]
    most_common: tuple[tuple[int, int, int], ...]
    num_enlarged: int


@dataclass(frozen=True)
class Example:
    """A flagged image: its split, its index and id there, and the value it is flagged for."""

    split: str
    index: int
    id: str
    value: float


@dataclass(frozen=True)
class QualityFlag:
    """One kind of doubtful image.

    measure: luminance, sharpness or entropy, as `_measure` has them. threshold: the value that the
    image's lies below or, for `bright`, above. rule: how the threshold came about, in words.
    counts: flagged images by split. examples: the 12 most extreme ones.
    """

    name: str
    measure: str
    threshold: float
    rule: str
    counts: Mapping[str, int]
    examples: tuple[Example, ...]


@dataclass(frozen=True, eq=False)
class Exploration:
    """All that `explore` finds. original_sizes: None where every image has its own size still.

    normalisation: mean and deviation of each channel of the training images, in [0, 1].
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
        return asdict(self) | {
            "normalisation": self.normalisation._asdict(),
            "classes": [look.to_json() for look in self.classes],
        }


def explore(dataset: Dataset, *, progress: Progress | None = None) -> Exploration:
    """Look at every image of every split; CIFAR-10 takes about half a minute on two cores.

    Near duplicates are left out beyond 150,000 images.
    """
    splits = dataset.splits()
    is_compared = sum(map(len, splits.values())) <= _MAX_COMPARED
    return Exploration(
        name=dataset.name,
        source=without_folders(dataset.source),
        notes=dataset.notes,
        class_names=dataset.class_names,
        image_size=dataset.train.size,
        splits=tuple(_counts(name, images) for name, images in splits.items()),
        classes=tuple(_looks(dataset.train, progress)),
        original_sizes=_original_sizes(splits),
        quality=find_flags(splits, progress=progress),
        duplicates=find_overlaps(splits, near=is_compared, progress=progress),
        normalisation=channel_statistics(dataset.train),
    )


def _counts(name: str, images: Images) -> SplitCounts:
    counts = np.bincount(images.labels, minlength=images.num_classes)
    present = counts[counts > 0]
    imbalance = round(float(present.max() / present.min()), 3) if len(present) else 1.0
    missing = tuple(images.class_names[label] for label in np.flatnonzero(counts == 0))
    return SplitCounts(name, len(images), tuple(counts.tolist()), imbalance, missing)


def _blocks(images: Images, label: str, progress: Progress | None) -> Iterator[slice]:
    """Slices of about 50 MB as floats, and a word after each."""
    step = max(1, _BLOCK_VALUES // (images.size[0] * images.size[1] * 3))
    for start in range(0, len(images), step):
        yield slice(start, start + step)
        if progress is not None:
            progress(label, min(start + step, len(images)), len(images))


def _looks(images: Images, progress: Progress | None) -> Iterator[ClassLook]:
    """Each class, from sums of pixels, `(C, H, W, 3)`, and counts of values, `(C, 3, 256)`."""
    sums = np.zeros((images.num_classes, *images.pixels.shape[1:]), dtype=np.int64)
    counts = np.zeros((images.num_classes, 3, 256), dtype=np.int64)
    for block in _blocks(images, "classes and colours", progress):
        labels, pixels = images.labels[block], images.pixels[block]
        for label in np.unique(labels):
            own = pixels[labels == label]
            sums[label] += own.sum(axis=0, dtype=np.int64)
            counts[label] += value_counts(own)
    values = np.arange(256)
    order = np.argsort(np.random.Generator(np.random.PCG64(0)).random(len(images)), kind="stable")
    for label, name in enumerate(images.class_names):
        own = order[images.labels[order] == label]
        sample = np.sort(own[:_NUM_SHOWN])
        num_values = int(counts[label, 0].sum())
        total = num_values or float("nan")
        mean = counts[label] @ values / total
        std = np.sqrt(np.maximum(counts[label] @ values**2 / total - mean**2, 0))
        yield ClassLook(
            name=name,
            num_images=len(own),
            sample_indices=tuple(sample.tolist()),
            sample_ids=tuple(images.ids[sample].tolist()),
            mean_image=np.rint(sums[label] / max(1, len(own))).astype(np.uint8),
            mean_rgb=tuple(mean.round(3).tolist()),
            std_rgb=tuple(std.round(3).tolist()),
            histograms=counts[label].reshape(3, _NUM_BINS, -1).sum(axis=2) / max(1, num_values),
        )


def _original_sizes(splits: Mapping[str, Images]) -> OriginalSizes | None:
    known = [i.original_sizes for i in splits.values() if i.original_sizes is not None]
    if not sum(map(len, known)):
        return None
    sizes = np.concatenate(known)
    common = Counter(map(tuple, sizes.tolist())).most_common()
    areas = sizes.prod(axis=1, dtype=np.int64)
    return OriginalSizes(
        num_distinct=len(common),
        smallest=tuple(sizes[areas.argmin()].tolist()),
        median=tuple(map(round, np.median(sizes, axis=0).tolist())),
        largest=tuple(sizes[areas.argmax()].tolist()),
        most_common=tuple((height, width, n) for (height, width), n in common[:5]),
        num_enlarged=int(np.count_nonzero((sizes < splits["train"].size).any(axis=1))),
    )


# By name: what is measured, on which side of a threshold an image is flagged (1 below, -1 above),
# the fixed limit, and how many interquartile ranges the fence is away.
_RULES = {
    "dark": ("luminance", 1, 64, 1.5),
    "bright": ("luminance", -1, 192, 1.5),
    "blurred": ("sharpness", 1, 0.3, 1.5),
    "low information": ("entropy", 1, 3, 3),
}
_WORDS = {
    "luminance": "mean luminance of 255",
    "sharpness": "variance of the Laplacian, relative to that of the luminance,",
    "entropy": "entropy of 5 bits",
}


def find_flags(
    splits: Mapping[str, Images], *, progress: Progress | None = None
) -> tuple[QualityFlag, ...]:
    """The flags dark, bright, blurred and low information, with fences drawn from `train`."""
    measured = {name: _measure(images, progress) for name, images in splits.items()}
    flags = []
    for flag, (measure, side, limit, num_ranges) in _RULES.items():
        fence = _fence(measured["train"][measure], side, num_ranges, is_log=measure == "sharpness")
        threshold = side * min(side * fence, side * limit)
        counts: dict[str, int] = {}
        found: list[tuple[float, Example]] = []
        for name, images in splits.items():
            values = side * measured[name][measure]
            flagged = np.flatnonzero(values < side * threshold)
            counts[name] = len(flagged)
            for n in flagged[np.argsort(values[flagged], kind="stable")][:_NUM_SHOWN]:
                value = round(float(values[n]), 4)
                found.append((value, Example(name, int(n), str(images.ids[n]), side * value)))
        found.sort(key=lambda pair: pair[0])
        examples = tuple(example for _, example in found[:_NUM_SHOWN])
        bound = "a fixed limit, as this data varies much less"
        if threshold == fence:
            bound = (
                f"{num_ranges:g} interquartile ranges beyond the {'lower' if side > 0 else 'upper'}"
                " quartile of the training images"
                f"{', on a logarithmic scale' if measure == 'sharpness' else ''}"
            )
        where = "below" if side > 0 else "above"
        words = f"{_WORDS[measure]} {where} {threshold:.3g} ({bound})"
        flags.append(QualityFlag(flag, measure, round(threshold, 4), words, counts, examples))
    return tuple(flags)


def _fence(values: _Floats, side: int, num_ranges: float, *, is_log: bool) -> float:
    """Tukey's, which is beyond all where there are no values."""
    if len(values) == 0:
        return side * np.inf
    low, high = np.percentile(np.log(np.maximum(values, 1e-6)) if is_log else values, [25, 75])
    reach = num_ranges * (high - low)
    fence = float(low - reach if side > 0 else high + reach)
    return float(np.exp(fence)) if is_log else fence


def _measure(images: Images, progress: Progress | None) -> dict[str, _Floats]:
    """What flags are made of, `(N,)` float32 each.

    luminance: mean, in [0, 255]. sharpness: variance of the Laplacian divided by the variance of
    the luminance, so that low contrast isn't taken for blur; 0 for a plain image. entropy: of the
    luminance in 32 bins, in bits, [0, 5].
    """
    names = ("luminance", "sharpness", "entropy")
    measured = {name: np.empty(len(images), dtype=np.float32) for name in names}
    for block in _blocks(images, "image quality", progress):
        grey = images.pixels[block] @ LUMA
        measured["luminance"][block] = grey.mean(axis=(1, 2))
        measured["sharpness"][block] = _sharpness(grey)
        measured["entropy"][block] = _entropy(grey)
    return measured


def _sharpness(grey: _Floats) -> _Floats:
    if min(grey.shape[1:]) < 3:
        return np.ones(len(grey), dtype=np.float32)
    laplacian = -4 * grey[:, 1:-1, 1:-1]
    laplacian += grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] + grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1]
    ratio: _Floats = laplacian.var(axis=(1, 2)) / np.maximum(grey.var(axis=(1, 2)), 1e-3)
    return ratio


def _entropy(grey: _Floats) -> _Floats:
    number = len(grey)
    bins = (grey.reshape(number, -1) * (_NUM_BINS / 256)).astype(np.int64)
    bins = np.minimum(bins, _NUM_BINS - 1) + np.arange(number)[:, None] * _NUM_BINS
    counts = np.bincount(bins.ravel(), minlength=number * _NUM_BINS)
    shares = counts.reshape(number, _NUM_BINS) / (grey.shape[1] * grey.shape[2])
    entropy: _Floats = -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1)
    return entropy
