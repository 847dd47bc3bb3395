"""CSV files of labels, and folders of images that they name, as Kaggle has CIFAR-10.

`trainLabels.csv` with the columns `id` and `label` names the images in `train`: `1` stands for
`train/1.png`; `validationLabels.csv` and `testLabels.csv` likewise, where they are there. Or one
`labels.csv` of which a column names each file, with a column `split` if it likes. Of several
columns that may name files the one that does is taken. A column `group` or `patient` says what
belongs together. tenfold adds `classes.txt`, a class name a line, which keeps their order, and a
column `original_id` where images have ids of their own.
"""

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tenfold.data.folders import ImageFile, folder_within, image_files, with_name
from tenfold.data.tables import GROUP_COLUMNS, Row, Table, header_of, printable, split_named
from tenfold.errors import TenfoldError, counted

CLASSES_FILE = "classes.txt"
ORIGINAL_ID = "original_id"
_ID_COLUMNS = (
    *("id", "image_id", "filename", "file_name", "file", "image", "path", "image_path", "img_path"),
    *("file_path", "filepath", "image_name", "img"),
)
_LABEL_COLUMNS = ("label", "class", "class_name", "category", "target")


class LabelRow(NamedTuple):
    """A line of a CSV file, which labels an image. names: what each column that may name the image
    has, the first of them being `name` until somebody knows better. group: such as its patient."""

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
    """The images that CSV files in a folder name, or those that one CSV file names. Ids are the
    column `original_id`, otherwise the split and the column `id`, as in `train/1`, or the file
    names of a `labels.csv`. Raises TenfoldError with file and line for whatever is wrong there."""
    root, tables = tables_at(path)
    files = list(image_files(root))
    finder = _Finder(root, files, single=None in tables)
    found = [
        pair
        for split, file in tables.items()
        for pair in _find_images(list(read_table(file, split=split)), finder)
    ]
    require_distinct([(row, file.path) for row, file in found], what="image")
    rows: dict[str, list[Row]] = defaultdict(list)
    ids = []
    for row, file in found:
        shown, own = printable(file.path), row.original_id
        if own is None:
            by_path = None in tables or _is_absolute(row.name)
            own = shown if by_path else f"{row.split}/{row.name}"
        ids.append((row, own))
        source = os.path.join(root, file.path)
        rows[row.split].append(Row(source, shown, row.label, own, row.place, file.stamp, row.group))
    require_distinct(ids, what="id")
    unlabelled = len(files) - len(found)
    note = f"Left out: {counted(unlabelled, 'image')} that no CSV file labels."
    source, names = f"{path} (CSV and images)", read_class_names(root)
    return Table(rows, path, source, names, root, [note] if unlabelled else [])


def table_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows under a line of column names, as CSV."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
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
    return root, find_tables(root)


def find_tables(root: Path) -> dict[str | None, Path]:
    """The CSV files of labels in a folder by split, or under None the one for all splits.

    `trainLabels.csv`, `train_labels.csv`, `labels.csv` are taken at their word; `train.csv` and
    `metadata.csv` only if their first line names columns for images and labels. Failing those,
    each split's folder may hold its own `metadata.csv`, as on the Hugging Face hub.
    """
    own = [
        (split, file)
        for file in sorted(root.glob("*.[cC][sS][vV]"))
        if (match := re.fullmatch(r"(.+?)([_-]?labels)?\.csv", file.name, re.IGNORECASE))
        and (split := split_named(match[1]))
        and (match[2] or _has_columns(file))
    ]
    single = [
        (None, file)
        for file in (root / "labels.csv", root / "metadata.csv")
        if file.is_file() and (file.stem == "labels" or _has_columns(file))
    ]
    inner = [
        (split, file)
        for file in sorted([*root.glob("*/labels.csv"), *root.glob("*/metadata.csv")])
        if (split := split_named(file.parent.name)) and _has_columns(file)
    ]
    for tables in (own, single[:1], inner):
        found: dict[str | None, Path] = {}
        for split, file in tables:
            if (first := found.setdefault(split, file)) is not file:
                raise TenfoldError(
                    f"{root} holds {first.relative_to(root)} and {file.relative_to(root)}, which "
                    f"both label the {split} split; rename or remove one of them."
                )
        if "train" in found or None in found:
            return found
    return {}


