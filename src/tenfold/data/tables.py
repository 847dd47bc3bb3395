"""The one table that every reader of image files makes, and the data set that comes of it.

A row is an image before it is decoded: its path or bytes, its label, its id. The splits' names,
the classes' names and what is said of broken images follow the same rules whatever was read.
"""

import difflib
import itertools
import logging
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.data.images import Dataset, Images, Settings, Source, numbered_ids
from tenfold.errors import TenfoldError, counted

logger = logging.getLogger("tenfold")

SPLITS = ("train", "validation", "test")
GROUP_COLUMNS = ("group", "group_id", "patient", "patient_id", "patientid", "subject", "subject_id")
"""Of tables: what belongs together and stays on one side of a split."""

# As in training_set, seg_train, test_images, Val, hold-out; blanks are taken out before.
_SPELLING = re.compile(
    r"(?:seg|images?|imgs?|data)?"
    r"(?:(?P<train>train(?:ing)?)|(?P<validation>val(?:id(?:ation)?)?|dev|eval(?:uation)?)"
    r"|(?P<test>test(?:ing)?|holdout))"
    r"(?:set|data(?:set)?|images?|imgs?|split)?"
)
_NO_LABEL = (-1, 2**32 - 1, 2**64 - 1)
"""-1, and what becomes of it where numbers have no sign."""
_LARGEST_OF_FEW_BITS = (2**8 - 1, 2**16 - 1)
_MAX_SHOWN = 20

Label = int | str


class Row(NamedTuple):
    """An image before it is decoded: the path or the content of its file, and what messages call
    that. id: None for its number in its split. place: what messages call the row, where it isn't
    what is shown. stamp: changes whenever the file does. group: such as its patient, or empty."""

    source: Source
    shown: str
    label: Any
    id: str | None
    place: str = ""
    stamp: str = ""
    group: str = ""


class Table(NamedTuple):
    """Rows by split. place: what messages call it; source: what a data set says of where it is
    from. declared: class names, where they are known. root: the folder by which the images are kept
    in the cache. folders: of each split, the one that its class folders are in, if it has some."""

    rows: Mapping[str, Sequence[Row]]
    place: Path
    source: str
    declared: tuple[str, ...] | None = None
    root: Path | None = None
    notes: Sequence[str] = ()
    folders: Mapping[str, str] | None = None


class NumberedLabels(NamedTuple):
    """Splits that have labels. labels: split -> `(N,)` int64, indices into class_names."""

    class_names: tuple[str, ...]
    labels: dict[str, NDArray[np.int64]]
    notes: list[str]


def split_named(name: str) -> str | None:
    """The split that a folder of this name holds, whatever its case; None for any other name."""
    match = _SPELLING.fullmatch(re.sub(r"[-_. ]+", "", name.casefold()))
    return match.lastgroup if match else None


def printable(path: str) -> str:
    """The path as text that every format can hold, also where its bytes are no UTF-8."""
    if path.isascii():
        return path
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def header_of(names: Iterable[str]) -> list[str]:
    """Names of columns, in one spelling."""
    return [re.sub(r"[ -]", "_", name.strip(' \t\r\n"').casefold()) for name in names]


def plain_name(label: str) -> str:
    """Without spaces around it, and composed, because macOS takes letters and accents apart."""
    return unicodedata.normalize("NFC", label.strip())


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in order: by value where all are whole numbers, otherwise by code point."""
    distinct = set(names)
    if all(name.isascii() and name.isdigit() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def names_declared(names: Iterable[object], place: str | Path) -> tuple[str, ...]:
    """Class names of a file as text. Raises TenfoldError where two of them are alike."""
    found = tuple(as_text(name, place) for name in names)
    for name, times in Counter(map(str.strip, found)).items():
        if times > 1:
            raise TenfoldError(
                f"{place} calls {times} classes {name!r}; give each class a name of its own."
            )
    return found


def as_text(value: object, place: str | Path) -> str:
    """A name or an id as text, also where it was saved as bytes."""
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        raise TenfoldError(
            f"{place} holds the name {value!r}, which is not UTF-8; save names as text."
        ) from None


def require_classes(names: Sequence[str], place: str | Path) -> None:
    """Raise TenfoldError where there is nothing to tell apart."""
    if len(names) < 2:
        found = f"only the class {names[0]!r}" if names else "no classes"
        raise TenfoldError(
            f"{place} has {found}; at least two are needed, as in train/cat and train/dog."
        )


def number_table(table: Table) -> tuple[dict[str, Sequence[Row]], NumberedLabels]:
    """The splits that have labels, in order, and the class of each row."""
    rows = {split: table.rows[split] for split in SPLITS if table.rows.get(split)}
    numbered = number_labels(
        {split: [row.label for row in own] for split, own in rows.items()},
        declared=table.declared,
        place=table.place,
        where=lambda split, position: rows[split][position].place or rows[split][position].shown,
    )
    require_classes(numbered.class_names, table.place)
    rows = {split: own for split, own in rows.items() if split in numbered.labels}
    if "train" not in rows:
        raise TenfoldError(f"{table.place} holds no training images; check the path.")
    return rows, numbered


def ids_of(split: str, rows: Sequence[Row]) -> NDArray[np.str_]:
    """The rows' ids: their own where all have one, else their numbers in the split."""
    own = [row.id for row in rows if row.id is not None]
    return np.array(own, np.str_) if len(own) == len(rows) else numbered_ids(split, len(rows))


