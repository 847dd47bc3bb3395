"""Many image files to one array of pixels, on all cores, kept in the cache folder.

An entry of the cache is a folder `decoded/<where the images are>/<what they are>`, with the pixels
as an array that is mapped into memory, so that a second reading is immediate. It is written under
another name and renamed. What can't be written costs a warning, never the result: the pixels are
then held in memory.
"""

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.data.cache_folder import cache_folder
from tenfold.data.decoding import (
    RULES_VERSION,
    WHITE_LEVELS,
    BrokenPictureError,
    Window,
    decode_picture,
    measure_picture,
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
_SECONDS_BEFORE_ABANDONED = 86_400


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images in order, without the broken ones.

    pixels: `(n, S, S, 3)` uint8, read-only where mapped from the cache. sizes: `(n, 2)` int32,
    original heights and widths. broken: position among all of them -> why the image there can't
    be read. white_level: at which those of sixteen bits are white, where no window was given; of a
    part of them the greatest value; 0 where there are none. groups: of each image, or empty.
    """

    pixels: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    broken: dict[int, str]
    white_level: int = 0
    groups: list[str] = field(default_factory=list)


class _OtherSizesError(Exception):
    """Some images are not of the size that all were supposed to have."""


class _OtherLevelError(Exception):
    """The images use fewer bits than they were decoded for: up to `level`."""

    def __init__(self, level: int) -> None:
        self.level = level


def entry_of(root: Path, stamps: Sequence[str], settings: Settings) -> Path | None:
    """Where the images of `root` belong in the cache; None where TENFOLD_NO_CACHE is set.

    stamps: for each image, in order, its path with what changes whenever its file does.
    """
    size = str(settings.image_size) if settings.image_size else f"up to {settings.photo_size}"
    if settings.window:
        size += " from {} to {}".format(*settings.window)
    return _entry(str(root.resolve()), size, stamps)


def _entry(name: str, size: str, stamps: Sequence[str] = ()) -> Path | None:
    import PIL

    if os.environ.get("TENFOLD_NO_CACHE"):
        return None
    rules = f"{RULES_VERSION} {PIL.__version__} {size}"
    place, content = (
        hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
        for text in (f"{name}\n{size}", "\n".join((rules, *stamps)))
    )
    return cache_folder() / "decoded" / place[:24] / content[:32]


def decode_files(sources: Sequence[Source], settings: Settings, *, entry: Path | None) -> Decoded:
    """The decoded images, from the cache `entry` if it is there, which is written if it isn't.

    entry: None leaves the cache alone, and so do broken images unless they are to be skipped.
    Without a window, the least of WHITE_LEVELS is white that holds all files of sixteen bits.
    """
    cached, window, progress = _read(entry), settings.window, settings.progress
    if cached is not None:
        if progress is not None:
            progress("Reading the cache", len(sources), len(sources))
        return cached
    # To take all for as large as the first saves opening every file twice.
    likely = None if settings.image_size else _likely_size(sources)
    size = settings.image_size or likely or _choose_size(sources, settings)
    while True:
        decode = partial(_decode_some, image_size=size, all_alike=likely is not None, window=window)
        parts = map_chunks(decode, sources, "Decoding images", progress)
        try:
            return _collect(
                parts, (len(sources), size), entry, keeps=settings.skip_broken, window=window
            )
        except _OtherSizesError:
            size, likely = _choose_size(sources, settings), None
        except _OtherLevelError as found:
            window = (0, found.level)


def _decode_some(
    sources: Sequence[Source], *, image_size: int, all_alike: bool, window: Window
) -> Decoded:
    pixels = np.empty((len(sources), image_size, image_size, 3), dtype=np.uint8)
    sizes = np.empty((len(sources), 2), dtype=np.int32)
    broken: dict[int, str] = {}
    groups: list[str] = []
    count = peak = 0
    for position, source in enumerate(sources):
        try:
            picture = decode_picture(source, image_size=image_size, window=window)
        except BrokenPictureError as error:
            broken[position] = str(error)
            continue
        if all_alike and picture.original_size != (image_size, image_size):
            raise _OtherSizesError
        pixels[count], sizes[count] = picture.pixels, picture.original_size
        groups.append(picture.group)
        count, peak = count + 1, max(peak, picture.peak)
    return Decoded(pixels[:count], sizes[:count], broken, peak, groups)


def _likely_size(sources: Sequence[Source]) -> int | None:
    """The size that all images have if all are like the first; None if all must be measured."""
    sizes = _measure_some(sources[:10])
    return sizes[0][0] if sizes and sizes[0][0] == sizes[0][1] <= LARGEST_NATIVE_SIZE else None


def _choose_size(sources: Sequence[Source], settings: Settings) -> int:
    found = map_chunks(_measure_some, sources, "Measuring images", settings.progress)
    sizes = [size for _, some in found for size in some]
    return common_size(sizes, photo_size=settings.photo_size)


def _measure_some(sources: Sequence[Source]) -> list[tuple[int, int]]:
    sizes = []
    for source in sources:
        with contextlib.suppress(BrokenPictureError):  # Decoding will say so.
            sizes.append(measure_picture(source))
    return sizes


def common_size(sizes: Sequence[tuple[int, int]], *, photo_size: int = PHOTO_SIZE) -> int:
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


def resize_images(
    images: Images, *, image_size: int, checksum: str = "", progress: Progress | None = None
) -> Images:
    """The images at `image_size` square, their first sizes kept; 0 leaves them as they are.

    checksum: SHA-256 of their pixels, where it is known; many images are kept by it.
    """
    if image_size == 0 or images.size == (image_size, image_size):
        return images
    number, sizes = len(images), images.original_sizes
    if sizes is None:
        sizes = np.full((number, 2), images.size, dtype=np.int32)
    keeps = number >= MIN_KEPT
    entry = _entry(checksum or sum_of(images.pixels), f"resized to {image_size}") if keeps else None
    if (kept := _read(entry)) is None:
        resize = partial(_resize_some, image_size=image_size)
        parts = map_chunks(resize, images.pixels, "Resizing images", progress)
        kept = _collect(parts, (number, image_size), entry)
    return replace(images, pixels=kept.pixels, original_sizes=sizes)


def _resize_some(pixels: NDArray[np.uint8], *, image_size: int) -> Decoded:
    sizes = np.full((len(pixels), 2), pixels.shape[1:3], dtype=np.int32)
    return Decoded(resize_pixels(np.asarray(pixels), image_size=image_size), sizes, {})


def resize_dataset(dataset: Dataset, settings: Settings) -> Dataset:
    """Every split by `resize_images`; where no size is asked for, splits of unequal sizes are
    brought to a common one, as image files are, and a note says so."""
    image_size, progress = settings.image_size, settings.progress
    splits, notes = dataset.splits(), dataset.notes
    if image_size == 0 and len({images.size for images in splits.values()}) > 1:
        sizes = [images.size for images in splits.values() for _ in range(len(images))]
        image_size = common_size(sizes, photo_size=settings.photo_size)
        found = ", ".join("{} {}x{}".format(split, *i.size) for split, i in splits.items())
        notes += (
            f"The images of the splits differ in size ({found}) and were brought to "
            f"{image_size}x{image_size}.",
        )
    sums = {split: dataset.checksums.get(f"{split}-images", "") for split in splits}
    splits = {
        split: resize_images(images, image_size=image_size, checksum=sums[split], progress=progress)
        for split, images in splits.items()
    }
    return replace(dataset.with_splits(splits), notes=notes)


def _collect(
    parts: Generator[tuple[slice, Decoded], None, None],
    shape: tuple[int, int],
    entry: Path | None,
    *,
    keeps: bool = False,
    window: Window = (),
) -> Decoded:
    """All `parts`, mapped from `entry` where that can be written.

    shape: how many images there are at most, and their side. keeps: also where some are broken.
    Raises _OtherLevelError where no `window` is given and they use less than sixteen bits.
    """
    number, side = shape
    with _room(entry, (number, side, side, 3)) as (staging, pixels):
        sizes: list[NDArray[np.int32]] = [np.empty((0, 2), dtype=np.int32)]
        broken: dict[int, str] = {}
        groups: list[str] = []
        count = peak = 0
        with contextlib.closing(parts):
            for chunk, part in parts:
                broken |= {chunk.start + position: why for position, why in part.broken.items()}
                pixels[count : count + len(part.pixels)] = part.pixels
                count += len(part.pixels)
                sizes.append(part.sizes)
                groups += part.groups
                peak = max(peak, part.white_level)
        level = white_level_for(peak)
        if not window and 0 < level < WHITE_LEVELS[-1]:
            raise _OtherLevelError(level)
        groups = groups if any(groups) else []
        found = Decoded(pixels[:count], np.concatenate(sizes), broken, level, groups)
        if entry is not None and staging is not None:
            kept = _write(staging, entry, found) if keeps or not broken else None
            found = kept or replace(found, pixels=np.array(found.pixels))
        return found


@contextlib.contextmanager
def _room(
    entry: Path | None, shape: tuple[int, ...]
) -> Iterator[tuple[Path | None, NDArray[np.uint8]]]:
    """An array to be filled, mapped from a file in a new folder beside `entry`, which is removed at
    the end unless renamed; or None and an array in memory where that can't be had.

    Whether the disk has room must be known before, for a mapped file that finds none kills the
    process.
    """
    staging = entry and entry.with_name(f".{secrets.token_hex(6)}.tmp")
    place, pixels = None, None
    try:
        if staging is not None and hasattr(os, "posix_fallocate"):
            staging.mkdir(parents=True)
            path = staging / "pixels.npy"
            mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
            with open(path, "rb+") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            place, pixels = staging, mapped
    except OSError as error:
        _warn(error)
    try:
        yield place, np.empty(shape, dtype=np.uint8) if pixels is None else pixels
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _write(staging: Path, entry: Path, found: Decoded) -> Decoded | None:
    """Complete the entry whose pixels are in `staging`, and read it; None where that fails."""
    described = {
        "shape": found.pixels.shape,
        "broken": list(found.broken.items()),
        "white_level": found.white_level,
    }
    try:
        np.save(staging / "sizes.npy", found.sizes)
        if found.groups:
            np.save(staging / "groups.npy", np.array(found.groups))
        (staging / "entry.json").write_text(json.dumps(described), encoding="utf-8")
        for file in staging.iterdir():
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())
        if _read(entry) is None:  # Else another process was faster.
            shutil.rmtree(entry, ignore_errors=True)
            os.replace(staging, entry)
    except OSError as error:
        _warn(error)
        return None
    for other in entry.parent.iterdir():  # What the folder held before, what killed processes left.
        with contextlib.suppress(OSError):
            age = time.time() - other.stat().st_mtime
            if other != entry and (other.suffix != ".tmp" or age > _SECONDS_BEFORE_ABANDONED):
                shutil.rmtree(other, ignore_errors=True)
    return _read(entry)


def _read(entry: Path | None) -> Decoded | None:
    """What is in `entry`, mapped into memory; None where there is nothing sound."""
    if entry is None or not entry.is_dir():
        return None
    try:
        described = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
        pixels = np.asarray(np.load(entry / "pixels.npy", mmap_mode="r", allow_pickle=False))
        sizes = np.load(entry / "sizes.npy", allow_pickle=False)
        broken = {int(position): str(reason) for position, reason in described["broken"]}
        pixels = pixels[: described["shape"][0]]
        place, groups = entry / "groups.npy", []
        if place.exists():
            groups = np.load(place, allow_pickle=False).tolist()
        if sizes.shape != (len(pixels), 2) or len(groups) not in (0, len(pixels)):
            raise ValueError("arrays of other shapes than stated")
        return Decoded(pixels, sizes, broken, int(described["white_level"]), groups)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        logger.warning("The cached images in %s are damaged and made anew (%s).", entry, error)
        return None


def _warn(error: OSError) -> None:
    logger.warning(
        "Decoded images can't be kept in the cache (%s), so the next reading takes as long; "
        "TENFOLD_CACHE names another folder.",
        error,
    )
