"""How a model does on images that are not quite like those it was tested on.

N images, C classes. Accuracies are shares in [0, 1] of the images given, which a caller may
have drawn from a larger set.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from tenfold.data import Images
from tenfold.data.cifar import CIFAR10_CLASS_NAMES
from tenfold.errors import TenfoldError
from tenfold.evaluation.corruptions import (
    FAMILIES,
    SEVERITIES,
    AttackResult,
    CorruptionResult,
    corrupt,
)
from tenfold.evaluation.predictions import map_labels
from tenfold.evaluation.trained import TrainedModel
from tenfold.files import DAMAGED
from tenfold.models.parts import evaluated, gradient_batch
from tenfold.progress import Progress

OFFICIAL_TEST_SIZE = 10_000
"""Images of each severity in a file of CIFAR-10-C."""

PGD_STEPS = 10


def corruption_accuracies(
    model: TrainedModel,
    images: Images,
    *,
    official: Path | None = None,
    seed: int = 0,
    on_result: Callable[[str, int, NDArray[np.bool_]], None] = lambda name, severity, right: None,
    progress: Progress | None = None,
) -> Iterator[CorruptionResult]:
    """What is left of the accuracy under each of the fifteen corruptions.

    on_result: is called with each corruption, severity and which images are then right, (N,).

    official: a folder with the published files of CIFAR-10-C, which are then read in full instead
    of corrupting `images`. Raises TenfoldError where a file is missing or no such file.
    """
    labels = map_labels(images, model.class_names)
    if official is not None:
        _require_cifar10(model)
    done, total = 0, len(SEVERITIES) * sum(len(names) for names in FAMILIES.values())
    for family, names in FAMILIES.items():
        for name in names:
            accuracies = []
            for severity in SEVERITIES:
                if official is None:
                    pixels = corrupt(images.pixels, name, severity=severity, seed=seed)
                else:
                    pixels, numbers = read_official(official, name, severity=severity)
                    places = [model.class_names.index(each) for each in CIFAR10_CLASS_NAMES]
                    labels = np.array(places, dtype=np.int64)[numbers]
                predicted = model.logits(pixels).argmax(axis=1)
                on_result(name, severity, predicted == labels)
                accuracies.append(float((predicted == labels).mean()))
                done += 1
                if progress is not None:
                    progress("corruptions", done, total)
            yield CorruptionResult(corruption=name, family=family, accuracies=tuple(accuracies))


def _require_cifar10(model: TrainedModel) -> None:
    if set(model.class_names) != set(CIFAR10_CLASS_NAMES) or model.image_size != (32, 32):
        raise TenfoldError(
            "The files of CIFAR-10-C are of CIFAR-10's classes at 32 pixels, and this model is "
            f"for {len(model.class_names)} classes at {model.image_size[0]} pixels; leave it to "
            "tenfold to corrupt its own images."
        )


def read_official(
    folder: Path, corruption: str, *, severity: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (10000, 32, 32, 3) and labels (10000,) of one severity from CIFAR-10-C's files.

    Raises TenfoldError where they are missing or of another shape.
    """
    start = (severity - 1) * OFFICIAL_TEST_SIZE
    part = slice(start, start + OFFICIAL_TEST_SIZE)
    pixels = _read_array(folder / f"{corruption}.npy", shape=(32, 32, 3))[part]
    labels = _read_array(folder / "labels.npy", shape=())[part]
    return np.ascontiguousarray(pixels), labels.astype(np.int64)


