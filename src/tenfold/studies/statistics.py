"""What numbers over seeds and pictures allow one to say: intervals, tests and plain sentences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tenfold.evaluation.metrics import wilson_interval
from tenfold.results.studies import Estimate

NUM_RESAMPLES = 10_000
"""Of the bootstrap. The smallest p that it can find is 2 in 10,001, below 0.001 even after Holm's
correction for four comparisons."""

LEVEL = 0.05
"""The share of false alarms that a p is held against; intervals cover 1 less this."""

_CHUNK = 1_000_000  # Numbers held at once while resampling: 8 MB.


@dataclass(frozen=True)
class Difference:
    """The accuracy of one model less that of another, as a share, with its 95 % interval.

    p: two-sided, of no difference. num_seeds: of the one and of the other. over: what was
    resampled; `pictures` alone where a side has a single seed, so that the luck of its seed is
    not in the interval.
    """

    difference: float
    low: float
    high: float
    p: float
    num_seeds: tuple[int, int]
    over: Literal["seeds and pictures", "pictures"]


def summarise(values: Sequence[float], *, num_pictures: int | None = None) -> Estimate:
    """Mean, deviation and interval of `values`, one a seed.

    num_pictures: says that the values are shares of so many pictures. The interval is Student's
    over the seeds, cut off at 0 and, for shares, at 1. A single share gets Wilson's interval over
    the pictures; a single value of another kind has none, and both ends are the value. Raises
    ValueError where there are no values.
    """
    if not values:
        raise ValueError("a summary needs at least one value")
    mean, n = float(np.mean(values)), len(values)
    low, high, sd = mean, mean, None
    if n > 1:
        sd = float(np.std(values, ddof=1))
        half = student_quantile(n - 1) * sd / math.sqrt(n)
        low, high = max(0.0, mean - half), mean + half
        high = min(1.0, high) if num_pictures else high
    elif num_pictures:
        low, high = wilson_interval(round(mean * num_pictures), num_pictures)
    over: Literal["seeds", "pictures"] = "pictures" if n == 1 and num_pictures else "seeds"
    return Estimate(
        mean=mean, sd=sd, low=low, high=high, n=n, values=tuple(values), interval_over=over
    )


def student_quantile(degrees: float, *, share: float = 1 - LEVEL / 2) -> float:
    """The value that a Student variable with these degrees of freedom stays below with `share`."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))


def has_fallen(values: NDArray[np.float64], *, num_pictures: int | None = None) -> bool:
    """Whether accuracies are lower at the end than at their peak, beyond what chance allows.

    values: (E, S) shares, after each of E epochs for each of S seeds. The peak is where their mean
    is highest; since it was chosen among E - 1 epochs, the one-sided level of 5 % is divided by
    that (Bonferroni). The noise is what is left after an effect for each epoch and each seed.
    For one seed it is that of drawing `num_pictures` anew for each epoch, which is too much, as
    these share their pictures; False where their number is not known.
    """
    num_epochs, num_seeds = values.shape
    means = values.mean(axis=1)
    fall, share = float(means.max() - means[-1]), 1 - LEVEL / max(num_epochs - 1, 1)
    if num_seeds > 1 and num_epochs > 1:
        noise = values - means[:, None] - values.mean(axis=0) + values.mean()
        degrees: float = (num_epochs - 1) * (num_seeds - 1)
        variance = 2 * float((noise**2).sum()) / degrees / num_seeds
    elif num_pictures:
        degrees = math.inf
        variance = sum(float(p * (1 - p)) for p in (means.max(), means[-1])) / num_pictures
    else:
        return False
    return fall > student_quantile(degrees, share=share) * math.sqrt(variance)


