"""Labels as tables and arrays have them, numbers or names, to indices into class names."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.data.formats.listings import sorted_names
from tenfold.errors import TenfoldError

logger = logging.getLogger("tenfold")

Label = int | str

_NO_LABEL = (-1, 2**32 - 1, 2**64 - 1)
"""-1, and what becomes of it where numbers have no sign."""

_LARGEST_OF_FEW_BITS = (2**8 - 1, 2**16 - 1)


class NumberedLabels(NamedTuple):
    """Splits that have labels. labels: split -> `(N,)` int64, indices into class_names."""

    class_names: tuple[str, ...]
    labels: dict[str, NDArray[np.int64]]
    notes: list[str]


def number_labels(
    values: Mapping[str, Sequence[Label]],
    *,
    declared: tuple[str, ...] | None,
    place: Path,
    where: Callable[[str, int], str],
) -> NumberedLabels:
    """The class of each image of each split.

    declared: class names, if the file has them, which numbers are indices into. Otherwise each
    number or name that occurs is a class of that name. where: what messages call the image of a
    split at a position. Splits of which all labels are -1 are left out, with a note. Raises
    TenfoldError for other labels that stand for none, and for those that are not declared.
    """
    bare = [split for split, own in values.items() if own and set(own) <= set(_NO_LABEL)]
    notes = [f"The {split} split of {place} has no labels and was left out." for split in bare]
    values = {split: own for split, own in values.items() if split not in bare}
    distinct = {value for own in values.values() for value in own}
    names = declared or sorted_names(str(value).strip() for value in distinct)
    numbers: dict[Label, int] = {name: number for number, name in enumerate(names)}
    if declared:
        numbers |= {number: number for number in range(len(names))}
    else:
        notes += _largest_numbers(values, place)
    for value in distinct:
        number = numbers.get(value)
        if number is None and (isinstance(value, str) or not declared):
            number = numbers.get(str(value).strip())
        if number is None or (not declared and _stands_for_none(value)):
            split, own = next((split, own) for split, own in values.items() if value in own)
            raise _not_allowed(value, declared or (), where(split, own.index(value)))
        numbers[value] = number
    return NumberedLabels(
        names,
        {
            split: np.array([numbers[value] for value in own], dtype=np.int64)
            for split, own in values.items()
        },
        notes,
    )


def names_declared(names: Iterable[Any], place: Path) -> tuple[str, ...]:
    """Class names of a file as text. Raises TenfoldError where two of them are alike."""
    found = tuple(as_text(name, place) for name in names)
    name, times = Counter(map(str.strip, found)).most_common(1)[0] if found else ("", 0)
    if times > 1:
        raise TenfoldError(
            f"{place} calls {times} classes {name!r}; give each class a name of its own."
        )
    return found


def as_text(value: Any, place: Path) -> str:
    """A name or an id as text, also where it was saved as bytes."""
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        raise TenfoldError(
            f"{place} holds the name {value!r}, which is not UTF-8; save names as text."
        ) from None


def _stands_for_none(value: Label) -> bool:
    return not value.strip() if isinstance(value, str) else value < 0 or value in _NO_LABEL


def _not_allowed(value: Label, declared: Sequence[str], where: str) -> TenfoldError:
    if declared:
        is_number = isinstance(value, int)
        allowed = f"0 to {len(declared) - 1}" if is_number else ", ".join(declared[:20])
        return TenfoldError(f"{where}: the label is {value!r}, and {allowed} are allowed.")
    unsigned = ", which is -1 without its sign" if value in _NO_LABEL[1:] else ""
    return TenfoldError(
        f"{where}: the label is {value!r}{unsigned}, where a name or a number from 0 on was "
        "expected; leave out images that have no label."
    )


def _largest_numbers(values: Mapping[str, Sequence[Label]], place: Path) -> list[str]:
    """A sentence for a number that often stands for no label, and may as well be a class."""
    counts = Counter(value for own in values.values() for value in own)
    notes = [
        f"The label {largest} of {counts[largest]:,} images in {place} is a class as any other; "
        "if it stands for no label, leave them out."
        for largest in _LARGEST_OF_FEW_BITS
        if counts[largest] and not counts[largest - 1]
    ]
    for note in notes:
        logger.warning(note)
    return notes
