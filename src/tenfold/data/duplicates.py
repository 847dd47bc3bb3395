"""Images that are there more than once: the very same pixels, and nearly the same.

Near means that a person would say "the same photograph": compressed again, lightened or darkened,
mirrored, or cut a little differently. Two steps find them:

1. Candidates: every image is reduced to 8x8 colours with mean 0 and length 1, and two images
   whose cosine reaches 0.93 are candidates. With the mirror-symmetric part `s` and the
   antisymmetric part `a` of each, the cosine is `s.s' + a.a'`, and `s.s' - a.a'` for the mirrored
   image: the better of both is `s.s' + |a.a'|`, for the arithmetic of one.
2. Verification: at 32x32, the horizontal and the vertical gradients of both images must each
   correlate by 0.85 or more at the best of 7x7 shifts. Demanding both rejects what candidates are
   full of: a horizon with some other ship on it. Images that have no detail beyond 8x8, such as
   enlarged tiny ones, can't be verified and count as different unless they are equal.

On CIFAR-10 902 of 1.8 thousand million pairs are left, of which 252 are across train and test and
touch 191 test images (1.9 %). Barz and Denzler, "Do we train on test data?" (2020), found 3.3 % by
eye among nearest neighbours of a network, with looser matches, such as a car from another side.

Shape letters: N images of H by W pixels.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.data.images import LUMA
from tenfold.progress import Progress

_Floats = NDArray[np.float32]
_Numbers = NDArray[np.int64]

CANDIDATE_COSINE = 0.93
NEAR_SIMILARITY = 0.85
MAX_SHIFT = 3
"""Pixels of 32 by which a near duplicate may be moved, in each direction."""

_COARSE, _FINE = 8, 32
# An image whose 8x8 colours deviate less than this is plain, and plain images are all alike.
_LOWEST_DEVIATION = 6.0
# Share of a variance that 8x8 must not show; no image of the CIFAR-10 test set has under 3.6 %.
_LEAST_DETAIL = 0.005
# Films and other data sets of one scene have pairs without end; an image's nearest few still
# connect all that belongs together.
_MAX_CANDIDATES_EACH = 32
_BLOCK = 2048
_BLOCK_BYTES = 1 << 25
_VERIFIED_AT_ONCE = 256


class NearPairs(NamedTuple):
    """Pairs of images, by index, each once: `first < second`.

    first, second: `(P,)` int64. similarity: `(P,)` float32 in [NEAR_SIMILARITY, 1].
    """

    first: _Numbers
    second: _Numbers
    similarity: _Floats


def exact_groups(parts: Sequence[NDArray[np.uint8]]) -> _Numbers:
    """For each image the index of the first image with the very same pixels.

    parts: arrays of `(N, H, W, 3)` uint8; indices count through all of them in order.
    Takes about a third of a second for 100,000 images of 32x32.
    """
    first: dict[bytes, int] = {}
    keys = (
        # 128 bits: chance makes no two of a thousand million images equal.
        hashlib.blake2b(image, key=repr(part.shape[1:]).encode(), digest_size=16).digest()
        for part in map(np.ascontiguousarray, parts)
        for image in part
    )
    return np.array([first.setdefault(key, n) for n, key in enumerate(keys)], dtype=np.int64)


def near_pairs(
    parts: Sequence[NDArray[np.uint8]],
    *,
    groups: _Numbers | None = None,
    progress: Progress | None = None,
) -> NearPairs:
    """All near duplicates among the first images of the `exact_groups`, or of given `groups`.

    parts: arrays of `(N, H, W, 3)` uint8; indices count through all of them in order.
    Compares every image with every other: 60,000 take about 15 s on two cores and 400 MB.
    """
    groups = exact_groups(parts) if groups is None else groups
    originals = np.flatnonzero(groups == np.arange(len(groups)))
    symmetric, antisymmetric = _mirror_parts(_coarse(parts, originals))
    found = [NearPairs(originals[:0], originals[:0], np.empty(0, dtype=np.float32))]
    for start in range(0, len(originals), _BLOCK):
        rows, columns, flips = _candidates(symmetric, antisymmetric, start)
        found.append(_verified(parts, originals[rows], originals[columns], flips))
        if progress is not None:
            progress("near duplicates", min(start + _BLOCK, len(originals)), len(originals))
    return NearPairs(*map(np.concatenate, zip(*found, strict=True)))


def joined(groups: _Numbers, pairs: NearPairs) -> _Numbers:
    """For each image the first of all that are exact or near duplicates of it, step by step.

    groups, pairs: from `exact_groups` and `near_pairs` of the same images.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number = len(groups)
    ends = np.append(groups, pairs.first), np.append(np.arange(number), pairs.second)
    graph = coo_array((np.ones(len(ends[0])), ends), shape=(number, number))
    _, component = connected_components(graph, directed=False)
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], dtype=np.int64)


