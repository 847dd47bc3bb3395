"""Files by path, or by address: `s3://`, `gs://`, `hf://` and whatever else fsspec knows."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, cast

from tenfold.data.decoding import BrokenPictureError
from tenfold.data.images import Source
from tenfold.errors import TenfoldError, first_line, missing_extra

# A store far away answers each in some 50 ms.
_FETCHED_TOGETHER = 32


def is_remote(place: str) -> bool:
    """Whether `place` is an address, not a path."""
    return "://" in place


def list_remote(address: str) -> list[str]:
    """The addresses of all files below a folder's address, sorted; a file's is alone.

    Raises TenfoldError where nothing is there, or it can't be reached.
    """
    with _reaching(address) as (system, path):
        if system.isfile(path):
            return [address]
        found = [system.unstrip_protocol(file) for file in sorted(system.find(path))]
    if not found:
        raise TenfoldError(f"There is no file or folder {address}; check the address.")
    return found


@contextlib.contextmanager
def open_place(place: str) -> Iterator[IO[bytes]]:
    """The file at a path or an address, for reading. Raises TenfoldError where that fails."""
    with contextlib.ExitStack() as stack:
        with _reaching(place) as (system, path):
            file = stack.enter_context(system.open(path, "rb"))
        yield file


def size_of(place: str) -> int:
    """Bytes of the file at a path or an address. Raises TenfoldError where that fails."""
    with _reaching(place) as (system, path):
        return int(system.size(path) or 0)


def contents_of(places: Sequence[str]) -> list[Source | BrokenPictureError]:
    """What is at addresses, fetched together; paths stay paths.

    A file that isn't there counts as broken. Raises TenfoldError where the place that keeps the
    files can't be reached, which may be another time.
    """
    addresses = [place for place in places if is_remote(place)]
    if not addresses:
        return list(places)
    with ThreadPoolExecutor(_FETCHED_TOGETHER) as executor:
        fetched = dict(zip(addresses, executor.map(_fetch, addresses), strict=True))
    return [fetched.get(place, place) for place in places]


def _fetch(address: str) -> bytes | BrokenPictureError:
    with _reaching(address) as (system, path):
        try:
            return cast(bytes, system.cat_file(path))
        except FileNotFoundError:
            return BrokenPictureError("no such file or directory")


@contextlib.contextmanager
def _reaching(place: str) -> Iterator[tuple[Any, str]]:
    """The file system that has `place`, and how it calls that. What is raised on the way there has
    no bounds, and becomes TenfoldError."""
    try:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        yield url_to_fs(place) if is_remote(place) else (LocalFileSystem(), os.path.abspath(place))
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
