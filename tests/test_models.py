"""One contract for every network, and the sizes that hand calculation and publications give."""

import contextlib
import warnings
from functools import partial
from typing import get_args

import pytest
import torch
import torchvision
from pydantic import ValidationError
from torch import nn

from parts import (
    ann,
    build,
    cifar_resnet,
    cnn,
    lenet,
    pretrained,
    pyramid,
    resnet,
    speedrun,
    tutorial_cnn,
)
from tenfold.errors import TenfoldError
from tenfold.models import blocks_of, count_parameters
from tenfold.models.blocks import ACTIVATIONS, Residual
from tenfold.models.classic import growing_widths
from tenfold.models.parts import parts_of
from tenfold.registry import SHIPPED

OPTIONS = {
    "ann": ann(),
    "cnn": cnn(),
    "lenet": lenet(),
    "tutorial_cnn": tutorial_cnn(),
    "pyramid": pyramid(first_width=8, last_width=32),
    "resnet": resnet(stem="imagenet"),
    "cifar_resnet": cifar_resnet(depth=8),
    "speedrun": speedrun(widths=(16, 32, 32)),
    "pretrained": pretrained(
        backbone="test_efficientnet", weights="none", input_size=32, head=(16,)
    ),
}
OTHERS = {
    "densenet": {"depth": 16, "growth": 8},
    "vgg": {"depth": 11},
    "wide_resnet": {"widen": 1},
    "mobilenet": {"width": 0.25},
    "vit": {"depth": 2, "width": 48},
}
NETWORKS = {name: partial(build, **options.options()) for name, options in OPTIONS.items()}
NETWORKS |= {name: partial(build, **options) for name, options in OTHERS.items()}
SMALLEST = {"lenet": 16, "tutorial_cnn": 18, "speedrun": 9, "vgg": 16}


def choices_of(name, field):
    """The values that a recipe may give `field` of the model; none where it has no such field."""
    fields = type(OPTIONS[name]).model_fields
    return get_args(fields[field].annotation) if field in fields else ()


def variants():
    for name in OPTIONS:
        for activation in ("relu", "prelu", "tanh"):
            for norm in choices_of(name, "norm") or (None,):
                for stem in choices_of(name, "stem") or (None,):
                    given = {"activation": activation, "norm": norm, "stem": stem}
                    changes = {key: value for key, value in given.items() if value is not None}
                    yield pytest.param(name, changes, id="-".join([name, *changes.values()]))


def make(name, *, num_classes=10, image_size=(32, 32), seed=0, **changes):
    torch.manual_seed(seed)
    return NETWORKS[name](name, num_classes=num_classes, image_size=image_size, **changes)


def images(number, *, size=(32, 32), seed=0):
    return torch.randn(number, 3, *size, generator=torch.Generator().manual_seed(seed))


def long(name):
    """A network whose test takes a quarter of a minute."""
    return pytest.param(name, marks=pytest.mark.long)


every_model = pytest.mark.parametrize("name", NETWORKS)
every_variant = pytest.mark.parametrize(("name", "changes"), list(variants()))
every_model_with_dropout = pytest.mark.parametrize(
    "name", [name for name in OPTIONS if "dropout" in OPTIONS[name].options()]
)


def test_recipes_and_models_offer_the_same():
    assert set(NETWORKS) == set(SHIPPED["network"])
    for name in OPTIONS:
        assert set(choices_of(name, "activation")) == set(ACTIVATIONS)


def trained_a_little(name, **changes):
    """In evaluation mode, with running statistics that are not those of the start."""
    model = make(name, **changes).train()
    with torch.no_grad():
        model(images(32, seed=1))
    return model.eval()


def check_that_all_learn(model):
    inputs = images(16).to(memory_format=torch.channels_last)
    logits = model.train()(inputs)
    assert logits.shape == (16, 7)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.arange(16) % 7).backward()
    assert count_parameters(model) > 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


