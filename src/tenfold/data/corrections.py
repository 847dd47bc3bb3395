"""Labels that somebody judged, as the error explorer of a page writes them: `corrections.csv`.

Its columns are `id`, `label` and `action`, one image a row. `id` is the image's in its data set;
`action` is `keep` (the label is right), `correct` (it should be `label`), `drop` (the image is of
no use) or `unsure`. `label` counts where the action is `correct`, and may be empty elsewhere.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tenfold.data.csv_tables import read_lines
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
    """The rows of a file of corrections, by id. Raises TenfoldError, naming the line, for whatever
    is wrong in it."""
    if not path.is_file():
        raise TenfoldError(f"There is no file of corrections {path}; a run's page writes one.")
    found: dict[str, Correction] = {}
    for line, fields in read_lines(path):
        name, label, action = (fields.get(column, "").strip() for column in COLUMNS)
        place, wrong = f"{path} line {line}", ""
        if action not in ACTIONS:
            wrong = f"has the action {action!r}, where one of {', '.join(ACTIONS)} was expected"
        elif not name or (action == "correct" and not label):
            missing = "an id" if not name else "the class that its label is corrected to"
            wrong = f"lacks {missing}; add it or remove the line"
        elif name in found:
            wrong = f"judges {name!r} again; remove one of the lines"
        if wrong:
            raise TenfoldError(f"{place} {wrong}.")
        found[name] = Correction(label, action, place)
    if not found:
        raise TenfoldError(f"{path} has no rows; mark labels in a page's error explorer.")
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
        raise TenfoldError(
            f"{corrections[unknown[0]].place}: {place} has no image with the id {shown}"
            f"{' and so on' if len(unknown) > _MOST_SHOWN else ''} ({len(unknown)} of "
            f"{len(corrections)} rows; its ids are like {next(iter(ids), 'none')!r}); use the "
            "corrections of this data set."
        )
    for correction in corrections.values():
        if correction.action == "correct" and correction.label not in class_names:
            [nearest] = difflib.get_close_matches(correction.label, class_names, n=1, cutoff=0)
            raise TenfoldError(
                f"{correction.place} corrects to {correction.label!r}, which is none of the "
                f"{len(class_names)} classes; did you mean {nearest!r}?"
            )


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
    every = [name for images in dataset.splits().values() for name in images.ids.tolist()]
    require_matching(corrections, ids=every, class_names=train.class_names, place=dataset.name)
    numbers = {name: number for number, name in enumerate(train.class_names)}
    labels, keep, ids = train.labels.copy(), np.ones(len(train), dtype=bool), train.ids.tolist()
    for index, name in enumerate(ids):
        if (correction := corrections.get(name)) is not None:
            keep[index] = correction.action != "drop"
            if correction.action == "correct":
                labels[index] = numbers[correction.label]
    if not keep.any():
        raise TenfoldError(f"{path} drops all {len(train):,} training images; keep some.")
    changed = int((labels != train.labels).sum())
    mended = replace(train, labels=labels)
    if not keep.all():
        mended = mended.take(np.flatnonzero(keep))
    note = (
        f"{path.name} corrected the labels of {counted(changed, 'training image')} and dropped "
        f"{len(train) - len(mended):,}."
    )
    if others := len(set(corrections).difference(ids)):
        note += (
            f" Of its {counted(len(corrections), 'row')} {others:,} name no training image and "
            "changed nothing."
        )
    return CorrectedTraining(mended, note)
