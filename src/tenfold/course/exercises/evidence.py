"""Exercises of chapter 8: intervals and tests."""

import math

import numpy as np

from tenfold.course.exercises.comparing import Solution, assert_equal


def wilson(function: Solution) -> None:
    """Chapter 8, exercise 1."""
    from tenfold.evaluation.metrics import wilson_interval

    for right, total in ((412, 500), (0, 20), (20, 20), (7_650, 10_000)):
        assert_equal(
            function(right, total),
            wilson_interval(right, total),
            f"wilson({right}, {total})",
            "Centre: (p + z^2 / 2n) / (1 + z^2 / n); half its width: "
            "z / (1 + z^2 / n) sqrt(p (1 - p) / n + z^2 / 4n^2), with z = 1.96.",
            tolerance=1e-4,
        )


def bootstrap_interval(function: Solution) -> None:
    """Chapter 8, exercise 2."""
    values = np.random.default_rng(3).normal(70, 2, 40)
    found = function(values, np.random.default_rng(0), 2_000)
    assert found is not None, "bootstrap_interval returns nothing yet."
    assert len(found) == 2, "Return two numbers, the lower end and the upper."
    low, high = map(float, found)
    mean, error = values.mean(), values.std(ddof=1) / math.sqrt(40)
    assert low < mean < high, "The interval of a mean holds the mean of the sample."
    width = (high - low) / error
    assert 3.2 < width < 4.4, (
        f"The interval is {width:.1f} standard errors wide, where some 3.9 are right: draw as many "
        "values as there are, with replacement, take the mean of each draw, and of the means the "
        "quantiles 0.025 and 0.975."
    )


def mcnemar(function: Solution) -> None:
    """Chapter 8, exercise 3."""
    from tenfold.studies.statistics import mcnemar_p

    generator = np.random.default_rng(0)
    base = generator.random(200)
    for margin in (0.0, 0.02, 0.1):
        first = base + 0.1 * generator.random(200) < 0.75
        second = base + 0.1 * generator.random(200) < 0.75 - margin
        assert_equal(
            function(first, second),
            mcnemar_p(first, second),
            f"mcnemar, of which {int((first & ~second).sum())} images only the first classifies "
            f"rightly and {int((~first & second).sum())} only the second",
            "Images on which both are right, or both wrong, say nothing. The others are tosses of "
            "a fair coin: scipy.stats.binomtest(b, b + c).pvalue.",
        )
    assert_equal(function(base < 0.5, base < 0.5), 1.0, "mcnemar of two equal classifiers")


def holm(function: Solution) -> None:
    """Chapter 8, exercise 4."""
    from tenfold.studies.statistics import holm as ours

    for p_values in ([0.01, 0.04, 0.03], [0.5, 0.6], [0.02], [0.001, 0.001, 0.2, 0.012]):
        assert_equal(
            function(p_values),
            ours(p_values),
            f"holm({p_values})",
            "In rising order, the i-th of m (from 0) is multiplied by m - i; none may be below the "
            "one before it, or above 1; and they are returned in the order that they came in.",
        )
