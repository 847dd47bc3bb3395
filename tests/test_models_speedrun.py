"""The fast network: what whitening, identity and pooling do."""

import pytest
import torch
from torch.nn.functional import unfold

from parts import build, speedrun
from tenfold.models import blocks_of, count_parameters


def make(**changes):
    torch.manual_seed(0)
    options = speedrun(**{"widths": (16, 32), **changes})
    model = build("speedrun", num_classes=5, image_size=(32, 32), **options.options())
    return model.to(memory_format=torch.channels_last)


def images(number=40, size=32, seed=0):
    """Smooth images whose channels are alike, as those of the world are."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(number, 3, size // 4, size // 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (
        smooth
        + 2 * smooth.mean(dim=1, keepdim=True)
        + 0.1 * torch.randn(smooth.shape, generator=generator)
    )


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_first_layer_decorrelates_patches(size):
    model = make(whitening_size=size)
    inputs = images()
    model.whiten(inputs)
    width = 3 * size**2
    outputs = model.whitening(inputs)
    assert outputs.shape[1] == 2 * width
    torch.testing.assert_close(outputs[:, :width], -outputs[:, width:])
    # Of patches side by side.
    apart = outputs[:, :width, ::size, ::size]
    flat = apart.transpose(0, 1).reshape(width, -1).double()
    covariance = flat @ flat.T / flat.shape[1]
    patches = unfold(inputs, size, stride=size).transpose(0, 1).reshape(width, -1).double()
    values = torch.linalg.eigvalsh(patches @ patches.T / patches.shape[1])
    assert values.max() / values.min() > 3
    torch.testing.assert_close(
        covariance, torch.diag(values / (values + 5e-4)), atol=1e-3, rtol=1e-3
    )


def test_the_first_layer_keeps_its_filters_and_learns_its_bias():
    model = make()
    model.whiten(images())
    assert not model.whitening.weight.requires_grad
    assert model.whitening.bias.requires_grad
    assert not model.whitening.bias.any()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(not n.weight.requires_grad and n.bias.requires_grad for n in norms)


def test_convolutions_begin_as_the_identity():
    convolution = make().groups[1].first[0]
    inputs = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(convolution(inputs)[:, :16], inputs)


@pytest.mark.parametrize(("pool_first", "sides"), [(False, [31, 15]), (True, [31, 7])])
def test_pools_come_before_or_after_the_first_convolution(pool_first, sides):
    model = make(pool_first=pool_first)
    seen = []
    for group in model.groups:
        convolution = next(m for m in group.first if isinstance(m, torch.nn.Conv2d))
        convolution.register_forward_hook(lambda module, given, found: seen.append(found.shape[2]))
    model(images(2))
    assert seen == sides


@pytest.mark.parametrize(("depth", "shortcut"), [(1, False), (2, False), (3, True), (4, True)])
def test_a_group_has_as_many_convolutions_as_asked_for(depth, shortcut):
    model = make(depth=depth)
    for group in model.groups:
        assert sum(isinstance(m, torch.nn.Conv2d) for m in group.modules()) == depth
    plain, group = make(depth=3).eval(), model.eval().groups[0]
    assert group.shortcut == shortcut
    inputs = torch.randn(2, 24, 8, 8)
    if depth == 3:
        entered = group.first(inputs)
        expected = group.last(group.others(entered) + entered)
        torch.testing.assert_close(plain.groups[0](inputs), expected)


@pytest.mark.parametrize("size", [20, 27, 32, 40])
def test_one_network_takes_images_of_any_size(size):
    assert make().eval()(images(3, size=size)).shape == (3, 5)


def test_logits_are_the_head_over_the_number_of_features():
    model = make().eval()
    inputs = images(3)
    features = model.groups(model.activation(model.whitening(inputs))).amax(dim=(2, 3))
    torch.testing.assert_close(model(inputs), features @ model.head.weight.T / 32)
    assert model.head.weight.std().item() == pytest.approx(1, abs=0.15)


def test_blocks_go_from_the_input_to_the_last_group():
    model = make()
    assert blocks_of(model) == [model.whitening, *model.groups]


def test_blocks_of_other_networks_leave_out_what_does_not_learn_and_the_head():
    torch.manual_seed(0)
    model = build(
        "pyramid", num_classes=3, image_size=(32, 32), depth=2, first_width=4, last_width=8,
        kernel_size=3, activation="relu", dropout=0.0, norm="batch",
    )  # fmt: skip
    blocks = blocks_of(model)
    assert [type(block).__name__ for block in blocks] == [
        "Conv2d", "BatchNorm2d", "Conv2d", "BatchNorm2d",
    ]  # fmt: skip
    assert all(count_parameters(block) for block in blocks)
