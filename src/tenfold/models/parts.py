"""Where to look into a network: the layers that see the image, and the vector before the head."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from tenfold.models.blocks import Layer
from tenfold.models.pretrained import Pretrained
from tenfold.models.speedrun import Speedrun

GRADIENT_PIXELS = 250 * 32 * 32
"""Of all images that go through a network at once, at the size that it sees them in."""


class Parts(NamedTuple):
    """What a network is made of, for those who explain it.

    layers: from the input on, with maps of features; empty for a network that has none. head: the
    last linear layer, whose input (N, D) are the features of an image; None where there is none.
    """

    layers: tuple[Layer, ...]
    head: nn.Linear | None

    @property
    def last(self) -> Layer | None:
        """The deepest layer that still knows where something is, for maps of what mattered."""
        return self.layers[-1] if self.layers else None


def parts_of(model: nn.Module, image_size: tuple[int, int]) -> Parts:
    """The parts of any network, of which one that isn't known is shown a black image."""
    if isinstance(model, Speedrun):
        groups = [Layer(f"group {i + 1}", group) for i, group in enumerate(model.groups)]
        return Parts((Layer("whitening", model.whitening), *groups), model.head)
    if isinstance(model, Pretrained):
        linear = [module for module in model.head.modules() if isinstance(module, nn.Linear)]
        return Parts(model.layers_with_maps(), linear[-1])
    calls = _calls(model, image_size)
    linear = [m for m, (given, _) in calls.items() if isinstance(m, nn.Linear) and given == 2]
    return Parts(_by_resolution(_with_maps(model, calls)), linear[-1] if linear else None)


Calls = dict[nn.Module, tuple[int, int]]


def _calls(model: nn.Module, image_size: tuple[int, int]) -> Calls:
    """The dimensions of input and output of each module that is called once, in that order."""
    calls: list[tuple[nn.Module, tuple[int, int]]] = []

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        given = inputs[0] if inputs else None
        calls.append((module, (getattr(given, "ndim", 0), getattr(output, "ndim", 0))))

    handles = [module.register_forward_hook(record) for module in model.modules()]
    device = next(model.parameters()).device
    try:
        with evaluated(model), torch.no_grad():
            model(torch.zeros(1, 3, *image_size, device=device))
    finally:
        for handle in handles:
            handle.remove()
    number = Counter(module for module, _ in calls)
    return {module: sizes for module, sizes in calls if number[module] == 1}


def _with_maps(model: nn.Module, calls: Calls) -> list[Layer]:
    """The outermost modules that give maps, in the order of the calls."""
    found = []
    for module in model.children():
        is_sequence = type(module) is nn.Sequential and not isinstance(model, nn.Sequential)
        if calls.get(module, (0, 0))[1] != 4 or is_sequence:
            found += _with_maps(module, calls)
        elif not isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            found.append(Layer("", module))
    places = list(calls)
    return sorted(found, key=lambda layer: places.index(layer.module))


@contextlib.contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Within this, a network is as it is used: without dropout, with its running statistics."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def gradient_batch(model: nn.Module, image_size: tuple[int, int]) -> int:
    """How many images go through `model` at once where its gradients are kept in memory.

    image_size: height and width of the images, which a pretrained network enlarges.
    """
    height, width = image_size
    if isinstance(model, Pretrained):
        height = width = model.preprocessing.side
    return max(GRADIENT_PIXELS // (height * width), 1)


def _by_resolution(layers: list[Layer]) -> tuple[Layer, ...]:
    """One layer for each that has matrices of weights: the last thing before the next such one."""
    found: list[Layer] = []
    for layer in layers:
        begins = any(parameter.dim() > 1 for parameter in layer.module.parameters())
        if begins or not found:
            found.append(Layer(f"layer {len(found) + 1}", layer.module))
        else:
            found[-1] = found[-1]._replace(module=layer.module)
    return tuple(found)