def decode_table(table: Table, settings: Settings) -> Dataset:
    """The data set of the rows. Raises TenfoldError for labels that are none, and for broken
    images, all of them listed, unless they are to be skipped."""
    from tenfold.data.decoded import decode_files  # What a table alone does without.
    from tenfold.data.decoding import WHITE_LEVELS

    by_split, numbered = number_table(table)
    rows = [row for own in by_split.values() for row in own]
    decoded = decode_files(
        [row.source for row in rows],
        settings,
        root=table.root,
        stamps=[row.stamp for row in rows],
    )
    notes = [*table.notes, *numbered.notes]
    window, level = settings.window, decoded.white_level
    if level and not window:
        window = (0, level)
        if level < WHITE_LEVELS[-1]:
            notes.append(f"Files of sixteen bits use values up to {level:,}, which is white.")
            logger.info("%s: %s", table.place, notes[-1])
    if decoded.broken:
        broken = {rows[position].shown: why for position, why in sorted(decoded.broken.items())}
        notes.append(_broken_note(broken, len(rows), table.place, skip=settings.skip_broken))
    splits, start, done = dict[str, Images](), 0, 0
    for split, own in by_split.items():
        keep = [n for n in range(len(own)) if start + n not in decoded.broken]
        part = slice(done, done + len(keep))
        start, done = start + len(own), part.stop
        if not keep:
            notes.append(f"All images of the {split} split are broken.")
            continue
        sizes = np.array(decoded.sizes[part], dtype=np.int32)
        stated = decoded.groups[part] or [""] * len(keep)
        groups = [own[n].group or group for n, group in zip(keep, stated, strict=True)]
        splits[split] = Images(
            decoded.pixels[part],
            numbered.labels[split][keep],
            numbered.class_names,
            ids_of(split, own)[keep],
            sizes if (sizes != decoded.pixels.shape[1:3]).any() else None,
            np.array(groups) if any(groups) else None,
        )
    if "train" not in splits:
        raise TenfoldError(f"Every training image in {table.place} is broken; check the files.")
    notes += _group_notes(splits)
    return Dataset.of(table.place.name, splits, table.source, notes=tuple(notes), window=window)


def _broken_note(broken: Mapping[str, str], num_all: int, place: Path, *, skip: bool) -> str:
    """What was skipped, in a sentence; raises TenfoldError instead where nothing may be skipped."""
    said = [f"{name} ({why})" for name, why in broken.items()]
    listed = "; ".join(said[:_MAX_SHOWN])
    if len(said) > _MAX_SHOWN:
        for each in said:
            logger.warning("Broken image: %s", each)
        listed += f"; and {len(said) - _MAX_SHOWN} more, all of them listed in the log"
    found = f"{len(said)} of {counted(num_all, 'image')}"
    if not skip:
        raise TenfoldError(
            f"{found} in {place} can't be read: {listed}; mend or remove them, or skip them with "
            "--skip-broken."
        )
    return f"{found} can't be read and were skipped: {listed}."


def _group_notes(splits: Mapping[str, Images]) -> list[str]:
    """What is to be known of images that belong together, such as those of a patient."""
    groups, notes = dict[str, set[str]](), list[str]()
    for split, images in splits.items():
        if images.groups is not None:
            groups[split] = set(images.groups.tolist()) - {""}
    if number := len(set().union(*groups.values())):
        notes.append(
            f"The images are of {counted(number, 'group')}, such as patients; those of one stay on "
            "one side where a split is made."
        )
    for one, other in itertools.combinations(groups, 2):
        if shared := len(groups[one] & groups[other]):
            notes.append(
                f"{counted(shared, 'group')} of images, such as a patient's, of the {one} split "
                f"{'is' if shared == 1 else 'are'} in the {other} split too: what is measured "
                "there may be too good."
            )
            logger.warning(notes[-1])
    return notes


