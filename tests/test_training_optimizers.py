"""Optimisers step as their papers say, and norms and biases do not decay."""

import pytest
import torch
from torch import nn

from parts import adam, adamw, ann, build, cnn, muon, sgd
from tenfold.training.optimizers import (
    all_finite,
    build_optimizer,
    orthogonalise,
    set_learning_rate,
)
from test_training_stages import recipe as pretrained_recipe

LR, DECAY = 0.05, 0.1
MODELS = {
    "ann": ann(widths=(9, 5), activation="prelu"),
    "ann without norm": ann(widths=(9,), norm="none"),
    "cnn": cnn(widths=(4, 6), dense=(7,), activation="prelu"),
    "cnn without norm": cnn(widths=(4,), dense=(), norm="none"),
}


def make(options):
    torch.manual_seed(0)
    return build(options.name, num_classes=3, image_size=(8, 8), **options.options())


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("options", [sgd, adam, adamw])
def test_weights_decay_and_norms_biases_and_slopes_do_not(model, options):
    network = make(model)
    optimizer = build_optimizer(network, options(lr=LR, weight_decay=DECAY))
    weights = {
        id(module.weight)
        for module in network.modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    seen = []
    for group in optimizer.param_groups:
        assert group["lr"] == LR
        for parameter in group["params"]:
            seen.append(id(parameter))
            assert group["weight_decay"] == (DECAY if id(parameter) in weights else 0.0)
    assert sorted(seen) == sorted(id(parameter) for parameter in network.parameters())


@pytest.mark.parametrize("backbone", ["test_vit", "test_vit2", "test_vit3", "test_vit_relpos"])
def test_positions_and_tokens_do_not_decay(backbone):
    timm = pytest.importorskip("timm")
    recipe = pretrained_recipe({"trains": "all"}, model={"backbone": backbone, "input_size": 0})
    options = recipe.model.options()
    network = build("pretrained", num_classes=3, image_size=(32, 32), **options)
    listed = timm.create_model(backbone).no_weight_decay()
    spared = {id(p) for name, p in network.backbone.named_parameters() if name in listed}
    depths = {p: depth for depth, block in enumerate(network.groups()[::-1]) for p in block}
    optimizer = build_optimizer(network, adamw(lr=LR, weight_decay=DECAY), layer_decay=0.5)
    seen = []
    for group in optimizer.param_groups:
        for p in group["params"]:
            seen.append(id(p))
            decays = p.ndim >= 2 and id(p) not in spared
            assert group["weight_decay"] == (DECAY if decays else 0.0)
            assert group["lr"] == LR * 0.5 ** depths[p]
    assert sorted(seen) == sorted(id(p) for p in network.parameters())
    assert spared or backbone == "test_vit_relpos"


def test_frozen_parameters_are_left_out():
    network = make(MODELS["ann without norm"])
    network[1].requires_grad_(False)
    groups = build_optimizer(network, sgd()).param_groups
    assert {id(p) for g in groups for p in g["params"]} == {id(p) for p in network[-1].parameters()}
    network[-1].weight.requires_grad_(False)  # nothing is left that decays
    groups = build_optimizer(network, adamw()).param_groups
    assert [p.shape for g in groups for p in g["params"]] == [network[-1].bias.shape]


class Pair(nn.Module):
    """A weight that decays and a bias that does not."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.5, -2.0]], dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor([0.3], dtype=torch.float64))


GRADIENTS = [(0.4, -0.2, 1.0), (0.1, 0.3, -0.5), (-0.6, 0.2, 0.7), (0.0, 0.1, 0.2)]


def steps_of(options):
    """The three numbers after each step with GRADIENTS."""
    module = Pair()
    optimizer = build_optimizer(module, options)
    values = []
    for first, second, third in GRADIENTS:
        module.weight.grad = torch.tensor([[first, second]], dtype=torch.float64)
        module.bias.grad = torch.tensor([third], dtype=torch.float64)
        optimizer.step()
        values.append([*module.weight.detach()[0].tolist(), module.bias.item()])
    return values


def by_hand(rule):
    """What `rule(value, gradient, decay, step, memory)` makes of the three numbers."""
    values, memories, history = [0.5, -2.0, 0.3], [{}, {}, {}], []
    for step, gradients in enumerate(GRADIENTS, start=1):
        values = [
            rule(value, gradient, decay, step, memory)
            for value, gradient, decay, memory in zip(
                values, gradients, (DECAY, DECAY, 0.0), memories, strict=True
            )
        ]
        history.append(values)
    return history


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_by_hand(momentum, nesterov):
    if nesterov and not momentum:
        return

    def rule(value, gradient, decay, step, memory):
        gradient += decay * value
        memory["v"] = momentum * memory.get("v", 0.0) + gradient
        return value - LR * (gradient + momentum * memory["v"] if nesterov else memory["v"])

    options = sgd(lr=LR, momentum=momentum, nesterov=nesterov, weight_decay=DECAY)
    for found, expected in zip(steps_of(options), by_hand(rule), strict=True):
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.8, 0.95)])
@pytest.mark.parametrize("kind", [adam, adamw])
def test_adam_by_hand(kind, betas):
    def rule(value, gradient, decay, step, memory):
        if kind is adam:
            gradient += decay * value
        else:
            value -= LR * decay * value
        for name, beta, moment in (("m", betas[0], gradient), ("v", betas[1], gradient**2)):
            memory[name] = beta * memory.get(name, 0.0) + (1 - beta) * moment
        mean, square = memory["m"] / (1 - betas[0] ** step), memory["v"] / (1 - betas[1] ** step)
        return value - LR * mean / (square**0.5 + 1e-8)

    options = (
        adam(lr=LR, betas=betas, weight_decay=DECAY)
        if kind is adam
        else adamw(lr=LR, betas=betas, weight_decay=DECAY)
    )
    for found, expected in zip(steps_of(options), by_hand(rule), strict=True):
        assert found == pytest.approx(expected, abs=1e-9)


def test_the_learning_rate_is_set_for_every_group():
    network = make(MODELS["cnn"])
    optimizer = build_optimizer(network, sgd(lr=0.1, momentum=0.0))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    set_learning_rate(optimizer, 0.0)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert all(map(torch.equal, before, network.parameters()))
    set_learning_rate(optimizer, 5.0)
    optimizer.step()
    for old, parameter in zip(before, network.parameters(), strict=True):
        torch.testing.assert_close(parameter.detach(), old - 0.5)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_value_that_is_not_finite_is_found(place, value):
    tensors = [torch.randn(3, 4, 2), torch.randn(5), torch.tensor(1e38)]
    before = [tensor.clone() for tensor in tensors]
    assert all_finite(tensors)
    assert all(map(torch.equal, before, tensors))
    tensors[place].view(-1)[-1] = value
    assert not all_finite(tensors)
    assert all_finite([])


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(4, 5),
    )
    return model.to(memory_format=torch.channels_last)


def give_gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.empty_like(parameter).copy_(noise)


@pytest.mark.parametrize("shape", [(8, 72), (72, 8), (16, 16), (1, 9), (9, 1)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalise(matrix, iterations=5)
    inner = left.T @ found @ right.T
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), atol=1e-4, rtol=0)
    # Small singular values take the longest; those of a random matrix are large enough.
    assert inner.diagonal().min() > 0.3
    assert inner.diagonal().max() < 1.3
    assert values.max() / values.min() < 200


def test_a_gradient_of_zero_gives_no_step():
    assert not orthogonalise(torch.zeros(4, 9), iterations=3).any()


@pytest.mark.parametrize("iterations", [1, 4])
def test_convolutions_take_orthogonal_steps_from_their_full_length(iterations):
    model = network()
    options = muon(lr=0.2, momentum=0.5, iterations=iterations)
    optimizer = build_optimizer(model, options)
    weight = model[2].weight
    expected = weight.detach().clone()
    buffer = torch.zeros_like(expected)
    for step in range(3):
        give_gradients(model, step)
        set_learning_rate(optimizer, 1 / (step + 1))
        gradient = weight.grad.clone()
        optimizer.step()
        buffer = 0.5 * buffer + gradient
        direction = (gradient + 0.5 * buffer).reshape(4, -1)
        expected *= 4**0.5 / expected.norm()
        expected -= (
            0.2 / (step + 1) * orthogonalise(direction, iterations=iterations).view_as(expected)
        )
        torch.testing.assert_close(weight.detach(), expected)
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_the_rest_takes_the_steps_of_nesterov_sgd():
    model, other = network(), network()
    options = muon(head_lr=0.3, bias_lr=0.7, sgd_momentum=0.8, weight_decay=0.01)
    optimizer = build_optimizer(model, options)
    linear, *rest = other[5].weight, *(p for p in other.parameters() if p.ndim == 1)
    reference = torch.optim.SGD(
        [
            {"params": [linear], "lr": 0.3, "weight_decay": 0.01 / 0.3},
            {"params": rest, "lr": 0.7, "weight_decay": 0.01 / 0.7},
        ],
        momentum=0.8,
        nesterov=True,
    )
    for step in range(4):
        give_gradients(model, step)
        give_gradients(other, step)
        optimizer.step()
        reference.step()
    for parameter, expected in zip(model.parameters(), other.parameters(), strict=True):
        if parameter.ndim < 4:
            torch.testing.assert_close(parameter, expected)


def test_frozen_parameters_and_those_without_a_gradient_stay():
    model = network()
    model[0].requires_grad_(False)
    optimizer = build_optimizer(model, muon())
    give_gradients(model, 0)
    model[5].weight.grad = None
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.step()
    stayed = {n for n, p in model.named_parameters() if torch.equal(p, before[n])}
    assert stayed == {"0.weight", "5.weight"}


def test_it_takes_no_closure():
    optimizer = build_optimizer(network(), muon())
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: 0.0)