def names_classes(file: Path, folders: Collection[str]) -> bool:
    """Whether a CSV file is about the class `folders` and no images: a column of it has each."""
    try:
        rows = [row for row in csv_reader(text_of(file)) if row]
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
    columns: tuple[list[str], str] | None = None
    for line, fields in read_lines(file):
        where = f"{file} line {line}"
        name_columns, label_column = columns = columns or columns_of(list(fields), file)
        names = {column: fields[column].strip() for column in name_columns}
        label = fields[label_column]
        if not any(names.values()) or not (label.strip() or may_lack_labels):
            raise TenfoldError(f"{where} lacks an image or a label; mend or remove the line.")
        own = split or split_named(fields.get("split", "train").strip())
        if own is None:
            raise TenfoldError(
                f"{where} names the split {fields['split']!r}; make it train, validation or test."
            )
        first, original = names[name_columns[0]], fields.get(ORIGINAL_ID)
        group = next((fields[each].strip() for each in GROUP_COLUMNS if each in fields), "")
        yield LabelRow(file, line, first, label, own, original, names, group)


def read_lines(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a CSV file but the first and empty ones, by number: fields by column, in one
    spelling. Raises TenfoldError for a line that can't be read or has too few or many fields."""
    reader = csv_reader(text_of(file))
    try:
        header = header_of(next(reader, []))
        columns_of(header, file)
        for values in filter(any, reader):
            if len(values) != len(header):
                raise TenfoldError(
                    f"{file} line {reader.line_num} has {counted(len(values), 'field')} where the "
                    f"first line has {len(header)}; mend the line."
                )
            yield reader.line_num, dict(zip(reversed(header), reversed(values), strict=True))
    except csv.Error as error:
        raise TenfoldError(
            f"{file} line {reader.line_num} can't be read as CSV ({error}); mend the line."
        ) from error


def csv_reader(text: str) -> Any:
    """A reader of lines by what separates fields in the first."""
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=True)


def delimiter_of(text: str) -> str:
    """What separates fields, as the first line shows."""
    return max(",;\t", key=text.split("\n", 1)[0].count)


def columns_of(header: Sequence[str], file: Path) -> tuple[list[str], str]:
    """The columns that may name images, likelier ones first, and that of the labels."""
    names = [column for column in _ID_COLUMNS if column in header]
    label = next((column for column in _LABEL_COLUMNS if column in header), None)
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
        raise TenfoldError(f"{file} line {line} is not UTF-8 text; save it in UTF-8.") from None


def read_class_names(folder: Path) -> tuple[str, ...] | None:
    """The class names in the folder's `classes.txt`, a line each; None where there is no such file.

    Raises TenfoldError for a name that is there twice, and for text that isn't UTF-8.
    """
    file = folder / CLASSES_FILE
    if not file.is_file():
        return None
    lines = text_of(file).replace("\r\n", "\n").split("\n")
    names = tuple(line for line in lines if line.strip())
    for place, name in enumerate(names):
        if name in names[:place]:
            raise TenfoldError(f"{file} names the class {name!r} twice; remove one of the lines.")
    return names


def _has_columns(file: Path) -> bool:
    try:
        columns_of(header_of(next(csv_reader(text_of(file)), [])), file)
    except (OSError, csv.Error, TenfoldError):
        return False
    return True


def _is_absolute(name: str) -> bool:
    """Here or on Windows."""
    return re.match(r"/|[A-Za-z]:[/\\]", name) is not None


