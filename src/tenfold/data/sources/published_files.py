"""Single files that somebody published: fetched once, and nothing but what was published."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from tenfold.data.cache_folder import cache_folder
from tenfold.data.sources.download import Limits, Request, SourceError, download
from tenfold.errors import TenfoldError
from tenfold.files import atomic_file
from tenfold.progress import Progress


@dataclass(frozen=True)
class PublishedFile:
    """A file at an address, with its SHA-256."""

    address: str
    sha256: str
    max_bytes: int

    @property
    def name(self) -> str:
        """What the file is called."""
        return self.address.rsplit("/", 1)[-1]


def obtain(
    file: PublishedFile, given: Path | None = None, *, progress: Progress | None = None
) -> Path:
    """The file in the cache: as it is there, copied from `given`, or fetched.

    A file in the cache that is not as published is replaced. Raises TenfoldError where it can't be
    had, or where what is given is not what was published.
    """
    kept = cache_folder() / "files" / file.name
    if kept.exists():
        try:
            _require_same(kept, file)
        except TenfoldError:
            kept.unlink()
    if given is not None:
        _require_same(given, file)
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with open(given, "rb") as source, atomic_file(kept) as copy:
                shutil.copyfileobj(source, copy)
        return kept
    if not kept.exists():
        arriving = kept.with_name(f"{kept.name}.new")
        request = Request(file.address, arriving, max_bytes=file.max_bytes)
        try:
            download(request, limits=Limits(), yields=False, label=file.name, progress=progress)
        except SourceError as error:
            raise TenfoldError(
                f"{file.name} can't be fetched from {file.address} ({error})."
            ) from (error)
        try:
            _require_same(arriving, file)
        except TenfoldError:
            arriving.unlink()
            raise
        arriving.replace(kept)
    return kept


def _require_same(path: Path, file: PublishedFile) -> None:
    try:
        with open(path, "rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise TenfoldError(f"{path} can't be read ({error.strerror}); check the path.") from error
    if found != file.sha256:
        raise TenfoldError(
            f"{path} is not {file.name} as published (its checksum is another); fetch it from "
            f"{file.address}."
        )
