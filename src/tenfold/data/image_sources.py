"""Images to predict, wherever they are, in parts that can be read one after the other.

A part is up to `PART_IMAGES` image files, as many rows of a parquet file, or one tar shard as
webdataset writes them. Of a part few images are in memory at once.
"""

import itertools
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tenfold.data.archives import CarefulTarInfo
from tenfold.data.decoding import BrokenPictureError, Window, prepare_picture
from tenfold.data.folders import PICTURE_SUFFIXES, picture_files
from tenfold.data.images import Source
from tenfold.data.parquet import ids_in, image_column, open_table, pictures_in
from tenfold.data.remote import (
    contents_of,
    is_remote,
    list_remote,
    open_place,
    size_of,
)
from tenfold.data.tables import printable
from tenfold.errors import TenfoldError, first_line
from tenfold.files import DAMAGED

PART_IMAGES = 10_000
LIST_SUFFIX = ".txt"
TABLE_SUFFIX = ".parquet"
SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")


class Batch(NamedTuple):
    """A few images: what they are called, and their files, or why there is none."""

    ids: list[str]
    sources: list[Source | BrokenPictureError]


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
        if _kind(self.files[0]) != "image":
            yield f"{self.files[0]} {size_of(self.files[0])} {self.start} {self.stop}"
        else:
            yield from self.files

    def batches(self, length: int) -> Iterator[Batch]:
        """The images, `length` at a time; a part without images is one empty batch.

        Raises TenfoldError where a table or shard is damaged, and where one can't be reached.
        """
        match _kind(self.files[0]):
            case "shard":
                yield from _in_batches(_members(self.files[0]), length)
            case "table":
                yield from _in_batches(_rows(self.files[0], self.start, self.stop), length)
            case "image":
                for first in range(0, len(self.files), length):
                    some = self.files[first : first + length]
                    yield Batch([printable(file) for file in some], contents_of(some))


