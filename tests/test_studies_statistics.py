"""References are tables, published examples, exact fractions, and simulations of known truth."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from tenfold.evaluation.metrics import wilson_interval
from tenfold.results.studies import Difference
from tenfold.studies.statistics import (
    describe_difference,
    has_fallen,
    holm,
    mcnemar_p,
    summarise,
    welch_difference,
)


def test_three_seeds_have_the_interval_of_a_table_of_students_t() -> None:
    summary = summarise([0.60, 0.61, 0.65], num_images=10_000)
    # 4.303 is the 97.5 % point at 2 degrees of freedom in any table; sd = sqrt(0.0007).
    half = 4.303 * math.sqrt(0.0007) / math.sqrt(3)
    assert summary.mean == pytest.approx(0.62)
    assert summary.sd == pytest.approx(math.sqrt(0.0007))
    assert (summary.low, summary.high) == pytest.approx((0.62 - half, 0.62 + half), abs=1e-5)
    assert (summary.n, summary.values, summary.interval_over) == (3, (0.60, 0.61, 0.65), "seeds")


def test_one_seed_has_wilsons_interval_over_the_pictures() -> None:
    summary = summarise([0.81], num_images=263)
    assert (summary.sd, summary.interval_over) == (None, "images")
    assert (summary.low, summary.high) == tuple(wilson_interval(213, 263))


def test_a_share_stays_within_0_and_1_and_a_time_above_0() -> None:
    near_one = summarise([0.99, 0.90], num_images=100)
    assert near_one.high == 1.0
    assert near_one.low == pytest.approx(0.945 - 12.706 * 0.045, abs=1e-5)
    seconds = summarise([10.0, 200.0])
    assert seconds.low == 0.0
    assert seconds.high > 1_000


def test_a_single_time_has_no_interval() -> None:
    summary = summarise([61.5])
    assert (summary.mean, summary.low, summary.high) == (61.5, 61.5, 61.5)
    assert (summary.sd, summary.n, summary.interval_over) == (None, 1, "seeds")


def test_nothing_has_no_summary() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        summarise([])


def answers(pairs: dict[tuple[int, int], int]) -> tuple[np.ndarray, np.ndarray]:
    """Two classifiers that are right (1) and wrong (0) together as often as `pairs` says."""
    table = np.repeat(np.array([*pairs], dtype=bool), [*pairs.values()], axis=0)
    shuffled = np.random.default_rng(0).permutation(table)
    return shuffled[:, 0], shuffled[:, 1]


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (0, 0, Fraction(1)),
        (5, 5, Fraction(1)),
        (0, 6, Fraction(2, 64)),
        (9, 1, Fraction(22, 1024)),
        (1, 11, Fraction(26, 4096)),
        (12, 4, Fraction(2 * (1 + 16 + 120 + 560 + 1820), 2**16)),
        (400, 300, 2 * sum(Fraction(math.comb(700, k), 2**700) for k in range(301))),
    ],
)
def test_mcnemar_is_a_fair_coin_among_the_pictures_that_one_alone_gets_right(
    only_first: int, only_second: int, p: Fraction
) -> None:
    first, second = answers({(1, 1): 70, (0, 0): 20, (1, 0): only_first, (0, 1): only_second})
    assert mcnemar_p(first, second) == pytest.approx(float(p), rel=1e-9)
    assert mcnemar_p(second, first) == mcnemar_p(first, second)


def test_holm_corrects_a_textbook_example() -> None:
    # Four p as in the usual worked example: 4 x 0.005, 3 x 0.01, 2 x 0.03, and the last, which
    # may not fall below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, 0.8, 0.7]) == [1.0, 1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def simulate(
    generator: np.random.Generator,
    num_seeds: tuple[int, int],
    num_pictures: int,
    *,
    gap: float,
    seed_sd: float,
    own: float = 0.1,
) -> tuple[np.ndarray, np.ndarray]:
    """Which pictures the seeds of two models get right; the first's chance is higher by `gap`.

    Pictures are easy or hard for both by up to 0.25, and for one alone by up to `own`.
    """
    ease = generator.uniform(-0.25, 0.25, num_pictures)
    sides = []
    for number, base in zip(num_seeds, (0.55 + gap, 0.55), strict=True):
        luck = generator.normal(0, seed_sd, (number, 1))
        chance = base + ease + luck + generator.uniform(-own, own, num_pictures)
        sides.append(generator.random((number, num_pictures)) < chance)
    return sides[0], sides[1]


@pytest.mark.parametrize(
    ("num_seeds", "num_pictures", "seed_sd", "least", "most"),
    [
        ((3, 3), 1_000, 0.06, 0.93, 0.975),  # Nearly all is the luck of the seed.
        ((3, 3), 1_000, 0.02, 0.93, 0.99),
        ((3, 5), 1_000, 0.03, 0.93, 0.98),
        ((10, 10), 1_000, 0.02, 0.94, 0.99),
        ((3, 3), 300, 0.0, 0.95, 1.0),  # Seeds differ in nothing: counted twice, so wide.
        ((1, 1), 500, 0.0, 0.93, 0.97),
        ((1, 3), 500, 0.0, 0.93, 0.97),
        ((2, 2), 1_000, 0.03, 0.89, 0.97),
    ],
)
def test_the_interval_covers_the_true_difference(
    num_seeds: tuple[int, int], num_pictures: int, seed_sd: float, least: float, most: float
) -> None:
    generator = np.random.default_rng(17)
    number, gap, hits = 600, 0.04, 0
    for _ in range(number):
        sides = simulate(generator, num_seeds, num_pictures, gap=gap, seed_sd=seed_sd)
        found = welch_difference(*sides)
        hits += found.low <= gap <= found.high
    assert least <= hits / number <= most


def test_there_are_no_more_false_alarms_than_p_says() -> None:
    generator = np.random.default_rng(23)
    p_values = [
        welch_difference(*simulate(generator, (3, 3), 1_000, gap=0.0, seed_sd=0.05)).p
        for _ in range(1_000)
    ]
    # Three standard errors above what is promised: 5 and 1 % of 1,000.
    assert np.mean(np.array(p_values) < 0.05) <= 0.05 + 3 * 0.007
    assert np.mean(np.array(p_values) < 0.01) <= 0.01 + 3 * 0.0032


def test_pictures_alone_give_the_textbook_interval_of_paired_shares() -> None:
    # Of 2,000 pictures the first alone gets 300 right and the second alone 200.
    first, second = answers({(1, 1): 1_000, (1, 0): 300, (0, 1): 200, (0, 0): 500})
    found = welch_difference(first[None], second[None])
    half = 1.96 * math.sqrt(500 - 100**2 / 2_000) / 2_000
    assert found.difference == pytest.approx(0.05)
    assert (found.low, found.high) == pytest.approx((0.05 - half, 0.05 + half), abs=1e-5)
    assert found.num_seeds == (1, 1)


def test_where_pictures_hardly_vary_the_interval_is_welchs_over_seeds() -> None:
    generator = np.random.default_rng(5)
    rights = [(61_000, 62_000, 66_000, 64_000), (52_000, 58_000, 55_000)]
    sides = [np.zeros((len(right), 100_000), dtype=bool) for right in rights]
    for side, right in zip(sides, rights, strict=True):
        for row, number in zip(side, right, strict=True):
            row[generator.permutation(100_000)[:number]] = True
    found = welch_difference(sides[0], sides[1])
    # scipy.stats.ttest_ind((.61, .62, .66, .64), (.52, .58, .55), equal_var=False) of SciPy 1.17.
    low, high, p = 0.0226202, 0.1423798, 0.0199103
    assert found.difference == pytest.approx(0.0825)
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.02)
    assert found.p == pytest.approx(p, rel=0.02)
    assert found.num_seeds == (4, 3)


def test_what_never_varies_has_an_interval_of_no_width() -> None:
    right, wrong = np.ones((3, 500), dtype=bool), np.zeros((3, 500), dtype=bool)
    best, same = welch_difference(right, wrong), welch_difference(right, right)
    assert (best.difference, best.low, best.high, best.p) == (1.0, 1.0, 1.0, 0.0)
    assert (same.difference, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("first", "second"), [((3, 5), (3, 6)), ((0, 5), (3, 5)), ((3, 0), (3, 0))]
)
def test_models_without_common_pictures_are_not_compared(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match="same images"):
        welch_difference(np.ones(first, dtype=bool), np.ones(second, dtype=bool))


def flat_curve(generator: np.random.Generator) -> np.ndarray:
    return generator.normal(0.6, 0.005, (10, 3)) + generator.normal(0, 0.01, (1, 3))


def falling_curve(generator: np.random.Generator) -> np.ndarray:
    return flat_curve(generator) - np.linspace(0, 0.03, 10)[:, None]


@pytest.mark.parametrize(
    ("make", "least", "most"), [(flat_curve, 0.0, 0.06), (falling_curve, 0.95, 1.0)]
)
def test_a_fall_is_seen_where_there_is_one_and_not_where_the_peak_is_luck(
    make: Callable[[np.random.Generator], np.ndarray], least: float, most: float
) -> None:
    generator = np.random.default_rng(31)
    share = np.mean([has_fallen(make(generator)) for _ in range(1_000)])
    assert least <= share <= most


def test_a_fall_of_one_seed_is_held_against_the_number_of_pictures() -> None:
    curve = np.array([[0.50], [0.62], [0.60]])
    assert has_fallen(curve, num_images=10_000)
    assert not has_fallen(curve, num_images=500)
    assert not has_fallen(curve)
    assert not has_fallen(curve[:2], num_images=10_000)


def sentence(
    difference: float, low: float, high: float, *, p: float, number: int = 3,
    seeds: tuple[int, int] = (3, 3),
) -> str:  # fmt: skip
    found = Difference(difference=difference, low=low, high=high, p=p, n=seeds)
    return describe_difference(
        found, variant="Swish", baseline="ReLU", p_holm=p, num_comparisons=number
    )


def test_better_and_worse_are_said_with_the_interval_and_p() -> None:
    assert sentence(0.021, 0.014, 0.028, p=0.0006) == (
        "Swish is better than ReLU: +2.1 points (95 % interval +1.4 to +2.8, p < 0.001 after "
        "correction for 3 comparisons)."
    )
    assert sentence(-0.2345, -0.25, -0.2149, p=0.012, number=1) == (
        "Swish is worse than ReLU: \u221223.4 points (95 % interval \u221225.0 to \u221221.5, "
        "p = 0.012)."
    )


def test_no_difference_says_what_would_fit() -> None:
    for seeds in ((3, 3), (1, 1)):
        assert sentence(0.003, -0.005, 0.011, p=0.412, number=1, seeds=seeds) == (
            "No difference between Swish and ReLU is shown: +0.3 points (95 % interval "
            "\u22120.5 to +1.1, p = 0.41)."
        )


def test_what_the_correction_takes_back_may_be_chance() -> None:
    said = sentence(0.009, 0.001, 0.017, p=0.12, number=9)
    assert said.endswith("p = 0.12 after correction for 9 comparisons); that may be chance.")
    said = sentence(0.009, 0.001, 0.017, p=0.12, number=9, seeds=(1, 1))
    assert "9 comparisons); that may be chance. With one seed each" in said


def test_one_seed_says_that_its_luck_is_not_in_the_interval() -> None:
    assert sentence(-0.021, -0.028, -0.014, p=0.0006, number=1, seeds=(1, 1)) == (
        "Swish is worse than ReLU on these images: \u22122.1 points (95 % interval \u22122.8 to "
        "\u22121.4, p < 0.001). With one seed each, interval and p leave out what another seed "
        "would change."
    )
    assert "With 1 against 3 seeds" in sentence(0.02, 0.01, 0.03, p=0.001, seeds=(1, 3))


def test_narrow_intervals_have_two_decimals() -> None:
    assert "+0.30 points (95 % interval +0.21 to +0.39" in sentence(0.003, 0.0021, 0.0039, p=0.001)
    assert "+0.3 points (95 % interval +0.2 to +0.4" in sentence(0.003, 0.00199, 0.004, p=0.001)
