"""CSV files of labels, and folders of images that they name, as Kaggle has CIFAR-10.

`trainLabels.csv` with the columns `id` and `label` names the images in `train`: `1` stands for
`train/1.png`; `validationLabels.csv` and `testLabels.csv` likewise, where they are there. Or one
`labels.csv` of which a column names each file, with a column `split` if it likes. Of several
columns that may name files the one that does is taken. A column `group` or `patient` says what
belongs together. tenfold adds `classes.txt`, a class name a
line, which keeps their order, and a column `original_id` where images have ids of their own.
"""

import csv
import io
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tenfold.data.folders import PictureFile, folder_within, picture_files
from tenfold.data.tables import GROUP_COLUMNS, Row, Table, printable, split_named
from tenfold.errors import TenfoldError, counted

CLASSES_FILE = "classes.txt"
ORIGINAL_ID = "original_id"
SINGLE_FILES = ("labels.csv", "metadata.csv")
ID_COLUMNS = (
    *("id", "image_id", "filename", "file_name", "file", "image", "path", "image_path", "img_path"),
    *("file_path", "filepath", "image_name", "img"),
)
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target")


class LabelRow(NamedTuple):
    """A labelled image as a line of a CSV file has it.

    file and line: where it stands; names: what each column that may name the image has, the
    first of them being `name` until somebody knows better; split: train, validation or test; group:
    such as its patient, or empty.
    """

    file: Path
    line: int
    name: str
    label: str
    split: str
    original_id: str | None
    names: Mapping[str, str]
    group: str = ""

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.file} line {self.line}"


def csv_folder_table(path: Path) -> Table:
    """The images that CSV files in a folder name, or those that one CSV file names.

    Class names are those of `classes.txt` in its order, otherwise those that occur, sorted. Ids
    are the column `original_id`, otherwise the split and the column `id`, as in `train/1`, or the
    file names of a `labels.csv`. Raises TenfoldError with file and line for whatever is wrong in
    the CSV files, and for an image that is missing or named twice.
    """
    root, tables = tables_at(path)
    files = list(picture_files(root))
    single = None in tables
    finder = _Finder(root, files, single=single)
    found = [
        pair
        for split, file in tables.items()
        for pair in _find_images(list(read_table(file, split=split)), finder)
    ]
    require_distinct([(row, file.path) for row, file in found], what="image")
    table: dict[str, list[Row]] = defaultdict(list)
    ids = []
    for row, file in found:
        by_path = single or _is_absolute(row.name)
        own = printable(file.path) if by_path else f"{row.split}/{row.name}"
        name = own if row.original_id is None else row.original_id
        ids.append((row, name))
        source, shown = os.path.join(root, file.path), printable(file.path)
        table[row.split].append(
            Row(source, shown, row.label, name, row.place, file.stamp, row.group)
        )
    require_distinct(ids, what="id")
    unlabelled = len(files) - len(found)
    left_out = f"Left out: {counted(unlabelled, 'image')} that no CSV file labels."
    return Table(
        table,
        place=path,
        source=f"{path} (CSV and images)",
        declared=read_class_names(root),
        least_classes="at least two are needed",
        root=root,
        notes=[left_out] if unlabelled else [],
    )


def table_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows under a line of column names, as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def require_distinct(pairs: Iterable[tuple[LabelRow, str]], *, what: str) -> None:
    """Raise TenfoldError where two rows have the same value."""
    seen: dict[str, LabelRow] = {}
    for row, value in pairs:
        if (first := seen.setdefault(value, row)) is not row:
            raise TenfoldError(
                f"{row.place} has the {what} {value!r} again, after line {first.line} of "
                f"{first.file.name}; remove one of the lines."
            )


def tables_at(path: Path) -> tuple[Path, dict[str | None, Path]]:
    """The folder of a data set, and its CSV files of labels as `find_tables` has them."""
    if path.is_file():
        beside = find_tables(path.parent)
        return path.parent, beside if path in beside.values() else {None: path}
    root = folder_within(path)
    if tables := find_tables(root):
        return root, tables
    raise TenfoldError(
        f"{path} holds no CSV file of labels; trainLabels.csv or labels.csv was expected."
    )


