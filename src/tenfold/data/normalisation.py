"""Pixel values to network inputs: the constants, and where they come from."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.data.images import Images


class Normalisation(NamedTuple):
    """`(pixel / 255 - mean) / std` for red, green and blue."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def channel_statistics(images: Images) -> Normalisation:
    """Exact mean and (population) standard deviation over all pixels of all images.

    Counted through a histogram of the 256 values a channel, so nothing is rounded.
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(images), 4096):
        counts += value_counts(images.pixels[start : start + 4096])
    values = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = counts @ values / total
    variance = counts @ values**2 / total - mean**2
    red, green, blue = (float(m) for m in mean)
    deviations = np.sqrt(np.maximum(variance, 0))
    return Normalisation(
        (red, green, blue), (float(deviations[0]), float(deviations[1]), float(deviations[2]))
    )


def value_counts(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each value occurs in each channel of `(N, H, W, 3)` pixels, `(3, 256)`."""
    channels = (pixels[..., channel].ravel() for channel in range(3))
    return np.stack([np.bincount(values, minlength=256) for values in channels])


def normalisation_of(images: Images, kind: str) -> Normalisation:
    """The constants of a recipe's `data.normalisation`, drawn from training images alone.

    kind: `standardise` (mean 0 and deviation 1 a channel), `unit` ([0, 1]) or `symmetric`
    ([-1, 1]).
    """
    if kind == "unit":
        return Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    if kind == "symmetric":
        return Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    mean, std = channel_statistics(images)
    # A channel without any variation would otherwise be divided by zero.
    return Normalisation(mean, (max(std[0], 1e-3), max(std[1], 1e-3), max(std[2], 1e-3)))
