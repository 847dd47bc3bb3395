"""Which images are in two splits, or twice in one, as counts and pairs of ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

from tenfold.data.duplicates import NearPairs, exact_groups, near_pairs
from tenfold.data.images import Images
from tenfold.errors import TenfoldError, counted
from tenfold.progress import Progress

_MAX_LISTED_PAIRS = 1_000


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
    pairs: the exact ones, then the near ones by falling similarity, 1,000 at most. Of many equal
        images only the first is paired with each of the others.
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
    alike = near_pairs(parts, groups=groups, progress=progress) if near else None
    numbers = groups.tolist()
    ids = [name for images in splits.values() for name in images.ids.tolist()]
    labels = [label for images in splits.values() for label in images.labels.tolist()]
    places, stop = {}, 0
    for split, images in splits.items():
        places[split] = range(stop, stop := stop + len(images))
    overlaps = []
    for first, second in combinations_with_replacement(splits, 2):
        exact, num_near, pairs = _shared(numbers, alike, places[first], places[second])
        listed = tuple(
            DuplicatePair(ids[a], ids[b], round(value, 4), labels[a] == labels[b])
            for a, b, value in pairs[:_MAX_LISTED_PAIRS]
        )
        overlaps.append(Overlap(first, second, exact, num_near, listed, len(pairs)))
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
                f"{counted(overlap.exact, 'image')} of the {overlap.second} split {verb} in the "
                f"{overlap.first} split too ({pair.second} equals {pair.first})"
            )
    if strict and sentences:
        raise TenfoldError(
            f"{sentences[0]}; remove the copies from one of the splits, or leave out "
            "--strict to have them counted and reported only."
        )
    return [f"{sentence}." for sentence in sentences]


def _shared(
    groups: Sequence[int], near: NearPairs | None, ours: range, theirs: range
) -> tuple[int, int | None, list[tuple[int, int, float]]]:
    """Numbers of exact and of near duplicates, and the pairs, of two splits' images.

    groups: for each image of all splits the first with the same pixels.
    """
    first, other = (
        {groups[number]: number for number in reversed(place)} for place in (ours, theirs)
    )
    copies = [n for n in theirs if first.get(groups[n], n) != n]
    # Of equal images in one split, the first has copies too.
    exact = {groups[n] for n in copies} if ours == theirs else set(first)
    num_exact = sum(groups[n] in exact for n in theirs)
    pairs = [(first[groups[n]], n, 1.0) for n in copies]
    if near is None:
        return num_exact, None, pairs
    alike: dict[tuple[int, int], float] = {}
    found = set()
    for left, right in ((near.first, near.second), (near.second, near.first)):
        ends = zip(left.tolist(), right.tolist(), near.similarity.tolist(), strict=True)
        for here, there, value in ends:
            if here in first and there in other:
                found.add(there)
                low, high = sorted((first[here], other[there]))
                alike.setdefault((low, high), value)
    found -= exact
    by_likeness = sorted(alike.items(), key=lambda item: (-item[1], item[0]))
    pairs += [(*pair, value) for pair, value in by_likeness]
    return num_exact, sum(groups[n] in found for n in theirs), pairs
