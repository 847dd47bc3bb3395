"""Data sets on disk: checked arrays that open in a moment, written whole or not at all.

An entry is a folder with four .npy files and a manifest.json. It is built among the downloads and
renamed into place, so a process that is killed on the way leaves nothing that looks like an entry.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tenfold.data.cache_folder import cache_folder
from tenfold.data.images import Dataset, Images, numbered_ids
from tenfold.errors import TenfoldError
from tenfold.files import atomic_file, read_json, require_writable, write_error, write_json
from tenfold.progress import Progress

_FORMAT = 1


def load(name: str, *, sums: Mapping[str, str] | None = None) -> Dataset | None:
    """The entry `name`, memory-mapped read-only, or None where there is no usable one.

    Reads no pixels. An entry with other sums than the known `sums` is unusable.
    """
    folder, splits = cache_folder() / name, {}
    if not (folder / "manifest.json").exists():
        return None
    try:
        manifest = read_json(folder / "manifest.json")
        stated, names = dict(manifest["sums"]), tuple(manifest["class_names"])
        if manifest["format"] != _FORMAT or (sums and dict(sums) != stated):
            raise ValueError("its manifest states another format or other checksums")
        for split in ("train", "test"):
            pixels, labels = (
                np.load(folder / f"{split}-{kind}.npy", mmap_mode="r")
                for kind in ("images", "labels")
            )
            if labels.dtype != np.uint8:
                raise ValueError(f"{split}-labels.npy is {labels.dtype}")
            ids = numbered_ids(split, len(labels))
            splits[split] = Images(pixels, labels.astype(np.int64), names, ids)
        return Dataset.of(name, splits, str(manifest["origin"]), checksums=stated)
    except (TenfoldError, OSError, ValueError, KeyError, TypeError, EOFError) as error:
        logging.getLogger("tenfold").warning(
            "The cached copy in %s is damaged and will be replaced (%s).", folder, error
        )
        return None


def store(dataset: Dataset, *, progress: Progress | None = None) -> Dataset:
    """The train and test split of a checked data set as the cache now holds them, memory-mapped.

    The caller holds `lock(dataset.name)`; the downloads are removed. Raises TenfoldError where the
    disk is full or the cache can't be written.
    """
    staging, entry = downloads(f"{dataset.name}.entry"), cache_folder() / dataset.name
    shutil.rmtree(staging, ignore_errors=True)
    arrays = {}
    for split, images in dataset.splits().items():
        arrays[f"{split}-images"] = np.ascontiguousarray(images.pixels)
        arrays[f"{split}-labels"] = images.labels.astype(np.uint8)
    for done, (name, array) in enumerate(arrays.items(), start=1):
        header = np.lib.format.header_data_from_array_1_0(array)
        with atomic_file(staging / f"{name}.npy") as file:
            # As np.save, whose own error for a full disk doesn't say that the disk is full.
            np.lib.format.write_array_header_1_0(file, header)
            file.write(array.data.cast("B"))
        if progress:
            progress(f"Writing {dataset.name} to the cache", done, len(arrays))
    known = {"format": _FORMAT, "name": dataset.name, "origin": dataset.source}
    arrays_of = {"class_names": list(dataset.class_names), "sums": dict(dataset.checksums)}
    write_json(staging / "manifest.json", known | arrays_of)
    for old in (downloads(dataset.name), entry):
        shutil.rmtree(old, ignore_errors=True)
    try:
        os.replace(staging, entry)
    except OSError as error:
        raise write_error(entry, error) from error
    return load(dataset.name) or dataset


@contextlib.contextmanager
def lock(name: str, *, wait_seconds: float = 3 * 3600) -> Iterator[None]:
    """One process at a time fetches `name`; the others wait here, then find it in the cache.

    The system frees the lock of a process that dies. Raises TenfoldError where the cache can't be
    written, or where another process holds the lock for longer than `wait_seconds`.
    """
    import filelock

    require_writable(cache_folder())
    guard = filelock.FileLock(cache_folder() / f"{name}.lock")
    try:
        held = guard.acquire(timeout=wait_seconds, poll_interval=0.1)
    except filelock.Timeout:
        raise TenfoldError(
            f"Another process has held {guard.lock_file} for {wait_seconds:.0f} s; end it, or wait "
            "for it, and run the same command again."
        ) from None
    with held:
        yield


def downloads(name: str) -> Path:
    """Where what is incomplete or unchecked of `name` is kept."""
    return cache_folder() / "downloads" / name
