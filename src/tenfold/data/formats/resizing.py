"""Decoded pictures brought to another size, by the rule for picture files."""

import dataclasses

import numpy as np

from tenfold.data.formats.decoding import common_size
from tenfold.data.formats.pictures import resize_pixels
from tenfold.data.images import PHOTO_SIZE, Dataset, Images


def resize_images(images: Images, *, image_size: int) -> Images:
    """The pictures at `image_size` square, their first sizes kept; 0 leaves them as they are."""
    if image_size == 0 or images.size == (image_size, image_size):
        return images
    sizes = images.original_sizes
    if sizes is None:
        sizes = np.full((len(images), 2), images.size, dtype=np.int32)
    pixels = resize_pixels(images.pixels, image_size=image_size)
    return dataclasses.replace(images, pixels=pixels, original_sizes=sizes)


def resize_dataset(dataset: Dataset, *, image_size: int, photo_size: int = PHOTO_SIZE) -> Dataset:
    """Every split by `resize_images`; with 0, splits of unequal sizes are brought to a common one,
    as picture files are, and a note says so."""
    splits = dataset.splits()
    notes = dataset.notes
    if image_size == 0 and len({images.size for images in splits.values()}) > 1:
        sizes = [images.size for images in splits.values() for _ in range(len(images))]
        image_size = common_size(sizes, photo_size=photo_size)
        found = ", ".join("{} {}x{}".format(split, *i.size) for split, i in splits.items())
        notes += (
            f"The images of the splits differ in size ({found}) and were brought to "
            f"{image_size}x{image_size}.",
        )
    splits = {
        split: resize_images(images, image_size=image_size) for split, images in splits.items()
    }
    return dataclasses.replace(dataset.with_splits(splits), notes=notes)