@every_model
def test_the_contract_of_every_network(name):
    check_that_all_learn(make(name, num_classes=7))
    # The seed decides the weights.
    first, again, other = (make(name, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    # Evaluation is deterministic, and no image depends on the rest of its batch.
    model, inputs = trained_a_little(name), images(64)
    with torch.no_grad():
        whole = model(inputs)
        assert torch.equal(model(inputs), whole)
        for number in (1, 2, 7, 63):
            torch.testing.assert_close(model(inputs[:number]), whole[:number], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model(inputs.flip(0)).flip(0), whole, atol=1e-5, rtol=1e-4)
        # Weights survive the state dict.
        loaded = make(name, seed=2)
        loaded.load_state_dict(model.state_dict())
        assert torch.equal(loaded.eval()(inputs), whole)


@every_model
def test_every_network_can_be_looked_into(name):
    model, sides, features = trained_a_little(name), [], []
    parts, blocks = parts_of(model, (32, 32)), blocks_of(model)
    assert bool(parts.layers) == (name != "ann")
    assert len({layer.name for layer in parts.layers}) == len(parts.layers)
    learning = {id(p) for p in model.parameters() if p.requires_grad}
    in_blocks = {id(p) for block in blocks for p in block.parameters() if p.requires_grad}
    # Blocks can be frozen from the input on; all that learns but the head is in one of them.
    assert learning - in_blocks >= {id(p) for p in parts.head.parameters()}
    with contextlib.ExitStack() as hooks:
        for layer in parts.layers:
            as_maps = layer.as_maps or (lambda output: output)

            def record(module, inputs, output, as_maps=as_maps):
                sides.append(as_maps(output).shape[2:])
                assert as_maps(output).shape[0] == 3

            hooks.enter_context(layer.module.register_forward_hook(record))
        hook = parts.head.register_forward_pre_hook(lambda module, inputs: features.append(inputs))
        hooks.enter_context(hook)
        model(images(3))
    assert len(sides) == len(parts.layers)
    assert sides == sorted(sides, reverse=True)
    assert features[0][0].shape == (3, parts.head.in_features)


@every_variant
def test_every_parameter_of_every_variant_learns(name, changes):
    check_that_all_learn(make(name, num_classes=7, **changes))


@pytest.mark.parametrize(
    "name", ["vit", *map(long, ["densenet", "vgg", "wide_resnet", "mobilenet"])]
)
def test_an_exported_network_gives_the_logits_of_torch(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, inputs, path = trained_a_little(name), images(3), tmp_path / "model.onnx"
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (images(2),), path, dynamo=True, opset_version=18, verbose=False,
            input_names=["images"], dynamic_shapes=({0: batch},),
        )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        for number in (1, 3):
            [logits] = session.run(None, {"images": inputs[:number].numpy()})
            torch.testing.assert_close(
                torch.from_numpy(logits), model(inputs[:number]), atol=1e-4, rtol=1e-3
            )


@every_model
@pytest.mark.parametrize(
    ("size", "num_classes"), [((8, 8), 2), ((32, 32), 1), ((33, 50), 100), ((64, 16), 2)]
)
def test_any_number_of_classes_and_any_size(name, size, num_classes):
    if min(size) < SMALLEST.get(name, 0):
        with pytest.raises(TenfoldError, match=f"too small for {name}.*data.image_size"):
            make(name, num_classes=num_classes, image_size=size)
        return
    model = make(name, num_classes=num_classes, image_size=size).eval()
    assert model(images(2, size=size)).shape == (2, num_classes)


@every_model_with_dropout
def test_dropout_works_in_training_alone(name):
    # Batch norms see other statistics in training; those of a pretrained network keep theirs.
    without_norms = {} if name == "pretrained" else {"norm": "none"}
    model = make(name, dropout=0.5, **without_norms)
    if name == "pretrained":
        model.open("head")
    inputs = images(4)
    with torch.no_grad():
        assert not torch.equal(model.train()(inputs), model(inputs))
        evaluated = model.eval()(inputs)
        assert torch.equal(evaluated, model(inputs))
        none = make(name, dropout=0.0, **without_norms)
        if name == "pretrained":
            none.open("head")
        assert torch.equal(none.train()(inputs), evaluated)
        assert not [m for m in none.modules() if isinstance(m, nn.Dropout)]


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("ann", "cnn", "cifar_resnet", "speedrun", "vit") else long(name)
        for name in NETWORKS
    ],
)
def test_a_network_learns_a_handful_of_pictures_by_heart(name):
    model = make(name, **({"dropout": 0.0} if "dropout" in NETWORKS[name].keywords else {}))
    inputs, labels = images(16), torch.arange(16) % 10
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    assert (model(inputs).argmax(dim=1) == labels).all()


