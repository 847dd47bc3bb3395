"""Tables of predicted labels: the `id,label` files that competitions take, written and scored."""

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.data.csv_tables import (
    CLASSES_FILE,
    ORIGINAL_ID,
    LabelRow,
    find_tables,
    read_class_names,
    read_table,
    require_distinct,
    table_text,
    text_of,
)
from tenfold.data.folders import IMAGE_SUFFIXES
from tenfold.data.tables import SPLITS, Label, number_labels, plain_name, sorted_names
from tenfold.errors import TenfoldError, counted
from tenfold.evaluation.metrics import compare_labels
from tenfold.files import write_text
from tenfold.results.runs import LabelMetrics

NUM_SHOWN = 5


def submission_text(ids: NDArray[np.str_], labels: Sequence[str]) -> str:
    """A table of the columns `id` and `label`; ids as `submission_ids` has them."""
    return table_text(["id", "label"], zip(submission_ids(ids), labels, strict=True))


def write_submission(path: Path, ids: NDArray[np.str_], labels: Sequence[str]) -> None:
    """Write `submission_text` to `path`, atomically."""
    write_text(path, submission_text(ids, labels))


def submission_ids(ids: NDArray[np.str_]) -> list[str]:
    """The ids of one split's images as the label table of that split has them.

    `test/17` becomes `17`, as competitions and `tenfold data export` number images. Paths of
    files stay as they are, and so do numbers in an order of their own, which an export would give
    other numbers.
    """
    names: list[str] = ids.tolist()
    short = [_without_split(name) for name in names]
    splits = {name.partition("/")[0] for name in names}
    shortened = all(
        s != n and not s.lower().endswith(IMAGE_SUFFIXES) for s, n in zip(short, names, strict=True)
    )
    if not shortened or len(splits) > 1:
        return names
    numbers = [int(name) for name in short if name.isascii() and name.isdigit()]
    ascend = all(a < b for a, b in itertools.pairwise(numbers))
    return short if ascend else names


class SubmissionMetrics(LabelMetrics):
    """What a table of predictions is worth. num_missing: images without a prediction."""

    num_missing: int


def score_submission(
    submission: Path, labels: Path, *, allow_missing: bool = False
) -> SubmissionMetrics:
    """How right a table of predictions is, by a table of labels; see `compare_labels`.

    Both are CSV files with a column for the image (`id`, `filename` ...) and one for the class
    (`label`, `class` ...), in any order of rows; other columns are passed over. Ids are joined as
    `match_ids` says. Labels of a split (a column `split`) without any prediction don't count.
    Classes may be numbers on one side if `classes.txt` beside the labels has the names in order.
    `num_missing` counts the images without a prediction,
    or with an empty one as `tenfold predict` writes of a broken image, which `allow_missing`
    takes as wrong.

    Raises TenfoldError with file and line for whatever is wrong in the tables, for a class that
    the labels lack, ids that are there twice, predictions without a label, and labels without a
    prediction unless they are allowed.
    """
    predictions = _read(submission, split="test", may_lack_labels=True)
    unlabelled = next((row for row in predictions if not row.label.strip()), None)
    if unlabelled and not allow_missing:
        raise TenfoldError(
            f"{unlabelled.place} lacks an image or a label; mend or remove the line, or count it "
            "as wrong with --allow-missing."
        )
    truths = _read(labels, split=None)
    matched = match_ids(predictions, truths)
    known = set(matched)
    strangers = [row for number, row in enumerate(predictions) if number not in known]
    if len(strangers) == len(predictions):
        raise TenfoldError(
            f"No id of {submission} ({_some(predictions)}) is in {labels} ({_some(truths)}); give "
            "the labels of the same images."
        )
    found = [None if number is None else predictions[number] for number in matched]
    used = {truth.split for truth, row in zip(truths, found, strict=True) if row is not None}
    pairs = [pair for pair in zip(truths, found, strict=True) if pair[0].split in used]
    labelled = [row if row and row.label.strip() else None for _, row in pairs]
    missing = [truth for (truth, _), row in zip(pairs, labelled, strict=True) if row is None]
    _require_joined(
        (strangers, f"{submission} that {labels} lacks"),
        ([] if allow_missing else missing, f"{labels} without a prediction"),
    )
    listed = read_class_names(labels.parent)
    class_names = listed or sorted_names(plain_name(row.label) for row in truths)
    indices = partial(
        _indices, class_names=class_names, labels=labels, are_ordered=listed is not None
    )
    predicted = np.full(len(pairs), -1, dtype=np.int64)
    predicted[[row is not None for row in labelled]] = indices(list(filter(None, labelled)))
    metrics = compare_labels(
        indices([truth for truth, _ in pairs]), predicted, class_names=class_names
    )
    return SubmissionMetrics(**dict(metrics), num_missing=len(missing))


