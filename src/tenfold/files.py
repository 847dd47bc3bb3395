"""Files that are written whole or not at all, and the sentences for when that fails."""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tenfold.errors import TenfoldError, UnwritableError

DAMAGED = (
    *(AttributeError, EOFError, KeyError, MemoryError, OSError, RuntimeError, SyntaxError),
    *(TypeError, ValueError, zipfile.BadZipFile, zlib.error, struct.error),
)
"""What NumPy and zipfile raise for files that are damaged or claim absurd shapes."""

_FOLDERS = re.compile(
    r"""(?<![^\s"'=(\[])(~|(?:[A-Za-z]:)?[\\/][^\s"'\\/]+)"""
    r"""(?:[\\/][^\s"'\\/]+)*[\\/](?=[^\s"'\\/])"""
)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A free name beside `path`, renamed to it at the end; if the block raises, what is there is
    removed and whatever stood at `path` stays."""
    temporary = path.with_name(f".{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            (shutil.rmtree if temporary.is_dir() else os.unlink)(temporary)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that replaces `path` once it is on the disk; see `replacing`.

    Raises TenfoldError where the disk is full or the folder can't be written.
    """
    _require_no_folder(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(path, error) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically; see `atomic_file`."""
    with atomic_file(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` atomically, as UTF-8.

    Bytes of a path that are none, as which Python has lone surrogates, are written as `\\udcff`,
    which JSON reads as what they were.
    """
    write_bytes(path, content.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`. Raises TenfoldError where it is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TenfoldError(f"{path} does not exist.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise TenfoldError(
            f"{path} can't be read as JSON ({error}); restore it or remove it."
        ) from error


def require_writable(folder: Path) -> None:
    """Create `folder` if need be and prove that a file can be written in it.

    Raises TenfoldError where it can't, so that hours of work are not lost at the end.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"tenfold")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise write_error(folder, error) from error


def require_place(file: Path) -> None:
    """Raise TenfoldError where `file` can't be written, before anything is computed."""
    _require_no_folder(file)
    require_writable(file.parent)


def _require_no_folder(file: Path) -> None:
    if os.path.isdir(file):  # Which asks no leave.
        raise UnwritableError(f"{file} is a folder; give the name of a file in it.")


def without_folders(text: str) -> str:
    """`text` to give away: of absolute paths on this machine in it no more than the last part."""
    return _FOLDERS.sub(
        lambda found: "" if Path(found[1]).expanduser().exists() else found[0], text
    )


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the platform can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some network and FUSE file systems have no such thing; the file itself is whole.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
                raise
        finally:
            os.close(descriptor)


def write_error(path: Path, error: OSError) -> UnwritableError:
    """What to say where `path` could not be written for `error`, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UnwritableError(
            f"The disk is full: {path} could not be written; free some space and run the same "
            "command again."
        )
    return UnwritableError(
        f"{path} can't be written ({error.strerror or error}); choose another folder or change its "
        "permissions."
    )