def mcnemar_p(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Two-sided p of McNemar's test that two classifiers are right equally often.

    first, second: (N,) bool, whether each is right on the same N pictures. Exact: pictures that
    one alone gets right fall to either side like a fair coin (McNemar 1947).
    """
    from scipy.special import bdtr

    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    discordant = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), discordant, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p corrected for there being several, in their order (Holm 1979).

    Calling those below 0.05 real is wrong about one or more of them at most once in 20 studies.
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def bootstrap_difference(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Difference:
    """How much more often `first` is right than `second`, bootstrapped over seeds and pictures.

    first, second: (S1, N) and (S2, N) bool, whether each seed of a model is right on the same N
    pictures. Equal arguments give equal results.

    A resample draws N pictures, the same for both models, and as many seeds as there are within
    each. The deviations of seeds are stretched by sqrt(S / (S - 1)), which makes their variance
    unbiased. Three seeds also tell their variance badly: percentiles of the plain bootstrap then
    cover 88 % instead of 95 %. So each resample's distance from the difference is divided by
    sqrt(chi2 / df), as Student's variable is, with Welch's and Satterthwaite's degrees of freedom
    of the whole variance. A seed's deviation is that on all pictures, not on the resampled ones;
    otherwise what seed and picture share would count three times (Owen 2007, The pigeonhole
    bootstrap). It still counts twice, so intervals are a little wide rather than narrow. In
    simulations those of 3 to 10 seeds a side cover 94 to 99 %; with two seeds on a side, 90 %.

    p counts the resamples on the far side of 0, and the observed difference as one of them, so
    that it is never below 2 / (num_resamples + 1). Raises ValueError where the pictures differ in
    number or there are none.
    """
    if first.ndim != 2 or first.shape[1:] != second.shape[1:] or not (first.size and second.size):
        raise ValueError(f"shapes {first.shape} and {second.shape} must be (seeds, same pictures)")
    generator = np.random.default_rng(seed)
    values, counts = _differences_by_picture(first, second)
    difference = float(values @ counts / counts.sum())
    distances = _resample_pictures(values, counts, num_resamples, generator) - difference
    over: Literal["seeds and pictures", "pictures"] = "pictures"
    if min(len(first), len(second)) > 1:
        over = "seeds and pictures"
        picture_variance = float(values**2 @ counts / counts.sum() - difference**2) / counts.sum()
        sides = (first.mean(axis=1), second.mean(axis=1))
        distances += _resample_seeds(sides[0], num_resamples, generator)
        distances -= _resample_seeds(sides[1], num_resamples, generator)
        degrees = _welch_degrees(picture_variance, sides)
        if math.isfinite(degrees):
            distances /= np.sqrt(generator.chisquare(degrees, num_resamples) / degrees)
    resampled = difference + distances
    low, high = np.quantile(resampled, [LEVEL / 2, 1 - LEVEL / 2])
    beyond = min((resampled <= 0).sum(), (resampled >= 0).sum())
    return Difference(
        difference=difference,
        low=max(-1.0, float(low)),
        high=min(1.0, float(high)),
        p=min(1.0, 2 * (1 + int(beyond)) / (num_resamples + 1)),
        num_seeds=(len(first), len(second)),
        over=over,
    )


def _differences_by_picture(
    first: NDArray[np.bool_], second: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The distinct differences that the models' mean over seeds takes on a picture, and how often.

    There are few, so that resampling their counts replaces resampling every picture.
    """
    # Whole numbers, so that equal differences are equal.
    scaled = first.sum(axis=0) * len(second) - second.sum(axis=0) * len(first)
    values, counts = np.unique(scaled, return_counts=True)
    return values / (len(first) * len(second)), counts


def _resample_pictures(
    values: NDArray[np.float64],
    counts: NDArray[np.int64],
    num_resamples: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """(num_resamples,) means of as many pictures as there are, drawn with replacement."""
    num_pictures = int(counts.sum())
    means = np.empty(num_resamples)
    step = max(1, _CHUNK // len(values))
    for start in range(0, num_resamples, step):
        size = min(step, num_resamples - start)
        drawn = generator.multinomial(num_pictures, counts / num_pictures, size=size)
        means[start : start + size] = drawn @ values / num_pictures
    return means


def _resample_seeds(
    accuracies: NDArray[np.float64], num_resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """(num_resamples,) mean deviations of as many seeds as there are, with unbiased variance."""
    n = len(accuracies)
    deviations = (accuracies - accuracies.mean()) * math.sqrt(n / (n - 1))
    drawn = generator.multinomial(n, np.full(n, 1 / n), size=num_resamples)
    return np.asarray(drawn @ deviations / n)


def _welch_degrees(picture_variance: float, sides: Sequence[NDArray[np.float64]]) -> float:
    """Degrees of freedom of a sum of variances (Satterthwaite 1946, Welch 1947).

    That over thousands of pictures counts as known.
    """
    parts = [float(side.var(ddof=1)) / len(side) for side in sides]
    uncertainty = sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))
    return (picture_variance + sum(parts)) ** 2 / uncertainty if uncertainty else math.inf


def describe_difference(
    found: Difference, *, variant: str, baseline: str, p_holm: float, num_comparisons: int
) -> str:
    """The difference in points as a sentence, with what it may be put down to.

    variant, baseline: what the first and the second model are called. p_holm: the p after Holm's
    correction for `num_comparisons`.
    """
    digits = 2 if 100 * (found.high - found.low) < 0.2 else 1
    chance = _describe_p(p_holm, num_comparisons)
    is_better = found.difference > 0
    low, high = (found.low, found.high) if is_better else (-found.high, -found.low)
    ends = f"{_points(low, digits)} to {_points(high, digits)}"
    verdict = (
        f"{variant} is {'better' if is_better else 'worse'} than {baseline} by "
        f"{_points(abs(found.difference), digits)} points"
    )
    range_of_fits = f"{_describe_range(found, variant, digits)} ({chance})"
    excludes_zero = found.low > 0 or found.high < 0
    if found.over == "pictures":
        if not excludes_zero:
            runs = f"The runs of {variant} and {baseline}"
            return f"{runs} show no difference on these pictures: {range_of_fits}."
        luck = f"with {_describe_seeds(found.num_seeds)} that may be the luck of a seed"
        return f"{verdict} ({ends}; {chance}) on these pictures, but {luck}."
    if p_holm < LEVEL:
        return f"{verdict} ({ends}); not a coincidence ({chance})."
    if excludes_zero:
        return f"{verdict} ({ends}) in these seeds, but that may be a coincidence ({chance})."
    return f"These seeds show no difference between {variant} and {baseline}: {range_of_fits}."


def _describe_p(p: float, num_comparisons: int) -> str:
    text = "p < 0.001" if p < 0.001 else f"p = {p:.{3 if p < 0.1 else 2}f}"
    if num_comparisons == 1:
        return text
    return f"{text} after correction for {num_comparisons} comparisons"


def _describe_seeds(num_seeds: tuple[int, int]) -> str:
    if num_seeds == (1, 1):
        return "one seed each"
    return f"{num_seeds[0]} against {num_seeds[1]} seeds"


def _describe_range(found: Difference, variant: str, digits: int) -> str:
    mean, low, high = (
        _better_or_worse(value, digits) for value in (found.difference, found.low, found.high)
    )
    who = "they are" if mean == "equally good" else f"{variant} is"
    if low == mean == high:
        return f"{who} {mean}"
    return f"{who} {mean}, and anything from {low} to {high} would fit as well"


def _better_or_worse(difference: float, digits: int) -> str:
    """`0.3 points better`, `equally good`."""
    text = _points(abs(difference), digits)
    if float(text) == 0:
        return "equally good"
    return f"{text} points {'better' if difference > 0 else 'worse'}"


def _points(share: float, digits: int) -> str:
    text = f"{100 * share:.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")
