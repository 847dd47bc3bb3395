"""CSV files of labels: finding them, and reading them with the line of whatever is wrong."""

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tenfold.data.formats.split_names import split_named
from tenfold.errors import TenfoldError

ORIGINAL_ID = "original_id"
SINGLE_FILES = ("labels.csv", "metadata.csv")
ID_COLUMNS = (
    *("id", "image_id", "filename", "file_name", "file", "image", "path", "image_path", "img_path"),
    *("file_path", "filepath", "image_name", "img"),
)
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target")
SPLIT_COLUMN = "split"


class Row(NamedTuple):
    """A labelled picture as a line of a CSV file has it.

    file and line: where it stands; names: what each column that may name the picture has, the
    first of them being `name` until somebody knows better; split: train, validation or test.
    """

    file: Path
    line: int
    name: str
    label: str
    split: str
    original_id: str | None
    names: Mapping[str, str]

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.file} line {self.line}"


def find_tables(root: Path) -> dict[str | None, Path]:
    """The CSV files of labels in a folder by split, or under None the one for all splits.

    `trainLabels.csv`, `train_labels.csv`, `labels.csv` are taken at their word; `train.csv` and
    `metadata.csv` only if their first line names columns for pictures and labels. Failing those,
    each split's folder may hold its own `metadata.csv`, as on the Hugging Face hub.
    """
    found = _one_each(
        root,
        (
            (split, file)
            for file in sorted(root.glob("*.[cC][sS][vV]"))
            if (match := re.fullmatch(r"(.+?)([_-]?labels)?\.csv", file.name, re.IGNORECASE))
            and (split := split_named(match[1]))
            and (match[2] or _has_columns(file))
        ),
    )
    if "train" in found:
        return found
    for name in SINGLE_FILES:
        file = root / name
        if file.is_file() and (name == "labels.csv" or _has_columns(file)):
            return {None: file}
    inner = _one_each(
        root,
        (
            (split, file)
            for name in SINGLE_FILES
            for file in sorted(root.glob(f"*/{name}"))
            if (split := split_named(file.parent.name)) and _has_columns(file)
        ),
    )
    return inner if "train" in inner else {}


def _one_each(root: Path, tables: Iterable[tuple[str, Path]]) -> dict[str | None, Path]:
    found: dict[str | None, Path] = {}
    for split, file in tables:
        if split in found:
            names = [str(each.relative_to(root)) for each in (found[split], file)]
            raise TenfoldError(
                f"{root} holds {' and '.join(names)}, which both label the {split} split; rename "
                "or remove one of them."
            )
        found[split] = file
    return found


def names_classes(file: Path, folders: Collection[str]) -> bool:
    """Whether a CSV file is about the class `folders` and no pictures: a column of it has each."""
    try:
        text = text_of(file)
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=_delimiter(text)) if row]
    except (csv.Error, TenfoldError):
        return False
    columns = [[field.strip() for field in column] for column in zip(*rows, strict=False)]
    return any(
        len(set(column)) == len(column) and set(folders) <= set(column) for column in columns
    )


def read_table(file: Path, *, split: str | None) -> Iterator[Row]:
    """The rows of a CSV file; `split` None takes it from a column, or has all for training.

    Commas, semicolons and tabs separate fields, as the first line shows. Raises TenfoldError with
    file and line for text that isn't UTF-8, for missing columns, rows of another length than the
    first line, and empty fields.
    """
    text = text_of(file)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    try:
        header = _header(next(reader, []))
        name_columns, label_column = _columns(header, file)
        split_column = header.index(SPLIT_COLUMN) if SPLIT_COLUMN in header else None
        id_column = header.index(ORIGINAL_ID) if ORIGINAL_ID in header else None
        for fields in reader:
            if not any(fields):
                continue
            where = f"{file} line {reader.line_num}"
            if len(fields) != len(header):
                raise TenfoldError(
                    f"{where} has {len(fields)} fields where the first line has {len(header)}; "
                    "mend the line."
                )
            names = {column: fields[header.index(column)].strip() for column in name_columns}
            if not any(names.values()) or not fields[label_column].strip():
                raise TenfoldError(f"{where} lacks a picture or a label; mend or remove the line.")
            yield Row(
                file,
                reader.line_num,
                names[name_columns[0]],
                fields[label_column],
                split or _split_in(fields, split_column, where),
                None if id_column is None else fields[id_column],
                names,
            )
    except csv.Error as error:
        raise TenfoldError(
            f"{file} line {reader.line_num} can't be read as CSV ({error}); mend the line."
        ) from error


def _has_columns(file: Path) -> bool:
    try:
        with open(file, encoding="utf-8-sig") as opened:
            line = opened.readline(10_000)
        _columns(_header(line.split(_delimiter(line))), file)
    except (OSError, UnicodeDecodeError, TenfoldError):
        return False
    return True


def _header(names: Iterable[str]) -> list[str]:
    return [re.sub(r"[ -]", "_", name.strip(' \t\r\n"').casefold()) for name in names]


def _columns(header: list[str], file: Path) -> tuple[list[str], int]:
    """Names of the columns that may name pictures, likelier ones first; where the labels are."""
    names = [column for column in ID_COLUMNS if column in header]
    label = next((column for column in LABEL_COLUMNS if column in header), None)
    if not names or label is None:
        raise TenfoldError(
            f"{file} line 1 names the columns {', '.join(header) or '(none)'}, where id or "
            "filename, and label, were expected; add such a line."
        )
    return names, header.index(label)


def _split_in(fields: list[str], column: int | None, where: str) -> str:
    if column is None:
        return "train"
    split = split_named(fields[column].strip())
    if split is None:
        raise TenfoldError(
            f"{where} names the split {fields[column]!r}, where train, validation or test was "
            "expected; mend the line."
        )
    return split


def text_of(file: Path) -> str:
    """A file of UTF-8 text without its byte order mark. Raises TenfoldError with the line."""
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")  # spreadsheets put a byte order mark at the start
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TenfoldError(
            f"{file} line {line} is not UTF-8 text; save the file in UTF-8."
        ) from None


def _delimiter(text: str) -> str:
    header = text.split("\n", 1)[0]
    return max(",;\t", key=header.count)
