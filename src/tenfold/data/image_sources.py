"""Images to predict, wherever they are, in parts that can be read one after the other.

A part is up to `PART_IMAGES` image files, as many rows of a parquet file, or one tar shard as
webdataset writes them. Of a part few images are in memory at once. Files are at paths, or at
addresses: `s3://`, `gs://`, `hf://` and whatever else fsspec knows.
"""

import codecs
import contextlib
import gzip
import itertools
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from tenfold.data.archives import CarefulTarInfo
from tenfold.data.decoding import BrokenImageError, Window, prepare_image
from tenfold.data.folders import IMAGE_SUFFIXES, image_files
from tenfold.data.images import Source
from tenfold.data.parquet import column_of, images_in, open_table, texts_in
from tenfold.data.tables import printable
from tenfold.errors import TenfoldError, first_line, missing_extra
from tenfold.files import DAMAGED

PART_IMAGES = 10_000
LIST_SUFFIX = ".txt"
TABLE_SUFFIX = ".parquet"
SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
# A store far away answers each in some 50 ms.
_FETCHED_TOGETHER = 32

_Source = Source | BrokenImageError
"""An image's file, or why there is none."""


@dataclass(frozen=True)
class Part:
    """Some images in a fixed order: image files, or what is in the only one of `files`.

    start, stop: of a table, the rows.
    """

    files: Sequence[str]
    start: int = 0
    stop: int = 0

    @property
    def num_images(self) -> int | None:
        """None of a shard, which must be read to know."""
        kind = _kind(self.files[0])
        return {"table": self.stop - self.start, "image": len(self.files)}.get(kind)

    def names(self) -> Iterator[str]:
        """What tells it from other parts."""
        if _kind(self.files[0]) == "image":
            yield from self.files
            return
        with _reaching(self.files[0]) as (system, path):
            size = int(system.size(path) or 0)
        yield f"{self.files[0]} {size} {self.start} {self.stop}"

    def batches(self, length: int) -> Iterator[tuple[list[str], list[_Source]]]:
        """What the images are called, and their files or why there is none, `length` at a time; a
        part without images is one empty batch.

        Raises TenfoldError where a table or shard is damaged, and where one can't be reached.
        """
        match _kind(self.files[0]):
            case "image":
                images = _fetched(self.files)
            case "shard":
                images = _members(self.files[0])
            case _:
                images = _rows(self.files[0], self.start, self.stop)
        is_first = True
        while (some := list(itertools.islice(images, length))) or is_first:
            is_first = False
            yield [name for name, _ in some], [source for _, source in some]


def find_images(places: Iterable[str | os.PathLike[str]]) -> list[str]:
    """The files that places hold, see `find_parts`, each once."""
    return list(dict.fromkeys(itertools.chain.from_iterable(map(_files_at, places))))


def find_parts(places: Iterable[str], *, size: int = PART_IMAGES) -> list[Part]:
    """The images at paths and addresses, each file once, in parts of at most `size`.

    A place is an image, a folder of them at any depth, a list (a text file with a path or an
    address in each line), a parquet file, a tar shard, or a folder of those two. Raises
    TenfoldError for a place where nothing of that is, or that can't be reached.
    """
    parts: list[Part] = []
    for kind, group in itertools.groupby(find_images(places), key=_kind):
        some = list(group)
        if kind == "image":
            parts += [Part(some[start : start + size]) for start in range(0, len(some), size)]
        elif kind == "shard":
            parts += [Part([file]) for file in some]
        else:
            for file in some:
                with _open(file) as place, open_table(place, file) as opened:
                    rows = int(opened.metadata.num_rows)
                starts = range(0, rows, size) if rows else [0]
                parts += [Part([file], start, min(start + size, rows)) for start in starts]
    return parts


def num_images(parts: Sequence[Part]) -> int | None:
    """In all parts; None where only reading a shard would tell."""
    numbers = [part.num_images for part in parts]
    return None if None in numbers else sum(number or 0 for number in numbers)