def _require_joined(*left: tuple[Sequence[LabelRow], str]) -> None:
    """Raise TenfoldError where rows are left alone; beside them, whose they are."""
    faults = [
        f"{counted(len(rows), 'id')} of {whose} ({_some(rows)})" for rows, whose in left if rows
    ]
    if faults:
        raise TenfoldError(
            f"There {'is' if faults[0].startswith('1 ') else 'are'} {' and '.join(faults)}; give "
            "labels and predictions of the same images, remove predictions that have no label, "
            "or count missing ones as wrong with --allow-missing."
        )


def match_ids(predictions: Sequence[LabelRow], labels: Sequence[LabelRow]) -> list[int | None]:
    """For each label the position of the prediction with its id, or None.

    Ids are compared as they are; failing that, without the split in front; then without the suffix
    of an image file; then by the file's name alone. Each column of the labels that may name an
    image is tried, and `original_id`, which an exported table has beside its numbers. The first
    way in which every prediction finds a label is taken, otherwise the one in which most do.
    Raises TenfoldError where two columns fit equally well and mean different images.
    """
    columns = [(column, [row.names[column] for row in labels]) for column in labels[0].names]
    if all(row.original_id is not None for row in labels):
        originals = [row.original_id or "" for row in labels]
        columns += [(ORIGINAL_ID, originals), (ORIGINAL_ID, [*map(_without_split, originals)])]
    best: list[int | None] = [None] * len(labels)
    for spell in (str, _without_split, _stem, _file_name):
        own = [spell(row.name) for row in predictions]
        numbers = {name: number for number, name in enumerate(own)}
        whole: list[tuple[str, list[int | None]]] = []
        for column, names in columns:
            keys = [spell(name) for name in names]
            # A spelling that takes two ids for one says nothing.
            if len(numbers) == len(own) and len(set(keys)) == len(keys):
                found = [numbers.get(key) for key in keys]
                best = max(best, found, key=lambda match: len(match) - match.count(None))
                if set(own) <= set(keys):
                    whole.append((column, found))
        for column, found in whole:
            if found != whole[0][1]:
                raise TenfoldError(
                    f"The ids in {predictions[0].file} may be those of the column {whole[0][0]} or "
                    f"of {column} in {labels[0].file}, which mean different images; remove the "
                    "one that isn't meant."
                )
        if whole:
            return whole[0][1]
    return best


def _without_split(name: str) -> str:
    """`17` for `test/17`; paths with more folders stay as they are."""
    plain = name.replace("\\", "/").removeprefix("./")
    split, _, rest = plain.partition("/")
    return rest if split in SPLITS and rest and "/" not in rest else plain


def _stem(name: str) -> str:
    plain = _without_split(name)
    return plain.rpartition(".")[0] if plain.lower().endswith(IMAGE_SUFFIXES) else plain


def _file_name(name: str) -> str:
    return _stem(name).rpartition("/")[2]


def _read(file: Path, *, split: str | None, may_lack_labels: bool = False) -> list[LabelRow]:
    """The rows, each id once. Raises TenfoldError, also where there are none."""
    if file.is_dir():
        tables = find_tables(file)
        table = tables.get("test") or next(iter(tables.values()), file / "testLabels.csv")
        raise TenfoldError(f"{file} is a folder; give a CSV file, such as {table}.")
    if not file.is_file():
        raise TenfoldError(f"There is no file {file}; check the path.")
    if not text_of(file).strip():
        raise TenfoldError(f"{file} is empty; a first line id,label and rows were expected.")
    rows = list(read_table(file, split=split, may_lack_labels=may_lack_labels))
    if not rows:
        raise TenfoldError(f"{file} has no rows below its first line; check the file.")
    if any(len({row.names[column] for row in rows}) == len(rows) for column in rows[0].names):
        return rows
    require_distinct([(row, row.name) for row in rows], what="id")
    return rows


def _some(rows: Sequence[LabelRow]) -> str:
    """The first few ids with their lines."""
    shown = ", ".join(f"{row.name!r} in line {row.line}" for row in rows[:NUM_SHOWN])
    return f"{shown} and so on" if len(rows) > NUM_SHOWN else shown


def _indices(
    rows: Sequence[LabelRow], class_names: Sequence[str], *, labels: Path, are_ordered: bool
) -> NDArray[np.int64]:
    """Each row's class as a position in `class_names`, by number where those `are_ordered`."""
    names: list[Label] = [plain_name(row.label) for row in rows]
    is_numbers = all(str(name).isascii() and str(name).isdigit() for name in names)
    if are_ordered and is_numbers and not set(names) & set(map(plain_name, class_names)):
        names = [int(name) for name in names]
    try:
        return number_labels(
            {"test": names},
            declared=tuple(class_names),
            place=labels,
            where=lambda _, position: rows[position].place,
        ).labels["test"]
    except TenfoldError as error:
        raise TenfoldError(
            f"{error} (The classes are those of {labels}; one without images there can be named "
            f"in a {CLASSES_FILE} beside it.)"
        ) from None
