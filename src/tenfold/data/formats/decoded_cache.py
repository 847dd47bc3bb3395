"""Decoded pictures kept in the cache folder, so that a folder's second reading is immediate.

An entry is a folder `decoded/<where the pictures are>/<what they are>`, with the pixels as an
array that is mapped into memory. It is written under another name and renamed. What can't be
written costs a warning, never the result: the pixels are then held in memory.
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
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from tenfold.data.cache_folder import cache_folder
from tenfold.data.formats.decoding import (
    Chunk,
    Source,
    UnequalSizesError,
    choose_size,
    decode_all,
    likely_size,
)
from tenfold.data.formats.pictures import RULES_VERSION, WHITE_LEVELS, white_level_for
from tenfold.data.images import PHOTO_SIZE
from tenfold.progress import Progress

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


def entry_of(
    root: Path, stamps: Sequence[str], *, image_size: int, photo_size: int = PHOTO_SIZE
) -> Path | None:
    """Where the pictures of `root` belong in the cache; None where TENFOLD_NO_CACHE is set.

    stamps: for each picture, in order, its path with what changes whenever its file does.
    """
    size = str(image_size) if image_size else f"up to {photo_size}"
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


def decode_cached(
    sources: Sequence[Source],
    *,
    image_size: int,
    photo_size: int = PHOTO_SIZE,
    entry: Path | None,
    keep_broken: bool,
    white_level: int = 0,
    progress: Progress | None = None,
) -> Decoded:
    """The decoded pictures, from the cache `entry` if it is there, which is written if it isn't.

    entry: None leaves the cache alone. keep_broken: whether a listing with broken pictures is
    worth an entry. image_size: 0 chooses one, see `choose_size`. white_level: of files of sixteen
    bits; 0 takes the least of WHITE_LEVELS that holds them all.
    """
    cached = read_entry(entry)
    if cached is not None and (not white_level or cached.white_level in (0, white_level)):
        if progress is not None:
            progress("Reading the cache", len(sources), len(sources))
        return cached
    if white_level:  # That of another data set; what this one has by itself is what is kept.
        entry = None
    options = _Options(entry, keep_broken, white_level, progress)
    try:
        return _decode(sources, image_size, photo_size, options)
    except _OtherLevelError as found:
        options = replace(options, white_level=found.level)
        return _decode(sources, image_size, photo_size, options)


class _OtherLevelError(Exception):
    """The pictures use fewer bits than they were decoded for: up to `level`."""

    def __init__(self, level: int) -> None:
        self.level = level


@dataclass(frozen=True)
class _Options:
    entry: Path | None
    keep_broken: bool
    white_level: int
    progress: Progress | None


def _decode(
    sources: Sequence[Source], image_size: int, photo_size: int, options: _Options
) -> Decoded:
    if image_size:
        return _decode_into(sources, image_size, options)
    if (likely := likely_size(sources)) is not None:
        with contextlib.suppress(UnequalSizesError):
            return _decode_into(sources, likely, options, all_alike=True)
    chosen = choose_size(sources, photo_size=photo_size, progress=options.progress)
    return _decode_into(sources, chosen, options)


def _decode_into(
    sources: Sequence[Source], size: int, options: _Options, *, all_alike: bool = False
) -> Decoded:
    chunks = decode_all(
        sources,
        image_size=size,
        all_alike=all_alike,
        white_level=options.white_level,
        progress=options.progress,
    )
    return collect(
        chunks,
        image_size=size,
        entry=options.entry,
        keep_broken=options.keep_broken,
        white_level=options.white_level,
    )


def collect(
    chunks: Generator[Chunk, None, None],
    *,
    image_size: int,
    entry: Path | None,
    keep_broken: bool = False,
    white_level: int = 0,
) -> Decoded:
    """All `chunks`, of pictures `image_size` square, mapped from `entry` where that can be written.

    Raises _OtherLevelError where no `white_level` is given and they use fewer bits than sixteen.
    """
    with _staging(entry) as staging:
        shape = (image_size, image_size, 3)
        rows = _Rows(staging / "pixels.npy" if staging else None, shape=shape)
        sizes: list[NDArray[np.int32]] = [np.empty((0, 2), dtype=np.int32)]
        broken: dict[int, str] = {}
        peak = 0
        with contextlib.closing(chunks), rows:
            for chunk in chunks:
                rows.append(chunk.pixels)
                sizes.append(chunk.sizes)
                broken |= chunk.broken
                peak = max(peak, chunk.peak)
        level = white_level_for(peak)
        if not white_level and 0 < level < WHITE_LEVELS[-1]:
            raise _OtherLevelError(level)
        level = white_level or level if peak else 0
        all_sizes = np.concatenate(sizes)
        if entry is not None and rows.path is not None and (keep_broken or not broken):
            described = {
                "shape": rows.shape,
                "broken": list(broken.items()),
                "white_level": level,
            }
            if _write_entry(rows.path.parent, entry, sizes=all_sizes, described=described):
                cached = read_entry(entry)
                if cached is not None:
                    return cached
        return Decoded(rows.in_memory(), all_sizes, broken, level)


class _Rows:
    """Grows by rows of pixels: a .npy file, or memory where there is no file or the disk fills up.

    The file is written, not mapped: a mapped file that finds the disk full kills the process.
    """

    def __init__(self, path: Path | None, *, shape: tuple[int, ...]) -> None:
        self.path = path
        self._row_shape = shape
        self._count = 0
        self._memory: list[NDArray[np.uint8]] = []
        self._file: IO[bytes] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._count, *self._row_shape)

    def __enter__(self) -> "_Rows":
        if self.path is not None:
            try:
                self._file = open(self.path, "wb")
                self._file.write(self._header())
            except OSError as error:
                self._give_up(error)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            try:
                self._file.seek(0)
                self._file.write(self._header())
                self._file.close()
            except OSError as error:
                self._give_up(error)

    def append(self, rows: NDArray[np.uint8]) -> None:
        if self._file is not None:
            try:
                self._file.write(rows.data)
                self._file.flush()
                self._count += len(rows)
                return
            except OSError as error:
                self._give_up(error)
        self._memory.append(rows)
        self._count += len(rows)

    def in_memory(self) -> NDArray[np.uint8]:
        if self.path is not None:
            array: NDArray[np.uint8] = np.load(self.path, allow_pickle=False)
            return array
        return np.concatenate([np.empty((0, *self._row_shape), dtype=np.uint8), *self._memory])

    def _header(self) -> bytes:
        """Always of one length, because numpy leaves room for the first dimension to grow."""
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header,
            {"shape": self.shape, "fortran_order": False, "descr": "|u1"},
        )
        return header.getvalue()

    def _give_up(self, error: OSError) -> None:
        """Take what the file holds into memory, and go on there."""
        _warn(error)
        if self._count and self.path is not None:
            offset = len(self._header())
            count = int(np.prod(self.shape))
            rows = np.fromfile(self.path, dtype=np.uint8, count=count, offset=offset)
            self._memory.append(rows.reshape(self.shape))
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._file = None
        self.path = None


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
        if list(pixels.shape) != described["shape"] or sizes.shape != (len(pixels), 2):
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
