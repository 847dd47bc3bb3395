"""Reading archives from strangers: into memory, and only the members that were asked for."""

import bz2
import contextlib
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from tenfold.errors import TenfoldError

Wanted = Mapping[str, int] | Callable[[str], int | None]
"""Which members to read, with the most bytes each may hold.

Either name -> most bytes, where a name also matches at the end of a longer path
(`data_batch_1.bin` matches `cifar-10-batches-bin/data_batch_1.bin`), or a function from a member's
full path to that number, or to None for a member that isn't wanted.
"""

# Every honest archive of CIFAR-10 or CIFAR-100 unpacks to less than 190 MB.
MAX_TOTAL_BYTES = 1_000_000_000
MAX_MEMBERS = 200_000
_MAX_HEADER_BYTES = 1 << 20
_HEADER_TYPES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_CHUNK_BYTES = 1 << 20

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


def is_archive(path: Path) -> bool:
    """Whether the file is a tar (plain, gzip, bzip2 or xz) or zip archive, by its content."""
    try:
        if not path.is_file():
            return False
        if _is_zip(path):
            return True
        with _open_tar(path, MAX_TOTAL_BYTES) as (archive, _):
            return archive.next() is not None
    except TenfoldError:
        return True  # an archive indeed, one that `read_members` refuses with its reason
    except _DAMAGE:
        return False


def read_members(
    path: Path, wanted: Wanted, *, max_total_bytes: int = MAX_TOTAL_BYTES
) -> dict[str, bytes]:
    """The wanted members of a tar (plain, gzip, bzip2, xz) or zip archive: full path -> content.

    Nothing is written to disk. A member that isn't there is missing from the result. Raises
    TenfoldError, naming archive and member, for any member (wanted or not) whose path is absolute
    or climbs out, for links, devices and everything else that is no plain file or folder, for two
    wanted members of one path, and for members or archives that hold more bytes than allowed, by
    their own word or in fact; and naming the archive where it is damaged or no archive at all.
    """
    return dict(iterate_members(path, wanted, max_total_bytes=max_total_bytes))


def iterate_members(
    path: Path, wanted: Wanted, *, max_total_bytes: int = MAX_TOTAL_BYTES
) -> Iterator[tuple[str, bytes]]:
    """As `read_members`, one member at a time in archive order, so that memory holds one.

    The members already given are not to be trusted before the iteration has come to its end.
    """
    limit_of = wanted if callable(wanted) else _by_name(wanted)
    seen: set[str] = set()
    try:
        read = _zip_members if _is_zip(path) else _tar_members
        for name, content in read(path, limit_of, max_total_bytes):
            if name in seen:
                raise _refusal(path, name, "occurs twice")
            seen.add(name)
            yield name, content
    except FileNotFoundError:
        raise TenfoldError(f"{path} does not exist; an archive was expected there.") from None
    except _DAMAGE as error:
        raise TenfoldError(
            f"{path} can't be read as a tar or zip archive ({error}); it may be damaged or cut "
            "off: get it again."
        ) from error


def _by_name(names: Mapping[str, int]) -> Callable[[str], int | None]:
    def limit_of(member: str) -> int | None:
        parts = member.split("/")
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((names[tail] for tail in tails if tail in names), None)

    return limit_of


def _is_zip(path: Path) -> bool:
    """By its first bytes: a tar whose last member is a zip would deceive zipfile.is_zipfile."""
    with open(path, "rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _tar_members(
    path: Path, limit_of: Callable[[str], int | None], max_total_bytes: int
) -> Iterator[tuple[str, bytes]]:
    with _open_tar(path, max_total_bytes) as (archive, source):
        for count, member in enumerate(archive):
            if count >= MAX_MEMBERS:
                raise _refusal(path, member.name, f"comes after {MAX_MEMBERS} others")
            name = _checked_name(path, member.name)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                kind = "link" if member.issym() or member.islnk() else "device or special file"
                raise _refusal(path, member.name, f"is a {kind}")
            limit = limit_of(name)
            _check_size(path, member.name, member.size, max_total_bytes if limit is None else limit)
            if limit is None:
                continue
            file = archive.extractfile(member)
            content = b"" if file is None else file.read()
            if len(content) != member.size:
                raise EOFError(f"{member.name} is cut off")
            yield name, content
        source.drain()


