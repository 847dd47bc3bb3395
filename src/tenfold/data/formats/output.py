"""Folders that are written whole or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tenfold.errors import TenfoldError
from tenfold.files import replacing, require_writable


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, renamed to it once the block is through.

    If the block raises, nothing remains. Raises TenfoldError where something other than an empty
    folder is at `path`, where the disk is full, and where the folder can't be written.
    """
    require_free(path)
    require_writable(path.parent)
    try:
        with replacing(path) as temporary:
            temporary.mkdir()
            yield temporary
            if path.is_dir():
                path.rmdir()  # empty; somebody who filled it meanwhile gets an error, not a loss
    except OSError as error:
        raise TenfoldError(
            f"{path} could not be written ({error.strerror or error}); free some space or choose "
            "another folder, and run the same command again."
        ) from error


def require_free(path: Path) -> None:
    """Raise TenfoldError where something other than an empty folder is at `path`."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() or path.is_symlink():
        raise TenfoldError(f"{path} exists already; remove it or choose another place.")