def test_sizes_written_out():
    # 3072 x 512 + 2 x 512, 512 x 256 + 2 x 256, 256 x 10 + 10.
    assert count_parameters(make("ann")) == 1_573_888 + 131_584 + 2_570 == 1_708_042
    # 27 x 32 + 64, 288 x 64 + 128, 576 x 128 + 256, 2048 x 128 + 256, 128 x 10 + 10.
    assert count_parameters(make("cnn")) == 928 + 18_560 + 73_984 + 262_400 + 1_290 == 357_162


PUBLISHED_SIZES = {
    # A transfer-learning project's baseline: conv 32, 64, 128 each pooled, dense 128.
    "about 357,000": ("cnn", {"norm": "none"}, 356_810),
    # A thesis: conv 32, 64, 128 of 3x3 with pools, dense 512, 256, 10.
    "dropout CNN": ("cnn", {"dense": (512, 256), "norm": "none", "dropout": 0.5}, 1_276_234),
    # conv 6 and 16 of 5x5, dense 120, 84, 10, as in PyTorch's tutorial: 62,006.
    "LeNet": ("lenet", {}, 62_006),
    # The summary that TensorFlow's tutorial prints.
    "TensorFlow's tutorial": ("tutorial_cnn", {}, 122_570),
    # He et al. 2016, table 6: 0.27, 0.85 and 1.7 million; exactly, with option A and the biases
    # of the last layer alone, as counted by the reimplementations that follow the paper.
    "ResNet-20": ("cifar_resnet", {"depth": 20}, 269_722),
    "ResNet-32": ("cifar_resnet", {"depth": 32}, 464_154),
    "ResNet-44": ("cifar_resnet", {"depth": 44}, 658_586),
    "ResNet-56": ("cifar_resnet", {"depth": 56}, 853_018),
    "ResNet-110": ("cifar_resnet", {"depth": 110}, 1_727_962),
    # pytorch-cifar's networks, with a 3x3 stem and ten classes.
    "ResNet-18 for CIFAR": ("resnet", {"depth": 18, "stem": "cifar"}, 11_173_962),
    "ResNet-34 for CIFAR": ("resnet", {"depth": 34, "stem": "cifar"}, 21_282_122),
    "ResNet-50 for CIFAR": ("resnet", {"depth": 50, "stem": "cifar"}, 23_520_842),
    # Huang et al. 2017, table 2: 0.8, 15.3 and 25.6 million, the first as their code prints it.
    "DenseNet-BC-100-12": ("densenet", {"depth": 100, "growth": 12}, 769_162),
    "DenseNet-BC-250-24": ("densenet", {"depth": 250, "growth": 24}, 15_324_406),
    "DenseNet-BC-190-40": ("densenet", {"depth": 190, "growth": 40}, 25_624_430),
    # Zagoruyko and Komodakis 2016, and as reimplementations (objax) count them.
    "WRN-16-4": ("wide_resnet", {"depth": 16, "widen": 4}, 2_748_890),
    "WRN-28-10": ("wide_resnet", {"depth": 28, "widen": 10}, 36_479_194),
    # Touvron et al. 2021 (arXiv 2012.12877), table 1, DeiT-Ti: timm's 5,717,416, less the class
    # token of 192 and the 197 learned positions that ours has none of.
    "ViT-Ti/16": (
        "vit",
        {"patch": 16, "depth": 12, "width": 192, "num_classes": 1000, "image_size": (224, 224)},
        5_717_416 - 192 - 197 * 192,
    ),
    # torchvision's, for the 1,000 classes of ImageNet.
    "ResNet-18": ("resnet", {"depth": 18, "stem": "imagenet", "num_classes": 1000}, 11_689_512),
    "ResNet-34": ("resnet", {"depth": 34, "stem": "imagenet", "num_classes": 1000}, 21_797_672),
    "ResNet-50": ("resnet", {"depth": 50, "stem": "imagenet", "num_classes": 1000}, 25_557_032),
}


