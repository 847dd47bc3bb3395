"""Which images are in two splits, or twice in one, as counts and pairs of ids."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement

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
    return tuple(
        _overlap(splits, groups, pairs, first, second)
        for first, second in combinations_with_replacement(splits, 2)
    )


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


def _overlap(
    splits: Mapping[str, Images],
    groups: NDArray[np.int64],
    near: NearPairs | None,
    first: str,
    second: str,
) -> Overlap:
    """groups: of all images, by their number in all splits, the first with the same pixels."""
    stops = np.cumsum([len(images) for images in splits.values()]).tolist()
    start = {name: stop - len(splits[name]) for name, stop in zip(splits, stops, strict=True)}
    members = {
        name: groups[start[name] : start[name] + len(splits[name])].tolist()
        for name in (first, second)
    }
    firsts = {
        name: {group: start[name] + n for n, group in reversed(list(enumerate(own)))}
        for name, own in members.items()
    }
    counts, least = Counter(members[first]), 2 if first == second else 1
    copies = [start[second] + n for n, g in enumerate(members[second]) if counts[g] >= least]
    table = [(firsts[first][groups[copy]], copy, 1.0) for copy in copies]
    table = [row for row in table if row[0] != row[1]]
    num_near = None
    if near is not None:
        alike: dict[tuple[int, int], float] = {}
        found, similarity = set(), near.similarity.tolist()
        for ours, theirs in ((near.first, near.second), (near.second, near.first)):
            for here, there, value in zip(ours.tolist(), theirs.tolist(), similarity, strict=True):
                if here in firsts[first] and there in firsts[second]:
                    found.add(there)
                    low, high = sorted((firsts[first][here], firsts[second][there]))
                    alike.setdefault((low, high), value)
        num_near = sum(group in found and counts[group] < least for group in members[second])
        table += sorted(((*pair, value) for pair, value in alike.items()), key=_by_similarity)

    def name_of(number: int) -> tuple[str, int]:
        split = first if start[first] <= number < start[first] + len(splits[first]) else second
        images, index = splits[split], number - start[split]
        return str(images.ids[index]), int(images.labels[index])

    pairs = []
    for one, other, value in table[:MAX_LISTED_PAIRS]:
        (name, label), (other_name, other_label) = name_of(one), name_of(other)
        pairs.append(DuplicatePair(name, other_name, round(value, 4), label == other_label))
    return Overlap(first, second, len(copies), num_near, tuple(pairs), len(table))


def _by_similarity(row: tuple[int, int, float]) -> tuple[float, int, int]:
    return -row[2], row[0], row[1]
