"""The fifteen corruptions of CIFAR-10-C at five severities, for whole batches of small images.

Definitions and strengths are those published for images of 32 pixels (Hendrycks and Dietterich
2019, arXiv 1903.12261), with one difference: frost is grown from noise, since the photographs of
frost are not ours to give away. The random numbers are others than in the published files.

N images, H and W pixels, C colours; inside this file pixels are floats in [0, 1].
"""

import io
import math
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tenfold.data.images import LUMA
from tenfold.results.facts import Fact

SEVERITIES = (1, 2, 3, 4, 5)

FAMILIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}


class CorruptionResult(Fact):
    """Accuracies at the severities 1 to 5 of one corruption."""

    corruption: str
    family: str
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over all severities."""
        return sum(self.accuracies) / len(self.accuracies)


class AttackResult(Fact):
    """Accuracy after each colour value was moved by at most `limit` so as to mislead the model."""

    method: str
    limit: float
    accuracy: float


BLOCK_PIXELS = 500 * 32 * 32
"""Of all images that are worked on together."""

Floats = NDArray[np.float32]
_Corruption = Callable[[Floats, int, np.random.Generator], Floats]


def corrupt(
    pixels: NDArray[np.uint8], corruption: str, *, severity: int, seed: int = 0
) -> NDArray[np.uint8]:
    """`pixels` (N, H, W, 3) uint8 as `corruption` leaves them, of the same shape.

    severity: from 1 to 5. The same arguments give the same bytes. Raises KeyError for an unknown
    corruption and ValueError for another severity.
    """
    function = _CORRUPTIONS[corruption]
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be from 1 to 5, not {severity}")
    corrupted = np.empty_like(pixels)
    block = max(BLOCK_PIXELS // (pixels.shape[1] * pixels.shape[2]), 1)
    for start in range(0, len(pixels), block):
        part = pixels[start : start + block]
        entropy = (seed, zlib.crc32(corruption.encode()), severity, start)
        x = np.asarray(part / np.float32(255), dtype=np.float32)
        found = function(x, severity - 1, np.random.default_rng(entropy))
        corrupted[start : start + block] = (np.clip(found, 0, 1) * 255).astype(np.uint8)
    return corrupted


# -- noise ---------------------------------------------------------------------------------------


def _gaussian_noise(x: Floats, level: int, generator: np.random.Generator) -> Floats:
    deviation = (0.04, 0.06, 0.08, 0.09, 0.10)[level]
    return x + np.float32(deviation) * generator.standard_normal(x.shape, dtype=np.float32)


def _shot_noise(x: Floats, level: int, generator: np.random.Generator) -> Floats:
    """Photons that are counted: fewer for the severer."""
    photons = (500, 250, 100, 75, 50)[level]
    return (generator.poisson(x * photons) / photons).astype(np.float32)


def _impulse_noise(x: Floats, level: int, generator: np.random.Generator) -> Floats:
    """Values that become 0 or 1, as likely each."""
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[level]
    drawn = generator.random(x.shape, dtype=np.float32)
    x = np.where(drawn < share / 2, np.float32(0), x)
    return np.where(drawn > 1 - share / 2, np.float32(1), x)


# -- blur ----------------------------------------------------------------------------------------


def _defocus_blur(x: Floats, level: int, generator: np.random.Generator) -> Floats:
    """A disk, itself softened."""
    radius, softness = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[level]
    across = np.arange(-3, 4)
    disk = (across[:, None] ** 2 + across**2 <= radius**2).astype(np.float64)
    soft = np.exp(-(np.arange(-1, 2) ** 2) / (2 * softness**2))
    soft /= soft.sum()
    kernel = ndimage.convolve(disk / disk.sum(), np.outer(soft, soft), mode="constant")
    return np.asarray(ndimage.convolve(x, kernel[None, :, :, None], mode="mirror"))


def _glass_blur(x: Floats, level: int, generator: np.random.Generator) -> Floats:
    """Pixels that take the place of neighbours, between two slight blurs.

    The published definition speaks of exchange, but what was published was made by copying.
    """
    deviation, reach, times = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))[
        level
    ]
    x = np.asarray(np.floor(_gaussian(x, deviation) * 255) / 255, dtype=np.float32)
    images = np.arange(len(x))
    height, width = x.shape[1:3]
    for _ in range(times):
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                shift = generator.integers(-reach, reach, (2, len(x)))
                x[:, row, column] = x[images, row + shift[0], column + shift[1]]
    return _gaussian(x, deviation)


def _motion_blur(x: Floats, level: int, generator: np.random.Generator) -> Floats:
    radius, deviation = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[level]
    angles = generator.uniform(-45, 45, len(x))
    return _moved(x, angles, radius=radius, deviation=deviation)


def _zoom_blur(x: Floats, level: int, generator: np.random.Generator) -> Floats:
    """The mean of the image and of itself, more and more enlarged."""
    furthest = (1.06, 1.11, 1.16, 1.21, 1.26)[level]
    factors = np.arange(1, furthest, 0.01)
    total = x.copy()
    for factor in factors:
        total += _enlarged(x, factor)
    return total / np.float32(len(factors) + 1)


# -- weather -------------------------------------------------------------------------------------


def _snow(x: Floats, level: int, generator: np.random.Generator) -> Floats:
    """Flakes that a wind blurs, on an image that fades towards white."""
    mean, deviation, zoom, least, radius, blur, share = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[level]
    shape = (*x.shape[:3], 1)
    flakes = generator.normal(mean, deviation, shape).astype(np.float32)
    flakes = _enlarged(flakes, zoom)
    flakes[flakes < least] = 0
    angles = generator.uniform(-135, -45, len(x))
    flakes = _moved(flakes.clip(0, 1), angles, radius=radius, deviation=blur)
    grey = (x @ LUMA)[..., None]
    faded = share * x + (1 - share) * np.maximum(x, grey * 1.5 + 0.5)
    return np.asarray(faded + flakes + np.rot90(flakes, 2, axes=(1, 2)), dtype=np.float32)


def _frost(x: Floats, level: int, generator: np.random.Generator) -> Floats:
    """Needles of ice before the image."""
    clear, ice = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[level]
    # Ridges of a fractal: bright where it crosses its middle.
    ridges = 1 - 2 * np.abs(_fractal(x.shape[:3], generator, decay=1.6) - 0.5)
    needles = np.clip(ridges, 0, 1)[..., None] ** 2
    tint = np.array([0.8, 0.9, 1.0], dtype=np.float32)
    return np.asarray(clear * x + ice * needles * tint, dtype=np.float32)


def _fog(x: Floats, level: int, generator: np.random.Generator) -> Floats:
    thickness, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[level]
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    fog = _fractal(x.shape[:3], generator, decay=decay)[..., None]
    foggy = (x + thickness * fog) * brightest / (brightest + thickness)
    return np.asarray(foggy, dtype=np.float32)


def _brightness(x: Floats, level: int, generator: np.random.Generator) -> Floats:
    """More value at the same hue and saturation, which is a factor for all three colours."""
    more = np.float32((0.05, 0.1, 0.15, 0.2, 0.3)[level])
    value = x.max(axis=3, keepdims=True)
    brighter = np.minimum(value + more, 1)
    black = value == 0
    factor = brighter / np.where(black, 1, value)
    return np.asarray(np.where(black, brighter, x * factor), dtype=np.float32)


# -- digital -------------------------------------------------------------------------------------


def _contrast(x: Floats, level: int, generator: np.random.Generator) -> Floats:
    """Nearer to each colour's mean."""
    factor = np.float32((0.75, 0.5, 0.4, 0.3, 0.15)[level])
    means = x.mean(axis=(1, 2), keepdims=True)
    return np.asarray((x - means) * factor + means, dtype=np.float32)


