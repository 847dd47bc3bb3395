"""Folders of numbered pictures with their labels in CSV files, as Kaggle has CIFAR-10.

`trainLabels.csv` with the columns `id` and `label` names the pictures in `train`: `1` stands for
`train/1.png`; `validationLabels.csv` and `testLabels.csv` likewise, where they are there. Or one
`labels.csv` whose first column names each file relative to itself, with a column `split` if it
likes. tenfold adds `classes.txt`, a class name a line, which keeps their order, and a column
`original_id` where pictures have ids of their own.
"""

import contextlib
import csv
import difflib
import io
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.data.formats.decoded_cache import entry_of
from tenfold.data.formats.encoding import encode_all
from tenfold.data.formats.image_folders import PictureFile, folder_within, picture_files, printable
from tenfold.data.formats.label_tables import ORIGINAL_ID, Row, find_tables, read_table, text_of
from tenfold.data.formats.listings import (
    Listing,
    Settings,
    decode_listings,
    sorted_names,
)
from tenfold.data.formats.output import new_folder
from tenfold.data.formats.split_names import SPLITS, split_named
from tenfold.data.images import PHOTO_SIZE, Dataset, Images, numbered_ids
from tenfold.errors import TenfoldError
from tenfold.files import write_text
from tenfold.progress import Progress

CLASSES_FILE = "classes.txt"


def read_csv_folder(
    path: Path,
    *,
    image_size: int = 0,
    photo_size: int = PHOTO_SIZE,
    skip_broken: bool = False,
    white_level: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """The pictures that CSV files in a folder name, or those that one CSV file names.

    Class names are those of `classes.txt` in its order, otherwise those that occur, sorted. Ids
    are the column `original_id`, otherwise the split and the column `id`, as in `train/1`, or the
    file names of a `labels.csv`. Raises TenfoldError with file and line for whatever is wrong in
    the CSV files, for a picture that is missing or named twice, and a label that `classes.txt`
    lacks; and for broken pictures unless they are to be skipped.
    """
    root, tables = _tables(path)
    rows = [row for split, file in tables.items() for row in read_table(file, split=split)]
    class_names = _class_names(root, rows)
    labels = _labels(rows, class_names)
    files = list(picture_files(root))
    pictures = _find_pictures(rows, files, folders=_split_folders(root), single=None in tables)
    ids = _ids(rows, pictures, single=None in tables)
    listings, stamps = {}, []
    for split in SPLITS:
        own = [number for number, row in enumerate(rows) if row.split == split]
        paths = [pictures[number].path for number in own]
        stamps += [pictures[number].stamp for number in own]
        listings[split] = Listing(
            [os.path.join(root, picture) for picture in paths],
            [printable(picture) for picture in paths],
            labels[own],
            [ids[number] for number in own],
        )
    return decode_listings(
        listings,
        place=path,
        class_names=class_names,
        source=f"{path} (CSV and pictures)",
        settings=Settings(image_size, skip_broken, progress, photo_size, white_level),
        entry=entry_of(root, stamps, image_size=image_size, photo_size=photo_size),
        notes=_notes(len(files) - len(pictures)),
    )


def write_folder(dataset: Dataset, path: Path, *, progress: Progress | None = None) -> None:
    """Write the data set into a new folder of numbered PNG files with CSV files of their labels.

    `train/1.png` is labelled in `trainLabels.csv`, and so on for the other splits; `classes.txt`
    keeps the order of the classes. The folder appears whole or not at all. Raises TenfoldError
    where it exists and isn't empty, and where the disk is full.
    """
    for name in dataset.class_names:
        if not name.strip() or "\n" in name or "\r" in name:
            raise TenfoldError(f"The class name {name!r} doesn't fit on a line; rename the class.")
    with new_folder(path) as folder:
        write_text(folder / CLASSES_FILE, "".join(f"{name}\n" for name in dataset.class_names))
        for split, images in dataset.splits().items():
            (folder / split).mkdir()
            number = 0
            chunks = encode_all(
                images.pixels, label=f"Writing the {split} split", progress=progress
            )
            with contextlib.closing(chunks):
                for chunk in chunks:
                    for content in chunk:
                        number += 1
                        (folder / split / f"{number}.png").write_bytes(content)
            write_text(folder / f"{split}Labels.csv", _table(images, split=split))


def _table(images: Images, *, split: str) -> str:
    names = [images.class_names[label] for label in images.labels]
    has_own_ids = not np.array_equal(images.ids, numbered_ids(split, len(images)))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "label", *([ORIGINAL_ID] if has_own_ids else [])])
    for number, (name, original) in enumerate(
        zip(names, images.ids.tolist(), strict=True), start=1
    ):
        writer.writerow([number, name, *([original] if has_own_ids else [])])
    return text.getvalue()


