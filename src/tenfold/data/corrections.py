"""Labels that somebody judged, as the error explorer of a page writes them: `corrections.csv`.

Its columns are `id`, `label` and `action`, one image a row. `id` is the image's in its data set;
`action` is `keep` (the label is right), `correct` (it should be `label`), `drop` (the image is of
no use) or `unsure`. `label` counts where the action is `correct`, and may be empty elsewhere.
"""

import csv
import difflib
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tenfold.data.csv_tables import delimiter_of, text_of
from tenfold.data.images import Dataset, Images
from tenfold.errors import TenfoldError, counted

COLUMNS = ("id", "label", "action")
ACTIONS = ("keep", "correct", "drop", "unsure")
_MOST_SHOWN = 5


class Correction(NamedTuple):
    """A row. place: its file and line."""

    label: str
    action: str
    place: str


def read_corrections(path: Path) -> dict[str, Correction]:
    """The rows of a file of corrections, by id.

    Raises TenfoldError, naming the line, for a file that isn't there or isn't such a table, an
    unknown action, an image that is judged twice, and a correction without a label.
    """
    if not path.is_file():
        raise TenfoldError(
            f"There is no file of corrections {path}; the error explorer of a run's page writes "
            "one."
        )
    text = text_of(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text))
    header = [name.strip().casefold() for name in next(reader, [])]
    if not set(COLUMNS) <= set(header):
        raise TenfoldError(
            f"{path} line 1 names the columns {', '.join(header) or '(none)'}, where id, label and "
            "action were expected."
        )
    found: dict[str, Correction] = {}
    for values in reader:
        if not any(values):
            continue
        place = f"{path} line {reader.line_num}"
        if len(values) != len(header):
            raise TenfoldError(
                f"{place} has {len(values)} fields where the first line has {len(header)}; mend it."
            )
        name, label, action = (values[header.index(column)].strip() for column in COLUMNS)
        if action not in ACTIONS:
            raise TenfoldError(
                f"{place} has the action {action!r}, where one of {', '.join(ACTIONS)} was "
                "expected."
            )
        if not name or (action == "correct" and not label):
            missing = "an id" if not name else "the class that its label is corrected to"
            raise TenfoldError(f"{place} lacks {missing}; add it or remove the line.")
        if name in found:
            raise TenfoldError(f"{place} judges {name!r} again; remove one of the lines.")
        found[name] = Correction(label, action, place)
    if not found:
        raise TenfoldError(
            f"{path} has no rows; mark labels in the error explorer of a run's page."
        )
    return found


def require_matching(
    corrections: Mapping[str, Correction],
    *,
    ids: Collection[str],
    class_names: Sequence[str],
    place: object,
) -> None:
    """Raise TenfoldError where an image that is judged is not among `ids`, or a label is corrected
    to none of the classes. place: what messages call the data set."""
    known = set(ids)
    if unknown := [name for name in corrections if name not in known]:
        shown = ", ".join(map(repr, unknown[:_MOST_SHOWN]))
        example = next(iter(ids), "none")
        raise TenfoldError(
            f"{corrections[unknown[0]].place}: {place} has no image with the id {shown}"
            f"{' and so on' if len(unknown) > _MOST_SHOWN else ''} ({len(unknown)} of "
            f"{len(corrections)} rows; its ids are like {example!r}); use the corrections of this "
            "data set."
        )
    for correction in corrections.values():
        if correction.action == "correct" and correction.label not in class_names:
            [nearest] = difflib.get_close_matches(correction.label, class_names, n=1, cutoff=0)
            raise TenfoldError(
                f"{correction.place} corrects to {correction.label!r}, which is none of the "
                f"{len(class_names)} classes; did you mean {nearest!r}?"
            )


def corrected(images: Images, corrections: Mapping[str, Correction]) -> Images:
    """The images with their labels corrected, without those that are dropped."""
    labels, keep = images.labels.copy(), np.ones(len(images), dtype=bool)
    places = {name: index for index, name in enumerate(images.class_names)}
    for index, name in enumerate(images.ids.tolist()):
        if (correction := corrections.get(name)) is None:
            continue
        if correction.action == "correct":
            labels[index] = places[correction.label]
        keep[index] = correction.action != "drop"
    mended = replace(images, labels=labels)
    return mended if keep.all() else mended.take(np.flatnonzero(keep))


class CorrectedTraining(NamedTuple):
    """Training images, and a sentence on what was done to them."""

    train: Images
    note: str


def correct_training(train: Images, dataset: Dataset, path: Path) -> CorrectedTraining:
    """`train`, which is drawn from `dataset`, with the corrections in `path`; images of other
    splits stay as they are.

    Raises TenfoldError as `read_corrections` and `require_matching` do, and where the last image is
    dropped.
    """
    corrections = read_corrections(path)
    ids = [name for images in dataset.splits().values() for name in images.ids.tolist()]
    require_matching(corrections, ids=ids, class_names=train.class_names, place=dataset.name)
    mended = corrected(train, corrections)
    if not len(mended):
        raise TenfoldError(f"{path} drops all {len(train):,} training images; keep some.")
    own = set(train.ids.tolist())
    before = dict(zip(train.ids.tolist(), train.labels.tolist(), strict=True))
    after = zip(mended.ids.tolist(), mended.labels.tolist(), strict=True)
    changed = sum(before[name] != label for name, label in after)
    others = sum(name not in own for name in corrections)
    note = (
        f"{path.name} corrected the labels of {counted(changed, 'training image')} and dropped "
        f"{len(train) - len(mended):,}."
    )
    if others:
        note += (
            f" Of its {counted(len(corrections), 'row')} {others:,} name no training image and "
            "changed nothing."
        )
    return CorrectedTraining(mended, note)