def find_tables(root: Path) -> dict[str | None, Path]:
    """The CSV files of labels in a folder by split, or under None the one for all splits.

    `trainLabels.csv`, `train_labels.csv`, `labels.csv` are taken at their word; `train.csv` and
    `metadata.csv` only if their first line names columns for images and labels. Failing those,
    each split's folder may hold its own `metadata.csv`, as on the Hugging Face hub.
    """
    own = (
        (split, file)
        for file in sorted(root.glob("*.[cC][sS][vV]"))
        if (match := re.fullmatch(r"(.+?)([_-]?labels)?\.csv", file.name, re.IGNORECASE))
        and (split := split_named(match[1]))
        and (match[2] or _has_columns(file))
    )
    single = (
        (None, root / name)
        for name in SINGLE_FILES
        if (root / name).is_file() and (name == "labels.csv" or _has_columns(root / name))
    )
    inner = (
        (split, file)
        for name in SINGLE_FILES
        for file in sorted(root.glob(f"*/{name}"))
        if (split := split_named(file.parent.name)) and _has_columns(file)
    )
    for tables in (own, itertools.islice(single, 1), inner):
        found = _one_each(root, tables)
        if not {"train", None}.isdisjoint(found):
            return found
    return {}


def _one_each(root: Path, tables: Iterable[tuple[str | None, Path]]) -> dict[str | None, Path]:
    found: dict[str | None, Path] = {}
    for split, file in tables:
        if found.setdefault(split, file) is not file:
            names = [str(each.relative_to(root)) for each in (found[split], file)]
            raise TenfoldError(
                f"{root} holds {' and '.join(names)}, which both label the {split} split; rename "
                "or remove one of them."
            )
    return found


def names_classes(file: Path, folders: Collection[str]) -> bool:
    """Whether a CSV file is about the class `folders` and no images: a column of it has each."""
    try:
        text = text_of(file)
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter_of(text)) if row]
    except (csv.Error, TenfoldError):
        return False
    columns = [[field.strip() for field in column] for column in zip(*rows, strict=False)]
    return any(
        len(set(column)) == len(column) and set(folders) <= set(column) for column in columns
    )


def read_table(
    file: Path, *, split: str | None, may_lack_labels: bool = False
) -> Iterator[LabelRow]:
    """The rows of a CSV file; `split` None takes it from a column, or has all for training.

    Commas, semicolons and tabs separate fields, as the first line shows. Raises TenfoldError with
    file and line for text that isn't UTF-8, for missing columns, rows of another length than the
    first line, and empty fields.
    """
    text = text_of(file)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=True)
    try:
        header = header_of(next(reader, []))
        name_columns, label_column = columns_of(header, file)
        for values in reader:
            if not any(values):
                continue
            where = f"{file} line {reader.line_num}"
            if len(values) != len(header):
                raise TenfoldError(
                    f"{where} has {len(values)} fields where the first line has {len(header)}; "
                    "mend the line."
                )
            fields = dict(zip(reversed(header), reversed(values), strict=True))
            names = {column: fields[column].strip() for column in name_columns}
            label = fields[label_column]
            if not any(names.values()) or not (label.strip() or may_lack_labels):
                raise TenfoldError(f"{where} lacks an image or a label; mend or remove the line.")
            own = split or split_named(fields.get("split", "train").strip())
            if own is None:
                raise TenfoldError(
                    f"{where} names the split {fields['split']!r}, where train, validation or test "
                    "was expected; mend the line."
                )
            first, original = names[name_columns[0]], fields.get(ORIGINAL_ID)
            group = next((fields[each].strip() for each in GROUP_COLUMNS if each in fields), "")
            yield LabelRow(file, reader.line_num, first, label, own, original, names, group)
    except csv.Error as error:
        raise TenfoldError(
            f"{file} line {reader.line_num} can't be read as CSV ({error}); mend the line."
        ) from error


def _has_columns(file: Path) -> bool:
    try:
        with open(file, encoding="utf-8-sig") as opened:
            line = opened.readline(10_000)
        columns_of(header_of(line.split(delimiter_of(line))), file)
    except (OSError, UnicodeDecodeError, TenfoldError):
        return False
    return True


def header_of(names: Iterable[str]) -> list[str]:
    """Names of columns, in one spelling."""
    return [re.sub(r"[ -]", "_", name.strip(' \t\r\n"').casefold()) for name in names]


