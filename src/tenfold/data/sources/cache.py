"""Data sets on disk: checked arrays that open in a moment, written whole or not at all.

An entry is a folder with four .npy files and a manifest.json. It is built under another name and
renamed into place, so a process that is killed on the way leaves nothing that looks like an entry.
"""

import contextlib
import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.cache_folder import cache_folder
from tenfold.data.images import Dataset, Images, numbered_ids
from tenfold.errors import TenfoldError
from tenfold.files import atomic_file, read_json, require_writable, write_json
from tenfold.progress import Progress

logger = logging.getLogger("tenfold")

FORMAT = 1
ARRAYS = ("train-images", "train-labels", "test-images", "test-labels")
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """A data set from the cache, with the manifest's word on the copy it was made from.

    origin: the source it was fetched from, in words.
    fingerprint: what `sources` saw of a local copy, to know it again; empty for a download.
    """

    dataset: Dataset
    origin: str
    fingerprint: str


def array_sums(dataset: Dataset) -> dict[str, str]:
    """SHA-256 of the C-contiguous uint8 arrays of the train and test split, by `ARRAYS` name."""
    return {name: _sum(array) for name, array in _arrays(dataset).items()}


def load(name: str, *, sums: Mapping[str, str] | None = None) -> Entry | None:
    """The entry `name`, memory-mapped read-only, or None where there is no usable one.

    Takes well under half a second for 60,000 pictures, because it reads no pixels; `verify` does.
    An entry whose manifest states other sums than the known `sums` counts as unusable.
    """
    folder = cache_folder() / name
    if not (folder / _MANIFEST).exists():
        return None
    try:
        manifest = read_json(folder / _MANIFEST)
        stated = dict(manifest["sums"])
        if manifest["format"] != FORMAT or (sums and dict(sums) != stated):
            raise ValueError("its manifest states another format or other checksums")
        splits = _open_splits(folder, manifest)
        dataset = Dataset(
            name=name,
            train=splits["train"],
            validation=None,
            test=splits["test"],
            source=f"cache ({manifest['origin']})",
            checksums=stated,
        )
        return Entry(dataset, str(manifest["origin"]), str(manifest["fingerprint"]))
    except (TenfoldError, OSError, ValueError, KeyError, TypeError, EOFError) as error:
        logger.warning("The cached copy in %s is damaged and will be replaced (%s).", folder, error)
        return None


def store(
    dataset: Dataset,
    *,
    origin: str,
    fingerprint: str = "",
    progress: Progress | None = None,
) -> None:
    """Write the train and test split of a checked data set, replacing any entry of its name.

    Its `checksums` are those of `array_sums`; they go into the manifest. The caller holds
    `lock(dataset.name)`. Raises TenfoldError where the disk is full or the cache can't be written;
    the entry that was there before then remains.
    """
    folder = cache_folder()
    clear_leftovers(dataset.name)
    staging = folder / f".{dataset.name}-{secrets.token_hex(6)}"
    try:
        arrays = _arrays(dataset)
        for done, (array_name, array) in enumerate(arrays.items()):
            if progress:
                progress(f"Writing {dataset.name} to the cache", done, len(arrays))
            with atomic_file(staging / f"{array_name}.npy") as file:
                _write_array(file, array)
        manifest = {
            "format": FORMAT,
            "name": dataset.name,
            "origin": origin,
            "fingerprint": fingerprint,
            "class_names": list(dataset.class_names),
            "shapes": {array_name: list(array.shape) for array_name, array in arrays.items()},
            "sums": dict(dataset.checksums),
        }
        write_json(staging / _MANIFEST, manifest)
        _move_into_place(staging, folder / dataset.name)
        if progress:
            progress(f"Writing {dataset.name} to the cache", len(arrays), len(arrays))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def verify(name: str) -> dict[str, str]:
    """Hash the cached arrays again and return their sums.

    Raises TenfoldError where there is no entry, or where a file isn't what the manifest states.
    """
    folder = cache_folder() / name
    entry = load(name)
    if entry is None:
        raise TenfoldError(
            f"{folder} holds no complete copy of {name}; fetch it with `tenfold data get {name}`."
        )
    found = array_sums(entry.dataset)
    wrong = [key for key in ARRAYS if found[key] != entry.dataset.checksums.get(key)]
    if wrong:
        raise TenfoldError(
            f"{', '.join(f'{key}.npy' for key in wrong)} in {folder} changed since it was written; "
            f"remove that folder and fetch it again with `tenfold data get {name}`."
        )
    return found


