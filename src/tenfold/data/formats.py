"""What a path holds, found out by looking, and reading it."""

import contextlib
import difflib
import logging
import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tenfold.data.archives import is_archive
from tenfold.data.arrays import read_npz
from tenfold.data.cifar import is_cifar, read_cifar
from tenfold.data.csv_tables import csv_folder_table, find_tables, names_classes
from tenfold.data.decoded import resize_dataset
from tenfold.data.folders import (
    class_folders,
    folder_within,
    image_files,
    image_folder_table,
    with_name,
)
from tenfold.data.images import Dataset, Settings, checked
from tenfold.data.parquet import parquet_table
from tenfold.data.tables import Table, decode_table
from tenfold.errors import TenfoldError
from tenfold.files import DAMAGED, read_json

logger = logging.getLogger("tenfold")

_READERS: dict[str, Callable[[Path, Settings], Dataset]] = {"cifar": read_cifar, "npz": read_npz}
TABLES: dict[str, Callable[[Path], Table]] = {
    "parquet": parquet_table,
    "csv": csv_folder_table,
    "images": image_folder_table,
}
"""What reads each format up to the images themselves."""

RELABELLED = "relabelled.json"
"""In a folder that `tenfold data relabel` wrote: where it is from, and what was done."""

# For damaged files, so that their reader says what is wrong.
_BY_SUFFIX = {".parquet": "parquet", ".npz": "npz", ".bin": "cifar"}


def read(path: str | os.PathLike[str], **options: Any) -> Dataset:
    """The data set at `path`, whatever its format; see `detect`.

    options: fields of `Settings`. Ids that occur in two splits get the split's name in front.
    Raises TenfoldError where nothing is there, nothing is recognised, or what is there is damaged.
    """
    place, settings = with_name(Path(path).expanduser()), Settings(**options)
    try:
        kind = detect(place)
        if kind in TABLES:
            found = decode_table(TABLES[kind](place), settings)
        else:
            found = _READERS[kind](place, settings)
        dataset = resize_dataset(found, settings)
        record = (place if place.is_dir() else place.parent) / RELABELLED
        before = read_json(record) if record.is_file() else None
        said = [str(before["note"])] if isinstance(before, dict) and "note" in before else []
        return checked(replace(dataset, notes=(*said, *dataset.notes)), place)
    except OSError as error:
        where = error.filename or place
        raise TenfoldError(
            f"{where} can't be read ({error.strerror or error}); check its permissions."
        ) from error


def detect(path: Path) -> str:
    """The format at `path`, by content and names, not by suffix alone.

    One of `cifar`, `parquet`, `npz`, `csv`, `images`. Raises TenfoldError, naming what was looked
    for, where it is none of these.
    """
    if not path.exists():
        raise TenfoldError(f"{path} does not exist; check the path.")
    kind = _detect_folder(path) if path.is_dir() else _detect_file(path)
    if kind is None:
        raise TenfoldError(
            f"{path} holds no known data set: CIFAR batches (data_batch_1.bin, data_batch_1, "
            "train.bin), parquet files, a CSV file of labels (trainLabels.csv, labels.csv) with "
            "images, class folders (train/cat/1.jpg or cat/1.jpg) and npz files were looked for."
        )
    return kind


def unknown_name(name: str, known: Iterable[str]) -> TenfoldError:
    """The error for a name that is neither one of the `known` data sets nor a path."""
    names = list(known)
    nearest = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else "check it, or where the images are now."
    return TenfoldError(
        f"{name} is neither a path that exists nor one of {', '.join(names)}; {hint}"
    )


def _detect_folder(path: Path) -> str | None:
    if is_cifar(path):
        return "cifar"
    root = folder_within(path)
    if tables := find_tables(root).values():
        folders = class_folders(root)
        if len(folders) < 2 or not all(names_classes(file, folders) for file in tables):
            return "csv"
        passed = ", ".join(file.name for file in tables)
        logger.info("In %s, %s names class folders and no images: passed over.", path, passed)
    if any(image_files(path, suffixes=(".parquet",))):
        return "parquet"
    if any("/" in file.path for file in image_files(path)):  # looks no further than the first
        return "images"
    return None


def _detect_file(path: Path) -> str | None:
    suffix = path.suffix.lower()
    with open(path, "rb") as file:
        start = file.read(4)
    if start == b"PAR1":
        return "parquet"
    if start == b"PK\x03\x04":
        with contextlib.suppress(*DAMAGED), zipfile.ZipFile(path) as archive:
            if all(name.endswith(".npy") for name in archive.namelist()):
                return "npz"
    if is_cifar(path):
        return "cifar"
    if is_archive(path) or suffix == ".zip":
        raise TenfoldError(f"{path} holds no CIFAR batches; unpack it, and give the folder.")
    return "csv" if suffix == ".csv" else _BY_SUFFIX.get(suffix)
