"""Decoded pictures brought to another size, by the rule for picture files."""

import dataclasses

import numpy as np

from tenfold.data.formats.pictures import resize_pixels
from tenfold.data.images import Dataset, Images


def resize_images(images: Images, *, image_size: int) -> Images:
    """The pictures at `image_size` square, their first sizes kept; 0 leaves them as they are."""
    if image_size == 0 or images.size == (image_size, image_size):
        return images
    sizes = images.original_sizes
    if sizes is None:
        sizes = np.full((len(images), 2), images.size, dtype=np.int32)
    pixels = resize_pixels(images.pixels, image_size=image_size)
    return dataclasses.replace(images, pixels=pixels, original_sizes=sizes)


def resize_dataset(dataset: Dataset, *, image_size: int) -> Dataset:
    """Every split by `resize_images`."""
    splits = {
        split: resize_images(images, image_size=image_size)
        for split, images in dataset.splits().items()
    }
    return dataclasses.replace(
        dataset,
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
    )
