"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) for small images."""

from typing import Annotated

from pydantic import Field
from torch import nn

from tenfold.models.blocks import Residual, averaged_classifier, normed_convolution

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
           (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip
"""Expansion, channels, blocks and stride (table 2); the first two strides of 2 are 1 here."""


def mobilenet(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    width: Annotated[float, Field(ge=0.1, le=2, description="Factor of all channels.")] = 1.0,
) -> nn.Module:
    """Inverted residual blocks: expand, filter each channel by itself, project without activation.

    2.24 million parameters for ten classes at width 1. It halves the resolution three times, where
    the paper's halves it five times for 224 pixels. Shape: `(N, 3, H, W)` float ->
    `(N, num_classes)` logits; any size of image will do.
    """
    channels = _scaled(32, width)
    layers: list[nn.Module] = [*normed_convolution(3, channels, 3), nn.ReLU6(inplace=True)]
    for expansion, base, number, first_stride in _STAGES:
        outputs = _scaled(base, width)
        for index in range(number):
            stride = first_stride if index == 0 else 1
            block = _inverted(channels, outputs, expansion=expansion, stride=stride)
            layers.append(Residual(block) if stride == 1 and channels == outputs else block)
            channels = outputs
    last = _scaled(1280, max(width, 1.0))
    layers += [*normed_convolution(channels, last, 1), nn.ReLU6(inplace=True)]
    return nn.Sequential(*layers, *averaged_classifier(last, num_classes))


def _inverted(channels: int, outputs: int, *, expansion: int, stride: int) -> nn.Module:
    hidden = expansion * channels
    layers: list[nn.Module] = []
    if expansion > 1:
        layers += [*normed_convolution(channels, hidden, 1), nn.ReLU6(inplace=True)]
    layers += normed_convolution(hidden, hidden, 3, stride=stride, groups=hidden)
    layers += [nn.ReLU6(inplace=True), *normed_convolution(hidden, outputs, 1)]
    return nn.Sequential(*layers)


def _scaled(channels: int, factor: float) -> int:
    """The nearest multiple of 8, at least 8 and at least 90 % of what was asked for."""
    nearest = max(8, int(channels * factor + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels * factor else nearest
