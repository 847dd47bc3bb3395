"""RandAugment and TrivialAugment against Pillow and torchvision, and what is drawn for them."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats
from torchvision.transforms.v2 import RandAugment, TrivialAugmentWide
from torchvision.transforms.v2 import functional as torchvision_functional

from tenfold.augment import EpochDraws
from tenfold.autoaugment import (
    HIGHEST_MAGNITUDE,
    OPERATIONS,
    WIDE_RANGES,
    batch_operations,
    draw_operations,
    randaugment_ranges,
)


def images(number=6, height=32, width=24):
    """Smooth images, of noise, of few levels, of one colour, dark, and of high contrast."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (number, height, width, 3))
    ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
    noise[0] = ramp
    noise[1] = 255 - ramp // 2
    noise[2] = noise[2] // 64 * 64
    noise[3] = (10, 90, 200)
    noise[4] //= 5
    return torch.from_numpy(noise.astype(np.uint8))


def drawn(number, size=(32, 24), *, num_operations=2, magnitude=None, ranges=WIDE_RANGES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    chosen = {"num_operations": num_operations, "magnitude": magnitude, "ranges": ranges}
    return draw_operations(number, size, **chosen, generator=generator)


def affine(image, *, translate=(0, 0), shear=(0.0, 0.0)):
    degrees = [math.degrees(math.atan(tangent)) for tangent in shear]
    return torchvision_functional.affine(
        image, angle=0.0, translate=list(translate), scale=1.0, shear=degrees, center=[0, 0]
    )


REFERENCES = {
    "identity": lambda image, amount: image,
    "shear_x": lambda image, amount: affine(image, shear=(amount, 0.0)),
    "shear_y": lambda image, amount: affine(image, shear=(0.0, amount)),
    "translate_x": lambda image, amount: affine(image, translate=(round(amount * 24), 0)),
    "translate_y": lambda image, amount: affine(image, translate=(0, round(amount * 32))),
    "rotate": lambda image, amount: torchvision_functional.rotate(image, amount),
    "brightness": lambda image, amount: ImageEnhance.Brightness(image).enhance(1 + amount),
    "color": lambda image, amount: ImageEnhance.Color(image).enhance(1 + amount),
    "contrast": lambda image, amount: ImageEnhance.Contrast(image).enhance(1 + amount),
    "sharpness": lambda image, amount: ImageEnhance.Sharpness(image).enhance(1 + amount),
    "posterize": lambda image, amount: ImageOps.posterize(image, round(amount)),
    "solarize": ImageOps.solarize,
    "autocontrast": lambda image, amount: ImageOps.autocontrast(image),
    "equalize": lambda image, amount: ImageOps.equalize(image),
}
SIGNED = OPERATIONS[1:10]
GEOMETRIC = OPERATIONS[1:6]
AMOUNTS = {
    **dict.fromkeys(OPERATIONS, (0.0,)),
    **dict.fromkeys(SIGNED, (-0.99, -0.31, -0.05, 0.0, 0.17, 0.5, 0.99)),
    "rotate": (-135.0, -30.0, -4.5, 0.0, 13.0, 90.0, 121.5),
    "posterize": (8.0, 7.0, 5.0, 4.0, 2.0),
    "solarize": (255.0, 246.5, 128.0, 17.0, 0.0),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_that_of_pillow(name):
    pixels = images()
    for amount in AMOUNTS[name]:
        operations = torch.full((len(pixels), 1), OPERATIONS.index(name))
        found = batch_operations(pixels, operations, torch.full((len(pixels), 1), amount))
        assert found.dtype == torch.uint8
        for result, original in zip(found.numpy().astype(int), pixels.numpy(), strict=True):
            expected = np.asarray(REFERENCES[name](Image.fromarray(original), amount)).astype(int)
            wrong = np.abs(result - expected)
            if name in GEOMETRIC:
                # A place that lies between two pixels may be rounded to either.
                assert (wrong > 0).any(axis=2).mean() <= 0.02, amount
            else:
                # Pillow cuts off where we round, and rounds grey before it blends.
                assert wrong.max() <= 2, amount


def test_images_of_a_batch_have_operations_of_their_own():
    pixels = images().repeat(20, 1, 1, 1)
    operations, amounts = drawn(len(pixels), num_operations=3)
    before = pixels.clone()
    together = batch_operations(pixels, operations, amounts)
    assert torch.equal(pixels, before)
    for index in range(len(pixels)):
        image = pixels[index : index + 1]
        for step in range(3):
            one = slice(index, index + 1), slice(step, step + 1)
            image = batch_operations(image, operations[one], amounts[one])
        # The mean grey of contrast may be summed in another order.
        assert (image[0].int() - together[index].int()).abs().max() <= 1


def largest(policy, size):
    """torchvision's amounts at the highest magnitude, in our units."""
    height, width = size
    space = {
        key: float(values(HIGHEST_MAGNITUDE + 1, height, width)[-1])
        for key, (values, _) in policy._AUGMENTATION_SPACE.items()
        if values(HIGHEST_MAGNITUDE + 1, height, width) is not None
    }
    found = {name: space[name.title().replace("_", "")] for name in SIGNED}
    found["translate_x"] = int(found["translate_x"]) / width
    found["translate_y"] = int(found["translate_y"]) / height
    return found | {"posterize": space["Posterize"], "solarize": 255 * space["Solarize"]}


@pytest.mark.parametrize("size", [(32, 32), (96, 64)])
@pytest.mark.parametrize("wide", [False, True])
def test_the_ranges_are_those_of_torchvision(size, wide):
    ranges = WIDE_RANGES if wide else randaugment_ranges(size)
    operations, amounts = drawn(5_000, size, magnitude=HIGHEST_MAGNITUDE, ranges=ranges)
    for name, most in largest(TrivialAugmentWide() if wide else RandAugment(), size).items():
        found = amounts[operations == OPERATIONS.index(name)]
        signs = (-1, 1) if name in SIGNED else (1,)
        expected = sorted(sign * most for sign in signs)
        assert found.unique().tolist() == pytest.approx(expected, rel=1e-5), name


def test_operations_magnitudes_and_signs_are_drawn_evenly():
    operations, amounts = drawn(60_000, num_operations=1)
    assert stats.chisquare(operations.flatten().bincount()).pvalue > 1e-3
    angles = amounts[operations == OPERATIONS.index("rotate")]
    # Every level from 0 to 30, both ways: 0 has both signs in one.
    values, counts = angles.abs().div(4.5).round().unique(return_counts=True)
    assert values.tolist() == list(range(31))
    assert stats.chisquare(counts).pvalue > 1e-3
    assert abs((angles > 0).float().mean() - (angles < 0).float().mean()) < 0.05


def test_draws_are_a_function_of_the_generator():
    for one, same, other in zip(*(drawn(50, magnitude=9, seed=n) for n in (1, 1, 2)), strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_a_translation_of_a_smaller_image_is_the_same_share():
    translate = torch.tensor([[OPERATIONS.index("translate_x")]])
    image = torch.arange(64, dtype=torch.uint8)[None, None, :, None].expand(1, 64, 64, 3)
    draws = EpochDraws(operations=translate, amounts=torch.tensor([[0.25]]))
    small = draws.scaled(0.5)
    for side, moved in ((64, 16), (32, 8)):
        found = batch_operations(image[:, :side, :side], small.operations, small.amounts)
        assert found[0, 0, moved:, 0].tolist() == list(range(side - moved))
        assert not found[0, :, :moved].any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gives_the_same_images():
    pixels = images().repeat(20, 1, 1, 1)
    operations, amounts = drawn(len(pixels))
    here = batch_operations(pixels, operations, amounts).int()
    there = batch_operations(pixels.cuda(), operations.cuda(), amounts.cuda()).cpu().int()
    assert ((here - there).abs() > 1).float().mean() < 1e-3
