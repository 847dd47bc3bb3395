"""Folders of numbered pictures with their labels in CSV files, as Kaggle has CIFAR-10.

`trainLabels.csv` with the columns `id` and `label` names the pictures in `train`: `1` stands for
`train/1.png`; `validationLabels.csv` and `testLabels.csv` likewise, where they are there. Or one
`labels.csv` of which a column names each file, with a column `split` if it likes. Of several
columns that may name files the one that does is taken. tenfold adds `classes.txt`, a class name a
line, which keeps their order, and a column `original_id` where pictures have ids of their own.
"""

import contextlib
import csv
import difflib
import io
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.data.formats.decoded_cache import entry_of
from tenfold.data.formats.decoding import DEFAULT_SETTINGS, Settings
from tenfold.data.formats.encoding import encode_all
from tenfold.data.formats.image_folders import PictureFile, folder_within, picture_files, printable
from tenfold.data.formats.label_tables import ORIGINAL_ID, Row, find_tables, read_table, text_of
from tenfold.data.formats.listings import (
    Listing,
    decode_listings,
    one_spelling,
    plain_name,
    sorted_names,
)
from tenfold.data.formats.output import new_folder
from tenfold.data.formats.split_names import SPLITS, split_named
from tenfold.data.images import Dataset, Images, numbered_ids
from tenfold.errors import TenfoldError, counted
from tenfold.files import write_text
from tenfold.progress import Progress

CLASSES_FILE = "classes.txt"


def read_csv_folder(path: Path, settings: Settings = DEFAULT_SETTINGS) -> Dataset:
    """The pictures that CSV files in a folder name, or those that one CSV file names.

    Class names are those of `classes.txt` in its order, otherwise those that occur, sorted. Ids
    are the column `original_id`, otherwise the split and the column `id`, as in `train/1`, or the
    file names of a `labels.csv`. Raises TenfoldError with file and line for whatever is wrong in
    the CSV files, for a picture that is missing or named twice, and a label that `classes.txt`
    lacks; and for broken pictures unless they are to be skipped.
    """
    root, tables = _tables(path)
    files = list(picture_files(root))
    finder = _Finder(root, files, _split_folders(root), single=None in tables)
    rows: list[Row] = []
    pictures: list[PictureFile] = []
    for split, file in tables.items():
        named, found = _find_pictures(list(read_table(file, split=split)), finder)
        rows += named
        pictures += found
    _require_distinct(rows, [file.path for file in pictures], what="picture")
    class_names, labels, notes = _classes(root, rows)
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
        settings=settings,
        entry=entry_of(root, stamps, settings),
        notes=(*notes, *_unlabelled(len(files) - len(pictures))),
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


def _classes(
    root: Path, rows: Sequence[Row]
) -> tuple[tuple[str, ...], NDArray[np.int64], list[str]]:
    """Class names, each row's label as an index into them, and what a person must know of them."""
    notes: list[str] = []
    names = read_class_names(root)
    plain = [plain_name(row.label) for row in rows]
    if names is None:
        splits: dict[str, list[str]] = {split: [] for split in SPLITS}
        for row, name in zip(rows, plain, strict=True):
            splits[row.split].append(name)
        called, notes = one_spelling(splits)
        names = sorted_names(called.values())
        plain = [called[name] for name in plain]
    if len(names) < 2:
        found = f"only the class {names[0]!r}" if names else "no classes"
        raise TenfoldError(f"{root} has {found}; at least two are needed.")
    return names, _labels(rows, plain, names), notes


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


def _labels(
    rows: Sequence[Row], plain: Sequence[str], class_names: Sequence[str]
) -> NDArray[np.int64]:
    number_of = {plain_name(name): number for number, name in enumerate(class_names)}
    number_of |= {name: number for number, name in enumerate(class_names)}
    labels = np.empty(len(rows), dtype=np.int64)
    for position, (row, name) in enumerate(zip(rows, plain, strict=True)):
        number = number_of.get(row.label, number_of.get(name))
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


