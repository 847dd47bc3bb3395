"""Where to look into a network: the layers that see the image, and the vector before the head."""

from typing import NamedTuple

from torch import nn

from tenfold.models.blocks import Layer
from tenfold.models.pretrained import Pretrained
from tenfold.models.speedrun import Speedrun

GRADIENT_PIXELS = 250 * 32 * 32
"""Of all images that go through a network at once, at the size that it sees them in."""


class Parts(NamedTuple):
    """What a network is made of, for those who explain it.

    layers: from the input on, with maps of features; empty for a network that has none. head: the
    last linear layer, whose input (N, D) are the features of an image.
    """

    layers: tuple[Layer, ...]
    head: nn.Linear

    @property
    def last(self) -> Layer | None:
        """The deepest layer that still knows where something is, for maps of what mattered."""
        return self.layers[-1] if self.layers else None


def parts_of(model: nn.Module) -> Parts:
    """The parts of any network that `build` makes."""
    if isinstance(model, Speedrun):
        groups = [Layer(f"group {i + 1}", group) for i, group in enumerate(model.groups)]
        return Parts((Layer("whitening", model.whitening), *groups), model.head)
    if isinstance(model, Pretrained):
        return Parts(model.layers_with_maps(), _last_linear(model.head))
    # Ours are sequences: what comes before images are made vectors has maps.
    layers: list[Layer] = []
    for module in model.children():
        if isinstance(module, nn.Flatten | nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            break
        layers.append(Layer("", module))
    return Parts(_by_resolution(layers), _last_linear(model))


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


def _last_linear(model: nn.Module) -> nn.Linear:
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