def _reduced(parts: Sequence[NDArray[np.uint8]], indices: _Numbers, side: int) -> _Floats:
    """The images at `indices`, averaged to `(N, side, side, 3)`."""
    out = np.empty((len(indices), side, side, 3), dtype=np.float32)
    start = 0
    for part in parts:
        here = (indices >= start) & (indices < start + len(part))
        if here.any():
            rows, columns = (_averaging(length, side) for length in part.shape[1:3])
            pixels = part[indices[here] - start].astype(np.float32)
            out[here] = np.einsum("ih,nhwc,jw->nijc", rows, pixels, columns, optimize=True)
        start += len(part)
    return out


def _averaging(length: int, side: int) -> _Floats:
    """`(side, length)` weights, by which `side` equal stretches average `length` pixels."""
    edges, pixels = np.linspace(0, length, side + 1), np.arange(length)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(overlap, 0)
    shares: _Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def _coarse(parts: Sequence[NDArray[np.uint8]], indices: _Numbers) -> _Floats:
    """`(N, 8, 8, 3)` colours, of which each channel has mean 0 and the whole length 1 or less."""
    out = np.empty((len(indices), _COARSE, _COARSE, 3), dtype=np.float32)
    least = _LOWEST_DEVIATION * math.sqrt(_COARSE * _COARSE * 3)
    largest = max((math.prod(part.shape[1:]) for part in parts), default=0)
    at_once = max(1, _BLOCK_BYTES // max(4 * largest, 1))
    for start in range(0, len(indices), at_once):
        block = _reduced(parts, indices[start : start + at_once], _COARSE)
        block -= block.mean(axis=(1, 2), keepdims=True)
        lengths = np.sqrt(np.square(block).sum(axis=(1, 2, 3), keepdims=True))
        out[start : start + at_once] = block / np.maximum(lengths, least)
    return out


def _mirror_parts(coarse: _Floats) -> tuple[_Floats, _Floats]:
    """The halves that stay and that change their sign in a mirror, `(N, 96)` each."""
    left, right = coarse[:, :, : _COARSE // 2], coarse[:, :, : _COARSE // 2 - 1 : -1]
    half, size = np.float32(np.sqrt(0.5)), (len(coarse), _COARSE * _COARSE * 3 // 2)
    return ((left + right) * half).reshape(size), ((left - right) * half).reshape(size)


def _candidates(
    symmetric: _Floats, antisymmetric: _Floats, start: int
) -> tuple[_Numbers, _Numbers, NDArray[np.bool_]]:
    """Rows from `start` for one block, columns after them, and whether the mirrored fits better;
    of each row the _MAX_CANDIDATES_EACH largest cosines."""
    found = []
    mine = slice(start, start + _BLOCK)
    for other in range(start, len(symmetric), _BLOCK):
        theirs = slice(other, other + _BLOCK)
        total = symmetric[mine] @ symmetric[theirs].T
        mirrored = antisymmetric[mine] @ antisymmetric[theirs].T
        is_flipped = mirrored < 0
        total += np.abs(mirrored, out=mirrored)
        row, column = np.divmod(np.flatnonzero(total >= CANDIDATE_COSINE), total.shape[1])
        later = start + row < other + column
        row, column = row[later], column[later]
        found.append((start + row, other + column, is_flipped[row, column], total[row, column]))
    rows, columns, flips, cosines = map(np.concatenate, zip(*found, strict=True))
    order = np.lexsort((-cosines, rows))
    rank = np.arange(len(rows)) - np.searchsorted(rows[order], rows[order])
    kept = order[rank < _MAX_CANDIDATES_EACH]
    return rows[kept], columns[kept], flips[kept]


def _verified(
    parts: Sequence[NDArray[np.uint8]], first: _Numbers, second: _Numbers, flips: NDArray[np.bool_]
) -> NearPairs:
    similarity = np.empty(len(first), dtype=np.float32)
    for start in range(0, len(first), _VERIFIED_AT_ONCE):
        part = slice(start, start + _VERIFIED_AT_ONCE)
        ours, theirs = (_reduced(parts, indices[part], _FINE) for indices in (first, second))
        theirs[flips[part]] = theirs[flips[part]][:, :, ::-1]
        can_tell = np.minimum(_detail(ours), _detail(theirs)) >= _LEAST_DETAIL
        similarity[part] = np.where(can_tell, _similarity(ours, theirs), 0)
    near = similarity >= NEAR_SIMILARITY
    return NearPairs(first[near], second[near], similarity[near])


def _detail(images: _Floats) -> _Floats:
    """The share of variance that is lost by averaging to 8x8, `(N,)` in [0, 1]."""
    step = _FINE // _COARSE
    blocks = images.reshape(len(images), _COARSE, step, _COARSE, step, 3)
    inside = blocks.var(axis=(2, 4)).mean(axis=(1, 2, 3))
    whole = images.var(axis=(1, 2)).mean(axis=1)
    share: _Floats = inside / np.maximum(whole, np.float32(1e-3))
    return share


def _similarity(ours: _Floats, theirs: _Floats) -> _Floats:
    """The lesser correlation of both gradients at the best shift, `(N,)` in [-1, 1]."""
    best = np.full(len(ours), -1, dtype=np.float32)
    gradients = list(zip(_gradients(ours), _gradients(theirs), strict=True))
    shifts = range(-MAX_SHIFT, MAX_SHIFT + 1)
    for dy, dx in ((dy, dx) for dy in shifts for dx in shifts):
        across, down = (
            _correlation(_moved(own, dy, dx), _moved(other, -dy, -dx)) for own, other in gradients
        )
        np.maximum(best, np.minimum(across, down), out=best)
    return best


def _gradients(images: _Floats) -> tuple[_Floats, _Floats]:
    """Horizontal and vertical differences of the softened luminance, `(N, 31, 31)` each."""
    grey = np.pad(images @ LUMA, ((0, 0), (1, 1), (1, 1)), mode="edge")
    grey = (grey[:, :-2] + 2 * grey[:, 1:-1] + grey[:, 2:]) / 4
    grey = (grey[:, :, :-2] + 2 * grey[:, :, 1:-1] + grey[:, :, 2:]) / 4
    return np.diff(grey, axis=2)[:, :-1], np.diff(grey, axis=1)[:, :, :-1]


def _moved(maps: _Floats, dy: int, dx: int) -> _Floats:
    """What is left of `maps` when the first `dy` rows and `dx` columns, or the last ones, go."""
    height, width = maps.shape[1:]
    return maps[:, max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]


def _correlation(ours: _Floats, theirs: _Floats) -> _Floats:
    products = np.einsum("nhw,nhw->n", ours, theirs)
    lengths = np.einsum("nhw,nhw->n", ours, ours) * np.einsum("nhw,nhw->n", theirs, theirs)
    correlation: _Floats = products / np.maximum(np.sqrt(lengths), np.float32(1e-3))
    return correlation