def columns_of(header: list[str], file: Path) -> tuple[list[str], str]:
    """The columns that may name images, likelier ones first, and that of the labels."""
    names = [column for column in ID_COLUMNS if column in header]
    label = next((column for column in LABEL_COLUMNS if column in header), None)
    if not names or label is None:
        raise TenfoldError(
            f"{file} line 1 names the columns {', '.join(header) or '(none)'}, where id or "
            "filename, and label, were expected; add such a line."
        )
    return names, label


def text_of(file: Path) -> str:
    """A file of UTF-8 text without its byte order mark. Raises TenfoldError with the line."""
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")  # Spreadsheets put a byte order mark at the start.
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TenfoldError(
            f"{file} line {line} is not UTF-8 text; save the file in UTF-8."
        ) from None


def delimiter_of(text: str) -> str:
    """What separates fields, as the first line shows."""
    header = text.split("\n", 1)[0]
    return max(",;\t", key=header.count)


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


class _Finder:
    """Image files below `root` by what tables may call them.

    single: whether one table has the images of all splits.
    """

    def __init__(self, root: Path, files: Sequence[PictureFile], *, single: bool) -> None:
        self._root, self._single = root, single
        folders = sorted(inner.name for inner in root.iterdir() if inner.is_dir())
        self._folders = {split: name for name in folders if (split := split_named(name))}
        # The sooner a table names images as one of these does, the surer it means them.
        self._ways: list[dict[str, list[PictureFile]]] = [defaultdict(list) for _ in range(5)]
        for file in files:
            bare = file.path.rpartition("/")[2]
            names = [file.path, bare, file.path.rpartition(".")[0], bare.rpartition(".")[0]]
            for way, name in zip(self._ways, names, strict=False):
                way[name].append(file)
            for name in {name.casefold() for name in names}:
                self._ways[-1][name].append(file)

    def find(self, name: str, split: str) -> list[PictureFile]:
        """What a row of `split` may mean by `name`: none, one, or several."""
        wanted = name.replace("\\", "/").removeprefix("./")
        if _is_absolute(wanted):
            return self._find_absolute(wanted, split)
        for way in self._ways:
            for key in (self.place(wanted, split), wanted):
                known = way.get(key.casefold() if way is self._ways[-1] else key, [])
                if found := known if "/" in key else self._in_split(known, split):
                    return found
        return []

    def place(self, wanted: str, split: str) -> str:
        """Where an image of that name and split is looked for first."""
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
        own, others = self._folders.get(split), self._folders.values()
        tops = ((file, file.path.partition("/")[0]) for file in files)
        return [
            file for file, top in tops if self._single or (top == own if own else top not in others)
        ]


def _is_absolute(name: str) -> bool:
    """Here or on Windows."""
    return re.match(r"/|[A-Za-z]:[/\\]", name) is not None


def _find_images(
    rows: Sequence[LabelRow], finder: _Finder
) -> Iterator[tuple[LabelRow, PictureFile]]:
    """The rows of one table, called by the column that names images, and each one's file.

    Raises TenfoldError for an image that is missing or unclear, and for columns that mean
    different ones.
    """
    found = {
        column: [finder.find(row.names[column], row.split) for row in rows]
        for column in (rows[0].names if rows else ())
    }
    column = _column_of_images(rows, found)
    missing = [row for row, files in zip(rows, found.get(column, ()), strict=True) if not files]
    if missing:
        row = missing[0]
        place = finder.place(row.names[column], row.split)
        raise TenfoldError(
            f"{row.place} names the image {row.names[column]!r}, but there is no {place} (nor "
            f"that name with .png, .jpg and so on) in {row.file.parent}; {len(missing)} of "
            f"{len(rows)} are missing: restore them or remove their lines."
        )
    for row, files in zip(rows, found.get(column, ()), strict=True):
        name = row.names[column]
        if len(files) > 1:
            listed = " and ".join(printable(file.path) for file in files[:2])
            raise TenfoldError(f"{row.place} names {name!r}, which may be {listed}; say which.")
        yield row._replace(name=name), files[0]


def _column_of_images(
    rows: Sequence[LabelRow], found: Mapping[str, Sequence[Sequence[PictureFile]]]
) -> str:
    """The column that names most files as they are called, failing that without their suffix.

    Raises TenfoldError where two are as good and mean different ones.
    """

    def merit(column: str) -> tuple[int, int]:
        whole = [
            row.names[column].casefold().endswith(Path(files[0].path).suffix.casefold())
            for row, files in zip(rows, found[column], strict=True)
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
