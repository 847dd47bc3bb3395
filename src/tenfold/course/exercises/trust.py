"""Exercises of chapter 12: calibration, conformal sets and integers."""

import numpy as np

from tenfold.course.exercises.comparing import Solution, assert_equal


def calibration_error(function: Solution) -> None:
    """Chapter 12, exercise 1."""
    confidences = np.array([0.95, 0.92, 0.55, 0.58, 1.0, 0.05])
    right = np.array([True, False, True, True, True, False])
    # By hand. Bin 0: 0.05 against 0; bin 5: 0.565 against 1; bin 9, with 1.0 in it: 2.87/3, 2/3.
    expected = (1 * 0.05 + 2 * 0.435 + 3 * (2.87 / 3 - 2 / 3)) / 6
    assert_equal(
        function(confidences, right, 10),
        expected,
        "calibration_error of six images in ten bins",
        "In each bin |mean confidence - share that is right|, times the share of all images that "
        "is in it. A confidence of 1 belongs to the last bin; empty bins count nothing.",
    )
    generator = np.random.default_rng(0)
    confidences = generator.random(20_000)
    found = function(confidences, generator.random(20_000) < confidences, 15)
    assert found < 0.02, f"Of a calibrated classifier it is near 0; yours is {found:.3f}."


def set_threshold(function: Solution) -> None:
    """Chapter 12, exercise 2."""
    true = np.array([0.9, 0.2, 0.7, 0.8, 0.5, 0.95, 0.6, 0.99, 0.4])
    hint = (
        "Rank floor((n + 1) (1 - coverage)) of the sorted probabilities, counted from 1. In "
        "floating point 10 (1 - 0.9) is a little less than 1: add 1e-9 before rounding down."
    )
    assert_equal(function(true, 0.9), 0.2, "set_threshold of nine images at 90 %", hint)
    assert_equal(function(true, 0.7), 0.5, "set_threshold of nine images at 70 %", hint)
    assert_equal(
        function(true[:8], 0.9),
        0.0,
        "set_threshold of eight images at 90 %",
        "Where the rank is 0, nothing can be promised but the set of all classes.",
    )


def quantise(function: Solution) -> None:
    """Chapter 12, exercise 3."""
    weight = np.array([[0.5, -1.27, 0.004], [2.54, 0.02, -0.031], [0.0, 0.0, 0.0]])
    found = function(weight)
    assert found is not None, "quantise returns nothing yet."
    assert len(found) == 2, "Return the integers, and the scales."
    integers, scales = (np.asarray(each) for each in found)
    assert integers.dtype == np.int8, f"The integers are {integers.dtype}; .astype(np.int8)."
    assert_equal(
        integers,
        [[50, -127, 0], [127, 1, -2], [0, 0, 0]],
        "quantise's array of integers",
        "A row's scale is its largest absolute weight / 127; round to the nearest, don't cut off. "
        "A row of zeros stays zeros.",
    )
    assert scales.shape == (3,), (
        f"The scales have the shape {scales.shape}, where (3,) is right: one for each row."
    )
    assert_equal(
        integers * scales[:, None],
        [[0.5, -1.27, 0.0], [2.54, 0.02, -0.04], [0.0, 0.0, 0.0]],
        "the product of integers and scales",
        "They give the weights back, up to half a scale.",
    )
