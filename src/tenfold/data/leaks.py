"""Which images are in two splits, or twice in one, as counts and pairs of ids."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.data.duplicates import NearPairs, exact_groups, near_pairs
from tenfold.data.images import Images
from tenfold.errors import TenfoldError, counted
from tenfold.progress import Progress

MAX_LISTED_PAIRS = 1_000
"""Pairs that a report lists for two splits; it counts all of them."""


@dataclass(frozen=True)
class DuplicatePair:
    """Two images by id; `similarity` is 1 for the very same pixels.

    same_class: whether both have the same label; if not, one of them is wrong or both are.
    """

    first: str
    second: str
    similarity: float
    same_class: bool


@dataclass(frozen=True)
class Overlap:
    """What two splits share, or a split with itself.

    exact: images of `second` of which `first` has another with the very same pixels.
    near: further images of `second` that nearly equal one of `first`; None if nobody looked.
    pairs: the exact ones, then the near ones by falling similarity, MAX_LISTED_PAIRS at most. Of
        many equal images only the first is paired with each of the others.
    num_pairs: how many pairs there are, listed or not.
    """

    first: str
    second: str
    exact: int
    near: int | None
    pairs: tuple[DuplicatePair, ...]
    num_pairs: int

    @property
    def is_across(self) -> bool:
        """Whether it is about two splits: where a test result is flattered."""
        return self.first != self.second


def find_overlaps(
    splits: Mapping[str, Images], *, near: bool = True, progress: Progress | None = None
) -> tuple[Overlap, ...]:
    """What each split shares with itself and with each later one.

    near: look for near duplicates too, which takes about 15 s for 60,000 images; exact ones take
    half a second. See `tenfold.data.duplicates` for what counts as near.
    """
    parts = [images.pixels for images in splits.values()]
    groups = exact_groups(parts)
    pairs = near_pairs(parts, groups=groups, progress=progress) if near else None
    ids = np.concatenate([images.ids for images in splits.values()])
    labels = np.concatenate([images.labels for images in splits.values()])
    stops = np.cumsum([len(images) for images in splits.values()]).tolist()
    places = {
        name: range(stop - len(images), stop)
        for stop, (name, images) in zip(stops, splits.items(), strict=True)
    }
    overlaps = []
    for first, second in combinations_with_replacement(splits, 2):
        exact, num_near, table = _alike(groups, pairs, places[first], places[second])
        listed = tuple(
            DuplicatePair(str(ids[a]), str(ids[b]), round(value, 4), bool(labels[a] == labels[b]))
            for a, b, value in table[:MAX_LISTED_PAIRS]
        )
        overlaps.append(Overlap(first, second, exact, num_near, listed, len(table)))
    return tuple(overlaps)


def check_leaks(splits: Mapping[str, Images], *, strict: bool = False) -> list[str]:
    """A sentence for each two splits that hold the very same images; no sentence if none do.

    Takes half a second for 60,000 images, and leaves near duplicates to `find_overlaps`.
    Raises TenfoldError instead of the first sentence if `strict`.
    """
    sentences = []
    for overlap in find_overlaps(splits, near=False):
        if overlap.is_across and overlap.exact:
            pair, verb = overlap.pairs[0], "is" if overlap.exact == 1 else "are"
            sentences.append(
                f"{counted(overlap.exact, 'picture')} of the {overlap.second} split {verb} in the "
                f"{overlap.first} split too ({pair.second} equals {pair.first})"
            )
    if strict and sentences:
        raise TenfoldError(
            f"{sentences[0]}; remove the copies from one of the splits, or leave out "
            "--strict to have them counted and reported only."
        )
    return [f"{sentence}." for sentence in sentences]


class _Alike(NamedTuple):
    exact: int
    near: int | None
    pairs: list[tuple[int, int, float]]


def _alike(groups: NDArray[np.int64], near: NearPairs | None, ours: range, theirs: range) -> _Alike:
    """What the images of two splits, by their numbers in all splits, have in common.

    groups: for each of all images the first with the same pixels.
    """
    members = [groups[own.start : own.stop].tolist() for own in (ours, theirs)]
    first, other = (
        {group: number for number, group in reversed(list(zip(own, names, strict=True)))}
        for own, names in zip((ours, theirs), members, strict=True)
    )
    counts, least = Counter(members[0]), 2 if ours is theirs else 1
    copies = [n for n, group in zip(theirs, members[1], strict=True) if counts[group] >= least]
    pairs = [(first[groups[copy]], copy, 1.0) for copy in copies]
    pairs = [pair for pair in pairs if pair[0] != pair[1]]
    if near is None:
        return _Alike(len(copies), None, pairs)
    alike: dict[tuple[int, int], float] = {}
    found, similarity = set(), near.similarity.tolist()
    for left, right in ((near.first, near.second), (near.second, near.first)):
        for here, there, value in zip(left.tolist(), right.tolist(), similarity, strict=True):
            if here in first and there in other:
                found.add(there)
                low, high = sorted((first[here], other[there]))
                alike.setdefault((low, high), value)
    num_near = sum(group in found and counts[group] < least for group in members[1])
    pairs += sorted(
        ((*pair, value) for pair, value in alike.items()), key=lambda row: (-row[2], *row[:2])
    )
    return _Alike(len(copies), num_near, pairs)
