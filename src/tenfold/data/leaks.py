"""Which pictures are in two splits, or twice in one, as counts and pairs of ids."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement, pairwise
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
        self._images = list(splits.values())
        self._bounds = np.cumsum([0, *map(len, self._images)])
        self._groups = groups
        # Row s, column g: how many pictures of split s are in group g.
        self._counts = np.stack(
            [np.bincount(groups[low:high], minlength=len(groups)) for low, high in self._spans()]
        )

    def overlaps(self, near: NearPairs | None) -> tuple[Overlap, ...]:
        numbers = range(len(self._names))
        return tuple(
            self._overlap(first, second, near)
            for first, second in combinations_with_replacement(numbers, 2)
        )

    def _overlap(self, first: int, second: int, near: NearPairs | None) -> Overlap:
        low, high = self._spans()[second]
        mine = self._groups[low:high]
        equals = self._counts[first, mine] > (1 if first == second else 0)
        pairs = self._exact_pairs(first, low + np.flatnonzero(equals))
        num_pairs = len(pairs)
        num_near = None
        if near is not None:
            has_near = self._has_near(first, near)[mine]
            num_near = int(np.count_nonzero(has_near & ~equals))
            found = self._near_pairs(first, second, near)
            num_pairs += len(found)
            pairs += found
        return Overlap(
            self._names[first],
            self._names[second],
            int(np.count_nonzero(equals)),
            num_near,
            tuple(pairs[:MAX_LISTED_PAIRS]),
            num_pairs,
        )

    def _exact_pairs(self, first: int, indices: _Numbers) -> list[DuplicatePair]:
        """Each of `indices` with the first picture of split `first` that equals it."""
        low, high = self._spans()[first]
        groups, positions = np.unique(self._groups[low:high], return_index=True)
        originals = low + positions[np.searchsorted(groups, self._groups[indices])]
        others = originals != indices
        return [
            self._pair(original, index, 1.0)
            for original, index in zip(originals[others], indices[others], strict=True)
        ]

    def _has_near(self, split: int, near: NearPairs) -> NDArray[np.bool_]:
        """For each group whether split `split` has a picture that nearly equals it."""
        there = self._counts[split] > 0
        found = np.zeros(len(self._groups), dtype=np.bool_)
        found[near.second[there[near.first]]] = True
        found[near.first[there[near.second]]] = True
        return found

    def _near_pairs(self, first: int, second: int, near: NearPairs) -> list[DuplicatePair]:
        """The first picture that each split has of the two groups, by falling similarity."""
        ours, theirs = self._first_of(first), self._first_of(second)
        found: dict[tuple[int, int], float] = {}
        for one, other, similarity in zip(near.first, near.second, near.similarity, strict=True):
            for left, right in ((one, other), (other, one)):
                if ours[left] >= 0 and theirs[right] >= 0:
                    low, high = sorted((int(ours[left]), int(theirs[right])))
                    found[low, high] = float(similarity)
        ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        return [self._pair(*indices, similarity) for indices, similarity in ordered]

    def _first_of(self, split: int) -> _Numbers:
        """For each group the first picture of the split that is in it, or -1."""
        low, high = self._spans()[split]
        firsts = np.full(len(self._groups), -1, dtype=np.int64)
        firsts[self._groups[low:high][::-1]] = np.arange(low, high)[::-1]
        return firsts

    def _pair(self, first: int, second: int, similarity: float) -> DuplicatePair:
        (one, one_label), (other, other_label) = self._identity(first), self._identity(second)
        return DuplicatePair(one, other, round(similarity, 4), one_label == other_label)

    def _identity(self, index: int) -> tuple[str, int]:
        split = int(np.searchsorted(self._bounds, index, side="right")) - 1
        images, position = self._images[split], index - self._bounds[split]
        return str(images.ids[position]), int(images.labels[position])

    def _spans(self) -> list[tuple[int, int]]:
        return list(pairwise(self._bounds.tolist()))
