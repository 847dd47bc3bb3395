"""RandAugment (Cubuk et al. 2020, arXiv 1909.13719) and TrivialAugment (Müller and Hutter 2021,
arXiv 2103.10158), for whole batches where the images are.

Each image has operations and amounts of its own; each operation is computed at once for all images
that have it. Operations and their ranges are those of torchvision.

Shapes: N all images, B a batch, K operations an image, H height, W width.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tenfold.augment import batch_grey

HIGHEST_MAGNITUDE = 30

OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color",
    "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip

_NUM_GEOMETRIC = 5
"""The operations after identity, which are one look-up of pixels."""


class Ranges(NamedTuple):
    """Amounts at the highest magnitude.

    shear: tangent. translation: pixels to the right and down. rotation: degrees. factor: less 1.
    bits: taken away.
    """

    shear: float
    translation: tuple[float, float]
    rotation: float
    factor: float
    bits: int


def randaugment_ranges(image_size: tuple[int, int]) -> Ranges:
    """Those of RandAugment; translations are shares of the 331 pixels that it was made for."""
    height, width = image_size
    return Ranges(0.3, (width * 150 / 331, height * 150 / 331), 30.0, 0.9, 4)


WIDE_RANGES = Ranges(0.99, (32.0, 32.0), 135.0, 0.99, 6)
"""Those of TrivialAugment."""


def draw_operations(
    num_images: int,
    image_size: tuple[int, int],
    *,
    num_operations: int,
    magnitude: int | None,
    ranges: Ranges,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Operations (N, K) int64 and their amounts (N, K) float, from `generator` on the CPU.

    magnitude: of all from 0 to 30, or None to draw each evenly. An amount is a tangent, a share of
    width or height, degrees, a factor less 1, the number of bits kept, or a threshold of 0 to 255.
    """
    shape = (num_images, num_operations)
    height, width = image_size
    operations = torch.randint(len(OPERATIONS), shape, generator=generator)
    if magnitude is None:
        magnitudes = torch.randint(HIGHEST_MAGNITUDE + 1, shape, generator=generator)
    else:
        magnitudes = torch.full(shape, magnitude)
    share = magnitudes / HIGHEST_MAGNITUDE
    signed = torch.where(torch.rand(shape, generator=generator) < 0.5, share, -share)
    right, down = (signed * side for side in ranges.translation)
    amounts = {
        "shear_x": signed * ranges.shear,
        "shear_y": signed * ranges.shear,
        "translate_x": right.trunc() / width,
        "translate_y": down.trunc() / height,
        "rotate": signed * ranges.rotation,
        **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), signed * ranges.factor),
        "posterize": 8 - (share * ranges.bits).round(),
        "solarize": 255 * (1 - share),
    }
    by_operation = torch.stack([amounts.get(name, torch.zeros(shape)) for name in OPERATIONS])
    return operations, by_operation.gather(0, operations[None])[0]


def batch_operations(pixels: Tensor, operations: Tensor, amounts: Tensor) -> Tensor:
    """Do the K operations of each image one after another; (B, H, W, 3) uint8 in and out.

    operations, amounts: (B, K), as `draw_operations` gives them. What a geometric operation
    uncovers is black.
    """
    for step in range(operations.shape[1]):
        pixels = _apply(pixels, operations[:, step], amounts[:, step])
    return pixels


def _apply(pixels: Tensor, operations: Tensor, amounts: Tensor) -> Tensor:
    order = operations.argsort()
    # A GPU is waited for this once, to learn how many images each operation has.
    counts = torch.bincount(operations, minlength=len(OPERATIONS)).tolist()
    results = pixels.clone()
    sizes = [counts[0], sum(counts[1 : 1 + _NUM_GEOMETRIC]), *counts[1 + _NUM_GEOMETRIC :]]
    _, geometric, *others = torch.split(order, sizes)
    if len(geometric):
        height, width = pixels.shape[1:3]
        matrices = _matrices(operations[geometric], amounts[geometric], height, width)
        results[geometric] = _batch_affine(pixels[geometric], matrices)
    for chosen, function in zip(others, _FUNCTIONS, strict=True):
        if len(chosen):
            results[chosen] = function(pixels[chosen], amounts[chosen])
    return results


