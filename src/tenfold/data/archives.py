"""Reading archives from strangers: into memory, and only the files that were asked for."""

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Self

from tenfold.errors import TenfoldError, first_line
from tenfold.files import DAMAGED

# Every honest archive of CIFAR-10 or CIFAR-100 unpacks to less than 190 MB.
SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz")
MAX_BYTES = 1_000_000_000
_MAX_HEADER_BYTES = 1 << 20

_Member = tuple[str, int, bool, Callable[[], bytes]]
"""Path, size, whether it is a plain file and nothing else, and what reads it."""


def is_archive(path: Path) -> bool:
    """Whether the file is a tar (plain, gzip, bzip2 or xz) or zip archive, by its content."""
    try:
        if _is_zip(path):
            return True
        with tarfile.open(path) as archive:
            return archive.next() is not None
    except (*DAMAGED, tarfile.TarError):
        return path.suffix.lower() in SUFFIXES  # A damaged one, of which its reader says so.


def read_archive(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Path and content of each file of a tar or zip archive whose path is `wanted`, in order.

    Nothing is written to disk. Raises TenfoldError, naming archive and member, for a path that
    leads out of it, for links and devices, wanted or not, and for more than MAX_BYTES in all; and
    naming the archive where it is damaged.
    """
    total = 0
    try:
        for name, size, is_plain, read in (_zip if _is_zip(path) else _tar)(path):
            total += size
            place = PureWindowsPath(name)  # Splits at both kinds of slash, and knows drives.
            reason = f"makes it more than {MAX_BYTES:,} bytes" if total > MAX_BYTES else ""
            reason = reason if is_plain else "is a link or a device"
            if place.drive or place.root or ".." in place.parts:
                reason = "leads out of it"
            if reason:
                raise TenfoldError(
                    f"{path} was refused, because its member {name!r} {reason}; get the archive "
                    "from a place you trust."
                )
            if wanted(name):
                content = read()
                if len(content) != size:
                    raise EOFError(f"{name} is cut off")
                yield name, content
    except (*DAMAGED, tarfile.TarError) as error:
        raise TenfoldError(
            f"{path} can't be read as a tar or zip archive ({first_line(error)}); it may be "
            "damaged or cut off: get it again."
        ) from error


class CarefulTarInfo(tarfile.TarInfo):
    """Refuses long names and PAX records that tarfile would read into memory whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.size > (MAX_BYTES if info.isreg() else _MAX_HEADER_BYTES):
            raise ValueError(f"a header claims {info.size:,} bytes")
        return info


def _is_zip(path: Path) -> bool:
    # A tar whose last member is a zip would deceive zipfile.is_zipfile.
    with open(path, "rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _tar(path: Path) -> Iterator[_Member]:
    with tarfile.open(path, tarinfo=CarefulTarInfo) as archive:
        for member in archive:
            if not member.isdir():
                file = archive.extractfile(member) if member.isreg() else None
                yield member.name, member.size, file is not None, file.read if file else bytes
        # To the end, so that gzip, bzip2 and xz compare their own checksums.
        for _ in range(MAX_BYTES >> 20):
            if not archive.fileobj or not archive.fileobj.read(1 << 20):
                break


def _zip(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                kind = stat.S_IFMT(member.external_attr >> 16)  # 0 from systems without kinds.
                with archive.open(member) as file:
                    read = partial(file.read, member.file_size)
                    yield member.filename, member.file_size, kind in (0, stat.S_IFREG), read
