"""The forms in which data sets are published, and a copy of one among a person's own files."""

import hashlib
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

from tenfold.data.formats.archives import is_archive, iterate_members
from tenfold.data.formats.cifar_names import CIFAR10_CLASS_NAMES
from tenfold.data.formats.decoding import Settings
from tenfold.data.images import Dataset
from tenfold.data.sources import npm
from tenfold.errors import TenfoldError
from tenfold.progress import Progress

logger = logging.getLogger("tenfold")


class Reader(Protocol):
    """Decodes the file or folder that a data set was published as."""

    def __call__(self, path: Path, *, progress: Progress | None = None) -> Dataset:
        """Raises TenfoldError where `path` isn't that."""


def read_binary(path: Path, *, progress: Progress | None = None) -> Dataset:
    """The official binary archive, or what it unpacks to."""
    from tenfold.data.formats.cifar_files import read_cifar_binary

    return read_cifar_binary(path, progress=progress)


def read_python(path: Path, *, progress: Progress | None = None) -> Dataset:
    """The official Python archive, or what it unpacks to."""
    from tenfold.data.formats.cifar_files import read_cifar_python

    return read_cifar_python(path, progress=progress)


def read_parquet(path: Path, *, progress: Progress | None = None) -> Dataset:
    """The parquet files of the Hugging Face hub, in one folder."""
    from tenfold.data.formats.parquet_files import read_parquet

    return read_parquet(path, Settings(progress=progress))


read_npm_package = partial(npm.read_package, class_names=CIFAR10_CLASS_NAMES)


def candidates(path: Path) -> Iterator[tuple[Path, Reader]]:
    """What could be a copy in or at `path`, by the look of the file names, with its reader."""
    places = [path]
    if path.is_dir():
        try:
            inside = sorted(path.iterdir())
        except OSError as error:
            raise TenfoldError(f"{path} can't be read ({error}); check its permissions.") from error
        places += [place for place in inside if place.is_dir() or _may_be_archive(place)]
    for place in places:
        try:
            names = _file_names(place)
        except (TenfoldError, OSError) as error:
            logger.warning("%s", error)
            continue
        for reader, marks in _MARKS.items():
            if any(name.endswith(mark) for name in names for mark in marks):
                yield place, reader


_MARKS: dict[Reader, tuple[str, ...]] = {
    read_binary: ("/data_batch_1.bin", "/train.bin"),
    read_python: ("/data_batch_1", "/train"),
    read_parquet: (".parquet",),
    read_npm_package: ("/train_lables.json",),
}


def _may_be_archive(path: Path) -> bool:
    """By its name first: a folder of pictures has too many files to look into each."""
    return path.suffix in (".gz", ".tgz", ".bz2", ".xz", ".tar", ".zip") and is_archive(path)


def _file_names(place: Path) -> list[str]:
    """The files of a folder, an archive, or the file itself, each with a slash before its name."""
    if place.is_dir():
        return [f"/{inner.name}" for inner in place.iterdir() if inner.is_file()]
    if not is_archive(place):
        return [f"/{place.name}"]
    names: list[str] = []

    def note(member: str) -> None:
        names.append(f"/{member}")

    for _ in iterate_members(place, note):
        pass
    return names


def fingerprint(path: Path) -> str:
    """Changes whenever a file of the copy does, by its name, size and time."""
    files = sorted(filter(Path.is_file, path.iterdir())) if path.is_dir() else [path]
    marks = [str(path.resolve())]
    for file in files:
        status = file.stat()
        times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
        marks.append(f"{file.name} {status.st_size} {times} {status.st_ino}")
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()
