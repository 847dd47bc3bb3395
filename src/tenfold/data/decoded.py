"""Many image files to one array of pixels, on all cores, kept in the cache folder.

An entry of the cache is a folder `decoded/<where the images are>/<what they are>`: `pixels.bin`,
which is mapped into memory, so that a second reading is immediate, and `entry.json` with the rest.
It is written under another name and renamed. What can't be written costs a warning and a second
decoding, never the result: the pixels are then held in memory.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from tenfold.data.cache_folder import cache_folder
from tenfold.data.decoding import (
    RULES_VERSION,
    WHITE_LEVELS,
    BrokenImageError,
    Window,
    decode_image,
    measure_image,
    resize_pixels,
    white_level_for,
)
from tenfold.data.images import PHOTO_SIZE, Dataset, Images, Settings, Source, sum_of
from tenfold.data.workers import map_chunks
from tenfold.progress import Progress

logger = logging.getLogger("tenfold")

LARGEST_NATIVE_SIZE = 96
MIN_KEPT = 2000
"""Resized images that are worth an entry in the cache: fewer take as long as reading it."""
_PIXELS, _DESCRIPTION = "pixels.bin", "entry.json"
_ENTRY_VERSION = 2
_SECONDS_BEFORE_ABANDONED = 86_400


@dataclass
class Decoded:
    """Images in order, without the broken ones: pixels `(n, S, S, 3)` uint8, read-only where mapped
    from the cache; original heights and widths; position among all of them -> why the image there
    can't be read. white_level: the greatest value of files of sixteen bits, of all of them the
    least of WHITE_LEVELS that holds it, or 0. groups: of each image, such as its patient."""

    pixels: NDArray[np.uint8]
    sizes: list[Sequence[int]] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)
    white_level: int = 0
    groups: list[str] = field(default_factory=list)

    def is_bright(self, window: Window) -> bool:
        """Whether white was the level that files of sixteen bits use, or the one of a window."""
        return bool(window) or self.white_level in (0, WHITE_LEVELS[-1])


_Parts = Callable[[], Generator[tuple[int, Decoded], None, None]]
"""Decodes anew, a few images at a time, each time with the position of the first of them."""


class _OtherSizesError(Exception):
    """Some images are not of the size that all were supposed to have."""


def decode_files(
    sources: Sequence[Source], settings: Settings, *, root: Path | None, stamps: Sequence[str]
) -> Decoded:
    """The decoded images, from the cache where they are there.

    root: of the images, by which the cache keeps them, where there are no broken ones or these are
    to be skipped; None leaves it alone. stamps: for each image, in order, its path with what
    changes whenever its file does. Without a window, the least of WHITE_LEVELS is white that holds
    all files of sixteen bits.
    """
    window, wanted, progress = settings.window, settings.image_size, settings.progress
    size = str(wanted or f"up to {settings.photo_size}")
    size += " from {} to {}".format(*window) if window else ""
    entry = None if root is None else _entry(str(root.resolve()), size, stamps)
    if (cached := _read(entry)) is not None:
        if progress is not None:
            progress("Reading the cache", len(sources), len(sources))
        return cached

    def common() -> int:
        found = map_chunks(_measure_some, sources, "Measuring images", progress)
        return common_size([each for _, some in found for each in some], settings.photo_size)

    # To take all for as large as the first saves opening every file twice.
    height, width = next(iter(_measure_some(sources[:10])), (0, 1))
    are_alike = not wanted and height == width <= LARGEST_NATIVE_SIZE
    side = wanted or (height if are_alike else common())
    while True:
        decode = partial(_decode_some, image_size=side, are_alike=are_alike, window=window)
        parts = partial(map_chunks, decode, sources, "Decoding images", progress)
        try:
            found = _collect(parts, side, entry, window=window, keeps_broken=settings.skip_broken)
        except _OtherSizesError:
            side, are_alike = common(), False
            continue
        if found.is_bright(window):
            return found
        window = (0, found.white_level)


def _decode_some(
    sources: Sequence[Source], *, image_size: int, are_alike: bool, window: Window
) -> Decoded:
    found = Decoded(np.empty((len(sources), image_size, image_size, 3), dtype=np.uint8))
    for position, source in enumerate(sources):
        try:
            image = decode_image(source, image_size=image_size, window=window)
        except BrokenImageError as error:
            found.broken[position] = str(error)
            continue
        if are_alike and image.original_size != (image_size, image_size):
            raise _OtherSizesError
        found.pixels[len(found.sizes)] = image.pixels
        found.sizes.append(image.original_size)
        found.groups.append(image.group)
        found.white_level = max(found.white_level, image.peak)
    found.pixels = found.pixels[: len(found.sizes)]
    return found


def _measure_some(sources: Sequence[Source]) -> list[tuple[int, int]]:
    sizes = []
    for source in sources:
        with contextlib.suppress(BrokenImageError):  # Decoding will say so.
            sizes.append(measure_image(source))
    return sizes


def common_size(sizes: Sequence[tuple[int, int]], photo_size: int = PHOTO_SIZE) -> int:
    """The size to bring images of these heights and widths to where nobody has asked for one.

    Their own where all are squares of one size of at most 96 pixels; otherwise 32 where the median
    of their shorter sides is at most 48, and `photo_size` where it is more.
    """
    if not sizes:
        return 32
    height, width = sizes[0]
    if height == width <= LARGEST_NATIVE_SIZE and len(set(sizes)) == 1:
        return height
    return 32 if float(np.median(np.min(sizes, axis=1))) <= 48 else photo_size


def resize_dataset(dataset: Dataset, settings: Settings) -> Dataset:
    """Every split by `resize_images`; where no size is asked for, splits of unequal sizes are
    brought to a common one, as image files are, and a note says so."""
    image_size, splits, notes = settings.image_size, dataset.splits(), dataset.notes
    if image_size == 0 and len({images.size for images in splits.values()}) > 1:
        sizes = [images.size for images in splits.values() for _ in range(len(images))]
        image_size = common_size(sizes, settings.photo_size)
        found = ", ".join("{} {}x{}".format(split, *i.size) for split, i in splits.items())
        notes += (
            f"The images of the splits differ in size ({found}) and were brought to "
            f"{image_size}x{image_size}.",
        )
    for split, images in splits.items():
        splits[split] = resize_images(
            images,
            image_size=image_size,
            checksum=dataset.checksums.get(f"{split}-images", ""),
            progress=settings.progress,
        )
    return replace(dataset.with_splits(splits), notes=notes)


def resize_images(
    images: Images, *, image_size: int, checksum: str = "", progress: Progress | None = None
) -> Images:
    """The images at `image_size` square, their first sizes kept; 0 leaves them as they are.

    checksum: SHA-256 of their pixels, where it is known; many images are kept by it.
    """
    if image_size == 0 or images.size == (image_size, image_size):
        return images
    number, sizes, entry = len(images), images.original_sizes, None
    if sizes is None:
        sizes = np.full((number, 2), images.size, dtype=np.int32)
    if number >= MIN_KEPT:
        entry = _entry(checksum or sum_of(images.pixels), f"resized to {image_size}")
    if (found := _read(entry)) is None:
        resize = partial(_resize_some, image_size=image_size)
        parts = partial(map_chunks, resize, images.pixels, "Resizing images", progress)
        found = _collect(parts, image_size, entry)
    return replace(images, pixels=found.pixels, original_sizes=sizes)


def _resize_some(pixels: NDArray[np.uint8], *, image_size: int) -> Decoded:
    resized = resize_pixels(np.asarray(pixels), image_size=image_size)
    return Decoded(resized, [pixels.shape[1:3]] * len(pixels))


def _entry(name: str, size: str, stamps: Sequence[str] = ()) -> Path | None:
    """Where images belong in the cache; None where TENFOLD_NO_CACHE is set."""
    import PIL

    if os.environ.get("TENFOLD_NO_CACHE"):
        return None
    rules = f"{RULES_VERSION} {_ENTRY_VERSION} {PIL.__version__} {size}"
    place, content = (
        hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
        for text in (f"{name}\n{size}", "\n".join((rules, *stamps)))
    )
    return cache_folder() / "decoded" / place[:24] / content[:32]


def _read(entry: Path | None) -> Decoded | None:
    """What is in `entry`, mapped into memory; None where there is nothing sound."""
    if entry is None or not entry.is_dir():
        return None
    try:
        described = json.loads((entry / _DESCRIPTION).read_text(encoding="utf-8"))
        shape, sizes, groups = (described[key] for key in ("shape", "sizes", "groups"))
        pixels = np.memmap(entry / _PIXELS, np.uint8, "r", shape=tuple(shape))
        if len(sizes) != len(pixels) or len(groups) not in (0, len(pixels)):
            raise ValueError("lists of other lengths than stated")
        broken = dict(described["broken"])
        return Decoded(np.asarray(pixels), sizes, broken, described["white_level"], groups)
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("The cached images in %s are damaged and made anew (%s).", entry, error)
        return None


def _collect(
    parts: _Parts,
    side: int,
    entry: Path | None,
    *,
    window: Window = (),
    keeps_broken: bool = False,
) -> Decoded:
    """All parts, mapped from `entry` where that can be written; without pixels where they are not
    to be kept there, since nobody wants those."""
    if entry is not None:
        staging = entry.with_name(f".{secrets.token_hex(6)}.tmp")
        try:
            staging.mkdir(parents=True)
            with open(staging / _PIXELS, "wb") as file:
                found = _write_pixels(parts, file)
                os.fsync(file.fileno())
            is_sound = found.is_bright(window) and (keeps_broken or not found.broken)
            if not found.sizes or not is_sound:
                return found
            _complete(staging, entry, found, side)
            if (kept := _read(entry)) is not None:
                return kept
        except OSError as error:
            logger.warning(
                "Decoded images can't be kept in the cache (%s), so the next reading takes as "
                "long; TENFOLD_CACHE names another folder.",
                error,
            )
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    memory = io.BytesIO()
    found = _write_pixels(parts, memory)
    found.pixels = np.frombuffer(memory.getbuffer(), np.uint8).reshape(-1, side, side, 3)
    return found


def _write_pixels(parts: _Parts, file: IO[bytes]) -> Decoded:
    """All parts, whose pixels are in `file` instead."""
    found = Decoded(np.empty((0, 0, 0, 3), dtype=np.uint8))
    with contextlib.closing(parts()) as running:
        for start, part in running:
            file.write(part.pixels.tobytes())
            found.sizes += part.sizes
            found.groups += part.groups
            found.broken |= {start + position: why for position, why in part.broken.items()}
            found.white_level = max(found.white_level, part.white_level)
    file.flush()
    found.white_level = white_level_for(found.white_level)
    return found


def _complete(staging: Path, entry: Path, found: Decoded, side: int) -> None:
    """Make the entry of which the pixels are in `staging`."""
    described = {
        "shape": [len(found.sizes), side, side, 3],
        "sizes": found.sizes,
        "broken": list(found.broken.items()),
        "white_level": found.white_level,
        "groups": found.groups if any(found.groups) else [],
    }
    with open(staging / _DESCRIPTION, "w", encoding="utf-8") as file:
        file.write(json.dumps(described))
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(entry, ignore_errors=True)  # Damaged, or by a process that was faster.
    os.replace(staging, entry)
    for other in entry.parent.iterdir():  # What the folder held before, what killed processes left.
        with contextlib.suppress(OSError):
            age = time.time() - other.stat().st_mtime
            if other != entry and (other.suffix != ".tmp" or age > _SECONDS_BEFORE_ABANDONED):
                shutil.rmtree(other, ignore_errors=True)
