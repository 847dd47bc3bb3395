"""Residual networks (He et al. 2016, arXiv 1512.03385) and those that came of them, for images
of any size.

Legend: N images, C channels, H and W pixels.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from tenfold.models.blocks import (
    ACTIVATIONS,
    Activation,
    Residual,
    averaged_classifier,
    blocks_of_stages,
    he_convolution,
    normed_convolution,
)
from tenfold.registry import rule, traits

_RESNET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Blocks of each stage, by depth; from 50 on a block is a bottleneck of three convolutions."""
_MOBILENET = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
              (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip
"""Expansion, channels, blocks and stride (table 2); the first two strides of 2 are 1 here."""


def resnet(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    depth: Literal[18, 34, 50] = 18,
    stem: Literal["cifar", "imagenet"] = "cifar",
    activation: Activation = "relu",
) -> nn.Module:
    """ResNet-18, 34 or 50: four stages of 64 to 512 channels (to 2,048 with bottlenecks).

    The stem `imagenet` leaves 8x8 of a 32x32 image; `cifar` leaves all of it, at 16 times the cost.
    A stride of a bottleneck is in its 3x3 convolution.

    depth: Number of layers.
    stem: A 3x3 convolution, or a 7x7 one of stride 2 and a max pool.
    """
    size, stride = (7, 2) if stem == "imagenet" else (3, 1)
    layers = [*normed_convolution(3, 64, size, stride=stride), ACTIVATIONS[activation]()]
    if stem == "imagenet":
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    channels = 64
    for stage, stride in blocks_of_stages(_RESNET[depth]):
        width = 64 << stage
        outputs = 4 * width if depth >= 50 else width
        body = _body(channels, width, stride, activation, is_bottleneck=depth >= 50)
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
    depth: Annotated[int, Field(ge=8, le=2000)] = 20,
    activation: Activation = "relu",
) -> nn.Module:
    """The paper's own network for CIFAR-10: three stages of 16, 32 and 64 channels.

    Shortcuts have no parameters (the paper's option A).

    depth: Number of layers, 6 n + 2: 20, 32, 44, 56 or 110.
    """
    layers = [*normed_convolution(3, 16, 3), ACTIVATIONS[activation]()]
    channels = 16
    for stage, stride in blocks_of_stages([(depth - 2) // 6] * 3):
        width = 16 << stage
        body = _body(channels, width, stride, activation)
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


def _body(
    channels: int, width: int, stride: int, activation: str, *, is_bottleneck: bool = False
) -> nn.Module:
    convolutions = [(width, 3, stride), (width, 3, 1)]
    if is_bottleneck:
        convolutions = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
    layers: list[nn.Module] = []
    for outputs, kernel_size, step in convolutions:
        layers += [ACTIVATIONS[activation]()] if layers else []
        layers += normed_convolution(channels, outputs, kernel_size, stride=step)
        channels = outputs
    return nn.Sequential(*layers)


@traits(muon=False)
@rule("depth", "6 n + 4, such as 16, 28, 40 or 100", lambda o: o.depth % 6 == 4)
def wide_resnet(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    depth: Annotated[int, Field(ge=10, le=100)] = 16,
    widen: Annotated[int, Field(ge=1, le=20)] = 4,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> nn.Module:
    """Pre-activation residual blocks in three stages of 16, 32 and 64 times `widen` channels.

    Zagoruyko and Komodakis 2016 (arXiv 1605.07146). WRN-28-10 has 36.5 million parameters, WRN-16-4
    2.75 million.

    depth: Layers: 6 n + 4, such as 28.
    widen: Factor of 16, 32 and 64 channels.
    dropout: Share dropped between a block's convolutions.
    """
    channels = 16
    layers: list[nn.Module] = [he_convolution(3, channels, 3)]
    for stage, stride in blocks_of_stages([(depth - 4) // 6] * 3):
        width = widen * (16 << stage)
        body = [
            he_convolution(channels, width, 3, stride=stride),
            *_norm_and_relu(width),
            nn.Dropout(dropout),
            he_convolution(width, width, 3),
        ]
        before = _norm_and_relu(channels)
        if channels == width and stride == 1:
            layers.append(Residual(nn.Sequential(*before, *body)))
        else:
            # Here the shortcut starts behind the activation, as the authors' code does.
            shortcut = he_convolution(channels, width, 1, stride=stride)
            layers.append(nn.Sequential(*before, Residual(nn.Sequential(*body), shortcut)))
        channels = width
    layers += _norm_and_relu(channels)
    return nn.Sequential(*layers, *averaged_classifier(channels, num_classes))


def _norm_and_relu(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


@traits(muon=False)
@rule("depth", "6 n + 4, such as 16, 28, 40 or 100", lambda o: o.depth % 6 == 4)
def densenet(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    depth: Annotated[int, Field(ge=10, le=250)] = 100,
    growth: Annotated[int, Field(ge=4, le=48)] = 12,
) -> nn.Module:
    """DenseNet-BC: three blocks, in which each layer sees the outputs of all before it.

    Huang et al. 2017 (arXiv 1608.06993). A transition halves channels and resolution. Depth 100 and
    growth 12 have 0.77 million parameters. Images have 4 pixels or more.

    depth: Layers: 6 n + 4, such as 100.
    growth: Channels that a layer adds.
    """
    channels = 2 * growth
    layers: list[nn.Module] = [he_convolution(3, channels, 3)]
    for _, stride in blocks_of_stages([(depth - 4) // 6] * 3):
        if stride > 1:
            halved = he_convolution(channels, channels // 2, 1)
            layers.append(nn.Sequential(*_norm_and_relu(channels), halved, nn.AvgPool2d(2)))
            channels //= 2
        layers.append(_DenseLayer(channels, growth))
        channels += growth
    layers += _norm_and_relu(channels)
    return nn.Sequential(*layers, *averaged_classifier(channels, num_classes))


class _DenseLayer(nn.Module):
    """`growth` new channels behind those that come in, by way of four times as many (the B)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_norm_and_relu(channels),
            he_convolution(channels, 4 * growth, 1),
            *_norm_and_relu(4 * growth),
            he_convolution(4 * growth, growth, 3),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([inputs, self.body(inputs)], dim=1)


def mobilenet(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    width: Annotated[float, Field(ge=0.1, le=2)] = 1.0,
) -> nn.Module:
    """Inverted residual blocks: expand, filter each channel by itself, project without activation.

    MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381): 2.24 million parameters for ten classes at
    width 1. It halves the resolution three times, where the paper's halves it five times for 224
    pixels.

    width: Factor of all channels.
    """

    def normed(*sizes: int, **more: int) -> list[nn.Module]:
        return [*normed_convolution(*sizes, **more), nn.ReLU6(inplace=True)]

    channels = _scaled(32, width)
    layers = normed(3, channels, 3)
    for expansion, base, number, first_stride in _MOBILENET:
        outputs = _scaled(base, width)
        for stride in (first_stride, *[1] * (number - 1)):
            hidden = expansion * channels
            block = normed(channels, hidden, 1) if expansion > 1 else []
            block += normed(hidden, hidden, 3, stride=stride, groups=hidden)
            body = nn.Sequential(*block, *normed_convolution(hidden, outputs, 1))
            layers.append(Residual(body) if stride == 1 and channels == outputs else body)
            channels = outputs
    last = _scaled(1280, max(width, 1.0))
    return nn.Sequential(
        *layers, *normed(channels, last, 1), *averaged_classifier(last, num_classes)
    )


def _scaled(channels: int, factor: float) -> int:
    """The nearest multiple of 8, at least 8 and at least 90 % of what was asked for."""
    nearest = max(8, int(channels * factor + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels * factor else nearest