class _Finder:
    """Picture files below `root` by what tables may call them.

    folders: of each split that has one. single: whether one table has the pictures of all splits.
    """

    def __init__(
        self, root: Path, files: Sequence[PictureFile], folders: Mapping[str, str], *, single: bool
    ) -> None:
        self._root, self._folders, self._single = root, folders, single
        # The sooner a table names pictures as one of these does, the surer it means them.
        self._ways: list[dict[str, list[PictureFile]]] = [defaultdict(list) for _ in range(5)]
        paths, bare_names, stems, bare_stems, folded = self._ways
        for file in files:
            bare = file.path.rpartition("/")[2]
            names = (file.path, bare, file.path.rpartition(".")[0], bare.rpartition(".")[0])
            for way, name in zip((paths, bare_names, stems, bare_stems), names, strict=True):
                way[name].append(file)
            for name in {name.casefold() for name in names}:
                folded[name].append(file)

    def find(self, name: str, split: str) -> list[PictureFile]:
        """What a row of `split` may mean by `name`: none, one, or several."""
        wanted = name.replace("\\", "/").removeprefix("./")
        if is_absolute(wanted):
            return self._find_absolute(wanted, split)
        for way in self._ways:
            for key in (self.place(wanted, split), wanted):
                known = way.get(key.casefold() if way is self._ways[-1] else key, [])
                if found := known if "/" in key else self._in_split(known, split):
                    return found
        return []

    def place(self, wanted: str, split: str) -> str:
        """Where a picture of that name and split is looked for first."""
        return f"{self._folders[split]}/{wanted}" if split in self._folders else wanted

    def _find_absolute(self, wanted: str, split: str) -> list[PictureFile]:
        """By the end of its path, for the folder may have moved; a file that is there elsewhere
        means another by more than its bare name."""
        paths, bare_names = self._ways[:2]
        parts = wanted.split("/")
        for start in range(len(parts) - 1):
            end = "/".join(parts[start:])
            if found := paths.get(end) or paths.get(end.removeprefix(f"{self._root.name}/")):
                return found
        bare = [] if os.path.exists(wanted) else bare_names.get(parts[-1], [])
        return self._in_split(bare, split)

    def _in_split(self, files: list[PictureFile], split: str) -> list[PictureFile]:
        """Those that a bare name may mean: never any in another split's folder."""
        if self._single:
            return files
        own, others = self._folders.get(split), set(self._folders.values())
        tops = [file.path.partition("/")[0] for file in files]
        return [
            file
            for file, top in zip(files, tops, strict=True)
            if (top == own if own else top not in others)
        ]


def is_absolute(name: str) -> bool:
    """Whether it is an absolute path, here or on Windows."""
    return re.match(r"/|[A-Za-z]:[/\\]", name) is not None


def _find_pictures(rows: Sequence[Row], finder: _Finder) -> tuple[list[Row], list[PictureFile]]:
    """The rows of one table, called by the column that names pictures, and each one's file.

    Raises TenfoldError for a picture that is missing or unclear, and for columns that mean
    different ones.
    """
    found = {
        column: [finder.find(row.names[column], row.split) for row in rows]
        for column in (rows[0].names if rows else ())
    }
    column = _column_of_pictures(rows, found)
    named = [row._replace(name=row.names[column]) for row in rows]
    pictures: list[PictureFile] = []
    missing: list[Row] = []
    for row, files in zip(named, found.get(column, ()), strict=True):
        if len(files) > 1:
            listed = " and ".join(printable(file.path) for file in files[:2])
            raise TenfoldError(f"{row.place} names {row.name!r}, which may be {listed}; say which.")
        pictures += files
        if not files:
            missing.append(row)
    if missing:
        row = missing[0]
        place = finder.place(row.name, row.split)
        raise TenfoldError(
            f"{row.place} names the picture {row.name!r}, but there is no {place} (nor "
            f"that name with .png, .jpg and so on) in {row.file.parent}; {len(missing)} of "
            f"{len(rows)} are missing: restore them or remove their lines."
        )
    return named, pictures


def _column_of_pictures(
    rows: Sequence[Row], found: Mapping[str, Sequence[Sequence[PictureFile]]]
) -> str:
    """The column that names most files as they are called, failing that without their suffix.

    Raises TenfoldError where two are as good and mean different ones.
    """

    def merit(column: str) -> tuple[int, int]:
        pairs = zip(rows, found[column], strict=True)
        whole = [
            row.names[column].casefold().endswith(Path(files[0].path).suffix.casefold())
            for row, files in pairs
            if files
        ]
        return sum(whole), len(whole)

    merits = {column: merit(column) for column in found}
    best = max(merits.values(), default=(0, 0))
    first, *others = [column for column in merits if merits[column] == best] or [""]
    for other in others:
        for row, one, two in zip(rows, found[first], found[other], strict=True):
            if one and two and one != two:
                raise TenfoldError(
                    f"{row.place} names {printable(one[0].path)} in the column {first} and "
                    f"{printable(two[0].path)} in {other}; remove or rename the column that isn't "
                    "meant."
                )
    return first


def _ids(rows: Sequence[Row], pictures: Sequence[PictureFile], *, single: bool) -> list[str]:
    ids = []
    for row, picture in zip(rows, pictures, strict=True):
        by_path = single or is_absolute(row.name)
        own = printable(picture.path) if by_path else f"{row.split}/{row.name}"
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


def _unlabelled(num_unlabelled: int) -> list[str]:
    if not num_unlabelled:
        return []
    return [f"Left out: {counted(num_unlabelled, 'picture')} that no CSV file labels."]
