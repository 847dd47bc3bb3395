"""Densely connected networks (Huang et al. 2017, arXiv 1608.06993)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from tenfold.models.blocks import averaged_classifier, he_convolution
from tenfold.registry import rule, traits


@traits(muon=False)
@rule("depth", "6 n + 4, such as 16, 28, 40 or 100", lambda o: o.depth % 6 == 4)
def densenet(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    depth: Annotated[int, Field(ge=10, le=250, description="Layers: 6 n + 4, such as 100.")] = 100,
    growth: Annotated[int, Field(ge=4, le=48, description="Channels that a layer adds.")] = 12,
) -> nn.Module:
    """DenseNet-BC: three blocks, in which each layer sees the outputs of all before it.

    A transition halves channels and resolution. Depth 100 and growth 12 have 0.77 million
    parameters. Shape: `(N, 3, H, W)` float -> `(N, num_classes)` logits, for images of 4 pixels
    and more.
    """
    channels = 2 * growth
    layers: list[nn.Module] = [he_convolution(3, channels, 3)]
    for block in range(3):
        if block > 0:
            layers.append(_transition(channels))
            channels //= 2
        for _ in range((depth - 4) // 6):
            layers.append(_Layer(channels, growth))
            channels += growth
    layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *averaged_classifier(channels, num_classes))


class _Layer(nn.Module):
    """`growth` new channels behind those that come in, by way of four times as many (the B)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            he_convolution(channels, 4 * growth, 1),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(inplace=True),
            he_convolution(4 * growth, growth, 3),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([inputs, self.body(inputs)], dim=1)


def _transition(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        he_convolution(channels, channels // 2, 1),
        nn.AvgPool2d(2),
    )
