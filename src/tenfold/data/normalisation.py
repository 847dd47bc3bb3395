"""Pixel values to network inputs: the constants, and where they come from."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.data.images import Images

_FIXED = {"unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), "symmetric": ((0.5, 0.5, 0.5),) * 2}


class Normalisation(NamedTuple):
    """`(pixel / 255 - mean) / std` for red, green and blue."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def channel_statistics(images: Images) -> Normalisation:
    """Exact mean and (population) standard deviation over all pixels of all images.

    Counted through a histogram of the 256 values a channel, so nothing is rounded.
    """
    blocks = (images.pixels[n : n + 4096] for n in range(0, len(images), 4096))
    counts = sum(map(value_counts, blocks), np.zeros((3, 256), np.int64))
    values = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = counts @ values / total
    std = np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0))
    return Normalisation(_three(mean), _three(std))


def value_counts(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each value occurs in each channel of `(N, H, W, 3)` pixels, `(3, 256)`."""
    channels = (pixels[..., channel].ravel() for channel in range(3))
    return np.stack([np.bincount(values, minlength=256) for values in channels])


def normalisation_of(images: Images, kind: str) -> Normalisation:
    """The constants of a recipe's `data.normalisation`, drawn from training images alone.

    kind: `standardise` (mean 0 and deviation 1 a channel), `unit` ([0, 1]) or `symmetric`
    ([-1, 1]).
    """
    if kind in _FIXED:
        return Normalisation(*_FIXED[kind])
    mean, std = channel_statistics(images)
    # A channel without any variation would otherwise be divided by zero.
    return Normalisation(mean, _three(np.maximum(std, 1e-3)))


def _three(values: NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = values.tolist()
    return red, green, blue