def find_pictures(places: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Paths of image files: those given, and those in folders given, at any depth, each once.

    Raises TenfoldError for a path where nothing is, and for a folder without images.
    """
    found: dict[str, None] = {}
    for place in map(Path, places):
        if place.is_dir():
            inside = [os.path.join(place, file.path) for file in picture_files(place)]
            if not inside:
                raise TenfoldError(f"{place} holds no images; check the path.")
            found.update(dict.fromkeys(inside))
        elif place.exists():
            found[os.fspath(place)] = None
        else:
            raise TenfoldError(f"There is no image or folder {place}; check the path.")
    return list(found)


def find_parts(places: Iterable[str], *, size: int = PART_IMAGES) -> list[Part]:
    """The images at paths and addresses, each file once, in parts of at most `size`.

    A place is an image, a folder of them at any depth, a list (a text file with a path or an
    address in each line), a parquet file, a tar shard, or a folder of those two. Raises
    TenfoldError for a place where nothing of that is, or that can't be reached.
    """
    files = dict.fromkeys(itertools.chain.from_iterable(map(_files_at, places)))
    parts: list[Part] = []
    for kind, group in itertools.groupby(files, key=_kind):
        some = list(group)
        if kind == "image":
            parts += [Part(some[start : start + size]) for start in range(0, len(some), size)]
        elif kind == "shard":
            parts += [Part([file]) for file in some]
        else:
            for file in some:
                with open_place(file) as place, open_table(place, file) as opened:
                    rows = int(opened.metadata.num_rows)
                starts = range(0, rows, size) if rows else [0]
                parts += [Part([file], start, min(start + size, rows)) for start in starts]
    return parts


def num_images(parts: Sequence[Part]) -> int | None:
    """In all parts; None where only reading a shard would tell."""
    numbers = [part.num_images for part in parts]
    return None if None in numbers else sum(number or 0 for number in numbers)


def prepare_some(
    task: tuple[Sequence[Source | BrokenPictureError], tuple[int, int], Window],
) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Images as a model sees them, without the broken ones, and why those are, by position.

    task: the images, and size and window as `prepare_picture` takes them.
    """
    sources, size, window = task
    pixels = np.empty((len(sources), *size, 3), dtype=np.uint8)
    broken: dict[int, str] = {}
    for position, source in enumerate(sources):
        try:
            if isinstance(source, BrokenPictureError):
                raise source
            pixels[position - len(broken)] = prepare_picture(source, size=size, window=window)
        except BrokenPictureError as error:
            broken[position] = str(error)
    return pixels[: len(sources) - len(broken)], broken


def _kind(file: str) -> str:
    name = file.lower()
    if name.endswith(SHARD_SUFFIXES):
        return "shard"
    return "table" if name.endswith(TABLE_SUFFIX) else "image"


def _files_at(place: str) -> list[str]:
    if place.lower().endswith(LIST_SUFFIX):
        return _files_listed(place)
    if is_remote(place):
        found = list_remote(place)
    elif Path(place).is_dir():
        known = (*PICTURE_SUFFIXES, *SHARD_SUFFIXES, TABLE_SUFFIX)
        inside = picture_files(Path(place), suffixes=known)
        found = [os.path.join(Path(place), file.path) for file in inside]
    else:
        return find_pictures([place])
    if found == [place]:
        return found
    images = [file for file in found if file.lower().endswith(PICTURE_SUFFIXES)]
    images = images or [file for file in found if _kind(file) != "image"]
    if not images:
        raise TenfoldError(f"{place} holds no images; check the path.")
    return images


def _files_listed(place: str) -> list[str]:
    with open_place(place) as file:
        lines = (os.fsdecode(line).strip() for line in file)
        files = [line for line in lines if line]
    if not files:
        raise TenfoldError(f"{place} names no image; write a path or an address in each line.")
    return files


def _in_batches(
    images: "Iterable[tuple[str, Source | BrokenPictureError]]", length: int
) -> Iterator[Batch]:
    images, is_first = iter(images), True
    while (some := list(itertools.islice(images, length))) or is_first:
        is_first = False
        yield Batch([name for name, _ in some], [source for _, source in some])


def _members(shard: str) -> Iterator[tuple[str, Source]]:
    """The image files in a tar archive, which is read once from front to back."""

    class Info(CarefulTarInfo):
        is_end = False  # Whether the last block was of zeros, as those at the end of a whole one.

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            cls.is_end = bool(buf) and not any(buf)
            return super().frombuf(buf, encoding, errors)

    try:
        with (
            open_place(shard) as file,
            tarfile.open(fileobj=file, mode="r|*", tarinfo=Info) as archive,
        ):
            for member in archive:
                content = archive.extractfile(member) if member.isreg() else None
                if content and member.name.lower().endswith(PICTURE_SUFFIXES):
                    yield f"{shard}/{printable(member.name)}", content.read()
                vars(archive)["members"] = []  # Which it would keep, one for each file.
            if not Info.is_end:
                raise EOFError("its end is missing")
    except (*DAMAGED, tarfile.TarError) as error:
        raise TenfoldError(
            f"{shard} can't be read as a tar archive ({first_line(error)}); it may be damaged or "
            "cut off: get it again."
        ) from error


def _rows(table: str, start: int, stop: int) -> Iterator[tuple[str, Source]]:
    """The images in rows `start` to `stop` of a parquet file, named by its column `id` or by
    their numbers from 1."""
    import pyarrow as pa

    with open_place(table) as file, open_table(file, table) as opened:
        image = image_column(opened.schema_arrow, Path(table))
        columns = [image, *(["id"] if "id" in opened.schema_arrow.names else [])]
        groups = [opened.metadata.row_group(n).num_rows for n in range(opened.num_row_groups)]
        ends = list(itertools.accumulate(groups))
        wanted = [n for n, end in enumerate(ends) if end > start and end - groups[n] < stop]
        row = ends[wanted[0]] - groups[wanted[0]] if wanted else 0
        for batch in opened.iter_batches(64, row_groups=wanted, columns=columns):
            some = pa.Table.from_batches([batch])
            pictures = pictures_in(some.column(image), Path(table), image)
            for given, source in zip(ids_in(some), pictures, strict=True):
                row += 1
                if start < row <= stop:
                    yield f"{table}#{row}" if given is None else str(given), source