@pytest.mark.parametrize("published", PUBLISHED_SIZES)
def test_sizes_are_those_of_the_literature(published):
    name, changes, expected = PUBLISHED_SIZES[published]
    assert count_parameters(make(name, **changes)) == expected


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vgg_has_the_convolutions_of_torchvision(depth):
    theirs = torchvision.models.get_model(f"vgg{depth}_bn", init_weights=False).features
    # A bias before a batch norm does nothing, so that ours has none.
    biases = sum(len(m.bias) for m in theirs if isinstance(m, nn.Conv2d))
    expected = sum(p.numel() for p in theirs.parameters()) - biases + 512 * 10 + 10
    assert count_parameters(make("vgg", depth=depth)) == expected


@pytest.mark.parametrize("width", [0.35, 0.5, 1.0, 1.4])
def test_mobilenet_has_the_size_of_torchvision(width):
    theirs = torchvision.models.mobilenet_v2(num_classes=10, width_mult=width)
    ours = count_parameters(make("mobilenet", width=width))
    assert ours == sum(p.numel() for p in theirs.parameters())
    # Sandler et al. 2018, table 4, for 1,000 classes: 3.4 million, with the exact 3,504,872.
    assert width != 1 or ours == 3_504_872 - 990 * 1281


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("densenet", {"depth": 101}, "6 n . 4"),
        ("wide_resnet", {"depth": 27}, "6 n . 4"),
        ("vit", {"width": 64, "heads": 5}, "multiple of 4 and of model.heads"),
        ("vit", {"patch": 32, "image_size": (16, 16)}, "too small for vit"),
        *(
            ("cnn", {"widths": (4,) * number, "image_size": size}, f"the {number} blocks of cnn")
            for number, size in ((4, (8, 8)), (6, (32, 32)), (3, (64, 7)))
        ),
    ],
)
def test_options_that_no_network_can_have_are_refused(name, options, message):
    with pytest.raises((TenfoldError, ValidationError), match=message):
        make(name, **options)


def test_a_wide_residual_block_is_that_of_the_paper():
    """Pre-activation: the sum is not activated, and a shortcut of 1x1 sees the activation."""
    model = make("wide_resnet", depth=10, widen=2).eval()
    changed, kept = (
        model[1],
        NETWORKS["wide_resnet"](
            "wide_resnet", num_classes=10, image_size=(32, 32), depth=16, widen=1
        ).eval()[2],
    )
    inputs = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        norm, _, residual = changed
        residual.body[-1].weight.zero_()
        expected = nn.functional.conv2d(norm(inputs).relu(), residual.shortcut.weight)
        torch.testing.assert_close(changed(inputs), expected)
        kept.body[-1].weight.zero_()
        assert torch.equal(kept(inputs), inputs)


def test_a_wide_resnet_drops_values_in_training_alone():
    model, without, inputs = (
        make("wide_resnet", dropout=0.3).train(),
        make("wide_resnet", dropout=0.0),
        images(4),
    )
    with torch.no_grad():
        assert not torch.equal(model(inputs), model(inputs))
        torch.testing.assert_close(
            make("wide_resnet", dropout=0.3).eval()(inputs), without.eval()(inputs)
        )


