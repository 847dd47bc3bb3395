"""Pictures that may be of little use: dark, bright, blurred, or with hardly anything in them.

A picture is flagged where it is unusual for its data set and poor by itself. Unusual means outside
Tukey's fence of the training pictures (1.5 interquartile ranges beyond the quartile, 3 for low
information), so a data set of night scenes isn't flagged whole; poor means beyond a fixed limit, so
a data set of fine pictures isn't flagged for its lesser ones. A flag is a reason to look, no
verdict.

Shape letters: N pictures of H by W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.data.images import LUMA, Images
from tenfold.progress import Progress

NUM_EXAMPLES = 12

_Floats = NDArray[np.float32]

_ENTROPY_BINS = 32
_BLOCK_VALUES = 12_000_000


class Measures(NamedTuple):
    """What flags are made of, `(N,)` float32 each.

    luminance: mean, in [0, 255]. sharpness: variance of the Laplacian divided by the variance of
    the luminance, so that low contrast isn't taken for blur; 0 for a plain picture. entropy: of the
    luminance in 32 bins, in bits, [0, 5].
    """

    luminance: _Floats
    sharpness: _Floats
    entropy: _Floats


@dataclass(frozen=True)
class Example:
    """A flagged picture: its split, its index and id there, and the value it is flagged for."""

    split: str
    index: int
    id: str
    value: float


@dataclass(frozen=True)
class QualityFlag:
    """One kind of doubtful picture.

    measure: the field of `Measures`. threshold: the value that the picture's lies below or, for
    `bright`, above. rule: how the threshold came about, in words.
    counts: flagged pictures by split. examples: the most extreme ones, NUM_EXAMPLES at most.
    """

    name: str
    measure: str
    threshold: float
    rule: str
    counts: Mapping[str, int]
    examples: tuple[Example, ...]


class _Rule(NamedTuple):
    name: str
    measure: str
    side: Literal["below", "above"]
    limit: float
    num_ranges: float
    is_logarithmic: bool
    words: str


_RULES = (
    _Rule("dark", "luminance", "below", 64, 1.5, False, "mean luminance of 255 below {}"),
    _Rule("bright", "luminance", "above", 192, 1.5, False, "mean luminance of 255 above {}"),
    _Rule(
        "blurred",
        "sharpness",
        "below",
        0.3,
        1.5,
        True,
        "variance of the Laplacian, relative to that of the luminance, below {}",
    ),
    _Rule("low information", "entropy", "below", 3, 3, False, "entropy of 5 bits below {}"),
)


def measure(images: Images, *, progress: Progress | None = None) -> Measures:
    """Luminance, sharpness and entropy of every picture, in blocks of about 50 MB."""
    number, (height, width) = len(images), images.size
    luminance = np.empty(number, dtype=np.float32)
    sharpness = np.empty(number, dtype=np.float32)
    entropy = np.empty(number, dtype=np.float32)
    step = max(1, _BLOCK_VALUES // (height * width * 3))
    for start in range(0, number, step):
        part = slice(start, start + step)
        grey = images.pixels[part] @ LUMA
        luminance[part] = grey.mean(axis=(1, 2))
        sharpness[part] = _sharpness(grey)
        entropy[part] = _entropy(grey)
        if progress is not None:
            progress("picture quality", min(start + step, number), number)
    return Measures(luminance, sharpness, entropy)


def find_flags(
    splits: Mapping[str, Images], measured: Mapping[str, Measures]
) -> tuple[QualityFlag, ...]:
    """The flags dark, bright, blurred and low information, with fences drawn from `train`."""
    return tuple(_flag(rule, splits, measured) for rule in _RULES)


def _flag(
    rule: _Rule, splits: Mapping[str, Images], measured: Mapping[str, Measures]
) -> QualityFlag:
    sign = -1 if rule.side == "above" else 1
    threshold, bound = _threshold(rule, getattr(measured["train"], rule.measure))
    counts: dict[str, int] = {}
    found: list[Example] = []
    for name, images in splits.items():
        values = getattr(measured[name], rule.measure)
        flagged = np.flatnonzero(sign * values < sign * threshold)
        counts[name] = len(flagged)
        worst = flagged[np.argsort(sign * values[flagged], kind="stable")][:NUM_EXAMPLES]
        found += [
            Example(name, int(index), str(images.ids[index]), round(float(values[index]), 4))
            for index in worst
        ]
    found.sort(key=lambda example: sign * example.value)
    return QualityFlag(
        rule.name,
        rule.measure,
        round(threshold, 4),
        f"{rule.words.format(f'{threshold:.3g}')} ({bound})",
        counts,
        tuple(found[:NUM_EXAMPLES]),
    )


def _threshold(rule: _Rule, values: _Floats) -> tuple[float, str]:
    """The stricter of fence and limit, and which of the two it is, in words."""
    if len(values) == 0:
        return rule.limit, "a fixed limit"
    scaled = np.log(np.maximum(values, 1e-6)) if rule.is_logarithmic else values
    low, high = np.percentile(scaled, [25, 75])
    reach = rule.num_ranges * (high - low)
    fence = float(high + reach if rule.side == "above" else low - reach)
    if rule.is_logarithmic:
        fence = float(np.exp(fence))
    beyond = fence > rule.limit if rule.side == "above" else fence < rule.limit
    if not beyond:
        return rule.limit, "a fixed limit, as this data varies much less"
    quartile = "upper" if rule.side == "above" else "lower"
    scale = ", on a logarithmic scale" if rule.is_logarithmic else ""
    return fence, (
        f"{rule.num_ranges:g} interquartile ranges beyond the {quartile} quartile of the training "
        f"pictures{scale}"
    )


def _sharpness(grey: _Floats) -> _Floats:
    if min(grey.shape[1:]) < 3:
        return np.ones(len(grey), dtype=np.float32)
    laplacian = -4 * grey[:, 1:-1, 1:-1]
    laplacian += grey[:, 1:-1, :-2]
    laplacian += grey[:, 1:-1, 2:]
    laplacian += grey[:, :-2, 1:-1]
    laplacian += grey[:, 2:, 1:-1]
    ratio: _Floats = laplacian.var(axis=(1, 2)) / np.maximum(grey.var(axis=(1, 2)), 1e-3)
    return ratio


def _entropy(grey: _Floats) -> _Floats:
    number = len(grey)
    bins = (grey.reshape(number, -1) * (_ENTROPY_BINS / 256)).astype(np.int64)
    bins = np.minimum(bins, _ENTROPY_BINS - 1) + np.arange(number)[:, None] * _ENTROPY_BINS
    counts = np.bincount(bins.ravel(), minlength=number * _ENTROPY_BINS)
    shares = counts.reshape(number, _ENTROPY_BINS) / (grey.shape[1] * grey.shape[2])
    entropy: _Floats = -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1)
    return entropy