def _matrices(operations: Tensor, amounts: Tensor, height: int, width: int) -> Tensor:
    """(B, 2, 3): from where in the image, in pixels, the place (x, y) of the result comes."""

    def only(name: str) -> Tensor:
        return torch.where(operations == OPERATIONS.index(name), amounts, 0)

    angle = only("rotate").deg2rad()
    cos, sin = angle.cos(), angle.sin()
    # Rotations turn around the middle, shears leave the upper left corner where it is.
    right = width / 2 * (1 - cos) + height / 2 * sin - (only("translate_x") * width).round()
    down = height / 2 * (1 - cos) - width / 2 * sin - (only("translate_y") * height).round()
    return torch.stack(
        [cos, only("shear_x") - sin, right, only("shear_y") + sin, cos, down], dim=1
    ).view(-1, 2, 3)


def _batch_affine(pixels: Tensor, matrices: Tensor) -> Tensor:
    """The nearest pixel of where each comes from, black outside the image."""
    batch, height, width, channels = pixels.shape
    columns = torch.arange(width, device=pixels.device) + 0.5
    rows = torch.arange(height, device=pixels.device)[:, None] + 0.5
    factors = matrices[..., None, None]
    x, y = (
        (factors[:, i, 0] * columns + factors[:, i, 1] * rows + factors[:, i, 2]).floor().long()
        for i in range(2)
    )
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    first = torch.arange(batch, device=pixels.device)[:, None, None] * (height * width)
    places = torch.where(outside, 0, first + y * width + x)
    found = pixels.reshape(-1, channels).index_select(0, places.view(-1)).view(pixels.shape)
    return found.masked_fill_(outside[..., None], 0)


def _enhance(base: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """`base` of the image at factor 0, the image at 1, beyond it above."""

    def enhanced(pixels: Tensor, amounts: Tensor) -> Tensor:
        images = pixels.float()
        blended = base(images).lerp(images, 1 + amounts[:, None, None, None])
        return blended.clamp_(0, 255).round_().to(torch.uint8)

    return enhanced


def _mean_grey(images: Tensor) -> Tensor:
    return batch_grey(images).mean(dim=(1, 2), keepdim=True).round()


def _smooth(images: Tensor) -> Tensor:
    """The mean of 3x3 pixels, the middle one counted five times; the edge as it is."""
    down = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    sums = down[:, :, :-2] + down[:, :, 1:-1] + down[:, :, 2:]
    smooth = images.clone()
    smooth[:, 1:-1, 1:-1] = (sums + 4 * images[:, 1:-1, 1:-1]) / 13
    return smooth


def _posterize(pixels: Tensor, amounts: Tensor) -> Tensor:
    masks = 256 - 2 ** (8 - amounts)
    return pixels & masks.to(torch.uint8)[:, None, None, None]


def _solarize(pixels: Tensor, amounts: Tensor) -> Tensor:
    return torch.where(pixels >= amounts[:, None, None, None], 255 - pixels, pixels)


def _autocontrast(pixels: Tensor, amounts: Tensor) -> Tensor:
    lowest, highest = (values.float() for values in torch.aminmax(pixels.flatten(1, 2), dim=1))
    spread = (highest - lowest)[:, None, None]
    stretched = (pixels - lowest[:, None, None]) * (255 / spread.clamp(min=1))
    return torch.where(spread > 0, stretched, pixels).to(torch.uint8)


def _equalize(pixels: Tensor, amounts: Tensor) -> Tensor:
    """Every colour's values spread so that each share of the range has as many pixels."""
    batch, height, width, channels = pixels.shape
    planes = pixels.permute(0, 3, 1, 2).reshape(batch * channels, height * width).long()
    counts = planes.new_zeros(len(planes), 256)
    counts.scatter_add_(1, planes, torch.ones_like(planes))
    of_highest = counts.gather(1, planes.amax(dim=1, keepdim=True))
    step = (height * width - of_highest) // 255
    # Integers as in Pillow, so that the levels are the same.
    levels = (counts.cumsum(1) - counts + step // 2) // step.clamp(min=1)
    spread = torch.where(step > 0, levels.clamp_(max=255).gather(1, planes), planes)
    return spread.view(batch, channels, height, width).permute(0, 2, 3, 1).to(torch.uint8)


_FUNCTIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _enhance(torch.zeros_like),
    _enhance(batch_grey),
    _enhance(_mean_grey),
    _enhance(_smooth),
    _posterize,
    _solarize,
    _autocontrast,
    _equalize,
)