def test_the_last_pool_of_vgg_is_2x2_for_images_of_32_pixels():
    model, inputs = trained_a_little("vgg"), images(2)
    head = model[-1]
    with torch.no_grad():
        maps = model[: len(model) - 3](inputs)
        assert maps.shape == (2, 512, 2, 2)
        torch.testing.assert_close(
            head(nn.functional.max_pool2d(maps, 2).flatten(1)), model(inputs)
        )


def test_a_vision_transformer_tells_positions_apart_and_knows_no_other_order():
    model = make("vit").eval()
    inputs = images(2)
    moved = inputs.roll(8, dims=3)
    with torch.no_grad():
        assert not torch.allclose(model(moved), model(inputs), atol=1e-4)
        # Without positions, patches in another order give the same mean.
        model[0].forward = model[0].projection.forward
        torch.testing.assert_close(model(moved), model(inputs), atol=1e-5, rtol=1e-4)


def test_dropped_paths_keep_the_mean_and_leave_evaluation_alone():
    torch.manual_seed(0)
    residual = Residual(nn.Identity(), drop=0.25)
    inputs = torch.ones(4_000, 1, 1, 1)
    outputs = residual.train()(inputs)
    assert (outputs == 1).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert outputs.mean().item() == pytest.approx(2, abs=0.05)
    assert torch.equal(residual.eval()(inputs), 2 * inputs)


@pytest.mark.parametrize(("layers", "order"), [(0, "LDLDLDL"), (1, "LDLLL"), (2, "LDLDLL")])
def test_dropout_follows_the_first_dense_layers(layers, order):
    model = make("cnn", dense=(16, 12, 8), norm="none", dropout=0.5, dropout_layers=layers)
    kinds = [type(layer).__name__[0] for layer in model]
    assert "".join(kind for kind in kinds if kind in "LD") == order


@pytest.mark.parametrize(
    ("depth", "first", "last", "expected"),
    [
        (1, 32, 256, [256]),
        (2, 32, 256, [32, 256]),
        (4, 32, 256, [32, 64, 128, 256]),
        (7, 32, 256, [32, 48, 64, 88, 128, 184, 256]),
        (3, 10, 10, [10, 8, 10]),
    ],
)
def test_widths_grow_by_equal_ratios(depth, first, last, expected):
    assert growing_widths(depth, first, last) == expected


@pytest.mark.parametrize(
    ("depth", "kernel_size"), [(1, 3), (2, 5), (3, 3), (4, 5), (7, 3), (12, 3)]
)
def test_a_pyramid_has_its_depth_and_ends_at_four_pixels(depth, kernel_size):
    model = make("pyramid", depth=depth, kernel_size=kernel_size)
    convolutions = [m for m in model if isinstance(m, nn.Conv2d)]
    assert [c.kernel_size for c in convolutions] == [(kernel_size,) * 2] * depth
    assert [m for m in model if isinstance(m, nn.MaxPool2d)] != [] or depth == 1
    features = model[: [isinstance(m, nn.AdaptiveAvgPool2d) for m in model].index(True)]
    side = features(images(2)).shape[-1]
    assert side == (4 if depth >= 4 else 32 >> (depth - 1))


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 1), ("cifar", 4)])
def test_the_stem_decides_the_resolution(stem, side):
    model = make("resnet", stem=stem).eval()
    features = model[: [isinstance(m, nn.AdaptiveAvgPool2d) for m in model].index(True)]
    assert features(images(1)).shape == (1, 512, side, side)