@contextlib.contextmanager
def _open_tar(
    path: Path, max_total_bytes: int
) -> Iterator[tuple[tarfile.TarFile, "_LimitedStream"]]:
    """The archive, and the decompressed stream that it is read from, whose length is limited.

    The limit sits below tarfile, because a bomb can also be a member that nobody asked for.
    """
    with open(path, "rb") as file:
        magic = file.read(6)
    openers = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
    opener: Any = next((openers[start] for start in openers if magic.startswith(start)), open)
    with opener(path, "rb") as opened:
        source = _LimitedStream(opened, path=path, max_bytes=max_total_bytes)
        stream: Any = source  # tarfile's "r|" asks for `read` alone; its types ask for more
        with tarfile.open(mode="r|", fileobj=stream, tarinfo=_CarefulTarInfo) as archive:
            yield archive, source


class _LimitedStream:
    """Reads forward only, and refuses to give more than so many bytes in all."""

    def __init__(self, stream: IO[bytes], *, path: Path, max_bytes: int) -> None:
        self._stream = stream
        self._path = path
        self._max_bytes = max_bytes
        self._count = 0

    def read(self, size: int) -> bytes:
        pieces = io.BytesIO()
        while size > 0 and (piece := self._stream.read(min(size, _CHUNK_BYTES))):
            self._count += len(piece)
            if self._count > self._max_bytes:
                raise TenfoldError(
                    f"{self._path} unpacks to more than {self._max_bytes} bytes and was not read "
                    "further; get it from a place you trust."
                )
            pieces.write(piece)
            size -= len(piece)
        return pieces.getvalue()

    def drain(self) -> None:
        """Read to the end, which makes gzip, bzip2 and xz compare their own checksums."""
        while self.read(_CHUNK_BYTES):
            pass


class _CarefulTarInfo(tarfile.TarInfo):
    """Refuses long-name and PAX records that tarfile would read into memory whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_CarefulTarInfo":
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0 or (info.type in _HEADER_TYPES and info.size > _MAX_HEADER_BYTES):
            raise ValueError(f"a header record claims {info.size} bytes")
        return info


def _zip_members(
    path: Path, limit_of: Callable[[str], int | None], max_total_bytes: int
) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise _refusal(path, members[MAX_MEMBERS].filename, f"is one of {len(members)}")
        _check_size(path, "(all)", sum(m.file_size for m in members), max_total_bytes)
        named = [(_checked_zip_name(path, member), member) for member in members]
        for name, member in named:
            limit = None if member.is_dir() else limit_of(name)
            if limit is None:
                continue
            _check_size(path, member.filename, member.file_size, limit)
            with archive.open(member) as file:
                content = file.read(limit + 1)
            _check_size(path, member.filename, len(content), limit)
            if len(content) != member.file_size:
                raise EOFError(f"{member.filename} is cut off")
            yield name, content


def _checked_zip_name(path: Path, member: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where made on a system without such kinds
    if kind == stat.S_IFLNK:
        raise _refusal(path, member.filename, "is a link")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refusal(path, member.filename, "is a device or special file")
    return _checked_name(path, member.filename)


def _checked_name(path: Path, name: str) -> str:
    """The member's path in plain form; raises where it leads out of the archive."""
    windows = PureWindowsPath(name)  # splits at both kinds of slash, and knows drives
    if "\0" in name or windows.drive or windows.root or ".." in windows.parts:
        raise _refusal(path, name, "has a path that leads out of the archive")
    return windows.as_posix()


def _check_size(path: Path, member: str, num_bytes: int, limit: int) -> None:
    if num_bytes > limit:
        raise _refusal(path, member, f"holds {num_bytes} bytes where at most {limit} are expected")


def _refusal(path: Path, member: str, reason: str) -> TenfoldError:
    return TenfoldError(
        f"{path} was refused, because its member {member!r} {reason}; get the archive from a place "
        "you trust."
    )
