"""Augmentation as batched tensor functions that run where the images are.

Shapes: N all images, B a batch, C = 3 channels, H height, W width.

What happens to an image is drawn once an epoch for all of them (`draw_epoch`), so it depends on
the seed, the epoch and the image's index alone: not on batch size, on the number of processes,
or on whether the run was interrupted.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey, from ITU-R BT.601."""

ERASING_TRIES = 10

SHRUNK_AT_ONCE = 5000
"""Images, so that little memory is taken beside what they and the result take."""


class EpochDraws(NamedTuple):
    """What to do to each of the N images in one epoch; None where nothing of the kind is done.

    flip: (N,) bool. shift: (N, 2) int64, down and right in pixels. cutout: (N, 2) int64, the
    centre's row and column. brightness, contrast, saturation: (N,) float factors. hue: (N,) float
    share of the colour circle. zoom: (N, 3) float, the side of what is seen as a share of the
    image's, and its place from top and left as a share of what is left out. erase: (N, 4) int64,
    a rectangle's top, left, height and width, 0 high where none is erased. operations, amounts:
    (N, K), see `autoaugment.draw_operations`.
    """

    flip: Tensor | None = None
    shift: Tensor | None = None
    cutout: Tensor | None = None
    brightness: Tensor | None = None
    contrast: Tensor | None = None
    saturation: Tensor | None = None
    hue: Tensor | None = None
    zoom: Tensor | None = None
    erase: Tensor | None = None
    operations: Tensor | None = None
    amounts: Tensor | None = None

    def of(self, indices: Tensor) -> "EpochDraws":
        """The draws of the images at `indices`, (B,) int64."""
        return EpochDraws(*(None if draw is None else draw[indices] for draw in self))

    def scaled(self, factor: float) -> "EpochDraws":
        """The draws for images whose sides are `factor` times as long, to the nearest pixel."""
        shift, cutout, erase = (
            None if draw is None else (draw * factor).round().to(torch.int64)
            for draw in (self.shift, self.cutout, self.erase)
        )
        return self._replace(shift=shift, cutout=cutout, erase=erase)

    def to(self, device: torch.device) -> "EpochDraws":
        """The same draws on `device`."""
        return EpochDraws(*(None if draw is None else draw.to(device) for draw in self))


class Mix(NamedTuple):
    """A batch mixed with a permutation of itself.

    inputs: (B, C, H, W). partner: (B,) int64 positions in the batch. share: how much of each
    image is its own; the loss is weighted alike.
    """

    inputs: Tensor
    partner: Tensor
    share: float


def draw_epoch(
    num_images: int,
    image_size: tuple[int, int],
    *,
    generator: torch.Generator,
    flip: bool = False,
    translate: int = 0,
    cutout: int = 0,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    zoom: float = 0.0,
    random_erasing: float = 0.0,
) -> EpochDraws:
    """Draw one epoch's changes for `num_images` images of `image_size` from `generator` (CPU).

    translate is limited to what reflection can fill, one pixel less than the image's side.
    """
    height, width = image_size
    reach = min(translate, height - 1, width - 1)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(num_images, generator=generator) * (high - low) + low

    def integers(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (num_images,), generator=generator)

    found: dict[str, Tensor] = {}
    if flip:
        found["flip"] = uniform(0, 1) < 0.5
    if reach > 0:
        found["shift"] = torch.stack([integers(-reach, reach + 1) for _ in range(2)], dim=1)
    if cutout > 0:
        found["cutout"] = torch.stack([integers(0, height), integers(0, width)], dim=1)
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, strength in (strengths | {"hue": hue}).items():
        if strength > 0:
            middle = 0 if name == "hue" else 1
            found[name] = uniform(middle - strength, middle + strength)
    if zoom > 0:
        found["zoom"] = torch.stack([uniform(1 - zoom, 1), uniform(0, 1), uniform(0, 1)], dim=1)
    if random_erasing > 0:
        found["erase"] = _draw_rectangles(num_images, image_size, random_erasing, generator)
    return EpochDraws(**found)


def _draw_rectangles(
    num_images: int, image_size: tuple[int, int], probability: float, generator: torch.Generator
) -> Tensor:
    """(N, 4) int64: top, left, height, width (Zhong et al. 2020, arXiv 1708.04896).

    From 2 to 33 % of the image, sides of ratios from 0.3 to 3.3: the first of ten draws that fits.
    """
    height, width = image_size
    area, ratio = torch.rand(2, num_images, ERASING_TRIES, generator=generator)
    area = (0.02 + 0.31 * area) * height * width
    ratio = (math.log(0.3) + math.log(3.3 / 0.3) * ratio).exp()
    tall, wide = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (tall > 0) & (tall < height) & (wide > 0) & (wide < width)
    first = fits.int().argmax(dim=1, keepdim=True)
    chosen, top, left = torch.rand(3, num_images, generator=generator)
    erased = fits.any(dim=1) & (chosen < probability)
    tall, wide = (torch.where(erased, side.gather(1, first)[:, 0], 0) for side in (tall, wide))
    top, left = (top * (height - tall + 1)).floor(), (left * (width - wide + 1)).floor()
    return torch.stack([top, left, tall, wide], dim=1).to(torch.int64)