def _tables(path: Path) -> tuple[Path, dict[str | None, Path]]:
    if path.is_file():
        beside = find_tables(path.parent)
        return path.parent, beside if path in beside.values() else {None: path}
    root = folder_within(path)
    tables = find_tables(root)
    if not tables:
        raise TenfoldError(
            f"{path} holds no CSV file of labels; trainLabels.csv or labels.csv was expected."
        )
    return root, tables


def _class_names(root: Path, rows: Sequence[Row]) -> tuple[str, ...]:
    names = read_class_names(root)
    if names is None:
        names = sorted_names(row.label.strip() for row in rows)
    if len(names) < 2:
        found = f"only the class {names[0]!r}" if names else "no classes"
        raise TenfoldError(f"{root} has {found}; at least two are needed.")
    return names


def read_class_names(folder: Path) -> tuple[str, ...] | None:
    """The class names in the folder's `classes.txt`, a line each; None where there is no such file.

    Raises TenfoldError for a name that is there twice, and for text that isn't UTF-8.
    """
    file = folder / CLASSES_FILE
    if not file.is_file():
        return None
    text = text_of(file).replace("\r\n", "\n")
    names = tuple(line for line in text.split("\n") if line.strip())
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise TenfoldError(f"{file} names the class {twice!r} twice; remove one of the lines.")
    return names


def _labels(rows: Sequence[Row], class_names: Sequence[str]) -> NDArray[np.int64]:
    number_of = {name: number for number, name in enumerate(class_names)}
    labels = np.empty(len(rows), dtype=np.int64)
    for position, row in enumerate(rows):
        number = number_of.get(row.label, number_of.get(row.label.strip()))
        if number is None:
            nearest = difflib.get_close_matches(row.label, class_names, n=1, cutoff=0)
            raise TenfoldError(
                f"{row.place} has the label {row.label!r}, which {CLASSES_FILE} lacks; did you "
                f"mean {nearest[0]!r}?"
            )
        labels[position] = number
    return labels


def _split_folders(root: Path) -> dict[str, str]:
    """The folder of each split that has one, by split."""
    folders = sorted(inner.name for inner in root.iterdir() if inner.is_dir())
    return {split: name for name in folders if (split := split_named(name)) is not None}


def _find_pictures(
    rows: Sequence[Row],
    files: Sequence[PictureFile],
    *,
    folders: Mapping[str, str],
    single: bool,
) -> list[PictureFile]:
    """Each row's picture file. Raises TenfoldError for one that is missing, unclear or repeated."""
    index: dict[str, list[PictureFile]] = defaultdict(list)
    for file in files:
        bare = file.path.rsplit("/", 1)[-1]
        for name in {file.path, bare} if single else (file.path,):
            index[name].append(file)
            index[name.rpartition(".")[0]].append(file)
    pictures: list[PictureFile] = []
    missing: list[tuple[Row, str]] = []
    for row in rows:
        wanted = row.name.replace("\\", "/").removeprefix("./")
        own = f"{folders[row.split]}/{wanted}" if row.split in folders else wanted
        found = index.get(own) or index.get(wanted, [])
        if len(found) > 1:
            listed = " and ".join(printable(file.path) for file in found[:2])
            raise TenfoldError(f"{row.place} names {row.name!r}, which may be {listed}; say which.")
        pictures += found
        if not found:
            missing.append((row, own))
    if missing:
        row, own = missing[0]
        raise TenfoldError(
            f"{row.place} names the picture {row.name!r}, but there is no {own} (nor that name "
            f"with .png, .jpg and so on) in {row.file.parent}; {len(missing)} of {len(rows)} are "
            "missing: restore them or remove their lines."
        )
    _require_distinct(rows, [file.path for file in pictures], what="picture")
    return pictures


def _ids(rows: Sequence[Row], pictures: Sequence[PictureFile], *, single: bool) -> list[str]:
    ids = []
    for row, picture in zip(rows, pictures, strict=True):
        own = printable(picture.path) if single else f"{row.split}/{row.name}"
        ids.append(own if row.original_id is None else row.original_id)
    _require_distinct(rows, ids, what="id")
    return ids


def _require_distinct(rows: Sequence[Row], values: Sequence[str], *, what: str) -> None:
    seen: dict[str, Row] = {}
    for row, value in zip(rows, values, strict=True):
        if (first := seen.setdefault(value, row)) is not row:
            raise TenfoldError(
                f"{row.place} has the {what} {value!r} again, after line {first.line} of "
                f"{first.file.name}; remove one of the lines."
            )


def _notes(num_unlabelled: int) -> list[str]:
    if not num_unlabelled:
        return []
    return [f"{num_unlabelled} pictures are labelled in no CSV file and were left out."]
