"""Which pictures are in two splits, or twice in one, as counts and pairs of ids."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.duplicates import NearPairs, exact_groups, near_pairs
from tenfold.data.images import Dataset, Images
from tenfold.errors import TenfoldError, counted
from tenfold.progress import Progress

MAX_LISTED_PAIRS = 1_000
"""Pairs that a report lists for two splits; it counts all of them."""

_Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class DuplicatePair:
    """Two pictures by id; `similarity` is 1 for the very same pixels.

    same_class: whether both have the same label; if not, one of them is wrong or both are.
    """

    first: str
    second: str
    similarity: float
    same_class: bool


@dataclass(frozen=True)
class Overlap:
    """What two splits share, or a split with itself.

    exact: pictures of `second` of which `first` has another with the very same pixels.
    near: further pictures of `second` that nearly equal one of `first`; None if nobody looked.
    pairs: the exact ones, then the near ones by falling similarity, MAX_LISTED_PAIRS at most. Of
        many equal pictures only the first is paired with each of the others.
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
        """Whether it is about two splits."""
        return self.first != self.second


@dataclass(frozen=True)
class DuplicateReport:
    """Overlaps of each split with itself and with each later one."""

    overlaps: tuple[Overlap, ...]

    @property
    def across(self) -> tuple[Overlap, ...]:
        """Only those of two different splits: where a test result is flattered."""
        return tuple(overlap for overlap in self.overlaps if overlap.is_across)

    @property
    def within(self) -> tuple[Overlap, ...]:
        """Only those of a split with itself."""
        return tuple(overlap for overlap in self.overlaps if not overlap.is_across)

    def to_json(self) -> list[dict[str, Any]]:
        """Plain lists, dicts and numbers."""
        return [asdict(overlap) for overlap in self.overlaps]


def duplicates_across(
    dataset: Dataset | Mapping[str, Images],
    *,
    near: bool = True,
    strict: bool = False,
    progress: Progress | None = None,
) -> DuplicateReport:
    """Count and list the pictures that are there twice, within and across splits.

    near: look for near duplicates too, which takes about 15 s for 60,000 pictures; exact ones take
    half a second. See `tenfold.data.duplicates` for what counts as near.
    strict: raise TenfoldError if the very same picture is in two splits.
    """
    splits = dataset.splits() if isinstance(dataset, Dataset) else dict(dataset)
    parts = [images.pixels for images in splits.values()]
    groups = exact_groups(parts)
    finder = _Finder(splits, groups)
    if strict:
        _refuse(DuplicateReport(finder.overlaps(None)))
    pairs = near_pairs(parts, groups=groups, progress=progress) if near else None
    return DuplicateReport(finder.overlaps(pairs))


def check_leaks(splits: Mapping[str, Images], *, strict: bool = False) -> list[str]:
    """A sentence for each two splits that hold the very same pictures; no sentence if none do.

    Takes half a second for 60,000 pictures, and leaves near duplicates to `duplicates_across`.
    Raises TenfoldError instead of the first sentence if `strict`.
    """
    report = duplicates_across(splits, near=False, strict=strict)
    return [f"{_sentence(overlap)}." for overlap in report.across if overlap.exact]


def _refuse(report: DuplicateReport) -> None:
    for overlap in report.across:
        if overlap.exact:
            raise TenfoldError(
                f"{_sentence(overlap)}; remove the copies from one of the splits, or leave out "
                "--strict to have them counted and reported only."
            )


def _sentence(overlap: Overlap) -> str:
    pair = overlap.pairs[0]
    verb = "is" if overlap.exact == 1 else "are"
    subject = f"{counted(overlap.exact, 'picture')} of the {overlap.second} split {verb}"
    return f"{subject} in the {overlap.first} split too ({pair.second} equals {pair.first})"


class _Finder:
    """Splits joined under one count of indices, with the group of equal pictures of each."""

    def __init__(self, splits: Mapping[str, Images], groups: _Numbers) -> None:
        self._names = list(splits)
        self._ids = [name for images in splits.values() for name in images.ids.tolist()]
        self._labels = [label for images in splits.values() for label in images.labels.tolist()]
        self._groups = groups
        ends = np.cumsum([len(images) for images in splits.values()])[:-1]
        self._members = np.split(np.arange(len(groups)), ends)
        # Row s, column g: the first picture of split s in group g or -1, and how many there are.
        shape = (len(splits), len(groups))
        self._firsts, self._counts = np.full(shape, -1), np.zeros(shape, dtype=np.int64)
        for split, members in enumerate(self._members):
            self._firsts[split, groups[members][::-1]] = members[::-1]
            self._counts[split] = np.bincount(groups[members], minlength=len(groups))

    def overlaps(self, near: NearPairs | None) -> tuple[Overlap, ...]:
        numbers = range(len(self._names))
        return tuple(
            self._overlap(first, second, near)
            for first, second in combinations_with_replacement(numbers, 2)
        )

    def _overlap(self, first: int, second: int, near: NearPairs | None) -> Overlap:
        members = self._members[second]
        mine = self._groups[members]
        equals = self._counts[first, mine] > (1 if first == second else 0)
        copies, originals = members[equals], self._firsts[first, mine[equals]]
        others = originals != copies
        table = [(*pair, 1.0) for pair in zip(originals[others], copies[others], strict=True)]
        num_near = None
        if near is not None:
            here, there = np.append(near.first, near.second), np.append(near.second, near.first)
            ours, theirs = self._firsts[first, here], self._firsts[second, there]
            has_near = np.isin(mine, there[ours >= 0])
            num_near = int(np.count_nonzero(has_near & ~equals))
            both = (ours >= 0) & (theirs >= 0)
            pairs = np.sort(np.stack([ours[both], theirs[both]], axis=1), axis=1)
            pairs, places = np.unique(pairs, axis=0, return_index=True)
            similarity = np.append(near.similarity, near.similarity)[both][places]
            order = np.argsort(-similarity, kind="stable")
            table += [(*pairs[place], float(similarity[place])) for place in order]
        return Overlap(
            self._names[first],
            self._names[second],
            int(np.count_nonzero(equals)),
            num_near,
            tuple(self._pair(*row) for row in table[:MAX_LISTED_PAIRS]),
            len(table),
        )

    def _pair(self, first: int, second: int, similarity: float) -> DuplicatePair:
        same_class = self._labels[first] == self._labels[second]
        return DuplicatePair(self._ids[first], self._ids[second], round(similarity, 4), same_class)
