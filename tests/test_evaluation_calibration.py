"""Calibration against hand-computed cases, other libraries, and what is promised."""

import itertools
import math

import numpy as np
import pytest

from bare_results import BARE_RESULT
from tenfold.errors import TenfoldError
from tenfold.evaluation import calibration
from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.thresholds import images_needed, in_set, set_of
from tenfold.results.runs import Result


def from_probabilities(probabilities, labels):
    logits = np.log(np.asarray(probabilities, dtype=np.float64)).astype(np.float32)
    ids = np.array([f"test/{number}" for number in range(len(logits))])
    names = tuple(f"class {number}" for number in range(logits.shape[1]))
    return Predictions(logits, np.asarray(labels, dtype=np.int64), ids, names)


def sampled(number=4000, num_classes=10, *, seed=0, sharper=1.0):
    """Predictions whose probabilities are true, if they weren't `sharper` than that."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(number, num_classes)) * 2
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([generator.choice(num_classes, p=row) for row in shares])
    ids = np.array([str(index) for index in range(number)])
    names = tuple(f"class {index}" for index in range(num_classes))
    return Predictions((logits * sharper).astype(np.float32), labels, ids, names)


# -- errors of calibration -----------------------------------------------------------------------


def test_a_case_by_hand():
    # Confidences 0.88 (right), 0.88 (wrong), 0.58 (right): two bins of ten.
    found = from_probabilities([[0.88, 0.12], [0.88, 0.12], [0.42, 0.58]], [0, 1, 1])
    bins = calibration.reliability(found, num_bins=10)
    assert [each.num_images for each in bins] == [1, 2]
    assert [each.accuracy for each in bins] == [1.0, 0.5]
    assert np.allclose([(each.low, each.high) for each in bins], [(0.5, 0.6), (0.8, 0.9)])
    error = calibration.calibration_error(found, num_bins=10)
    assert error == pytest.approx((1 * 0.42 + 2 * 0.38) / 3, abs=1e-6)
    squared = 2 * 0.12**2 + 2 * 0.88**2 + 2 * 0.42**2
    assert calibration.brier_score(found) == pytest.approx(squared / 3, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_bins", [10, 15, 100])
def test_the_error_is_that_of_torchmetrics(seed, num_bins):
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    import torch

    found = sampled(500, seed=seed, sharper=2.0)
    expected = torchmetrics.multiclass_calibration_error(
        torch.tensor(found.probabilities),
        torch.tensor(found.labels),
        num_classes=10,
        n_bins=num_bins,
    )
    assert calibration.calibration_error(found, num_bins=num_bins) == pytest.approx(
        float(expected), abs=1e-6
    )


def test_brier_is_that_of_scikit_learn():
    from sklearn.metrics import brier_score_loss

    found = sampled(500, num_classes=2, sharper=2.0)
    expected = brier_score_loss(found.labels, found.probabilities[:, 1])
    assert calibration.brier_score(found) == pytest.approx(2 * expected, abs=1e-6)


def test_bins_of_equal_mass_have_as_many_pictures_each():
    bins = calibration.reliability(sampled(1500), binning="mass")
    assert [each.num_images for each in bins] == [100] * 15
    assert all(a.high == b.low for a, b in itertools.pairwise(bins))
    assert calibration.calibration_error(sampled(4000), binning="mass") < 0.03
    assert calibration.calibration_error(sampled(4000, sharper=3.0), binning="mass") > 0.1


# -- temperature ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sharper", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_made_logits_too_sharp(sharper):
    temperature = calibration.fit_temperature(sampled(sharper=sharper))
    assert temperature == pytest.approx(sharper, rel=0.05)
    other = sampled(seed=1, sharper=sharper)
    scaled = calibration.with_temperature(other, temperature)
    assert calibration.calibration_error(scaled) < 0.03
    assert (scaled.logits.argmax(axis=1) == other.logits.argmax(axis=1)).all()


def test_the_temperature_makes_confidence_the_share_of_right_answers():
    found = sampled(sharper=1.7)
    scaled = calibration.with_temperature(found, calibration.fit_temperature(found))
    right = (scaled.logits.argmax(axis=1) == scaled.labels).mean()
    assert scaled.probabilities.max(axis=1).mean() == pytest.approx(right, abs=1e-6)


def test_a_temperature_that_can_be_counted_by_hand():
    # Logits 0 and x for two classes, of which three in four are right: the confidence is to be
    # 3/4, and so the logits log 3 apart.
    logits = np.array([[6.0, 0.0]] * 4, dtype=np.float32)
    found = from_probabilities([[0.5, 0.5]] * 4, [0, 0, 0, 1])._replace(logits=logits)
    assert calibration.fit_temperature(found) == pytest.approx(6 / np.log(3), rel=1e-6)


def test_there_is_a_highest_and_a_lowest_temperature():
    wrong = from_probabilities([[0.9, 0.1]] * 3, [1, 1, 1])
    assert calibration.fit_temperature(wrong) == calibration.HIGHEST_TEMPERATURE
    flat = from_probabilities([[0.5, 0.5]] * 10, [0] * 9 + [1])
    assert calibration.fit_temperature(flat) == calibration.LOWEST_TEMPERATURE


def test_pictures_that_are_all_right_give_no_temperature():
    with pytest.raises(TenfoldError, match="3 images that are all predicted right"):
        calibration.fit_temperature(from_probabilities([[0.9, 0.1]] * 3, [0, 0, 0]))


@pytest.mark.parametrize("number", [3, 10, 49])
def test_few_images_give_no_temperature_but_the_number_that_would(number):
    with pytest.raises(TenfoldError, match=rf"fitted on {number} validation .* at least 50"):
        calibration.fit(sampled(number))


def test_a_temperature_at_its_bound_is_none():
    wrong = from_probabilities([[0.9, 0.1]] * 60, [1] * 60)
    flat = from_probabilities([[0.5001, 0.4999]] * 60, [0] * 59 + [1])
    for found in (wrong, flat):
        with pytest.raises(TenfoldError, match=r"No temperature from .* to 20 .* 60 validation"):
            calibration.fit(found)


@pytest.mark.parametrize(
    "kept",
    [
        {"unfitted": "too few"},
        {"temperature": 20.0, "num_images": 400},
        {"temperature": 0.05, "num_images": 400},
        {"temperature": 1.2, "num_images": 10},
    ],
)
def test_what_an_older_version_fitted_on_too_little_is_not_used(kept):
    fitted = kept if "unfitted" in kept else {"thresholds": [], "sets": [], **kept}
    result = Result.model_validate({**BARE_RESULT, "calibration": fitted})
    assert calibration.fitted_of(result) is None
    assert calibration.why_unfitted(result)
    never = Result.model_validate(BARE_RESULT)
    assert calibration.fitted_of(never) is None
    assert calibration.why_unfitted(never) == ""


# -- selective prediction ------------------------------------------------------------------------


def surest(*right):
    """Images from the surest to the least sure, of which these are predicted right."""
    confidence = np.linspace(0.99, 0.51, len(right))
    labels = [0 if each else 1 for each in right]
    return from_probabilities(np.stack([confidence, 1 - confidence], axis=1), labels)


def test_a_threshold_by_hand():
    # 0.95 ** 59 is the first power below 0.05: so many images that are all right show 95 %.
    assert images_needed(0.95) == 59
    assert images_needed(0.99) == 299
    assert calibration.find_threshold(surest(*[True] * 58), 0.95).confidence > 1
    found = surest(*[True] * 60, *[False] * 5)
    threshold = calibration.find_threshold(found, 0.95)
    assert (threshold.coverage, threshold.reached) == (60 / 65, 1.0)
    assert threshold.confidence == pytest.approx(0.99 - 0.48 * 59 / 64, abs=1e-6)
    applied = calibration.apply_threshold(found, threshold)
    assert (applied.coverage, applied.reached) == (60 / 65, 1.0)
    hopeless = calibration.find_threshold(surest(False, *[True] * 60), 0.95)
    assert calibration.apply_threshold(found, hopeless).coverage == 0


def test_the_bound_is_that_of_clopper_and_pearson():
    from scipy.stats import binomtest

    right = np.random.default_rng(1).random(200) < 0.99 - np.linspace(0, 0.4, 200) ** 2
    threshold = calibration.find_threshold(surest(*right), 0.95)
    shown = []
    for count in range(59, 201):
        tested = binomtest(int(right[:count].sum()), count, alternative="greater")
        if tested.proportion_ci(0.95, method="exact").low < 0.95:
            break
        shown.append(count)
    assert shown
    assert threshold.coverage == shown[-1] / 200


def test_pictures_of_one_confidence_are_taken_together():
    found = from_probabilities([[0.9, 0.1]] * 100, [0] * 100)
    assert calibration.find_threshold(found, 0.95).coverage == 1
    found = from_probabilities([[0.9, 0.1]] * 100, [0] * 90 + [1] * 10)
    assert calibration.find_threshold(found, 0.95).coverage == 0


def honest(number, generator):
    """Two classes and confidences 1 - u ** 3 / 2, made too high, of which so many are right."""
    confidence = 1 - generator.random(number) ** 3 / 2
    logits = 2 * np.log(confidence / np.maximum(1 - confidence, 1e-12))
    right = generator.random(number) < confidence
    found = from_probabilities([[0.5, 0.5]] * number, np.where(right, 0, 1))
    return found._replace(logits=np.stack([logits, 0 * logits], axis=1).astype(np.float32))


@pytest.mark.parametrize(("number", "num_fits"), [(100, 300), (500, 200), (5000, 60)])
def test_row_58_thresholds_hold_in_95_of_100_fits(number, num_fits):
    generator = np.random.default_rng(number)
    broken, coverages = np.zeros(2), np.empty((num_fits, 2))
    for place in range(num_fits):
        fitted = calibration.fit(honest(number, generator))
        coverages[place] = [threshold.coverage for threshold in fitted.thresholds]
        for asked, threshold in enumerate(fitted.thresholds):
            if threshold.confidence < 1:
                odds = threshold.confidence / (1 - threshold.confidence)
                true = 1 / (1 + odds ** (-fitted.temperature / 2))
                # The mean of 1 - u ** 3 / 2 for u below the cube root of 2 (1 - true).
                broken[asked] += 1 - (1 - true) / 4 < threshold.accuracy
    assert (broken <= 0.05 * num_fits).all()
    if number == 5000:
        best = (8 * (1 - np.array(calibration.ASKED_ACCURACIES))) ** (1 / 3)
        assert (np.median(coverages, axis=0) > 0.75 * best).all()
    if number == 100:
        assert coverages[:, 0].max() > 0
        assert coverages[:, 1].max() == 0


@pytest.mark.parametrize("accuracy", [0.94, 0.949, 0.95 - 1e-6])
def test_a_model_just_below_what_is_asked_is_rarely_promised(accuracy):
    generator = np.random.default_rng(3)
    found = [
        calibration.find_threshold(surest(*(generator.random(1000) < accuracy)), 0.95).coverage
        for _ in range(200)
    ]
    assert np.count_nonzero(found) <= 0.05 * 200


def test_the_curve_of_the_surest():
    found = from_probabilities([[0.95, 0.05], [0.9, 0.1], [0.8, 0.2], [0.7, 0.3]], [0, 0, 1, 0])
    points = calibration.selective_curve(found, num_points=4)
    assert np.allclose(points, [(0.25, 1.0), (0.5, 1.0), (0.75, 2 / 3), (1.0, 0.75)])


# -- sets ----------------------------------------------------------------------------------------


def test_sets_by_hand():
    # Nine pictures with probabilities of the true class of 0.1 to 0.9: ceil(10 * 0.8) = 8 are kept.
    own = np.arange(1, 10) / 10
    found = from_probabilities(np.stack([own, 1 - own], axis=1), [0] * 9)
    assert calibration.fit_sets(found, 0.8) == pytest.approx(0.2, abs=1e-6)
    assert calibration.fit_sets(found, 0.9) == pytest.approx(0.1, abs=1e-6)
    assert calibration.fit_sets(found, 0.95) == 0.0
    measured = calibration.apply_sets(found, 0.8, 0.2 - 1e-6)
    assert measured.coverage == pytest.approx(8 / 9)
    # The classes of 0.2 to 0.8 and 0.8 to 0.2 are both in, of 0.1 and 0.9 only the second.
    assert measured.mean_size == pytest.approx((2 * 7 + 2) / 9)
    assert measured.single == pytest.approx(2 / 9)


@pytest.mark.parametrize("promised", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("sharper", [1.0, 4.0])
def test_sets_keep_their_promise_on_other_pictures(promised, sharper):
    least = calibration.fit_sets(sampled(5000, sharper=sharper), promised)
    measured = calibration.apply_sets(sampled(10_000, seed=1, sharper=sharper), promised, least)
    assert math.isclose(measured.coverage, promised, abs_tol=0.015)
    assert calibration.apply_sets(sampled(100), promised, 0.0).coverage == 1.0


@pytest.mark.parametrize(("number", "num_fits"), [(100, 100), (1000, 25)])
def test_the_promise_of_sets_holds_on_average_over_fits(number, num_fits):
    """With the temperature fitted on the same validation images, as a run fits it."""
    generator = np.random.default_rng(number)
    pool = sampled(3000, sharper=3.0)
    held = np.empty((num_fits, len(calibration.PROMISED_COVERAGES)))
    for place in range(num_fits):
        order = generator.permutation(len(pool.labels))
        parts = order[:number], order[number:]
        validation, other = (
            pool._replace(logits=pool.logits[part], labels=pool.labels[part]) for part in parts
        )
        fitted = calibration.fit(validation)
        scaled = calibration.with_temperature(other, fitted.temperature)
        found = [calibration.apply_sets(scaled, *each) for each in fitted.sets]
        held[place] = [each.coverage for each in found]
    promised = np.array(calibration.PROMISED_COVERAGES)
    assert (held.mean(axis=0) > promised - 0.004).all()
    assert (held.mean(axis=0) < promised + 1 / number + 0.01).all()


def test_the_likeliest_class_is_always_in_the_set():
    shares = np.array([[0.5, 0.3, 0.2], [0.9, 0.06, 0.04]])
    assert in_set(shares, 0.8).tolist() == [[True, False, False]] * 2
    assert in_set(shares, 0.25).tolist() == [[True, True, False], [True, False, False]]
    assert set_of("abc", shares[0, ::-1], 0.25) == ("c", "b")
    assert set_of("abc", shares[0], None) == ()
    found = from_probabilities(shares, [0, 0])
    assert calibration.apply_sets(found, 0.9, 0.8).mean_size == 1


@pytest.mark.parametrize(
    ("number", "coverage", "said"),
    [
        (60, 0.99, r"hold the true class in 99 % of cases from 60 validation .* 99 are the fewest"),
        (60, 0.97, r"choose one of 90, 95, 99\."),
        (0, 0.95, "the run held no validation"),
        (30, 0.95, "hold out at least 50"),
    ],
)
def test_sets_that_can_not_be_promised_are_refused_in_a_sentence(number, coverage, said):
    kept = None
    if number:
        kept = {"temperature": 1.2, "thresholds": [], "num_images": number}
        kept["sets"] = [[0.9, 0.1], [0.95, 0.05], [0.99, 0.0]]
    result = Result.model_validate({**BARE_RESULT, "calibration": kept})
    with pytest.raises(TenfoldError, match=said):
        calibration.set_threshold(result, coverage)
    if number == 60:
        assert calibration.set_threshold(result, 0.95) == 0.05
