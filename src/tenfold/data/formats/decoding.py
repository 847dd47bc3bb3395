"""Many picture files to one array of pixels, on all cores."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tenfold.data.formats.pictures import BrokenPictureError, decode_picture, measure_picture
from tenfold.data.formats.workers import chunks_of, map_on_cores
from tenfold.data.images import PHOTO_SIZE
from tenfold.progress import Progress

Source = str | bytes
"""A file's path, or a file's content."""

LARGEST_NATIVE_SIZE = 96


@dataclass(frozen=True)
class Settings:
    """How to read pictures: the options that every reader of picture files has.

    image_size: height and width to bring them to; 0 chooses, see `choose_size`, and then
    photo_size is that of photographs. skip_broken: leave broken pictures out, counted in the
    notes, where an error is the rule. white_level: of files of sixteen bits, where that of a
    model's data must hold; 0 finds it.
    """

    image_size: int = 0
    skip_broken: bool = False
    progress: Progress | None = None
    photo_size: int = PHOTO_SIZE
    white_level: int = 0


DEFAULT_SETTINGS = Settings()


class UnequalSizesError(Exception):
    """Some pictures are not of the size that all were supposed to have."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some decoded pictures.

    pixels: `(n, S, S, 3)` uint8; sizes: `(n, 2)` int32, original heights and widths;
    broken: position among all the sources -> why the picture there is missing from the two.
    peak: the greatest value of those of sixteen bits, 0 where there are none.
    """

    pixels: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    broken: dict[int, str]
    peak: int = 0


def decode_all(
    sources: Sequence[Source],
    *,
    image_size: int,
    all_alike: bool = False,
    white_level: int = 0,
    progress: Progress | None = None,
) -> Generator[Chunk, None, None]:
    """The pictures in order, all `image_size` square, without the broken ones.

    Close the iterator if it isn't read to its end. all_alike: raise UnequalSizesError at the first
    picture that hasn't that size by itself. white_level: see `decode_picture`.
    """
    chunks = chunks_of(len(sources))
    tasks = [(list(sources[chunk]), image_size, all_alike, white_level) for chunk in chunks]
    with closing(map_on_cores(_decode_some, tasks, num_items=len(sources))) as results:
        for chunk, result in zip(chunks, results, strict=True):
            broken = {chunk.start + position: why for position, why in result.broken.items()}
            yield Chunk(result.pixels, result.sizes, broken, result.peak)
            if progress is not None:
                progress("Decoding pictures", min(chunk.stop, len(sources)), len(sources))


def likely_size(sources: Sequence[Source]) -> int | None:
    """The size that all pictures have if all are like the first; None if `choose_size` must see.

    To decode with `all_alike` right away then saves opening every file twice.
    """
    for source in sources[:10]:
        try:
            height, width = measure_picture(source)
        except BrokenPictureError:
            continue
        return height if height == width <= LARGEST_NATIVE_SIZE else None
    return None


def choose_size(
    sources: Sequence[Source], *, photo_size: int = PHOTO_SIZE, progress: Progress | None = None
) -> int:
    """The size to bring pictures to where nobody has asked for one.

    Their own where all are squares of one size of at most 96 pixels; otherwise 32 where the median
    of their shorter sides is at most 48, and `photo_size` where it is more. Broken pictures don't
    count.
    """
    chunks = chunks_of(len(sources))
    tasks = [list(sources[chunk]) for chunk in chunks]
    sizes: list[tuple[int, int]] = []
    with closing(map_on_cores(_measure_some, tasks, num_items=len(sources))) as results:
        for chunk, result in zip(chunks, results, strict=True):
            sizes += result
            if progress is not None:
                progress("Measuring pictures", min(chunk.stop, len(sources)), len(sources))
    return common_size(sizes, photo_size=photo_size)


def common_size(sizes: Sequence[tuple[int, int]], *, photo_size: int = PHOTO_SIZE) -> int:
    """As `choose_size`, of heights and widths."""
    if not sizes:
        return 32
    height, width = sizes[0]
    if height == width <= LARGEST_NATIVE_SIZE and len(set(sizes)) == 1:
        return height
    return 32 if float(np.median(np.min(sizes, axis=1))) <= 48 else photo_size


def _decode_some(task: tuple[list[Source], int, bool, int]) -> Chunk:
    sources, image_size, all_alike, white_level = task
    pixels = np.empty((len(sources), image_size, image_size, 3), dtype=np.uint8)
    sizes = np.empty((len(sources), 2), dtype=np.int32)
    broken: dict[int, str] = {}
    count = peak = 0
    for position, source in enumerate(sources):
        try:
            picture = decode_picture(source, image_size=image_size, white_level=white_level)
        except BrokenPictureError as error:
            broken[position] = str(error)
            continue
        if all_alike and picture.original_size != (image_size, image_size):
            raise UnequalSizesError
        pixels[count] = picture.pixels
        sizes[count] = picture.original_size
        count += 1
        peak = max(peak, picture.peak)
    return Chunk(pixels[:count], sizes[:count], broken, peak)


def _measure_some(sources: list[Source]) -> list[tuple[int, int]]:
    sizes = []
    for source in sources:
        try:
            sizes.append(measure_picture(source))
        except BrokenPictureError:
            continue  # decoding will say so
    return sizes
