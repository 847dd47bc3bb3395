"""Channel statistics against NumPy's own, and the constants that recipes choose from."""

import numpy as np
import pytest

from tenfold.data.images import Images
from tenfold.data.normalisation import channel_statistics, normalisation_of


@pytest.mark.parametrize(("number", "size"), [(1, (1, 1)), (7, (5, 9)), (5_000, (3, 2))])
def test_statistics_are_those_of_all_pixels(make_images, number, size):
    images = make_images(number, size=size)
    found = channel_statistics(images)
    scaled = images.pixels.astype(np.float64) / 255
    assert found.mean == pytest.approx(scaled.mean(axis=(0, 1, 2)), abs=1e-12)
    assert found.std == pytest.approx(scaled.std(axis=(0, 1, 2)), abs=1e-7)
    assert all(type(value) is float for value in (*found.mean, *found.std))


def test_channels_are_red_green_blue():
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    pixels[..., 0] = 255
    pixels[0, ..., 1] = 255
    images = Images(pixels, np.zeros(2, np.int64), ("one",), np.array(["a", "b"]))
    found = channel_statistics(images)
    assert found.mean == pytest.approx((1.0, 0.5, 0.0))
    assert found.std == pytest.approx((0.0, 0.5, 0.0), abs=1e-7)


def test_standardised_images_have_mean_0_and_deviation_1(make_images):
    images = make_images(50)
    mean, std = (np.array(values) for values in normalisation_of(images, "standardise"))
    inputs = (images.pixels / 255 - mean) / std
    assert inputs.mean(axis=(0, 1, 2)) == pytest.approx([0, 0, 0], abs=1e-9)
    assert inputs.std(axis=(0, 1, 2)) == pytest.approx([1, 1, 1], abs=1e-7)


@pytest.mark.parametrize(("kind", "black", "white"), [("unit", 0.0, 1.0), ("symmetric", -1.0, 1.0)])
def test_fixed_ranges_do_not_depend_on_the_images(make_images, kind, black, white):
    mean, std = normalisation_of(make_images(3), kind)
    for value, expected in ((0, black), (255, white)):
        assert [(value / 255 - m) / s for m, s in zip(mean, std, strict=True)] == [expected] * 3


@pytest.mark.parametrize("value", [0, 128, 255])
def test_images_of_one_colour_give_finite_inputs(value):
    pixels = np.full((4, 8, 8, 3), value, np.uint8)
    images = Images(pixels, np.zeros(4, np.int64), ("one",), np.array(list("abcd")))
    mean, std = normalisation_of(images, "standardise")
    assert mean == pytest.approx([value / 255] * 3)
    assert min(std) > 0
    assert np.isfinite((pixels / 255 - np.array(mean)) / np.array(std)).all()
