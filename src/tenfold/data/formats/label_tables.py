"""CSV files of labels: finding them, and reading them with the line of whatever is wrong."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tenfold.data.formats.split_names import split_named
from tenfold.errors import TenfoldError

ORIGINAL_ID = "original_id"
SINGLE_FILES = ("labels.csv", "metadata.csv")
ID_COLUMNS = ("id", "image_id", "filename", "file_name", "file", "image", "path")
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target")
SPLIT_COLUMN = "split"


class Row(NamedTuple):
    """A labelled picture as a line of a CSV file has it.

    file and line: where it stands; name: of the picture; split: train, validation or test.
    """

    file: Path
    line: int
    name: str
    label: str
    split: str
    original_id: str | None

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.file} line {self.line}"


def find_tables(root: Path) -> dict[str | None, Path]:
    """The CSV files of labels in a folder by split, or under None the one for all splits.

    `trainLabels.csv`, `train_labels.csv`, `labels.csv` are taken at their word; `train.csv` and
    `metadata.csv` only if their first line names columns for pictures and labels.
    """
    found: dict[str | None, Path] = {}
    for file in sorted(root.glob("*.[cC][sS][vV]")):
        match = re.fullmatch(r"(.+?)([_-]?labels)?\.csv", file.name, re.IGNORECASE)
        split = split_named(match[1]) if match else None
        if split is None or match is None or not (match[2] or _has_columns(file)):
            continue
        if split in found:
            raise TenfoldError(
                f"{root} holds {found[split].name} and {file.name}, which both label the {split} "
                "split; rename or remove one of them."
            )
        found[split] = file
    if "train" in found:
        return found
    for name in SINGLE_FILES:
        file = root / name
        if file.is_file() and (name == "labels.csv" or _has_columns(file)):
            return {None: file}
    return {}


def read_table(file: Path, *, split: str | None, may_lack_labels: bool = False) -> Iterator[Row]:
    """The rows of a CSV file; `split` None takes it from a column, or has all for training.

    Commas, semicolons and tabs separate fields, as the first line shows. Raises TenfoldError with
    file and line for text that isn't UTF-8, for missing columns, rows of another length than the
    first line, and empty fields.
    """
    text = text_of(file)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    try:
        header = [name.strip().casefold() for name in next(reader, [])]
        name_column, label_column = _columns(header, file)
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
            lacks_label = not fields[label_column] and not may_lack_labels
            if not fields[name_column].strip() or lacks_label:
                raise TenfoldError(f"{where} lacks a picture or a label; mend or remove the line.")
            yield Row(
                file,
                reader.line_num,
                fields[name_column].strip(),
                fields[label_column],
                split or _split_in(fields, split_column, where),
                None if id_column is None else fields[id_column],
            )
    except csv.Error as error:
        raise TenfoldError(
            f"{file} line {reader.line_num} can't be read as CSV ({error}); mend the line."
        ) from error


def _has_columns(file: Path) -> bool:
    try:
        with open(file, encoding="utf-8-sig") as opened:
            line = opened.readline(10_000)
        _columns([name.strip().casefold() for name in line.split(_delimiter(line))], file)
    except (OSError, UnicodeDecodeError, TenfoldError):
        return False
    return True


def _columns(header: list[str], file: Path) -> tuple[int, int]:
    name = next((column for column in ID_COLUMNS if column in header), None)
    label = next((column for column in LABEL_COLUMNS if column in header), None)
    if name is None or label is None:
        raise TenfoldError(
            f"{file} line 1 names the columns {', '.join(header) or '(none)'}, where id or "
            "filename, and label, were expected; add such a line."
        )
    return header.index(name), header.index(label)


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
