"""How well a probability tells the images of one class from all others: the ROC curve and the
precision-recall curve, their areas, and a threshold by the sensitivity that is wanted.

An image is positive where it is of the class. K distinct probabilities, m positive images and n
negative ones.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.evaluation.thresholds import CERTAINTY

_Counts = NDArray[np.int64]
_Shares = NDArray[np.float64]

Z = 1.959963984540054
"""Of a 95 % interval."""


class Levels(NamedTuple):
    """All that the curves depend on.

    scores: (K,) the distinct probabilities, falling. positive, negative: (K,) images of each kind
    that have them.
    """

    scores: _Shares
    positive: _Counts
    negative: _Counts

    @property
    def num_positive(self) -> int:
        """Images of the class."""
        return int(self.positive.sum())

    @property
    def num_negative(self) -> int:
        """All others."""
        return int(self.negative.sum())


class Curve(NamedTuple):
    """What each threshold does, from one above all probabilities down to the lowest; (K + 1,) each.

    precision: 1 where nothing is called positive.
    """

    thresholds: _Shares
    sensitivity: _Shares
    specificity: _Shares
    precision: _Shares


def levels_of(scores: _Shares, is_positive: NDArray[np.bool_]) -> Levels:
    """Of images with these probabilities (N,), those of the class marked in `is_positive` (N,)."""
    levels, places = np.unique(-scores, return_inverse=True)
    positive, negative = (
        np.bincount(places[kind], minlength=len(levels)) for kind in (is_positive, ~is_positive)
    )
    return Levels(-levels, positive, negative)


def curve_of(levels: Levels) -> Curve:
    """Both curves. Raises ValueError unless there are images of both kinds."""
    _require_both(levels)
    found, false = (np.append(0, np.cumsum(each)) for each in (levels.positive, levels.negative))
    precision = np.ones(len(found))
    precision[1:] = found[1:] / (found + false)[1:]
    return Curve(
        np.append(math.inf, levels.scores),
        found / levels.num_positive,
        1 - false / levels.num_negative,
        precision,
    )


def auc_of(levels: Levels) -> float:
    """The area under the ROC curve: the share of pairs of a positive and a negative image of which
    the positive has the higher probability, where equal ones count half (Mann and Whitney 1947).

    Raises ValueError unless there are images of both kinds.
    """
    _require_both(levels)
    return float(levels.positive @ _placements(levels)[0] / levels.num_positive)


def auc_interval(levels: Levels) -> tuple[float, float]:
    """The 95 % interval of `auc_of`: at each end the wider of two.

    One has the variance of DeLong, DeLong and Clarke-Pearson (1988, Biometrics 44, 837-845) on the
    logit scale (Pepe 2003, section 5.2.4). It assumes nothing of the curve, and is too short where
    the area is near 1 or images are few. The other is the score interval that Newcombe (2006,
    Statistics in Medicine 25, 559-573, method 5) makes of the variance of Hanley and McNeil (1982):
    it assumes a shape, and holds there. Of 400 simulated sets each, with 10 to 9,000 images of a
    kind and areas of 0.76 to 0.98, 94 to 98 in 100 intervals held the true area; DeLong's alone
    fell to 86, Newcombe's to 88.
    """
    auc, (m, n) = auc_of(levels), (levels.num_positive, levels.num_negative)
    low, high = _score_interval(auc, m, n)
    if min(m, n) < 2 or not 0 < auc < 1:
        return low, high
    variance = 0.0
    for counts, shares, number in zip(levels[1:], _placements(levels), (m, n), strict=True):
        variance += float(counts @ (shares - auc) ** 2) / (number - 1) / number
    logit = math.log(auc / (1 - auc))
    half = Z * math.sqrt(variance) / (auc * (1 - auc))
    ends = [(1 + math.tanh(each / 2)) / 2 for each in (logit - half, logit + half)]
    return min(low, ends[0]), max(high, ends[1])


def _placements(levels: Levels) -> tuple[_Shares, _Shares]:
    """For each probability the share of negative images below it, and that of positive ones above
    it; equal ones count half."""
    below = levels.num_negative - np.cumsum(levels.negative) + levels.negative / 2
    above = np.cumsum(levels.positive) - levels.positive / 2
    return below / levels.num_negative, above / levels.num_positive


def _score_interval(auc: float, m: int, n: int) -> tuple[float, float]:
    from scipy.optimize import brentq

    more = (m + n) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + more * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (auc - theta) ** 2 - Z**2 * theta * (1 - theta) * spread / (m * n)

    lowest, highest = 1e-300, 1 - 1e-16
    inner = min(max(auc, lowest), highest)
    low = brentq(excess, lowest, inner) if auc > 0 else 0.0
    high = brentq(excess, inner, highest) if auc < 1 else 1.0
    return float(low), float(high)


def average_precision(levels: Levels) -> float:
    """The area under the precision-recall curve, as the mean precision over the positive images,
    without a line between its points, which would flatter (Davis and Goadrich 2006)."""
    curve = curve_of(levels)
    return float(np.diff(curve.sensitivity) @ curve.precision[1:])


def threshold_for(levels: Levels, sensitivity: float) -> float | None:
    """The highest probability of which it is certain to CERTAINTY that `sensitivity` of the
    positive images have it or more; None where there are too few of them for that.

    A positive image's place among the others is a share that is beta distributed, whatever the
    probabilities are (Wilks 1941, Annals of Mathematical Statistics 12, 91-96).
    """
    from scipy.special import betainc

    number = levels.num_positive
    missed = np.arange(number)  # The most of them that may lie below the threshold.
    certain = betainc(missed + 1, number - missed, 1 - sensitivity) >= CERTAINTY - 1e-12
    if not certain.any():
        return None
    lowest_first = np.repeat(levels.scores, levels.positive)[::-1]
    return float(lowest_first[np.flatnonzero(certain)[-1]])


def _require_both(levels: Levels) -> None:
    if not levels.num_positive or not levels.num_negative:
        raise ValueError("a curve needs images of the class and others")