def alternating_flips(num_images: int, *, epoch: int, generator: torch.Generator) -> Tensor:
    """(N,) bool: half of the images, drawn from `generator`, and the others in odd epochs.

    So an image is seen from both sides in any two epochs (Jordan 2024, arXiv 2404.00498). The
    generator must start from the same seed in every epoch.
    """
    first = torch.rand(num_images, generator=generator) < 0.5
    return first if epoch % 2 == 0 else ~first


def shrink(pixels: Tensor, size: int) -> Tensor:
    """(N, H, W, 3) uint8 with the shorter side brought to `size` pixels, by areas that overlap."""
    shape = shrunk_size((pixels.shape[1], pixels.shape[2]), size)
    blocks = []
    for block in torch.split(pixels, SHRUNK_AT_ONCE):
        planes = block.permute(0, 3, 1, 2)
        on_device = pixels.device.type != "cpu"
        if on_device:  # Where bytes can't be interpolated.
            planes = planes.float()
        planes = interpolate(planes, shape, mode="bilinear", antialias=True)
        if on_device:
            planes = planes.round().clamp(0, 255).to(torch.uint8)
        blocks.append(planes.permute(0, 2, 3, 1))
    return torch.cat(blocks).contiguous()


def shrunk_size(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Height and width of an image whose shorter side is brought to `shorter` pixels."""
    height, width = size
    least = min(height, width)
    return round(height * shorter / least), round(width * shorter / least)


def batch_gather(pixels: Tensor, indices: Tensor, draws: EpochDraws) -> Tensor:
    """Pick, mirror and shift images in one pass over memory.

    pixels: (N, H, W, 3) uint8. indices: (B,) int64. draws: those of the batch, (B,) each.
    Returns (B, H, W, 3) uint8. A shift by +1 moves the image down or right; the uncovered edge
    is filled by reflection, and mirroring comes after shifting.
    """
    if draws.flip is None and draws.shift is None:
        return pixels.index_select(0, indices)
    num_images, height, width, channels = pixels.shape
    rows = torch.arange(height, device=pixels.device).expand(len(indices), height)
    columns = torch.arange(width, device=pixels.device).expand(len(indices), width)
    if draws.flip is not None:
        columns = torch.where(draws.flip[:, None], width - 1 - columns, columns)
    if draws.shift is not None:
        rows = _reflect(rows - draws.shift[:, :1], height)
        columns = _reflect(columns - draws.shift[:, 1:], width)
    # Whole pixels picked from the flat data measure three times faster than indexing by
    # (image, row, column).
    offsets = (indices * height)[:, None] + rows
    flat = offsets[:, :, None] * width + columns[:, None, :]
    picked = pixels.view(num_images * height * width, channels).index_select(0, flat.view(-1))
    return picked.view(len(indices), height, width, channels)


def _reflect(positions: Tensor, length: int) -> Tensor:
    """Positions outside 0..length-1 mirrored at the edge pixel, which is not repeated."""
    positions = positions.abs()
    return (length - 1) - ((length - 1) - positions).abs()


def batch_normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in channels_last memory, without a transposition.

    mean, std: (3,) float32 of pixels scaled to [0, 1].
    """
    count, height, width, channels = pixels.shape
    # Over whole rows at once, for three values are too few for a vector unit: a sixth of the time.
    scale, offset = (1 / (255 * std)).repeat(width), (mean / std).repeat(width)
    rows = pixels.reshape(count, height, width * channels).to(torch.float32)
    return rows.mul_(scale).sub_(offset).view(pixels.shape).permute(0, 3, 1, 2)


def batch_colour(pixels: Tensor, draws: EpochDraws) -> Tensor:
    """Brightness, contrast, saturation and hue, in that order; (B, H, W, 3) uint8 in and out."""
    if all(d is None for d in (draws.brightness, draws.contrast, draws.saturation, draws.hue)):
        return pixels
    images = pixels.to(torch.float32).div_(255)
    if draws.brightness is not None:
        images = (images * draws.brightness[:, None, None, None]).clamp_(0, 1)
    if draws.contrast is not None:
        grey = batch_grey(images).mean(dim=(1, 2), keepdim=True)
        images = _blend(images, grey, draws.contrast)
    if draws.saturation is not None:
        images = _blend(images, batch_grey(images), draws.saturation)
    if draws.hue is not None:
        images = _shift_hue(images, draws.hue)
    return images.mul_(255).round_().to(torch.uint8)


def batch_grey(images: Tensor) -> Tensor:
    """Luma of (B, H, W, 3) float images, (B, H, W, 1)."""
    return (images * images.new_tensor(LUMA)).sum(dim=3, keepdim=True)


def _blend(images: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    """`other` at factor 0, `images` at 1, beyond it above; clipped to [0, 1]."""
    return other.lerp(images, factors[:, None, None, None]).clamp_(0, 1)


def _shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of the HSV model by `shift`, (B,), of the full circle."""
    highest, lowest = images.amax(dim=3), images.amin(dim=3)
    spread = highest - lowest
    safe = torch.where(spread > 0, spread, torch.ones_like(spread))
    red, green, blue = images.unbind(dim=3)
    sector = torch.where(
        highest == red,
        (green - blue) / safe,
        torch.where(highest == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = (sector / 6 + shift[:, None, None]) % 1
    # f(n) = v - v s max(0, min(k, 4 - k, 1)) with k = (n + 6 h) mod 6, for red 5, green 3, blue 1.
    k = (hue.new_tensor([5.0, 3.0, 1.0]) + 6 * hue[..., None]) % 6
    return highest[..., None] - spread[..., None] * torch.minimum(k, 4 - k).clamp_(0, 1)


def batch_cutout(inputs: Tensor, centres: Tensor, *, size: int) -> Tensor:
    """Cover a square of `size` pixels around each centre (DeVries and Taylor 2017).

    inputs: (B, C, H, W) float, normalised. centres: (B, 2) int64. The square becomes 0, which is
    the mean colour of standardised images; it may reach over the edge. Changes `inputs`, whose
    memory stays as it is laid out, and returns it.
    """
    sizes = torch.full_like(centres, size)
    return batch_erase(inputs, torch.cat([centres - size // 2, sizes], dim=1))


def batch_erase(inputs: Tensor, rectangles: Tensor) -> Tensor:
    """Cover a rectangle of each image with 0, as `batch_cutout` does.

    rectangles: (B, 4) int64, top, left, height and width.
    """
    height, width = inputs.shape[2:]
    top, left, tall, wide = rectangles[:, :, None].unbind(dim=1)
    rows = torch.arange(height, device=inputs.device) - top
    columns = torch.arange(width, device=inputs.device) - left
    inside_rows = (rows >= 0) & (rows < tall)
    inside_columns = (columns >= 0) & (columns < wide)
    inside = (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]
    return inputs.masked_fill_(inside, 0.0)


def batch_zoom(inputs: Tensor, zoom: Tensor) -> Tensor:
    """A square part of each image, enlarged to the whole, bilinear.

    inputs: (B, C, H, W) float. zoom: (B, 3), see `EpochDraws`. Returns the same shape.
    """
    share, places = zoom[:, 0], zoom[:, 1:]
    # In the coordinates of affine_grid the image reaches from -1 to 1.
    centres = (2 * places - 1) * (1 - share)[:, None]
    matrices = inputs.new_zeros(len(inputs), 2, 3)
    matrices[:, 0, 0] = matrices[:, 1, 1] = share
    matrices[:, 0, 2], matrices[:, 1, 2] = centres[:, 1], centres[:, 0]
    grid = affine_grid(matrices, list(inputs.shape), align_corners=False)
    return grid_sample(inputs, grid, padding_mode="border", align_corners=False)


def batch_mix(
    inputs: Tensor, *, generator: torch.Generator, mixup: float = 0.0, cutmix: float = 0.0
) -> Mix:
    """Mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019); with both on, one by even chance.

    inputs: (B, C, H, W) float. mixup, cutmix: parameter of the symmetric beta distribution that
    the share is drawn from; at least one is above 0. generator: on the CPU.
    """
    batch, _, height, width = inputs.shape
    partner = torch.randperm(batch, generator=generator).to(inputs.device)
    coin, horizontal, vertical = torch.rand(3, generator=generator).tolist()
    use_mixup = mixup > 0 and (cutmix == 0 or coin < 0.5)
    share = _draw_beta(mixup if use_mixup else cutmix, generator)
    if use_mixup:
        return Mix(inputs[partner].lerp(inputs, share), partner, share)
    side = (1 - share) ** 0.5
    row, column = int(vertical * height), int(horizontal * width)
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    top, bottom = max(row - half_height, 0), min(row + half_height, height)
    left, right = max(column - half_width, 0), min(column + half_width, width)
    mixed = inputs.clone()
    mixed[:, :, top:bottom, left:right] = inputs[partner, :, top:bottom, left:right]
    return Mix(mixed, partner, 1 - (bottom - top) * (right - left) / (height * width))


def _draw_beta(alpha: float, generator: torch.Generator) -> float:
    """One draw of Beta(alpha, alpha), as a ratio of two gamma draws."""
    concentration = torch.full((2,), alpha, dtype=torch.float64)
    first, second = torch._standard_gamma(concentration, generator=generator).tolist()
    return float(first / (first + second)) if first + second > 0 else 0.5
