"""A training of a second: noise with a tint by class, and a network that learns it."""

import numpy as np
import torch

from tenfold.data.images import Images
from tenfold.data.splits import TrainingData
from tenfold.recipe import load_recipe

TINY = [
    "model.widths=[8,16]",
    "model.dense=[16]",
    "augmentation.flip=false",
    "augmentation.translate=0",
    "training.batch_size=32",
    "training.epochs=3",
    "training.min_steps=0",
    "training.label_smoothing=0.0",
]


def pictures(number: int, *, seed: int = 0) -> Images:
    """Noise with a tint by class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(number, dtype=np.int64) % 3
    pixels = generator.integers(0, 200, (number, 16, 16, 3), dtype=np.uint8)
    pixels[np.arange(number), :, :, labels] += 40
    ids = np.array([f"{seed}/{i}" for i in range(number)])
    return Images(pixels, labels, ("red", "green", "blue"), ids)


def data(number: int = 192, *, validation: int = 60) -> TrainingData:
    return TrainingData(
        train=pictures(number),
        validation=pictures(validation, seed=1) if validation else None,
        dataset_name="tinted noise",
        source="made for a test",
    )


def tiny(*overrides: str):
    return load_recipe("cnn", [*TINY, *overrides])


def weights(fitted) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in fitted.model.module.state_dict().items()}


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)
