"""Explanations against captum, against numbers worked out by hand, and for every network."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from tenfold import explain
from tenfold.data.normalisation import Normalisation
from tenfold.errors import TenfoldError
from tenfold.evaluation.trained import TrainedModel, build_network
from tenfold.models.parts import parts_of
from tenfold.recipe import load_recipe

NETWORKS = ("ann", "cnn", "lenet", "tutorial-cnn", "pyramid", "resnet20", "resnet18", "fast-75")
WITH_MAPS = NETWORKS[1:]


def trained(name="cnn", *overrides, seed=0):
    recipe = load_recipe(name, list(overrides))
    torch.manual_seed(seed)
    module = build_network(recipe, num_classes=10, image_size=(32, 32))
    for part in module.modules():  # Statistics as if it had seen pictures.
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    names = tuple(f"class {number}" for number in range(10))
    normalisation = Normalisation((0.5, 0.45, 0.4), (0.25, 0.25, 0.2))
    return TrainedModel(module, recipe, names, normalisation, (32, 32))


def pictures(number=4, *, seed=0):
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (number, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


CLASSES = np.array([0, 3, 3, 9])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))


def test_features_are_computed_once_for_the_same_network_and_pictures():
    model = trained("cnn")
    first = explain.features_before_head(model, pictures())
    calls = []
    again = explain.features_before_head(model, pictures(), progress=lambda *c: calls.append(c))
    assert not calls
    np.testing.assert_array_equal(again, first)
    others = [
        (trained("cnn", seed=1), pictures()),
        (trained("cnn", "model.activation=elu"), pictures()),
        (dataclasses.replace(model, normalisation=Normalisation((0, 0, 0), (1, 1, 1))), pictures()),
        (model, pictures(seed=1)),
    ]
    for other, pixels in others:
        assert not np.array_equal(explain.features_before_head(other, pixels), first)


def test_floats_between_0_and_1_are_explained_as_the_pictures_that_they_are_of():
    model = trained("cnn")
    expected = explain.grad_cam(model, pictures(), CLASSES)
    np.testing.assert_array_equal(explain.grad_cam(model, pictures() / 255, CLASSES), expected)
    with pytest.raises(TenfoldError, match="array of uint16"):
        explain.grad_cam(model, pictures().astype(np.uint16), CLASSES)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_says_what_it_is_made_of(name):
    model = trained(name, "evaluation.views=one")
    parts = parts_of(model.module, model.image_size)
    assert parts.head.out_features == 10
    maps = explain.feature_maps(model, pictures())
    assert bool(maps) == (name in WITH_MAPS)
    sides = [layer.shape[2] for layer in maps.values()]
    assert sides == sorted(sides, reverse=True)  # The deeper, the coarser.
    assert all(layer.shape[0] == 4 for layer in maps.values())
    # The features are what the head makes its logits of.
    features = explain.features_before_head(model, pictures())
    with torch.inference_mode():
        logits = parts.head(torch.from_numpy(features)).numpy()
    scale = features.shape[1] if name.startswith("fast") else 1
    assert np.allclose(logits / scale, model.logits(pictures()), atol=1e-4)


@pytest.mark.parametrize("name", WITH_MAPS)
def test_grad_cam_is_that_of_captum(name):
    from captum.attr import LayerAttribution, LayerGradCam

    model = trained(name)
    layer = parts_of(model.module, model.image_size).last
    model.module.eval()
    inputs = model.inputs(pictures()).requires_grad_(True)
    found = LayerGradCam(model.module, layer.module).attribute(
        inputs, target=torch.tensor(CLASSES), relu_attributions=True
    )
    expected = LayerAttribution.interpolate(found, (32, 32), "bilinear")[:, 0].detach().numpy()
    ours = explain.grad_cam(model, pictures(), CLASSES)
    assert ours.shape == (4, 32, 32)
    assert np.allclose(ours, expected, atol=1e-6 * max(1.0, float(np.abs(expected).max())))


def test_grad_cam_finds_the_only_thing_that_matters():
    """A network whose class 1 is the amount of red says where the red is."""
    model = trained("cnn")
    convolution = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.weight[1, 0] = 1.0
        convolution.bias.zero_()
    head = nn.Linear(2, 10, bias=False)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[1, 1] = 1.0
    module = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    model = dataclasses.replace(model, module=module)
    x = np.full((1, 32, 32, 3), 100, dtype=np.uint8)
    x[0, 4:8, 20:24, 0] = 255
    for method in (explain.grad_cam, explain.integrated_gradients):
        found = method(model, x, np.array([1]))[0]
        assert set(map(tuple, np.argwhere(found > 0.5 * found.max()))) == {
            (i, j) for i in range(4, 8) for j in range(20, 24)
        }
    row, column = np.unravel_index(explain.occlusion(model, x, np.array([1]))[0].argmax(), (32, 32))
    assert 0 <= row < 12
    assert 16 <= column < 28


@pytest.mark.parametrize(
    ("backbone", "side"),
    [("vit_tiny_patch16_224", 32), ("swin_tiny_patch4_window7_224", 64), ("resnet18", 64)],
)
def test_pretrained_networks_have_maps_wherever_their_channels_are(backbone, side):
    """Transformers have tokens in a row, or channels last; some ask one token alone."""
    pytest.importorskip("timm")
    settings = [f"model.backbone={backbone}", "model.weights=none", f"model.input_size={side}"]
    model = trained("transfer-lite0", *settings)
    layers = explain.feature_maps(model, pictures())
    assert layers
    for maps in layers.values():
        count, _, height, width = maps.shape
        assert (count, height) == (4, width)
    found = explain.grad_cam(model, pictures(), CLASSES)
    assert found.shape == (4, 32, 32)
    assert (found >= 0).all()
    # A map of nothing would pass for one that shuffled weights change.
    assert (found.max(axis=(1, 2)) > 0).any()


def test_large_pictures_go_through_in_smaller_parts():
    from tenfold.models.parts import gradient_batch

    assert gradient_batch(nn.Identity(), (32, 32)) == 250
    assert gradient_batch(nn.Identity(), (64, 64)) == 62
    assert gradient_batch(nn.Identity(), (1000, 1000)) == 1


def test_a_dense_network_has_no_maps():
    with pytest.raises(TenfoldError, match="integrated gradients or occlusion"):
        explain.grad_cam(trained("ann"), pictures(), CLASSES)


@pytest.mark.parametrize("name", ["ann", "cnn", "fast-75"])
def test_integrated_gradients_add_up_to_the_logit(name):
    model = trained(name, "evaluation.views=one")
    found = explain.integrated_gradients(model, pictures(), CLASSES, steps=200)
    model.module.eval()
    with torch.inference_mode():
        mean = model.module(torch.zeros(1, 3, 32, 32))[0].numpy()
    logits = model.logits(pictures())[np.arange(4), CLASSES]
    assert np.allclose(found.sum(axis=(1, 2)), logits - mean[CLASSES], atol=0.02)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("cnn", "fast-75") else pytest.param(name, marks=pytest.mark.long)
        for name in WITH_MAPS
    ],
)
def test_models_are_left_as_they_were(name):
    model = trained(name)
    model.module.train()
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    explain.grad_cam(model, pictures(), CLASSES)
    explain.randomisation_check(model, pictures(), CLASSES, explain.grad_cam)
    explain.features_before_head(model, pictures())
    assert model.module.training
    assert all(torch.equal(before[key], value) for key, value in model.module.state_dict().items())
    assert all(not module._forward_hooks for module in model.module.modules())


def test_the_check_tells_maps_of_the_picture_from_maps_of_the_network():
    model = trained("cnn")

    def edges(model, pixels, classes):
        """What depends on the picture alone, as the maps that the paper warns of nearly do."""
        return np.abs(np.diff(pixels.astype(np.float32).sum(axis=3), axis=1, prepend=0))

    assert explain.randomisation_check(model, pictures(), CLASSES, edges) == pytest.approx(1.0)
    assert explain.randomisation_check(model, pictures(), CLASSES, explain.grad_cam) < 0.8


@pytest.mark.parametrize(
    ("name", "shape"), [("cnn", (3, 3)), ("ann", (32, 32)), ("fast-75", (2, 2))]
)
def test_first_filters_are_pictures(name, shape):
    filters = explain.first_filters(trained(name))
    assert filters.shape[1:] == (*shape, 3)
    assert filters.min() == 0
    assert filters.max() == 1
