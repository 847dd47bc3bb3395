"""From lists of labelled picture files to Images: decoded, cached, and honest about broken ones."""

import logging
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.data.formats.decoded_cache import decode_cached
from tenfold.data.formats.decoding import Settings, Source
from tenfold.data.formats.pictures import WHITE_LEVELS
from tenfold.data.images import Dataset, Images
from tenfold.errors import TenfoldError, counted

logger = logging.getLogger("tenfold")

MAX_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Listing:
    """One split's pictures before they are decoded, in order.

    sources: paths or contents of picture files; shown: what messages call each of them.
    labels: `(N,)` int64; ids: as in Images.
    """

    sources: Sequence[Source]
    shown: Sequence[str]
    labels: NDArray[np.int64]
    ids: Sequence[str]


def decode_listings(
    listings: Mapping[str, Listing],
    *,
    place: Path,
    class_names: tuple[str, ...],
    source: str,
    settings: Settings,
    entry: Path | None = None,
    notes: Iterable[str] = (),
) -> Dataset:
    """The splits `train`, `validation` and `test`, as far as there are listings, decoded.

    entry: where in the cache they belong, see `decoded_cache`. Raises TenfoldError that lists
    every broken picture, unless those are to be skipped, and where no training picture is left.
    """
    listings = {split: listing for split, listing in listings.items() if len(listing.sources)}
    if "train" not in listings:
        raise TenfoldError(f"{place} holds no training pictures; check the path.")
    decoded = decode_cached(
        [source for listing in listings.values() for source in listing.sources],
        settings,
        entry=entry,
    )
    shown = [name for listing in listings.values() for name in listing.shown]
    broken = {shown[position]: why for position, why in sorted(decoded.broken.items())}
    all_notes = list(notes)
    if 0 < decoded.white_level < WHITE_LEVELS[-1]:
        all_notes.append(
            f"Files of sixteen bits use values up to {decoded.white_level:,}, which is white."
        )
        logger.info("%s: %s", place, all_notes[-1])
    if broken:
        all_notes.append(_broken_note(broken, len(shown), place=place, skip=settings.skip_broken))
    intact = np.ones(len(shown), dtype=np.bool_)
    intact[list(decoded.broken)] = False
    splits: dict[str, Images] = {}
    start = row = 0
    for split, listing in listings.items():
        keep = intact[start : start + len(listing.sources)]
        start += len(keep)
        rows = slice(row, row + int(keep.sum()))
        row = rows.stop
        if rows.start < rows.stop:
            splits[split] = _images(
                listing, keep, decoded.pixels[rows], decoded.sizes[rows], class_names
            )
        else:
            all_notes.append(f"All pictures of the {split} split are broken.")
    if "train" not in splits:
        raise TenfoldError(f"Every training picture in {place} is broken; check the files.")
    return Dataset(
        place.name,
        splits["train"],
        splits.get("validation"),
        splits.get("test"),
        source,
        notes=tuple(all_notes),
        white_level=decoded.white_level,
    )


def _images(
    listing: Listing,
    keep: NDArray[np.bool_],
    pixels: NDArray[np.uint8],
    sizes: NDArray[np.int32],
    class_names: tuple[str, ...],
) -> Images:
    resized = bool((sizes != pixels.shape[1:3]).any())
    return Images(
        pixels,
        listing.labels[keep],
        class_names,
        np.array(listing.ids, dtype=np.str_)[keep],
        sizes if resized else None,
    )


def _broken_note(broken: Mapping[str, str], num_all: int, *, place: Path, skip: bool) -> str:
    """What was skipped, in a sentence; raises TenfoldError instead where nothing may be skipped."""
    if len(broken) > MAX_SHOWN:
        for name, why in broken.items():
            logger.warning("Broken picture: %s (%s)", name, why)
    listed = "; ".join(f"{name} ({why})" for name, why in list(broken.items())[:MAX_SHOWN])
    if len(broken) > MAX_SHOWN:
        listed += f"; and {len(broken) - MAX_SHOWN} more, all of them listed in the log"
    of_all = f"{len(broken)} of {counted(num_all, 'picture')}"
    if not skip:
        raise TenfoldError(
            f"{of_all} in {place} can't be read: {listed}; mend or "
            "remove them, or skip them with --skip-broken."
        )
    return f"{of_all} can't be read and were skipped: {listed}."


def label_numbers(labels: Sequence[str], class_names: Sequence[str]) -> NDArray[np.int64]:
    """`(N,)` int64: each label's position among the class names, which hold them all."""
    number = {name: index for index, name in enumerate(class_names)}
    return np.array([number[label] for label in labels], dtype=np.int64)


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in order: by value where all are whole numbers, otherwise by code point."""
    distinct = set(names)
    if all(name.isascii() and name.isdigit() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def plain_name(label: str) -> str:
    """Without spaces around it, and composed, because macOS takes letters and accents apart."""
    return unicodedata.normalize("NFC", label.strip())


def one_spelling(labels: Mapping[str, Sequence[str]]) -> tuple[dict[str, str], list[str]]:
    """What to call the class of each label, and what a person must know of that.

    labels: the plain names of each split's pictures. Two that differ in case alone are one class,
    called as in the first split, where no split has both; else they are two, as in `a` and `A`.
    """
    own = {split: set(names) for split, names in labels.items()}
    variants: dict[str, list[str]] = defaultdict(list)
    for names in own.values():
        for name in sorted(names):
            if name not in variants[name.casefold()]:
                variants[name.casefold()].append(name)
    called: dict[str, str] = {}
    told: dict[str, list[str]] = defaultdict(list)
    for found in variants.values():
        is_one = all(len(names.intersection(found)) < 2 for names in own.values())
        called |= {name: found[0] if is_one else name for name in found}
        if len(found) > 1:
            outcome = "are read as one class each" if is_one else "stay separate classes"
            told[outcome].append(" and ".join(found))
    return called, [
        f"{', '.join(pairs)} differ in case alone and {outcome}." for outcome, pairs in told.items()
    ]
