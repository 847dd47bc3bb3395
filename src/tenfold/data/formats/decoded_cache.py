"""Decoded pictures kept in the cache folder, so that a folder's second reading is immediate.

An entry is a folder `decoded/<where the pictures are>/<what they are>`, with the pixels as an
array that is mapped into memory. It is written under another name and renamed. What can't be
written costs a warning, never the result: the pixels are then held in memory.
"""

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.data.cache_folder import cache_folder
from tenfold.data.formats.decoding import (
    Chunk,
    Settings,
    Source,
    UnequalSizesError,
    choose_size,
    decode_all,
    likely_size,
)
from tenfold.data.formats.pictures import RULES_VERSION, WHITE_LEVELS, white_level_for

logger = logging.getLogger("tenfold")

_SECONDS_BEFORE_ABANDONED = 86_400


@dataclass(frozen=True, eq=False)
class Decoded:
    """All pictures of one listing.

    pixels: `(n, S, S, 3)` uint8 without the broken ones, read-only where mapped from the cache.
    sizes: `(n, 2)` int32, original heights and widths.
    broken: position in the listing -> why the picture there can't be read.
    white_level: at which those of sixteen bits are white; 0 where there are none.
    """

    pixels: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    broken: dict[int, str]
    white_level: int = 0


def entry_of(root: Path, stamps: Sequence[str], settings: Settings) -> Path | None:
    """Where the pictures of `root` belong in the cache; None where TENFOLD_NO_CACHE is set.

    stamps: for each picture, in order, its path with what changes whenever its file does.
    """
    size = str(settings.image_size) if settings.image_size else f"up to {settings.photo_size}"
    return entry_named(str(root.resolve()), size, stamps)


def entry_named(name: str, size: str, stamps: Sequence[str] = ()) -> Path | None:
    """Where the pictures of what has this name belong, at this size; as `entry_of`."""
    import PIL

    if os.environ.get("TENFOLD_NO_CACHE"):
        return None
    rules = f"{RULES_VERSION} {PIL.__version__} {size}"
    place = hashlib.sha256(f"{name}\n{size}".encode(errors="surrogateescape"))
    content = hashlib.sha256("\n".join((rules, *stamps)).encode(errors="surrogateescape"))
    return cache_folder() / "decoded" / place.hexdigest()[:24] / content.hexdigest()[:32]


def decode_cached(sources: Sequence[Source], settings: Settings, *, entry: Path | None) -> Decoded:
    """The decoded pictures, from the cache `entry` if it is there, which is written if it isn't.

    entry: None leaves the cache alone, and so do broken pictures unless they are to be skipped.
    Without a white level, the least of WHITE_LEVELS is taken that holds all files of sixteen bits.
    """
    cached, level = read_entry(entry), settings.white_level
    if cached is not None and (not level or cached.white_level in (0, level)):
        if settings.progress is not None:
            settings.progress("Reading the cache", len(sources), len(sources))
        return cached
    if level:  # That of another data set; what this one has by itself is what is kept.
        entry = None
    try:
        return _decode(sources, settings, entry)
    except _OtherLevelError as found:
        return _decode(sources, replace(settings, white_level=found.level), entry)


class _OtherLevelError(Exception):
    """The pictures use fewer bits than they were decoded for: up to `level`."""

    def __init__(self, level: int) -> None:
        self.level = level


def _decode(sources: Sequence[Source], settings: Settings, entry: Path | None) -> Decoded:
    size, photo_size, progress = settings.image_size, settings.photo_size, settings.progress
    if not size and (likely := likely_size(sources)) is not None:
        with contextlib.suppress(UnequalSizesError):
            return _decode_into(sources, likely, settings, entry, all_alike=True)
    size = size or choose_size(sources, photo_size=photo_size, progress=progress)
    return _decode_into(sources, size, settings, entry)


def _decode_into(
    sources: Sequence[Source],
    size: int,
    settings: Settings,
    entry: Path | None,
    *,
    all_alike: bool = False,
) -> Decoded:
    chunks = decode_all(
        sources,
        image_size=size,
        all_alike=all_alike,
        white_level=settings.white_level,
        progress=settings.progress,
    )
    return collect(
        chunks,
        num_images=len(sources),
        image_size=size,
        entry=entry,
        keep_broken=settings.skip_broken,
        white_level=settings.white_level,
    )


