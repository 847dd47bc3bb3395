"""Residual networks (He et al. 2016, arXiv 1512.03385).

Legend: N images, C channels, H and W pixels.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from tenfold.models.blocks import (
    ACTIVATIONS,
    Activation,
    Residual,
    averaged_classifier,
    normed_convolution,
)
from tenfold.registry import rule

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Of each stage, by depth; from 50 on a block is a bottleneck of three convolutions."""


def resnet(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    depth: Annotated[Literal[18, 34, 50], Field(description="Number of layers.")] = 18,
    stem: Annotated[
        Literal["cifar", "imagenet"],
        Field(description="A 3x3 convolution, or a 7x7 one of stride 2 and a max pool."),
    ] = "cifar",
    activation: Activation = "relu",
) -> nn.Module:
    """ResNet-18, 34 or 50: four stages of 64 to 512 channels (to 2,048 with bottlenecks).

    stem: `imagenet` is a 7x7 convolution of stride 2 and a max pool, which leave 8x8 of a 32x32
    image; `cifar` is a 3x3 convolution, which leaves all of it, at 16 times the cost. A stride
    of a bottleneck is in its 3x3 convolution. Shape: `(N, 3, H, W)` float -> `(N, num_classes)`
    logits; any size of image will do.
    """
    block = _bottleneck if depth >= 50 else _basic
    layers: list[nn.Module]
    if stem == "imagenet":
        layers = [*normed_convolution(3, 64, 7, stride=2), ACTIVATIONS[activation]()]
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    else:
        layers = [*normed_convolution(3, 64, 3), ACTIVATIONS[activation]()]
    channels = 64
    for stage, num_blocks in enumerate(_BLOCKS[depth]):
        width = 64 << stage
        outputs = 4 * width if depth >= 50 else width
        for index in range(num_blocks):
            stride = 2 if stage > 0 and index == 0 else 1
            body = block(channels, width, stride=stride, activation=activation)
            shortcut: nn.Module = nn.Identity()
            if stride > 1 or channels != outputs:
                shortcut = nn.Sequential(*normed_convolution(channels, outputs, 1, stride=stride))
            layers.append(Residual(body, shortcut, activation=ACTIVATIONS[activation]()))
            channels = outputs
    return nn.Sequential(*layers, *averaged_classifier(channels, num_classes))


@rule("depth", "6 n + 2, such as 20, 32, 44, 56 or 110", lambda o: o.depth % 6 == 2)
def cifar_resnet(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    depth: Annotated[
        int, Field(ge=8, le=2000, description="Number of layers, 6 n + 2: 20, 32, 44, 56 or 110.")
    ] = 20,
    activation: Activation = "relu",
) -> nn.Module:
    """The paper's own network for CIFAR-10: three stages of 16, 32 and 64 channels.

    depth: 6 n + 2, as 20, 32, 44, 56 or 110. Shortcuts have no parameters (the paper's option A).
    Shape: `(N, 3, H, W)` float -> `(N, num_classes)` logits; any size of image will do.
    """
    layers: list[nn.Module] = [*normed_convolution(3, 16, 3), ACTIVATIONS[activation]()]
    channels = 16
    for stage in range(3):
        width = 16 << stage
        for index in range((depth - 2) // 6):
            stride = 2 if stage > 0 and index == 0 else 1
            body = _basic(channels, width, stride=stride, activation=activation)
            shortcut = _Subsample(width - channels) if stride > 1 else nn.Identity()
            layers.append(Residual(body, shortcut, activation=ACTIVATIONS[activation]()))
            channels = width
    return nn.Sequential(*layers, *averaged_classifier(channels, num_classes))


class _Subsample(nn.Module):
    """Every second pixel, with channels of zeros around the old ones: the paper's option A."""

    def __init__(self, num_new: int) -> None:
        super().__init__()
        self.num_new = num_new

    def forward(self, inputs: Tensor) -> Tensor:
        before = self.num_new // 2
        return pad(inputs[:, :, ::2, ::2], (0, 0, 0, 0, before, self.num_new - before))


def _basic(channels: int, width: int, *, stride: int, activation: str) -> nn.Module:
    return nn.Sequential(
        *normed_convolution(channels, width, 3, stride=stride),
        ACTIVATIONS[activation](),
        *normed_convolution(width, width, 3),
    )


def _bottleneck(channels: int, width: int, *, stride: int, activation: str) -> nn.Module:
    return nn.Sequential(
        *normed_convolution(channels, width, 1),
        ACTIVATIONS[activation](),
        *normed_convolution(width, width, 3, stride=stride),
        ACTIVATIONS[activation](),
        *normed_convolution(width, 4 * width, 1),
    )