def number_labels(
    values: Mapping[str, Sequence[Any]],
    *,
    declared: tuple[str, ...] | None,
    place: str | Path,
    where: Callable[[str, int], str],
) -> NumberedLabels:
    """The class of each image of each split.

    declared: class names, if the data has them, which numbers are indices into. Otherwise each
    number or name that occurs is a class of that name; of names that differ in case alone, see
    `_one_spelling`. where: what messages call the image of a split at a position. Splits of which
    all labels are -1 are left out, with a note. Raises TenfoldError for other labels that stand for
    none or are neither number nor name, and for those that are not declared.
    """
    labelled, notes = dict[str, list[Label]](), list[str]()
    for split, own in values.items():
        labelled[split] = [_plain_label(v, partial(where, split, n)) for n, v in enumerate(own)]
        if own and set(labelled[split]) <= set(_NO_LABEL):
            del labelled[split]
            notes.append(f"The {split} split of {place} has no labels and was left out.")
    if declared:
        names = declared
        numbers: dict[Label, int] = {plain_name(name): n for n, name in enumerate(names)}
        numbers |= {n: n for n in range(len(names))} | {name: n for n, name in enumerate(names)}
    else:
        called, more = _one_spelling(
            [{plain_name(str(value)) for value in own} for own in labelled.values()]
        )
        names = sorted_names(called.values())
        order = {name: n for n, name in enumerate(names)}
        numbers = {name: order[own] for name, own in called.items()}
        notes += more
        every = set().union(*labelled.values())
        notes += [
            f"The label {largest} in {place} is a class; leave out images that have no label."
            for largest in _LARGEST_OF_FEW_BITS
            if largest in every and largest - 1 not in every
        ]

    def number_of(value: Label) -> int | None:
        if declared and (isinstance(value, int) or value in numbers):
            return numbers.get(value)
        is_none = not value.strip() if isinstance(value, str) else value < 0 or value in _NO_LABEL
        return None if is_none and not declared else numbers.get(plain_name(str(value)))

    labels = {}
    for split, own in labelled.items():
        known = {value: number_of(value) for value in dict.fromkeys(own)}
        for value, number in known.items():
            if number is None:
                raise _not_allowed(value, declared, where(split, own.index(value)))
        labels[split] = np.array([known[value] for value in own], dtype=np.int64)
    return NumberedLabels(names, labels, notes)


def _plain_label(value: Any, where: Callable[[], str]) -> Label:
    """A whole number or a name, whatever it was kept as."""
    one = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(one, bytes):
        one = as_text(one, where())
    if one is None or one != one:  # Not a number.
        raise TenfoldError(f"{where()} has no label; add it or remove the image.")
    if isinstance(one, int) or (isinstance(one, float) and one.is_integer()):
        return int(one)
    if not isinstance(one, str):
        raise TenfoldError(
            f"{where()} has the label {value!r}, where a whole number or a name was expected; "
            "convert it."
        )
    return one


def _not_allowed(value: Label, declared: Sequence[str] | None, where: str) -> TenfoldError:
    expected = ", where a name or a number from 0 on was expected; leave out what has no label."
    if value in _NO_LABEL[1:]:
        expected = f", which is -1 without its sign{expected}"
    if declared and isinstance(value, int):
        expected = f", and 0 to {len(declared) - 1} are allowed; correct it."
    elif declared:
        [nearest] = difflib.get_close_matches(str(value), declared, n=1, cutoff=0)
        expected = f", which is none of the {len(declared)} classes; did you mean {nearest!r}?"
    return TenfoldError(f"{where} has the label {value!r}{expected}")


def _one_spelling(names: Sequence[set[str]]) -> tuple[dict[str, str], list[str]]:
    """What to call the class of each name of each split, and what a person must know of that. Two
    that differ in case alone are one class, called as in the first split, where no split has both;
    else they are two, as in `a` and `A`."""
    variants: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(name for own in names for name in sorted(own)):
        variants[name.casefold()].append(name)
    called: dict[str, str] = {}
    pairs: dict[str, list[str]] = defaultdict(list)
    for found in variants.values():
        is_one = all(len(own.intersection(found)) < 2 for own in names)
        called |= {name: found[0] if is_one else name for name in found}
        if len(found) > 1:
            outcome = "are read as one class each" if is_one else "stay separate classes"
            pairs[outcome].append(" and ".join(found))
    return called, [
        f"{', '.join(alike)} differ in case alone and {outcome}."
        for outcome, alike in pairs.items()
    ]
