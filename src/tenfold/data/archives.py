"""Reading tar archives from strangers: into memory, and only the files that were asked for."""

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import Self

from tenfold.errors import TenfoldError, first_line
from tenfold.files import DAMAGED

SUFFIXES = (".tar", ".tgz", ".gz", ".bz2", ".xz")
# Every honest archive of CIFAR-10 or CIFAR-100 unpacks to less than 190 MB.
MAX_BYTES = 1_000_000_000
_MAX_HEADER_BYTES = 1 << 20


class CarefulTarInfo(tarfile.TarInfo):
    """Refuses long names and PAX records that tarfile would read into memory whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.size > (MAX_BYTES if info.isreg() else _MAX_HEADER_BYTES):
            raise ValueError(f"a header claims {info.size:,} bytes")
        return info


def is_archive(path: Path) -> bool:
    """Whether the file is a tar archive (plain, gzip, bzip2 or xz), by its content."""
    try:
        with tarfile.open(path) as archive:
            return archive.next() is not None
    except (*DAMAGED, tarfile.TarError):
        return path.suffix.lower() in SUFFIXES  # A damaged one, of which its reader says so.


def read_archive(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Path and content of each file of a tar archive whose path is `wanted`, in order. Raises
    TenfoldError for a member that leads out of it, for links and devices, wanted or not, for more
    than MAX_BYTES in all, and where the archive is damaged."""
    total = 0
    try:
        with tarfile.open(path, tarinfo=CarefulTarInfo) as archive:
            for member in archive:
                total += member.size
                place = PureWindowsPath(member.name)  # Splits at both kinds of slash, knows drives.
                reason = f"makes it more than {MAX_BYTES:,} bytes" if total > MAX_BYTES else ""
                reason = reason if member.isreg() or member.isdir() else "is a link or a device"
                if place.drive or place.root or ".." in place.parts:
                    reason = "leads out of it"
                if reason:
                    raise TenfoldError(
                        f"{path} was refused, because its member {member.name!r} {reason}; get the "
                        "archive from a place you trust."
                    )
                if wanted(member.name) and (file := archive.extractfile(member)):
                    content = file.read()
                    if len(content) != member.size:
                        raise EOFError(f"{member.name} is cut off")
                    yield member.name, content
            # To the end, so that gzip, bzip2 and xz compare their own checksums.
            for _ in range(MAX_BYTES >> 20):
                if not archive.fileobj or not archive.fileobj.read(1 << 20):
                    break
    except (*DAMAGED, tarfile.TarError) as error:
        raise TenfoldError(
            f"{path} can't be read as a tar archive ({first_line(error)}); it may be damaged or "
            "cut off: get it again."
        ) from error