def _read_array(path: Path, *, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    try:
        found: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise TenfoldError(
            f"There is no {path}; unpack CIFAR-10-C there, or leave it to tenfold to corrupt the "
            "images."
        ) from None
    except DAMAGED as error:
        raise TenfoldError(f"{path} can't be read ({error}); download it again.") from error
    expected = (len(SEVERITIES) * OFFICIAL_TEST_SIZE, *shape)
    if found.shape != expected:
        raise TenfoldError(
            f"{path} has the shape {found.shape} and not {expected}; it is no file of CIFAR-10-C."
        )
    return found


# -- images that were changed on purpose -------------------------------------------------------


def attack_accuracies(
    model: TrainedModel,
    images: Images,
    *,
    limits: tuple[float, ...] = (2 / 255, 8 / 255),
    seed: int = 0,
    progress: Progress | None = None,
) -> list[AttackResult]:
    """Accuracies under one step (FGSM) and several (PGD) against the gradient.

    limits: in pixels of [0, 1]. Goodfellow et al. (2015, arXiv 1412.6572) and Madry et al. (2018,
    arXiv 1706.06083).
    """
    labels = torch.from_numpy(map_labels(images, model.class_names))
    device = next(model.module.parameters()).device
    results, size = [], gradient_batch(model.module, model.image_size)
    plans = [(name, limit) for limit in limits for name in ("FGSM", "PGD")]
    for number, (name, limit) in enumerate(plans):
        right = 0
        for start in range(0, len(images), size):
            of = labels[start : start + size]
            generator = torch.Generator().manual_seed(seed + start)
            steps = 1 if name == "FGSM" else PGD_STEPS
            pixels = images.pixels[start : start + size]
            logits = _attacked(
                model, pixels, of.to(device), limit, steps=steps, generator=generator
            )
            right += int((logits.argmax(dim=1).cpu() == of).sum())
            if progress is not None:
                done = number * len(images) + start + len(of)
                progress("attacks", done, len(plans) * len(images))
        results.append(AttackResult(method=name, limit=limit, accuracy=right / len(images)))
    return results


def _attacked(
    model: TrainedModel,
    pixels: NDArray[np.uint8],
    labels: Tensor,
    limit: float,
    *,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """The logits (N, C) of `pixels` (N, H, W, 3) uint8 once they were moved against the model."""
    clean = model.inputs(pixels)
    mean, std = (torch.tensor(v, device=clean.device).view(1, 3, 1, 1) for v in model.normalisation)
    # Limits are of pixels in [0, 1], and the network sees them over the deviation.
    reach = limit / std
    low = torch.maximum((0 - mean) / std, clean - reach)
    high = torch.minimum((1 - mean) / std, clean + reach)
    step = reach if steps == 1 else reach / 4
    moved = clean
    if steps > 1:
        drawn = torch.rand(clean.shape, generator=generator).to(clean.device)
        moved = torch.clamp(clean + (2 * drawn - 1) * reach, low, high)
    with evaluated(model.module):
        for _ in range(steps):
            moved = moved.detach().requires_grad_(True)
            loss = cross_entropy(model.module(moved), labels, reduction="sum")
            [gradient] = torch.autograd.grad(loss, moved)
            moved = torch.clamp(moved + step * gradient.sign(), low, high)
        with torch.inference_mode():
            logits: Tensor = model.module(moved.detach())
    return logits


# -- a pixel to the side -------------------------------------------------------------------------


DIRECTIONS = ("up", "down", "left", "right")


class Flip(NamedTuple):
    """An image whose class changes with a move by one pixel: where it is among those given, its
    class as it is and once moved, as indices, and which way."""

    position: int
    before: int
    after: int
    direction: str


class Shifts(NamedTuple):
    """The share of images whose class stays under all four moves, and those where it does not,
    with the first move that changes it."""

    consistency: float
    flips: tuple[Flip, ...]


def shift_consistency(
    model: TrainedModel, images: Images, *, progress: Progress | None = None
) -> Shifts:
    """Whether images keep their class when they are moved by a pixel in any of four ways.

    The edge that comes in is the last row or column once more (Zhang 2019, arXiv 1904.11486, asks
    the same of two random shifts).
    """
    predicted = []
    for number, direction in enumerate((None, *DIRECTIONS)):
        moved = images.pixels if direction is None else shifted(images.pixels, direction)
        predicted.append(model.logits(moved).argmax(axis=1))
        if progress is not None:
            progress("shifts", number + 1, 1 + len(DIRECTIONS))
    before, after = predicted[0], np.stack(predicted[1:])
    differs = after != before
    flips = tuple(
        Flip(int(place), int(before[place]), int(after[way, place]), DIRECTIONS[way])
        for place, way in zip(
            np.flatnonzero(differs.any(axis=0)),
            differs.argmax(axis=0)[differs.any(axis=0)],
            strict=True,
        )
    )
    return Shifts(float(1 - differs.any(axis=0).mean()), flips)


def shifted(pixels: NDArray[np.uint8], direction: str) -> NDArray[np.uint8]:
    """Images (N, H, W, 3) moved by one pixel; the edge that comes in is there twice."""
    height, width = pixels.shape[1:3]
    down, right = {"up": (2, 1), "down": (0, 1), "left": (1, 2), "right": (1, 0)}[direction]
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded[:, down : down + height, right : right + width])