class _Finder:
    """Image files below `root` by what tables may call them.

    single: whether one table has the images of all splits.
    """

    def __init__(self, root: Path, files: Sequence[ImageFile], *, single: bool) -> None:
        self._single = single
        folders = sorted(inner.name for inner in root.iterdir() if inner.is_dir())
        self._folders = {split: name for name in folders if (split := split_named(name))}
        # By the end of the path, from the root's own name on, with and without suffix.
        self._files: dict[str, list[ImageFile]] = defaultdict(list)
        top = with_name(root).name
        for file in files:
            for path in {file.path, file.path.rpartition(".")[0]}:
                for end in _ends(f"{top}/{path}"):
                    self._files[end.casefold()].append(file)

    def find(self, name: str, split: str) -> list[ImageFile]:
        """What a row of `split` may mean by `name`: none, one, or several.

        An absolute path counts by its end, for the folder may have moved; a file that is there
        elsewhere means another by more than its bare name.
        """
        wanted = name.replace("\\", "/").removeprefix("./")
        ends = _ends(wanted) if _is_absolute(wanted) else [wanted]
        if len(ends) > 1 and os.path.exists(wanted):
            ends.pop()
        for end in ends:
            sureties = [
                (self._surety(file.path, end, split), file)
                for file in self._files.get(end.casefold(), ())
                if self._may_be(file.path, end, split)
            ]
            if sureties:
                most = max(surety for surety, _ in sureties)
                return [file for surety, file in sureties if surety == most]
        return []

    def place(self, name: str, split: str) -> str:
        """Where an image of that name and split is looked for first."""
        return f"{self._folders[split]}/{name}" if split in self._folders else name

    def _surety(self, path: str, name: str, split: str) -> tuple[bool, ...]:
        """How surely `name` means the file: in what it is the better, in order of weight."""
        stem, place = path.rpartition(".")[0], self.place(name, split)
        whole = (path == place, path == name, path.endswith(name))
        return (*whole, stem == place, stem == name, stem.endswith(name))

    def _may_be(self, path: str, name: str, split: str) -> bool:
        """Whether `name` may mean the file, which ends so: never one in another split's folder."""
        if self._single or ("/" in name and path.casefold().startswith(name.casefold())):
            return True
        own, top = self._folders.get(split), path.partition("/")[0]
        return top == own if own else top not in self._folders.values()


def _ends(path: str) -> list[str]:
    """`a/b/c`, `b/c`, `c`."""
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _find_images(rows: Sequence[LabelRow], finder: _Finder) -> Iterator[tuple[LabelRow, ImageFile]]:
    """The rows of one table, called by the column that names images, and each one's file."""
    if not rows:
        return
    found = {
        column: [finder.find(row.names[column], row.split) for row in rows]
        for column in rows[0].names
    }
    column = _column_of_images(rows, found)
    for row, files in zip(rows, found[column], strict=True):
        name = row.names[column]
        if not files:
            raise TenfoldError(
                f"{row.place} names the image {name!r}, but there is no "
                f"{finder.place(name, row.split)} (nor that name with .png, .jpg and so on) in "
                f"{row.file.parent}; {found[column].count([])} of {len(rows)} are missing: restore "
                "them or remove their lines."
            )
        if len(files) > 1:
            listed = " and ".join(printable(file.path) for file in files[:2])
            raise TenfoldError(f"{row.place} names {name!r}, which may be {listed}; say which.")
        yield row._replace(name=name), files[0]


def _column_of_images(
    rows: Sequence[LabelRow], found: Mapping[str, Sequence[Sequence[ImageFile]]]
) -> str:
    """The column that names most files as they are called, failing that without their suffix."""
    merits = {}
    for column, own in found.items():
        whole = [
            Path(row.names[column]).suffix.casefold() == Path(files[0].path).suffix.casefold()
            for row, files in zip(rows, own, strict=True)
            if files
        ]
        merits[column] = (sum(whole), len(whole))
    first, *others = [name for name in merits if merits[name] == max(merits.values())]
    for other in others:
        for row, one, two in zip(rows, found[first], found[other], strict=True):
            if one and two and one != two:
                raise TenfoldError(
                    f"{row.place} names {printable(one[0].path)} in the column {first} and "
                    f"{printable(two[0].path)} in the column {other}; remove or rename one column."
                )
    return first
