"""Decoded pictures brought to another size, by the rule for picture files."""

import dataclasses
from collections.abc import Generator
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from tenfold.data.checksums import sum_of
from tenfold.data.formats.decoded_cache import collect, entry_named, read_entry
from tenfold.data.formats.decoding import Chunk, common_size
from tenfold.data.formats.pictures import resize_pixels
from tenfold.data.formats.workers import chunks_of, map_on_cores
from tenfold.data.images import PHOTO_SIZE, Dataset, Images
from tenfold.progress import Progress

MIN_KEPT = 2000
"""Pictures that are worth an entry in the cache: fewer take as long as reading it."""


def resize_images(
    images: Images, *, image_size: int, checksum: str = "", progress: Progress | None = None
) -> Images:
    """The pictures at `image_size` square, their first sizes kept; 0 leaves them as they are.

    checksum: SHA-256 of their pixels, where it is known; many pictures are kept by it.
    """
    if image_size == 0 or images.size == (image_size, image_size):
        return images
    sizes = images.original_sizes
    if sizes is None:
        sizes = np.full((len(images), 2), images.size, dtype=np.int32)
    if len(images) < MIN_KEPT:
        pixels = resize_pixels(images.pixels, image_size=image_size)
        return dataclasses.replace(images, pixels=pixels, original_sizes=sizes)
    entry = entry_named(checksum or sum_of(images.pixels), f"resized to {image_size}")
    kept = read_entry(entry)
    if kept is None:
        chunks = _resize_all(images.pixels, sizes, image_size=image_size, progress=progress)
        kept = collect(chunks, num_images=len(images), image_size=image_size, entry=entry)
    return dataclasses.replace(images, pixels=kept.pixels, original_sizes=sizes)


def resize_dataset(
    dataset: Dataset,
    *,
    image_size: int,
    photo_size: int = PHOTO_SIZE,
    progress: Progress | None = None,
) -> Dataset:
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
        split: resize_images(
            images,
            image_size=image_size,
            checksum=dataset.checksums.get(f"{split}-images", ""),
            progress=progress,
        )
        for split, images in splits.items()
    }
    return dataclasses.replace(dataset.with_splits(splits), notes=notes)


def _resize_all(
    pixels: NDArray[np.uint8],
    sizes: NDArray[np.int32],
    *,
    image_size: int,
    progress: Progress | None,
) -> Generator[Chunk, None, None]:
    chunks = chunks_of(len(pixels))
    tasks = [(np.asarray(pixels[chunk]), image_size) for chunk in chunks]
    with closing(map_on_cores(_resize_some, tasks, num_items=len(pixels))) as results:
        for chunk, resized in zip(chunks, results, strict=True):
            yield Chunk(resized, sizes[chunk], {})
            if progress is not None:
                progress("Resizing pictures", min(chunk.stop, len(pixels)), len(pixels))


def _resize_some(task: tuple[NDArray[np.uint8], int]) -> NDArray[np.uint8]:
    pixels, image_size = task
    return resize_pixels(pixels, image_size=image_size)