def _elastic_transform(x: Floats, level: int, generator: np.random.Generator) -> Floats:
    """A random affine map, and displacements that vary smoothly, as shares of the side."""
    strength, smoothness, affine = (
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    )[level]
    number, height, width = x.shape[:3]
    side = min(height, width)
    centre, reach = np.array([width, height]) // 2, side // 3
    corners = centre + np.array([[reach, reach], [reach, -reach], [-reach, -reach]])
    moved = corners + generator.uniform(-affine * side, affine * side, (number, 3, 2))
    # Where the affine map takes each pixel from: its inverse, from moved corners to corners.
    ones = np.ones((number, 3, 1))
    inverse = np.linalg.solve(
        np.concatenate([moved, ones], axis=2),
        np.broadcast_to(corners.astype(np.float64), (number, 3, 2)),
    )
    rows, columns = np.mgrid[:height, :width]
    places = np.stack([columns, rows, np.ones_like(rows)], axis=-1).reshape(-1, 3)
    sources = (places @ inverse).reshape(number, height, width, 2)
    x = _sampled(x, sources[..., 1], sources[..., 0], mode="mirror")
    displacement = generator.uniform(-1, 1, (2, number, height, width))
    if smoothness:
        sigma = (0, 0, smoothness * side, smoothness * side)
        displacement = ndimage.gaussian_filter(displacement, sigma, mode="reflect", truncate=3)
    displacement *= strength * side
    return _sampled(x, rows + displacement[1], columns + displacement[0], mode="reflect")


def _pixelate(x: Floats, level: int, generator: np.random.Generator) -> Floats:
    share, box = (0.95, 0.9, 0.85, 0.75, 0.65)[level], Image.Resampling.BOX
    small = (int(x.shape[2] * share), int(x.shape[1] * share))
    return _each(x, lambda image: image.resize(small, box).resize(image.size, box))