def test_a_residual_block_adds_its_input():
    """With the last norm of a block at 0, the block is its shortcut."""
    model = make("cifar_resnet", depth=8).eval()
    blocks = [m for m in model if hasattr(m, "shortcut")]
    assert len(blocks) == 3
    inputs = torch.rand(2, 16, 8, 8)
    with torch.no_grad():
        for block in blocks:
            block.body[-1].weight.zero_()
        assert torch.equal(blocks[0](inputs), inputs)
        halved = blocks[1](inputs)
    # Option A: every second pixel, between 8 channels of zeros on either side.
    assert torch.equal(halved[:, 8:24], inputs[:, :, ::2, ::2])
    assert not halved[:, :8].any()
    assert not halved[:, 24:].any()


def test_a_prelu_has_one_slope_for_each_layer():
    expected = {"ann": 2, "cnn": 4, "lenet": 4, "tutorial_cnn": 4, "pyramid": 4}
    expected |= {"resnet": 17, "cifar_resnet": 7}
    for name, slopes in expected.items():
        with_slopes = count_parameters(make(name, activation="prelu"))
        assert with_slopes - count_parameters(make(name)) == slopes


FORMULAS = {
    "relu": lambda x: x.clamp(min=0),
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "prelu": lambda x: torch.where(x > 0, x, 0.25 * x),
    "elu": lambda x: torch.where(x > 0, x, torch.exp(x) - 1),
    "swish": lambda x: x / (1 + torch.exp(-x)),
    "gelu": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "tanh": lambda x: 1 - 2 / (torch.exp(2 * x) + 1),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_those_of_the_textbook(activation):
    inputs = torch.linspace(-6, 6, 97)
    with torch.no_grad():
        found = ACTIVATIONS[activation]()(inputs.clone())
    torch.testing.assert_close(found, FORMULAS[activation](inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", ["batch", "batch_after", "none"])
def test_a_block_is_convolution_norm_activation_pool_in_this_order(activation, norm):
    """Against the plain formula: pooling may come first only where that changes nothing."""
    model = make("cnn", widths=(6,), dense=(), activation=activation, norm=norm).eval()
    convolution, inputs = model[0], images(4)
    fresh, scale = (1 + 1e-5) ** 0.5, torch.linspace(-1, 1, 6)  # Mean 0 and variance 1.
    with torch.no_grad():
        values = nn.functional.conv2d(inputs, convolution.weight, convolution.bias, padding=1)
        values = FORMULAS[activation](values / fresh if norm == "batch" else values)
        if norm == "batch_after":
            model[2].weight.copy_(scale)  # A negative scale turns the pool around.
            values = values / fresh * scale[:, None, None]
        pooled = values.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(4, 5))
        expected = pooled.flatten(1) @ model[-1].weight.T + model[-1].bias
        torch.testing.assert_close(model(inputs), expected, atol=1e-4, rtol=1e-4)


def test_the_ann_is_a_product_of_matrices():
    model = make("ann", widths=(20,), norm="none", dropout=0.3).eval()
    _, first, *_, last = model
    inputs = images(3)
    with torch.no_grad():
        hidden = (inputs.reshape(3, -1) @ first.weight.T + first.bias).clamp(min=0)
        torch.testing.assert_close(model(inputs), hidden @ last.weight.T + last.bias)


@pytest.mark.parametrize("size", [18, 19, 27, 28, 32, 33])
def test_rows_that_no_pool_takes_are_not_computed_and_change_nothing(size):
    def gradients(network, answer):
        network.zero_grad()
        answer.square().sum().backward()
        return [parameter.grad for parameter in network.parameters()]

    torch.manual_seed(0)
    network = build("tutorial_cnn", num_classes=10, image_size=(size, size), activation="relu")
    network.double()
    whole = nn.Sequential(*network)
    inputs = torch.randn(4, 3, size, size, dtype=torch.float64, requires_grad=True)
    found, expected = network(inputs), whole(inputs)
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(network, found), gradients(whole, expected), strict=True):
        torch.testing.assert_close(one, other)
    used = network.used[0]
    assert not inputs.grad[:, :, used:].any()
    assert inputs.grad[:, :, used - 1].any()
    assert size - used == {18: 0, 19: 1, 27: 1, 28: 2, 32: 2, 33: 3}[size]
