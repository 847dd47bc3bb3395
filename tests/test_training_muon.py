"""Muon: orthogonal steps for convolutions, Nesterov SGD for the rest."""

import pytest
import torch
from torch import nn

from parts import muon
from tenfold.training.optimizers import build_optimizer, orthogonalise, set_learning_rate


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
