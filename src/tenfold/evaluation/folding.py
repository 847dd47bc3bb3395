"""Networks made faster for evaluation: batch norms as a part of the layers before them."""

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fuse_conv_bn_eval, fuse_linear_bn_eval

EQUAL = 1e-5
"""Difference of probabilities up to which two networks say the same."""


def faster(network: nn.Module, inputs: Tensor) -> nn.Module:
    """`network`, in evaluation, with its batch norms folded if it says the same of `inputs` then.

    It needn't where a network uses parts of an `nn.Sequential` one by one. A tenth less time for
    networks that are half norms and activations.
    """
    try:
        found = folded(network)
    except (RuntimeError, TypeError):  # Somebody's own, which can't be copied.
        return network
    if found is network:
        return network
    before, after = (each(inputs).softmax(dim=1) for each in (network, found))
    return found if float((before - after).abs().max()) <= EQUAL else network


def folded(network: nn.Module) -> nn.Module:
    """A copy of `network`, in evaluation, whose batch norms are in the weights before them.

    Of norms in an `nn.Sequential`, after a convolution or linear layer, or after the max pool that
    follows one; with pools in between only where no channel is turned over, for then the largest is
    the largest before and after. `network` itself where there are none.
    """
    if not any(_norms_of(sequence) for sequence in _sequences(network)):
        return network
    network = copy.deepcopy(network)
    for sequence in _sequences(network):
        for place, index in _norms_of(sequence):
            layer, norm = sequence[place], cast(_BatchNorm, sequence[index])
            if isinstance(layer, nn.Conv2d):
                sequence[place] = fuse_conv_bn_eval(layer, norm)
            elif isinstance(layer, nn.Linear):
                sequence[place] = fuse_linear_bn_eval(layer, norm)
            sequence[index] = nn.Identity()
    return network


def _sequences(network: nn.Module) -> list[nn.Sequential]:
    """Those that do nothing but call their modules in order."""
    found = [module for module in network.modules() if isinstance(module, nn.Sequential)]
    return [sequence for sequence in found if type(sequence).forward is nn.Sequential.forward]


def _norms_of(sequence: nn.Sequential) -> list[tuple[int, int]]:
    """Places of a layer and of the norm that it can take in."""
    found, layers = [], list(sequence)
    for index, norm in enumerate(layers):
        if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) or norm.running_var is None:
            continue
        if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d):  # Another does more than norm.
            continue
        before = index - 1
        if before > 0 and type(layers[before]) is nn.MaxPool2d and _keeps_order(norm):
            before -= 1
        kind = nn.Linear if type(norm) is nn.BatchNorm1d else nn.Conv2d
        if before >= 0 and type(layers[before]) is kind:
            found.append((before, index))
    return found


def _keeps_order(norm: _BatchNorm) -> bool:
    weight: torch.Tensor | None = norm.weight
    return weight is None or bool((weight > 0).all())