def collect(
    chunks: Generator[Chunk, None, None],
    *,
    num_images: int,
    image_size: int,
    entry: Path | None,
    keep_broken: bool = False,
    white_level: int = 0,
) -> Decoded:
    """All `chunks`, of pictures `image_size` square, mapped from `entry` where that can be written.

    num_images: that there are at most. Raises _OtherLevelError where no `white_level` is given and
    they use fewer bits than sixteen.
    """
    with _staging(entry) as staging:
        pixels = _room(staging, (num_images, image_size, image_size, 3))
        sizes: list[NDArray[np.int32]] = [np.empty((0, 2), dtype=np.int32)]
        broken: dict[int, str] = {}
        count = peak = 0
        with contextlib.closing(chunks):
            for chunk in chunks:
                pixels[count : count + len(chunk.pixels)] = chunk.pixels
                count += len(chunk.pixels)
                sizes.append(chunk.sizes)
                broken |= chunk.broken
                peak = max(peak, chunk.peak)
        level = white_level_for(peak)
        if not white_level and 0 < level < WHITE_LEVELS[-1]:
            raise _OtherLevelError(level)
        level = white_level or level if peak else 0
        all_sizes = np.concatenate(sizes)
        is_mapped = isinstance(pixels, np.memmap)
        if entry is not None and staging is not None and is_mapped and (keep_broken or not broken):
            shape = [count, *pixels.shape[1:]]
            described = {"shape": shape, "broken": list(broken.items()), "white_level": level}
            if _write_entry(staging, entry, sizes=all_sizes, described=described):
                cached = read_entry(entry)
                if cached is not None:
                    return cached
        return Decoded(np.array(pixels[:count]), all_sizes, broken, level)


def _room(staging: Path | None, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An array to be filled: mapped from a file of `staging`, or in memory where the disk lacks
    room for it, which must be known before, for a mapped file that finds none kills the process."""
    if staging is not None and hasattr(os, "posix_fallocate"):
        try:
            path = staging / "pixels.npy"
            mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
            with open(path, "rb+") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            return mapped
        except OSError as error:
            _warn(error)
    return np.empty(shape, dtype=np.uint8)


@contextlib.contextmanager
def _staging(entry: Path | None) -> Iterator[Path | None]:
    """A new folder beside `entry`, removed at the end unless renamed; None if it can't be had."""
    if entry is None:
        yield None
        return
    staging: Path | None = entry.with_name(f".{secrets.token_hex(6)}.tmp")
    try:
        assert staging is not None
        staging.mkdir(parents=True)
    except OSError as error:
        _warn(error)
        staging = None
    try:
        yield staging
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _write_entry(
    staging: Path, entry: Path, *, sizes: NDArray[np.int32], described: Mapping[str, object]
) -> bool:
    """Complete the entry whose pixels are in `staging`; whether that worked."""
    try:
        np.save(staging / "sizes.npy", sizes)
        (staging / "entry.json").write_text(json.dumps(described), encoding="utf-8")
        for file in staging.iterdir():
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())
        if read_entry(entry) is not None:  # Another process was faster.
            return True
        if entry.exists():  # damaged
            shutil.rmtree(entry, ignore_errors=True)
        os.replace(staging, entry)
    except OSError as error:
        _warn(error)
        return False
    _remove_others(entry)
    return True


def read_entry(entry: Path | None) -> Decoded | None:
    """What is in `entry`, mapped into memory; None where there is nothing sound."""
    if entry is None or not entry.is_dir():
        return None
    try:
        described = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
        pixels = np.asarray(np.load(entry / "pixels.npy", mmap_mode="r", allow_pickle=False))
        sizes = np.load(entry / "sizes.npy", allow_pickle=False)
        broken = {int(position): str(reason) for position, reason in described["broken"]}
        level = int(described["white_level"])
        pixels = pixels[: described["shape"][0]]
        if sizes.shape != (len(pixels), 2):
            raise ValueError("arrays of other shapes than stated")
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        logger.warning("The cached pictures in %s are damaged and made anew (%s).", entry, error)
        return None
    return Decoded(pixels, sizes, broken, level)


def _remove_others(entry: Path) -> None:
    """Drop the entries for what the same folder held before, and what killed processes left."""
    for other in entry.parent.iterdir():
        with contextlib.suppress(OSError):
            age = time.time() - other.stat().st_mtime
            if other != entry and (other.suffix != ".tmp" or age > _SECONDS_BEFORE_ABANDONED):
                shutil.rmtree(other, ignore_errors=True)


def _warn(error: OSError) -> None:
    logger.warning(
        "Decoded pictures can't be kept in the cache (%s), so the next reading takes as long; "
        "TENFOLD_CACHE names another folder.",
        error,
    )
