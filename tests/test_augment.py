"""Augmentation against other implementations: Pillow, colorsys, NumPy, and the beta of SciPy."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy import stats

from tenfold.augment import (
    EpochDraws,
    batch_colour,
    batch_cutout,
    batch_erase,
    batch_gather,
    batch_mix,
    batch_normalise,
    draw_epoch,
)

NOTHING = EpochDraws()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_pixels(number=6, height=11, width=8, *, seed=0):
    return torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (number, height, width, 3), dtype=np.uint8)
    )


EVERYTHING = {
    "flip": True,
    "translate": 3,
    "cutout": 5,
    "brightness": 0.2,
    "contrast": 0.3,
    "saturation": 0.4,
    "hue": 0.1,
    "zoom": 0.2,
    "random_erasing": 0.5,
}


def present(draws):
    return [draw for draw in draws if draw is not None]


def test_draws_cover_their_range_evenly():
    number = 20_000
    draws = draw_epoch(number, (12, 20), generator=generator(), **EVERYTHING)
    assert draws.flip.dtype == torch.bool
    assert abs(draws.flip.float().mean() - 0.5) < 0.02
    for axis in (0, 1):
        values, counts = draws.shift[:, axis].unique(return_counts=True)
        assert values.tolist() == [-3, -2, -1, 0, 1, 2, 3]
        assert counts.min() > 0.9 * number / 7
    assert sorted(draws.cutout[:, 0].unique().tolist()) == list(range(12))
    assert sorted(draws.cutout[:, 1].unique().tolist()) == list(range(20))
    for name, middle, strength in (
        ("brightness", 1, 0.2),
        ("contrast", 1, 0.3),
        ("saturation", 1, 0.4),
        ("hue", 0, 0.1),
    ):
        values = getattr(draws, name)
        assert values.shape == (number,)
        scaled = ((values - middle) / strength + 1) / 2
        assert stats.kstest(scaled.numpy(), "uniform").pvalue > 1e-3


def test_what_is_off_is_not_drawn():
    assert draw_epoch(10, (8, 8), generator=generator()) == NOTHING
    for name, value in EVERYTHING.items():
        draws = draw_epoch(10, (8, 8), generator=generator(), **{name: value})
        drawn = [field for field, draw in draws._asdict().items() if draw is not None]
        assert drawn == [{"translate": "shift", "random_erasing": "erase"}.get(name, name)]


def test_draws_are_a_function_of_the_generator():
    first, again, other = (
        present(draw_epoch(50, (8, 8), generator=generator(seed), **EVERYTHING))
        for seed in (1, 1, 2)
    )
    for one, same, different in zip(first, again, other, strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, different)


def test_a_shift_is_limited_to_what_reflection_can_fill():
    shift = draw_epoch(5_000, (3, 9), generator=generator(), translate=50).shift
    assert shift.abs().max() == 2
    assert draw_epoch(5, (1, 9), generator=generator(), translate=2).shift is None


def test_draws_of_a_batch_are_those_of_its_images():
    draws = draw_epoch(50, (8, 8), generator=generator(), **EVERYTHING)
    indices = torch.tensor([7, 3, 3, 49])
    for of_batch, of_all in zip(present(draws.of(indices)), present(draws), strict=True):
        assert torch.equal(of_batch, torch.stack([of_all[i] for i in indices]))
    assert NOTHING.of(indices) == NOTHING


def moved(image, down, right, *, flip):
    """The reference: NumPy's reflecting pad, cut out where the shifted image lies."""
    height, width = image.shape[:2]
    up, left = max(down, 0), max(right, 0)
    padded = np.pad(image, ((up, max(-down, 0)), (left, max(-right, 0)), (0, 0)), mode="reflect")
    top, side = max(-down, 0), max(-right, 0)
    shifted = padded[top : top + height, side : side + width]
    return shifted[:, ::-1] if flip else shifted


@pytest.mark.parametrize("flips", ["none", "some"])
def test_every_image_is_shifted_and_mirrored_on_its_own_and_filled_by_reflection(flips):
    pixels = random_pixels(6, 5, 4)
    shifts = [(down, right) for down in range(-4, 5) for right in range(-3, 4)]
    indices = torch.arange(len(shifts)) * 5 % 6
    flip = torch.rand(len(shifts), generator=generator()) < (0.5 if flips == "some" else 0)
    draws = NOTHING._replace(shift=torch.tensor(shifts), flip=flip if flips == "some" else None)
    found = batch_gather(pixels, indices, draws).numpy()
    for image, index, (down, right), is_flipped in zip(found, indices, shifts, flip, strict=True):
        expected = moved(pixels[index].numpy(), down, right, flip=bool(is_flipped))
        np.testing.assert_array_equal(image, expected)


