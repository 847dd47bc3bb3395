"""Which images a step sees, and how they look in it.

Order is a function of (seed, epoch), augmentation of (seed, epoch, index), and mixing of (seed,
epoch, step), so a resumed run, and one on several processes, sees what it would have seen.
"""

import hashlib
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfold.augment import (
    EpochDraws,
    Mix,
    alternating_flips,
    batch_colour,
    batch_cutout,
    batch_erase,
    batch_gather,
    batch_mix,
    batch_normalise,
    batch_zoom,
    draw_epoch,
    shrink,
)
from tenfold.autoaugment import (
    WIDE_RANGES,
    batch_operations,
    draw_operations,
    randaugment_ranges,
)
from tenfold.data import Images
from tenfold.data.normalisation import Normalisation
from tenfold.errors import TenfoldError
from tenfold.progress import Progress
from tenfold.recipe import AugmentationOptions

READ_AHEAD_BYTES = 1 << 22
"""What may be held of images that steps to come will ask for, as float32."""

READ_AHEAD_ON_GPU = 1 << 30
"""The same on a GPU with room for it, where launching the operations of a batch takes longer than
they do."""


def derive_seed(seed: int, *parts: int | str) -> int:
    """A 63-bit seed for one purpose, so that no two purposes, epochs or runs share a stream."""
    digest = hashlib.sha256(repr((seed, *parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seeded_generator(seed: int, *parts: int | str) -> torch.Generator:
    """A generator on the CPU that `derive_seed` has seeded."""
    return torch.Generator().manual_seed(derive_seed(seed, *parts))


def seed_generators(seed: int, device: torch.device) -> None:
    """What `torch.manual_seed` does for the generators that a step on `device` draws from.

    That seeds those of all devices and notes the call stack for each that has not started: 0.1 ms
    a step on a processor.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def epoch_batches(
    num_images: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    least: int = 2,
    device: torch.device | None = None,
    chosen: Tensor | None = None,
) -> list[Tensor]:
    """Every index once, shuffled, in batches of `batch_size`; each an int64 tensor on `device`.

    chosen: as many indices as `num_images`, if they are not all of those below it.

    A last batch of fewer than `least` images is joined to the one before it. That is two for
    each part that a batch is computed in, since a batch norm has nothing to average over one.
    """
    order = torch.randperm(num_images, generator=seeded_generator(seed, "order", epoch))
    order = order.to(device)
    if chosen is not None:
        order = chosen[order]
    return list(torch.split(order, batch_sizes(num_images, batch_size, least=least)))


def batch_sizes(num_images: int, batch_size: int, *, least: int = 2) -> list[int]:
    """The lengths of the batches that `epoch_batches` makes."""
    whole, rest = divmod(num_images, batch_size)
    sizes = [batch_size] * whole
    if rest >= least or not sizes:
        return [*sizes, rest]
    sizes[-1] += rest
    return sizes


class Part(NamedTuple):
    """What one process computes of a batch at once.

    inputs: (P, 3, H, W) float32, channels_last. labels: (P,) int64. weight: P over the size of
    the whole batch. mix: partners and share where images were mixed.
    """

    inputs: Tensor
    labels: Tensor
    weight: float
    mix: Mix | None


def has_room(num_bytes: int, device: torch.device) -> bool:
    """Whether `device` can hold so much of images and still work: half of a GPU's free memory."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return num_bytes <= free // 2


class TrainingInputs:
    """What a step takes its inputs from.

    side: the shorter side of whole images, in pixels; 0 where they are no images.
    """

    side = 0

    def __len__(self) -> int:
        raise NotImplementedError

    def prepare(self, progress: Progress) -> None:
        """Compute what all epochs need, from the weights as they are now; the first time only."""

    def start_epoch(self, epoch: int, parts: Sequence[Tensor] = ()) -> None:
        """Draw what this epoch does to each image.

        parts: the indices that `part` will be given, in that order, so that it can read ahead.
        """
        raise NotImplementedError

    def part(
        self, indices: Tensor, *, step: int, batch_size: int, number: int, size: int | None = None
    ) -> Part:
        """The images at `indices` as the network sees them in `step` of the epoch.

        number: which part of the batch this is, over all processes, so that no two are mixed
        alike. batch_size: images in the whole batch. size: side in pixels that they are shrunk
        to; whole if not given.
        """
        raise NotImplementedError


class TrainingImages(TrainingInputs):
    """The training set as one uint8 tensor, on the device if it fits, and what is done to it.

    Batches are made some at a time where they are small or a GPU has room, since most of what one
    costs is the same for eight.
    """

    def __init__(
        self,
        images: Images,
        *,
        augmentation: AugmentationOptions,
        normalisation: Normalisation,
        device: torch.device,
        seed: int,
    ) -> None:
        with warnings.catch_warnings():
            # A memory-mapped array is read-only, and nothing here writes to it.
            warnings.filterwarnings("ignore", message=".*not writable.*")
            self._pixels = torch.from_numpy(images.pixels)
        # Images that a GPU has no room for stay where they are, mapped from the disk if large.
        self._store = device if has_room(images.pixels.nbytes, device) else torch.device("cpu")
        self._pixels = self._pixels.to(self._store)
        roomy = device.type == "cuda" and has_room(8 * READ_AHEAD_ON_GPU, device)
        self._ahead_bytes = READ_AHEAD_ON_GPU if roomy else READ_AHEAD_BYTES
        self.side = min(self._pixels.shape[1:3])
        self._labels = torch.from_numpy(images.labels).to(device)
        self._mean = torch.tensor(normalisation.mean, device=device)
        self._std = torch.tensor(normalisation.std, device=device)
        self._augmentation = augmentation
        self._device = device
        self._seed = seed
        self._epoch = -1
        self._draws: EpochDraws | None = None
        self._shrunk: tuple[int, Tensor] = (0, self._pixels)
        self._ahead: Sequence[Tensor] = ()
        self._places: dict[int, int] = {}
        self._block: tuple[tuple[int, int], list[tuple[Tensor, Tensor]]] = ((-1, 0), [])

    def __len__(self) -> int:
        return len(self._labels)

    def start_epoch(self, epoch: int, parts: Sequence[Tensor] = ()) -> None:
        """See TrainingInputs."""
        options = self._augmentation
        self._ahead = parts
        self._places = {id(indices): place for place, indices in enumerate(parts)}
        self._block = ((-1, 0), [])
        self._epoch = epoch
        size = (self._pixels.shape[1], self._pixels.shape[2])
        draws = draw_epoch(
            len(self),
            size,
            generator=seeded_generator(self._seed, "augmentation", epoch),
            flip=options.flip and not options.alternate,
            translate=options.translate,
            cutout=options.cutout,
            brightness=options.brightness,
            contrast=options.contrast,
            saturation=options.saturation,
            hue=options.hue,
            zoom=options.zoom,
            random_erasing=options.random_erasing,
        )
        if options.flip and options.alternate:
            flips = alternating_flips(
                len(self), epoch=epoch, generator=seeded_generator(self._seed, "flips")
            )
            draws = draws._replace(flip=flips)
        if options.trivialaugment or options.randaugment_ops:
            wide = options.trivialaugment
            operations, amounts = draw_operations(
                len(self),
                size,
                num_operations=1 if wide else options.randaugment_ops,
                magnitude=None if wide else options.randaugment_magnitude,
                ranges=WIDE_RANGES if wide else randaugment_ranges(size),
                generator=seeded_generator(self._seed, "operations", epoch),
            )
            draws = draws._replace(operations=operations, amounts=amounts)
        self._draws = draws.to(self._store)

    def plain(self, count: int) -> Tensor:
        """`count` images from all over the set, or all: (N, 3, H, W) float32, normalised."""
        step = max(len(self) // count, 1)
        return batch_normalise(self._pixels[::step][:count].to(self._device), self._mean, self._std)

    def part(
        self, indices: Tensor, *, step: int, batch_size: int, number: int, size: int | None = None
    ) -> Part:
        """See TrainingInputs."""
        inputs, labels = self._made(indices, size or self.side)
        inputs, mix = self._also(inputs, step, number), None
        if self._augmentation.mixup > 0 or self._augmentation.cutmix > 0:
            mix = batch_mix(
                inputs,
                generator=seeded_generator(self._seed, "mix", self._epoch, step, number),
                mixup=self._augmentation.mixup,
                cutmix=self._augmentation.cutmix,
            )
            inputs = mix.inputs
        return Part(inputs, labels, len(indices) / batch_size, mix)

    def _also(self, inputs: Tensor, step: int, number: int) -> Tensor:
        """`inputs` after augmentations of one's own, which draw on the device."""
        for place, augmentation in enumerate(self._augmentation.also):
            seed = derive_seed(self._seed, "also", place, self._epoch, step, number)
            generator = torch.Generator(self._device).manual_seed(seed)
            changed = augmentation(inputs, generator=generator)
            given, found = (
                f"{getattr(each, 'dtype', type(each).__name__)} of the shape "
                f"{tuple(getattr(each, 'shape', ()))}"
                for each in (inputs, changed)
            )
            if found != given:
                raise TenfoldError(
                    f"{augmentation.name} must give images as it gets them, {given}, not {found}."
                )
            inputs = changed
        return inputs

    def _made(self, indices: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Augmented images, not yet mixed, and labels; taken from the present block if there."""
        place = self._places.get(id(indices))
        if place is None:
            return self._make(indices, size)
        height, width = self._pixels.shape[1:3]
        image_bytes = 3 * height * width * 4
        length = self._ahead_bytes // (len(self._ahead[0]) * image_bytes)
        if length < 2:
            return self._make(indices, size)
        # Blocks begin where they would without an interruption.
        start = place - place % length
        if self._block[0] != (start, size):
            block = self._ahead[start : start + length]
            inputs, labels = self._make(torch.cat(list(block)), size)
            sizes = [len(part) for part in block]
            made = zip(torch.split(inputs, sizes), torch.split(labels, sizes), strict=True)
            self._block = ((start, size), list(made))
        return self._block[1][place - start]

    def version(self, epoch: int) -> NDArray[np.uint8]:
        """All images (N, H, W, 3) as `epoch` mirrors, shifts, colours and enlarges them."""
        self.start_epoch(epoch)
        assert self._draws is not None
        blocks = []
        for indices in torch.split(torch.arange(len(self), device=self._store), 1000):
            draws = self._draws.of(indices)
            pixels = _altered(batch_gather(self._pixels, indices, draws), draws)
            if draws.zoom is not None:
                planes = batch_zoom(pixels.permute(0, 3, 1, 2).float(), draws.zoom)
                pixels = planes.round().to(torch.uint8).permute(0, 2, 3, 1)
            blocks.append(pixels.cpu())
        return torch.cat(blocks).numpy()

    def _make(self, indices: Tensor, size: int) -> tuple[Tensor, Tensor]:
        assert self._draws is not None, "start_epoch comes first"
        stored = indices.to(self._store)
        draws = self._draws.of(stored)
        cutout = self._augmentation.cutout
        if size != self.side:
            draws = draws.scaled(size / self.side)
            cutout = max(round(cutout * size / self.side), 1)
        pixels = batch_gather(self._pixels_of(size), stored, draws).to(self._device)
        draws = draws.to(self._device)
        inputs = batch_normalise(_altered(pixels, draws), self._mean, self._std)
        if draws.zoom is not None:
            inputs = batch_zoom(inputs, draws.zoom)
        if draws.cutout is not None:
            inputs = batch_cutout(inputs, draws.cutout, size=cutout)
        if draws.erase is not None:
            inputs = batch_erase(inputs, draws.erase)
        return inputs, self._labels[indices]

    def _pixels_of(self, size: int) -> Tensor:
        """All images with a shorter side of `size` pixels; the last size asked for is kept."""
        if size == self.side:
            return self._pixels
        if self._shrunk[0] != size:
            self._shrunk = (size, shrink(self._pixels, size))
        return self._shrunk[1]


def _altered(pixels: Tensor, draws: EpochDraws) -> Tensor:
    """What changes pixels while they are uint8: (B, H, W, 3) in and out."""
    pixels = batch_colour(pixels, draws)
    if draws.operations is None or draws.amounts is None:
        return pixels
    return batch_operations(pixels, draws.operations, draws.amounts)


def unseen_losses(num_images: int, *, device: torch.device) -> Tensor:
    """Losses of images that have not been seen: (2, N) float32 of infinity.

    The first row is as it was when the epoch began, which decides what it trains on, and the second
    as it is now, so that an epoch that was interrupted goes on with the same images.
    """
    return torch.full((2, num_images), math.inf, device=device)


def num_selected(num_images: int, share: float) -> int:
    """How many images an epoch trains on."""
    return max(round(share * num_images), min(2, num_images))


def hardest(losses: Tensor, number: int, *, seed: int, epoch: int) -> Tensor:
    """Indices (M,) of the `number` images whose losses (2, N) were the highest when the epoch
    began; those that were never seen come first, and among equals the seed decides."""
    order = torch.randperm(losses.shape[1], generator=seeded_generator(seed, "selection", epoch))
    order = order.to(losses.device)
    ranked = losses[0, order].argsort(descending=True, stable=True)
    return order[ranked[:number]]