def _jpeg_compression(x: Floats, level: int, generator: np.random.Generator) -> Floats:
    quality = (80, 65, 58, 50, 40)[level]

    def compressed(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _each(x, compressed)


_CORRUPTIONS: dict[str, _Corruption] = {
    name: globals()[f"_{name}"] for names in FAMILIES.values() for name in names
}


# -- what several of them need -------------------------------------------------------------------


def _gaussian(x: Floats, deviation: float) -> Floats:
    sigma = (0, deviation, deviation, 0)
    return np.asarray(ndimage.gaussian_filter(x, sigma, mode="nearest"), dtype=np.float32)


def _moved(x: Floats, angles: NDArray[np.float64], *, radius: int, deviation: float) -> Floats:
    """Each image blurred along a line at its angle in degrees, as ImageMagick does it: half of a
    Gaussian, from the pixel onwards."""
    width = 2 * radius + 1
    weights = np.exp(-(np.arange(width) ** 2) / (2 * deviation**2))
    weights /= weights.sum()
    radians = np.deg2rad(angles)
    height, across = x.shape[1:3]
    images = np.arange(len(x))[:, None, None]
    total = np.zeros_like(x)
    for step, weight in enumerate(weights):
        down = np.ceil(step * np.sin(radians) - 0.5).astype(int)[:, None, None]
        right = np.ceil(step * np.cos(radians) - 0.5).astype(int)[:, None, None]
        rows = (np.arange(height)[None, :, None] + down).clip(0, height - 1)
        columns = (np.arange(across)[None, None, :] + right).clip(0, across - 1)
        total += np.float32(weight) * x[images, rows, columns]
    return total


def _enlarged(x: Floats, factor: float) -> Floats:
    """The middle of each image, enlarged to the whole with straight lines between pixels."""
    rows, columns = (_stretching(side, factor) for side in x.shape[1:3])
    return np.asarray(np.einsum("hi,nijc,wj->nhwc", rows, x, columns, optimize=True))


def _stretching(side: int, factor: float) -> Floats:
    """(side, side) weights of old pixels in each new one, along one edge."""
    part = math.ceil(side / factor)
    enlarged = max(round(part * factor), side)
    # From corner to corner of the part, and of that the middle.
    places = ((enlarged - side) // 2 + np.arange(side)) * (part - 1) / (enlarged - 1)
    distances = np.abs((side - part) // 2 + places[:, None] - np.arange(side))
    return np.asarray(np.maximum(1 - distances, 0), dtype=np.float32)


def _sampled(
    x: Floats, rows: NDArray[np.float64], columns: NDArray[np.float64], *, mode: str
) -> Floats:
    """`x` at fractional places (N, H, W), with straight lines between pixels.

    mode: beyond the edge, `mirror` goes back without and `reflect` with the last pixel once more.
    """
    found = np.empty_like(x)
    for n, c in np.ndindex(len(x), x.shape[3]):
        places = rows[n], columns[n]
        ndimage.map_coordinates(x[n, ..., c], places, found[n, ..., c], order=1, mode=mode)
    return found


def _fractal(
    shape: tuple[int, ...], generator: np.random.Generator, *, decay: float
) -> NDArray[np.float32]:
    """Clouds (N, H, W) from 0 to 1 by the diamond-square algorithm, which wraps around."""
    number, height, width = shape
    side = 1 << (max(height, width) - 1).bit_length()
    clouds = np.zeros((number, side, side))
    step, wobble = side, 100.0

    def mean_of_four(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values / 4 + wobble * generator.uniform(-wobble, wobble, values.shape)

    while step >= 2:
        half = step // 2
        corners = clouds[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=1)
        clouds[:, half::step, half::step] = mean_of_four(pairs + np.roll(pairs, -1, axis=2))
        centres = clouds[:, half::step, half::step]
        corners = clouds[:, ::step, ::step]
        beside = centres + np.roll(centres, 1, axis=1)
        clouds[:, ::step, half::step] = mean_of_four(
            beside + corners + np.roll(corners, -1, axis=2)
        )
        above = centres + np.roll(centres, 1, axis=2)
        clouds[:, half::step, ::step] = mean_of_four(above + corners + np.roll(corners, -1, axis=1))
        step = half
        wobble /= decay
    clouds -= clouds.min(axis=(1, 2), keepdims=True)
    clouds /= clouds.max(axis=(1, 2), keepdims=True)
    return clouds[:, :height, :width].astype(np.float32)


def _each(x: Floats, change: Callable[[Image.Image], Image.Image]) -> Floats:
    """`change` done to each image in eight bits."""
    found = np.empty_like(x)
    for number, image in enumerate(np.rint(x * 255).astype(np.uint8)):
        found[number] = np.asarray(change(Image.fromarray(image)), dtype=np.float32) / 255
    return found