def remove(name: str) -> None:
    """Delete the entry `name`, if there is one."""
    _discard(cache_folder() / name)


@contextlib.contextmanager
def lock(name: str, *, wait_seconds: float) -> Iterator[None]:
    """One process at a time fetches `name`; the others wait here, then find it in the cache.

    The system frees the lock of a process that dies. Raises TenfoldError where the cache can't be
    written, or where another process holds the lock for longer than `wait_seconds`.
    """
    import filelock

    folder = cache_folder()
    require_writable(folder)
    guard = filelock.FileLock(folder / f"{name}.lock")
    try:
        guard.acquire(timeout=0)
    except filelock.Timeout:
        if wait_seconds > 0:
            logger.info("Another process is fetching %s; waiting for it.", name)
        try:
            guard.acquire(timeout=wait_seconds, poll_interval=0.1)
        except filelock.Timeout:
            raise TenfoldError(
                f"Another process has held {folder / f'{name}.lock'} for {wait_seconds:.0f} s; end "
                "it, or wait for it, and run the same command again."
            ) from None
    try:
        yield
    finally:
        guard.release()


def downloads_folder(name: str) -> Path:
    """Where downloads of `name` are kept while they are incomplete or unchecked."""
    return cache_folder() / "downloads" / name


def tidy(name: str) -> None:
    """Remove what a process left that was killed once its entry was complete, if nobody works."""
    if downloads_folder(name).exists() or any(cache_folder().glob(f".{name}-*")):
        with contextlib.suppress(TenfoldError), lock(name, wait_seconds=0):
            clear_leftovers(name)
            clear_downloads(name)


def clear_leftovers(name: str) -> None:
    """Remove what killed processes left of entries `name`; the caller holds the lock."""
    for leftover in cache_folder().glob(f".{name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def clear_downloads(name: str) -> None:
    """Remove the downloads of `name`; the caller holds the lock."""
    shutil.rmtree(downloads_folder(name), ignore_errors=True)


def _arrays(dataset: Dataset) -> dict[str, NDArray[np.uint8]]:
    if dataset.test is None:
        raise ValueError("a cached data set has a test split")
    arrays: dict[str, NDArray[np.uint8]] = {}
    for split, images in (("train", dataset.train), ("test", dataset.test)):
        arrays[f"{split}-images"] = np.ascontiguousarray(images.pixels)
        arrays[f"{split}-labels"] = np.ascontiguousarray(images.labels.astype(np.uint8))
    return arrays


def _write_array(file: IO[bytes], array: NDArray[np.uint8]) -> None:
    """As np.save, whose own error for a full disk doesn't say that the disk is full."""
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(array.data.cast("B"))


def _sum(array: NDArray[np.uint8]) -> str:
    return hashlib.sha256(array.data).hexdigest()


def _open_splits(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Images]:
    arrays: dict[str, NDArray[np.uint8]] = {}
    for array_name in ARRAYS:
        array = np.load(folder / f"{array_name}.npy", mmap_mode="r", allow_pickle=False)
        if list(array.shape) != manifest["shapes"][array_name] or array.dtype != np.uint8:
            raise ValueError(f"{array_name}.npy is {array.shape} {array.dtype}")
        arrays[array_name] = array
    return {
        split: Images(
            arrays[f"{split}-images"],
            arrays[f"{split}-labels"].astype(np.int64),
            tuple(manifest["class_names"]),
            numbered_ids(split, len(arrays[f"{split}-labels"])),
        )
        for split in ("train", "test")
    }


def _move_into_place(staging: Path, entry: Path) -> None:
    try:
        _discard(entry)
        os.replace(staging, entry)
    except OSError as error:
        raise TenfoldError(
            f"{entry} can't be replaced ({error}); remove it and run the same command again."
        ) from error


def _discard(entry: Path) -> None:
    """Take an entry away by one rename, so that nobody ever sees half of it."""
    if not entry.exists():
        return
    doomed = entry.with_name(f".{entry.name}-{secrets.token_hex(6)}")
    os.replace(entry, doomed)
    shutil.rmtree(doomed, ignore_errors=True)
