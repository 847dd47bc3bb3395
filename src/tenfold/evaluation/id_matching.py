"""Which prediction belongs to which label: ids that two tables may spell differently.

A picture is `test/17` in tenfold, `17` in the label table that belongs to the test split, `17.png`
or `pictures/test/17.png` where somebody listed files; and an exported table has its number in `id`
beside its first name in `original_id`. One spelling and one column are chosen for a whole table.
"""

from collections.abc import Sequence
from typing import NamedTuple

from tenfold.data.formats.image_folders import PICTURE_SUFFIXES
from tenfold.data.formats.label_tables import ORIGINAL_ID, Row
from tenfold.data.formats.split_names import SPLITS
from tenfold.errors import TenfoldError


class Match(NamedTuple):
    """Two tables side by side.

    predictions: for each label its prediction's position, or None; strangers: positions of the
    predictions that have no label.
    """

    predictions: list[int | None]
    strangers: list[int]


def match_ids(predictions: Sequence[Row], labels: Sequence[Row]) -> Match:
    """Put each prediction beside the label with its id, whatever their order.

    Ids are compared as they are, with each column that may name a picture and with `original_id`;
    failing that, without the split in front; then without the suffix of a picture file; then by the
    file's name alone. The first way in which every prediction finds a label is taken, otherwise the
    one in which most do. Raises TenfoldError where two columns fit equally well and mean different
    pictures.
    """
    columns = {column: [row.names[column] for row in labels] for column in labels[0].names}
    if all(row.original_id is not None for row in labels):
        columns[ORIGINAL_ID] = [row.original_id or "" for row in labels]
    wanted = [row.name for row in predictions]
    found = []
    for ways in _WAYS:
        matches = [
            (match, column)
            for kind, spell in ways
            for column in columns
            if (column == ORIGINAL_ID) == (kind == ORIGINAL_ID)
            and (match := _match(map(spell, wanted), map(spell, columns[column])))
        ]
        whole = [(match, column) for match, column in matches if not match.strangers]
        for match, column in whole:
            if match != whole[0][0]:
                raise TenfoldError(
                    f"The ids in {predictions[0].file} may be those of the column {whole[0][1]} or "
                    f"of {column} in {labels[0].file}, which mean different pictures; remove the "
                    "one that isn't meant."
                )
        if whole:
            return whole[0][0]
        found += [match for match, _ in matches]
    return min(found, key=lambda match: len(match.strangers))


def without_split(name: str) -> str:
    """`17` for `test/17`; paths with more folders stay as they are."""
    plain = name.replace("\\", "/").removeprefix("./")
    split, _, rest = plain.partition("/")
    return rest if split in SPLITS and rest and "/" not in rest else plain


def is_picture_path(name: str) -> bool:
    """Whether an id ends as names of picture files do."""
    return name.lower().endswith(PICTURE_SUFFIXES)


def _as_is(name: str) -> str:
    return name


def _without_suffix(name: str) -> str:
    plain = without_split(name)
    return plain.rpartition(".")[0] if is_picture_path(plain) else plain


def _file_name(name: str) -> str:
    return _without_suffix(name).rpartition("/")[2]


# Ways beside each other are all tried, since `5` may be a number of `id` or that of `test/5`.
_WAYS = (
    (("id", _as_is), (ORIGINAL_ID, _as_is), (ORIGINAL_ID, without_split)),
    (("id", without_split),),
    (("id", _without_suffix),),
    ((ORIGINAL_ID, _without_suffix),),
    (("id", _file_name),),
    ((ORIGINAL_ID, _file_name),),
)


def _match(wanted: "map[str]", known: "map[str]") -> Match | None:
    """None where a spelling takes two ids for one."""
    keys, own = list(known), list(wanted)
    numbers = {key: number for number, key in enumerate(own)}
    all_known = set(keys)
    if not keys or len(numbers) < len(own) or len(all_known) < len(keys):
        return None
    strangers = [number for number, key in enumerate(own) if key not in all_known]
    return Match([numbers.get(key) for key in keys], strangers)
