"""What numbers over seeds and images allow one to say: intervals, tests and sentences."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tenfold.evaluation.metrics import wilson_interval
from tenfold.formatting import signed_points
from tenfold.results.studies import Difference, Estimate

LEVEL = 0.05
"""The share of false alarms that a p is held against; intervals cover 1 less this."""


def summarise(values: Sequence[float], *, num_images: int | None = None) -> Estimate:
    """Mean, deviation and interval of `values`, one a seed.

    num_images: says that the values are shares of so many images. The interval is Student's
    over the seeds, cut off at 0 and, for shares, at 1. A single share gets Wilson's interval over
    the images; a single value of another kind has none, and both ends are the value. Raises
    ValueError where there are no values.
    """
    if not values:
        raise ValueError("a summary needs at least one value")
    mean, n = float(np.mean(values)), len(values)
    low, high, sd = mean, mean, None
    if n > 1:
        sd = float(np.std(values, ddof=1))
        half = _student_quantile(n - 1) * sd / math.sqrt(n)
        low, high = max(0.0, mean - half), mean + half
        high = min(1.0, high) if num_images else high
    elif num_images:
        low, high = wilson_interval(round(mean * num_images), num_images)
    over: Literal["seeds", "images"] = "images" if n == 1 and num_images else "seeds"
    return Estimate(
        mean=mean, sd=sd, low=low, high=high, n=n, values=tuple(values), interval_over=over
    )


def _student_quantile(degrees: float, *, share: float = 1 - LEVEL / 2) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))


def has_fallen(values: NDArray[np.float64], *, num_images: int | None = None) -> bool:
    """Whether accuracies are lower at the end than at their peak, beyond what chance allows.

    values: (E, S) shares, after each of E epochs for each of S seeds. The peak is where their mean
    is highest; since it was chosen among E - 1 epochs, the one-sided level of 5 % is divided by
    that (Bonferroni). The noise is what is left after an effect for each epoch and each seed.
    For one seed it is that of drawing `num_images` anew for each epoch, which is too much, as
    these share their images; False where their number is not known.
    """
    num_epochs, num_seeds = values.shape
    means = values.mean(axis=1)
    fall, share = float(means.max() - means[-1]), 1 - LEVEL / max(num_epochs - 1, 1)
    if num_seeds > 1 and num_epochs > 1:
        noise = values - means[:, None] - values.mean(axis=0) + values.mean()
        degrees: float = (num_epochs - 1) * (num_seeds - 1)
        variance = 2 * float((noise**2).sum()) / degrees / num_seeds
    elif num_images:
        degrees = math.inf
        variance = sum(float(p * (1 - p)) for p in (means.max(), means[-1])) / num_images
    else:
        return False
    return fall > _student_quantile(degrees, share=share) * math.sqrt(variance)


def mcnemar_p(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Two-sided p of McNemar's test that two classifiers are right equally often.

    first, second: (N,) bool, whether each is correct for the same N images. Exact: images that
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
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, factors * p[order]))
    return [float(value) for value in corrected]


def welch_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference:
    """How much more often `first` is right than `second`, over seeds and images.

    first, second: (S1, N) and (S2, N) bool, whether each seed of a model is correct for the same N
    images. Welch's t interval of the difference of the mean accuracies, to whose variance that
    over the images is added; with thousands of them, it counts as known in the degrees of
    freedom (Welch 1947). What seed and image share counts twice, so intervals are a little wide
    rather than narrow: in simulations those of 3 to 10 seeds a side cover 94 to 99 %, those with
    two seeds on a side 91 %. Raises ValueError where the images differ in number or there are
    none.
    """
    from scipy.special import stdtr

    if first.ndim != 2 or first.shape[1:] != second.shape[1:] or not (first.size and second.size):
        raise ValueError(f"shapes {first.shape} and {second.shape} must be (seeds, same images)")
    by_image = first.mean(axis=0) - second.mean(axis=0)
    difference = float(first.mean() - second.mean())
    variance, degrees = float(by_image.var()) / len(by_image), math.inf
    if min(len(first), len(second)) > 1:
        parts = [(side.mean(axis=1).var(ddof=1) / len(side), len(side)) for side in (first, second)]
        variance += float(sum(part for part, _ in parts))
        uncertainty = float(sum(part**2 / (seeds - 1) for part, seeds in parts))
        degrees = variance**2 / uncertainty if uncertainty else math.inf
    error = math.sqrt(variance)
    half = _student_quantile(degrees) * error
    no_variance = math.inf if difference else 0.0
    distance = abs(difference) / error if error else no_variance
    return Difference(
        difference=difference,
        low=max(-1.0, difference - half),
        high=min(1.0, difference + half),
        p=min(1.0, 2 * float(stdtr(degrees, -distance))),
        n=(len(first), len(second)),
    )


def describe_difference(
    found: Difference, *, variant: str, baseline: str, p_holm: float, num_comparisons: int
) -> str:
    """The difference in points as a sentence, with what it may be put down to.

    variant, baseline: what the first and the second model are called. p_holm: the p after Holm's
    correction for `num_comparisons`.
    """
    digits = 2 if found.high - found.low < 0.002 else 1
    ends = (found.difference, found.low, found.high)
    gain, low, high = (signed_points(end, digits=digits) for end in ends)
    p = "p < 0.001" if p_holm < 0.001 else f"p = {p_holm:.{3 if p_holm < 0.1 else 2}f}"
    after = f" after correction for {num_comparisons} comparisons" if num_comparisons > 1 else ""
    numbers = f"{gain} points (95 % interval {low} to {high}, {p}{after})"
    if found.low <= 0 <= found.high:
        return f"No difference between {variant} and {baseline} is shown: {numbers}."
    better = "better" if found.difference > 0 else "worse"
    said = f"{variant} is {better} than {baseline}"
    numbers += "." if p_holm < LEVEL else "; that may be chance."
    if 1 in found.num_seeds:
        first, second = found.num_seeds
        seeds = "one seed each" if first == second == 1 else f"{first} against {second} seeds"
        left_out = f"With {seeds}, interval and p leave out what another seed would change."
        return f"{said} on these images: {numbers} {left_out}"
    return f"{said}: {numbers}"