def prepare_some(
    task: tuple[Sequence[_Source], tuple[int, int], Window],
) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Images as a model sees them, without the broken ones, and why those are, by position.

    task: the images, and size and window as `prepare_image` takes them.
    """
    sources, size, window = task
    pixels = np.empty((len(sources), *size, 3), dtype=np.uint8)
    broken: dict[int, str] = {}
    for position, source in enumerate(sources):
        try:
            if isinstance(source, BrokenImageError):
                raise source
            pixels[position - len(broken)] = prepare_image(source, size=size, window=window)
        except BrokenImageError as error:
            broken[position] = str(error)
    return pixels[: len(sources) - len(broken)], broken


def _kind(file: str) -> str:
    name = file.lower()
    if name.endswith(SHARD_SUFFIXES):
        return "shard"
    return "table" if name.endswith(TABLE_SUFFIX) else "image"


def _files_at(path: str | os.PathLike[str]) -> list[str]:
    place = os.fspath(path)
    if place.lower().endswith(LIST_SUFFIX):
        with _open(place) as file:
            lines = file.read().removeprefix(codecs.BOM_UTF8).split(b"\n")
        found = [line for line in (os.fsdecode(line).strip() for line in lines) if line]
        if not found:
            raise TenfoldError(f"{place} names no image; write a path or address in each line.")
        return found
    if _is_remote(place):
        with _reaching(place) as (system, path):
            if system.isfile(path):
                return [place]
            found = [system.unstrip_protocol(file) for file in sorted(system.find(path))]
        if not found:
            raise TenfoldError(f"There is no file or folder {place}; check the address.")
    elif Path(place).is_dir():
        known = (*IMAGE_SUFFIXES, *SHARD_SUFFIXES, TABLE_SUFFIX)
        inside = image_files(Path(place), suffixes=known)
        found = [os.path.join(Path(place), file.path) for file in inside]
    elif Path(place).exists():
        if place.lower().endswith((".csv", ".tsv")):
            wrong = f"{place} is a table of labels, and images were expected"
            raise TenfoldError(f"{wrong}; name their folder, or list their paths in a .txt file.")
        return [place]
    else:
        raise TenfoldError(f"There is no image or folder {place}; check the path.")
    images = [file for file in found if file.lower().endswith(IMAGE_SUFFIXES)]
    images = images or [file for file in found if _kind(file) != "image"]
    if not images:
        raise TenfoldError(f"{place} holds no images; check the path.")
    return images


def _fetched(files: Sequence[str]) -> Iterator[tuple[str, _Source]]:
    """Image files: their paths, and what is at addresses, some of which are fetched together."""
    with ThreadPoolExecutor(_FETCHED_TOGETHER) as executor:
        for start in range(0, len(files), _FETCHED_TOGETHER):
            some = files[start : start + _FETCHED_TOGETHER]
            is_far = any(map(_is_remote, some))
            sources = executor.map(_fetch, some) if is_far else iter(some)
            yield from zip(map(printable, some), sources, strict=True)


def _fetch(place: str) -> _Source:
    """A file that isn't there counts as broken; where its store can't be reached, that may be
    another time."""
    if not _is_remote(place):
        return place
    with _reaching(place) as (system, path):
        try:
            content: bytes = system.cat_file(path)
            return content
        except FileNotFoundError:
            return BrokenImageError("no such file or directory")


def _members(shard: str) -> Iterator[tuple[str, _Source]]:
    """The image files in a tar archive, which is read once from front to back."""

    class Info(CarefulTarInfo):
        is_end = False  # Whether the last block was of zeros, as those at the end of a whole one.

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            cls.is_end = bool(buf) and not any(buf)
            return super().frombuf(buf, encoding, errors)

    is_packed = shard.lower().endswith("gz")
    # Which compares a checksum at the end, as tarfile does not.
    unpacked: Any = gzip.open if is_packed else contextlib.nullcontext
    try:
        with (
            _open(shard) as packed,
            unpacked(packed) as file,
            tarfile.open(fileobj=file, mode="r|*", tarinfo=Info) as archive,
        ):
            for member in archive:
                content = archive.extractfile(member) if member.isreg() else None
                if content and member.name.lower().endswith(IMAGE_SUFFIXES):
                    yield f"{shard}/{printable(member.name)}", content.read()
                vars(archive)["members"] = []  # Which it would keep, one for each file.
            if not Info.is_end:
                raise EOFError("its end is missing")
            while is_packed and file.read(1 << 20):
                pass
    except (*DAMAGED, tarfile.TarError) as error:
        raise TenfoldError(
            f"{shard} can't be read as a tar archive ({first_line(error)}); it may be damaged or "
            "cut off: get it again."
        ) from error


def _rows(table: str, start: int, stop: int) -> Iterator[tuple[str, _Source]]:
    """The images in rows `start` to `stop` of a parquet file, named by its column `id` or by
    their numbers from 1."""
    import pyarrow as pa

    place = Path(table)
    with _open(table) as file, open_table(file, table) as opened:
        image = column_of(opened.schema_arrow, place, "Image")
        own_id = ["id"] if "id" in opened.schema_arrow.names else []
        groups = [opened.metadata.row_group(n).num_rows for n in range(opened.num_row_groups)]
        ends = list(itertools.accumulate(groups))
        wanted = [n for n, end in enumerate(ends) if end > start and end - groups[n] < stop]
        row = ends[wanted[0]] - groups[wanted[0]] if wanted else 0
        for batch in opened.iter_batches(64, row_groups=wanted, columns=[image, *own_id]):
            some = pa.Table.from_batches([batch])
            sources = images_in(some.column(image), place, image)
            for name, source in zip(texts_in(some, own_id, place), sources, strict=True):
                row += 1
                if start < row <= stop:
                    yield f"{table}#{row}" if name is None else name, source


def _is_remote(place: str) -> bool:
    """Whether it is an address, not a path."""
    return "://" in place


@contextlib.contextmanager
def _open(place: str) -> Iterator[IO[bytes]]:
    """The file at a path or an address, for reading."""
    with contextlib.ExitStack() as stack:
        with _reaching(place) as (system, path):
            file = stack.enter_context(system.open(path, "rb"))
        yield file


@contextlib.contextmanager
def _reaching(place: str) -> Iterator[tuple[Any, str]]:
    """The file system that has `place`, and how it calls that. What is raised on the way there has
    no bounds, and becomes TenfoldError."""
    try:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        yield url_to_fs(place) if _is_remote(place) else (LocalFileSystem(), os.path.abspath(place))
    except TenfoldError:
        raise
    except ImportError as error:
        scheme = place.partition("://")[0]
        raise missing_extra(f"Reading {scheme}:// needs another package", "remote") from error
    except FileNotFoundError as error:
        raise TenfoldError(f"There is no file {place}; check it.") from error
    except Exception as error:
        raise TenfoldError(
            f"{place} can't be read ({first_line(error)}); check the address, the network and "
            "your permission, and run the same command again."
        ) from error