def test_mirroring_alone_and_nothing_at_all():
    pixels = random_pixels(4)
    indices = torch.tensor([2, 1])
    draws = NOTHING._replace(flip=torch.tensor([True, False]))
    found = batch_gather(pixels, indices, draws)
    assert torch.equal(found[0], pixels[2].flip(1))
    assert torch.equal(found[1], pixels[1])
    untouched = batch_gather(pixels, indices, NOTHING)
    assert torch.equal(untouched, pixels[indices])
    untouched.zero_()  # the data set itself must survive what is done to a batch
    assert pixels.any()


def test_normalisation_is_the_formula_in_channels_last_memory():
    pixels = random_pixels(5)
    mean, std = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.2, 0.25, 1.0])
    before = pixels.clone()
    found = batch_normalise(pixels, mean, std)
    expected = (pixels.double() / 255 - mean.double()) / std.double()
    assert found.dtype == torch.float32
    assert found.shape == (5, 3, 11, 8)
    torch.testing.assert_close(found.double(), expected.permute(0, 3, 1, 2), atol=2e-6, rtol=0)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels, before)


FACTORS = [0.0, 0.3, 0.8, 1.0, 1.4, 2.0]


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_colour_is_that_of_pillow(name, enhancer, factor):
    pixels = random_pixels(3)
    pixels[1] //= 4  # a dark image and one of little contrast
    pixels[2] = pixels[2] // 8 + 100
    draws = NOTHING._replace(**{name: torch.full((3,), factor)})
    found = batch_colour(pixels, draws).numpy().astype(int)
    for image, original in zip(found, pixels.numpy(), strict=True):
        expected = np.asarray(enhancer(Image.fromarray(original)).enhance(factor)).astype(int)
        # Pillow rounds grey to whole levels before it blends, and cuts off where we round.
        assert np.abs(image - expected).max() <= 2
        assert abs((image - expected).mean()) <= 1


@pytest.mark.parametrize("shift", [-0.5, -0.2, -1 / 12, 0.0, 0.05, 1 / 3, 0.5])
def test_hue_turns_as_in_colorsys(shift):
    pixels = random_pixels(2, 6, 6)
    pixels[1, 0, :4] = torch.tensor([[0, 0, 0], [255, 255, 255], [77, 77, 77], [255, 0, 0]])
    pixels[1, 1, :4] = torch.tensor([[9, 9, 200], [200, 200, 9], [9, 200, 200], [0, 255, 0]])
    found = batch_colour(pixels, NOTHING._replace(hue=torch.full((2,), shift)))
    for image, original in zip(found.view(-1, 3), pixels.view(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(original.double() / 255).tolist())
        expected = colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)
        assert image.tolist() == pytest.approx([round(255 * c) for c in expected], abs=1)


def test_neutral_factors_change_nothing():
    pixels = random_pixels(4)
    one, zero = torch.ones(4), torch.zeros(4)
    draws = NOTHING._replace(brightness=one, contrast=one, saturation=one, hue=zero)
    assert torch.equal(batch_colour(pixels, draws), pixels)
    assert batch_colour(pixels, NOTHING) is pixels


def test_each_image_has_its_own_colour_and_the_order_is_fixed():
    pixels = random_pixels(3)
    names = ("brightness", "contrast", "saturation", "hue")
    values = torch.tensor([[0.7, 1.2, 0.9], [1.3, 0.8, 1.0], [0.6, 1.5, 1.1], [0.1, -0.2, 0.3]])
    together = batch_colour(pixels, NOTHING._replace(**dict(zip(names, values, strict=True))))
    for index in range(3):
        image = pixels[index : index + 1]
        alone = {name: values[i, index : index + 1] for i, name in enumerate(names)}
        whole = batch_colour(image, NOTHING._replace(**alone))
        assert torch.equal(together[index], whole[0])
        for name in names:
            image = batch_colour(image, NOTHING._replace(**{name: alone[name]}))
        assert (image.int() - whole.int()).abs().max() <= 4  # rounded after each step


