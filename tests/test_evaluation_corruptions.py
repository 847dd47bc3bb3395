"""Corruptions against what their definitions say, computed by hand or by other means."""

import io

import numpy as np
import pytest
from PIL import Image

from tenfold.evaluation import corruptions
from tenfold.evaluation.corruptions import FAMILIES, SEVERITIES, corrupt

ALL = [name for names in FAMILIES.values() for name in names]


def grey(value=128, number=50, side=32):
    return np.full((number, side, side, 3), value, dtype=np.uint8)


def pictures(number=20, side=32):
    """Smooth shapes with edges, as photographs have them."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side] / side
    found = []
    for _ in range(number):
        a, b, c = generator.uniform(0, 1, 3)
        wave = 0.5 + 0.4 * np.sin(6 * (a * rows + b * columns + c))
        disk = ((rows - a) ** 2 + (columns - b) ** 2 < 0.1).astype(float)
        found.append(np.stack([wave, 0.7 * disk + 0.2, 1 - wave], axis=-1))
    return (np.array(found) * 255).astype(np.uint8)


def difference(a, b):
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def test_there_are_fifteen_in_four_families():
    assert len(set(ALL)) == 15
    assert list(FAMILIES) == ["noise", "blur", "weather", "digital"]


@pytest.mark.parametrize("name", ALL)
def test_the_same_arguments_give_the_same_bytes(name):
    x = pictures()
    once = corrupt(x, name, severity=3)
    assert once.shape == x.shape
    assert once.dtype == np.uint8
    assert np.array_equal(once, corrupt(x, name, severity=3))
    assert np.array_equal(x, pictures())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("side", "across"), [(8, 8), (48, 32)])
def test_other_sizes_will_do(name, side, across):
    x = np.random.default_rng(0).integers(0, 256, (3, side, across, 3), dtype=np.uint8)
    assert corrupt(x, name, severity=5).shape == x.shape


@pytest.mark.parametrize("name", ALL)
def test_the_severest_changes_more_than_the_slightest(name):
    x = pictures()
    changes = [difference(corrupt(x, name, severity=severity), x) for severity in SEVERITIES]
    assert min(changes) > 0
    if name != "elastic_transform":  # Its first moves pixels further, if all of them together.
        assert changes[4] > changes[0]


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "glass_blur", "snow", "fog"])
def test_another_seed_gives_other_pictures(name):
    x = pictures()
    assert not np.array_equal(corrupt(x, name, severity=3), corrupt(x, name, severity=3, seed=1))


def test_wrong_arguments_are_refused():
    with pytest.raises(KeyError):
        corrupt(grey(), "rain", severity=1)
    with pytest.raises(ValueError, match="from 1 to 5, not 6"):
        corrupt(grey(), "fog", severity=6)


# -- by hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0.04), (3, 0.08), (5, 0.10)])
def test_gaussian_noise_has_its_deviation(severity, deviation):
    found = corrupt(grey(), "gaussian_noise", severity=severity) / 255
    assert found.std() == pytest.approx(deviation, rel=0.02)
    assert found.mean() == pytest.approx(128 / 255, abs=0.003)


@pytest.mark.parametrize(("severity", "photons"), [(1, 500), (5, 50)])
def test_shot_noise_has_the_variance_of_what_is_counted(severity, photons):
    found = corrupt(grey(100), "shot_noise", severity=severity) / 255
    assert found.var() == pytest.approx(100 / 255 / photons, rel=0.05)


def test_impulse_noise_touches_its_share_of_the_values():
    found = corrupt(grey(), "impulse_noise", severity=5)
    assert (found == 0).mean() == pytest.approx(0.035, abs=0.002)
    assert (found == 255).mean() == pytest.approx(0.035, abs=0.002)
    assert set(np.unique(found)) == {0, 128, 255}


def test_contrast_has_its_factor():
    x = pictures().astype(float)
    found = corrupt(pictures(), "contrast", severity=2).astype(float)
    means = x.mean(axis=(1, 2), keepdims=True)
    assert np.allclose(found - means, (x - means) * 0.5, atol=1.1)


def test_brightness_adds_to_the_value_at_the_same_hue_and_saturation():
    import colorsys

    x = pictures(3)
    found = corrupt(x, "brightness", severity=3)
    for before, after in zip(x.reshape(-1, 3)[::37], found.reshape(-1, 3)[::37], strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255))
        expected = np.array(colorsys.hsv_to_rgb(hue, saturation, min(value + 0.15, 1))) * 255
        assert np.allclose(after, expected, atol=1.01)
    assert (corrupt(grey(0), "brightness", severity=1) == int(0.05 * 255)).all()


def test_jpeg_has_its_quality():
    x = pictures(3)
    found = corrupt(x, "jpeg_compression", severity=5)
    for before, after in zip(x, found, strict=True):
        file = io.BytesIO()
        Image.fromarray(before).save(file, "JPEG", quality=40)
        assert np.abs(np.asarray(Image.open(file)).astype(int) - after.astype(int)).max() <= 1


def test_pixels_become_blocks():
    # 32 pixels to int(32 * 0.65) = 20 and back: no more than 20 different rows are left.
    found = corrupt(pictures(1), "pixelate", severity=5)[0]
    assert len(np.unique(found.reshape(32, -1), axis=0)) <= 20
    assert len(np.unique(found.transpose(1, 0, 2).reshape(32, -1), axis=0)) <= 20


def test_the_disk_of_a_defocused_lens():
    x = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    x[0, 16, 16] = 255
    # A radius of 1.5 is nine pixels; the softening by 0.1 is next to nothing.
    found = corrupt(x, "defocus_blur", severity=5)[0, ..., 0]
    assert np.allclose(found[15:18, 15:18], 255 / 9, atol=1)
    assert found.sum() == found[15:18, 15:18].sum()


@pytest.mark.parametrize("name", ["motion_blur", "zoom_blur", "defocus_blur", "glass_blur"])
def test_blurs_leave_even_pictures_and_brightness_alone(name):
    assert np.abs(corrupt(grey(), name, severity=5).astype(int) - 128).max() <= 1
    x = pictures()
    assert corrupt(x, name, severity=5).mean() == pytest.approx(x.mean(), abs=6)


def test_motion_is_along_a_line_from_the_pixel_onwards():
    x = np.zeros((1, 32, 32, 3), dtype=np.float32)
    x[0, 16, 16] = 1
    found = corruptions._moved(x, np.array([0.0]), radius=6, deviation=2.0)[0, ..., 0]
    weights = np.exp(-(np.arange(13) ** 2) / 8)
    assert np.allclose(found[16, 4:17][::-1], weights / weights.sum(), atol=1e-6)
    assert found[16].sum() == pytest.approx(found.sum())


def test_enlarging_keeps_the_middle():
    from scipy.ndimage import zoom

    x = pictures(1).astype(np.float32) / 255
    found = corruptions._enlarged(x, 1.25)[0]
    middle = x[0, 3:29, 3:29]  # ceil(32 / 1.25) = 26
    expected = zoom(middle, (1.25, 1.25, 1), order=1)  # 32 pixels
    assert expected.shape == found.shape
    assert np.allclose(found, expected, atol=1e-4)


def test_clouds_fill_their_range_and_wrap():
    clouds = corruptions._fractal((4, 32, 32), np.random.default_rng(0), decay=2.0)
    assert clouds.min(axis=(1, 2)).tolist() == [0] * 4
    assert clouds.max(axis=(1, 2)).tolist() == [1] * 4
    across = np.abs(clouds[:, :, 0] - clouds[:, :, -1]).mean()
    assert across < 2 * np.abs(np.diff(clouds, axis=2)).mean()