@pytest.mark.parametrize("size", [1, 5, 8, 40])
def test_a_square_of_the_asked_size_is_covered(size):
    inputs = torch.rand(4, 3, 12, 15) + 1
    before = inputs.clone()
    centres = torch.tensor([[6, 7], [0, 0], [11, 14], [3, 12]])
    found = batch_cutout(inputs.clone(), centres, size=size)
    for image, original, (row, column) in zip(found, inputs, centres.tolist(), strict=True):
        top, left = row - size // 2, column - size // 2
        expected = original.clone()
        expected[:, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
        assert torch.equal(image, expected)
    assert torch.equal(inputs, before)
    inside = size * size if size <= 8 else 12 * 15
    assert (found[0, 0] == 0).sum() == inside


def test_random_erasing_is_that_of_the_paper():
    number, height, width = 20_000, 32, 48
    draws = draw_epoch(number, (height, width), generator=generator(), random_erasing=0.25)
    erased = draws.erase[draws.erase[:, 2] > 0]
    assert len(erased) / number == pytest.approx(0.25, abs=0.01)
    top, left, tall, wide = erased.double().unbind(dim=1)
    assert ((top >= 0) & (top + tall <= height) & (left >= 0) & (left + wide <= width)).all()
    assert top.min() == left.min() == 0
    assert (top + tall).max() == height
    assert (left + wide).max() == width
    area, ratio = tall * wide / (height * width), tall / wide
    # Whole pixels miss the limits a little.
    assert 0.01 < area.min() < 0.03
    assert 0.31 < area.max() < 0.36
    assert area.mean() == pytest.approx(0.175, abs=0.02)
    assert ratio.log().mean().abs() < 0.1
    assert 0.2 < ratio.min() < 0.4
    assert 2.5 < ratio.max() < 4.5


def test_a_rectangle_is_erased_and_nothing_else():
    inputs = torch.rand(3, 3, 12, 15) + 1
    rectangles = torch.tensor([[2, 3, 4, 5], [0, 0, 0, 0], [11, 14, 1, 1]])
    expected = inputs.clone()
    expected[0, :, 2:6, 3:8] = 0
    expected[2, :, 11, 14] = 0
    assert torch.equal(batch_erase(inputs, rectangles), expected)


def marked(batch=16, height=20, width=24):
    """Images that are all their own number, counted from 1."""
    numbers = torch.arange(1.0, batch + 1)
    return numbers[:, None, None, None].expand(batch, 3, height, width).contiguous(), numbers


def test_mixup_blends_whole_images_by_the_share():
    inputs, numbers = marked()
    before = inputs.clone()
    mix = batch_mix(inputs, generator=generator(), mixup=1.0)
    expected = mix.share * numbers + (1 - mix.share) * numbers[mix.partner]
    torch.testing.assert_close(mix.inputs, expected[:, None, None, None].expand_as(inputs))
    assert sorted(mix.partner.tolist()) == list(range(16))
    assert 0 < mix.share < 1
    assert torch.equal(inputs, before)


def test_cutmix_pastes_a_rectangle_whose_area_is_the_share():
    inputs, numbers = marked()
    before = inputs.clone()
    shapes = set()
    for seed in range(30):
        mix = batch_mix(inputs, generator=generator(seed), cutmix=1.0)
        own = mix.inputs == inputs
        moved_away = mix.partner != torch.arange(16)
        assert own[moved_away].float().mean(dim=(1, 2, 3)).tolist() == pytest.approx(
            [mix.share] * int(moved_away.sum())
        )
        pasted = ~own[moved_away][0, 0]
        rows, columns = pasted.any(dim=1), pasted.any(dim=0)
        assert torch.equal(pasted, rows[:, None] & columns[None, :])
        both = numbers[:, None, None, None], numbers[mix.partner][:, None, None, None]
        assert ((mix.inputs == both[0]) | (mix.inputs == both[1])).all()
        shapes.add((int(rows.sum()), int(columns.sum())))
    assert len(shapes) > 20
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(alpha):
    inputs, stream = torch.zeros(2, 3, 4, 4), generator()
    shares = [batch_mix(inputs, generator=stream, mixup=alpha).share for _ in range(2_000)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_with_both_on_each_batch_takes_one_of_them():
    inputs, _ = marked()
    kinds = []
    for seed in range(200):
        mix = batch_mix(inputs, generator=generator(seed), mixup=1.0, cutmix=1.0)
        kinds.append(bool((mix.inputs.amax(dim=(2, 3)) == mix.inputs.amin(dim=(2, 3))).all()))
    assert 60 < sum(kinds) < 140


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gives_the_same_images():
    device = torch.device("cuda")
    pixels = random_pixels(64, 32, 32)
    indices = torch.randperm(64, generator=generator())[:40]
    draws = draw_epoch(64, (32, 32), generator=generator(), **EVERYTHING)
    results = []
    for where in (torch.device("cpu"), device):
        here, drawn = indices.to(where), draws.to(where).of(indices.to(where))
        gathered = batch_gather(pixels.to(where), here, drawn)
        coloured = batch_colour(gathered, drawn)
        mean = torch.full((3,), 0.5, device=where)
        inputs = batch_cutout(batch_normalise(coloured, mean, mean), drawn.cutout, size=5)
        mix = batch_mix(inputs, generator=generator(), mixup=0.5, cutmix=0.5)
        results.append([t.cpu() for t in (gathered, mix.inputs, mix.partner)] + [mix.share])
    cpu, gpu = results
    assert torch.equal(cpu[0], gpu[0])
    torch.testing.assert_close(cpu[1], gpu[1], atol=2.1 / 127, rtol=0)
    assert torch.equal(cpu[2], gpu[2])
    assert cpu[3] == gpu[3]
