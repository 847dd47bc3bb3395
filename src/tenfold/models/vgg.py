"""VGG networks (Simonyan and Zisserman 2015, arXiv 1409.1556) with batch norm."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from tenfold.models.blocks import normed_convolution, too_small

_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Of each stage, by depth; configurations A, B, D and E of table 1."""


def vgg(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    depth: Annotated[
        Literal[11, 13, 16, 19], Field(description="Layers with weights, in the paper's count.")
    ] = 16,
) -> nn.Module:
    """3x3 convolutions in five stages of 64 to 512 channels, with 2x2 max pools between them.

    As usual for small images, one linear layer replaces the paper's three; it sees the maximum of
    each map, which for 32 pixels is the fifth 2x2 pool. Shape: `(N, 3, H, W)` float ->
    `(N, num_classes)` logits. Raises TenfoldError for images of fewer than 16 pixels.
    """
    if min(image_size) < 16:
        raise too_small("vgg", image_size)
    layers: list[nn.Module] = []
    channels = 3
    for stage, number in enumerate(_CONVOLUTIONS[depth]):
        if stage > 0:
            layers.append(nn.MaxPool2d(2))
        width = min(64 << stage, 512)
        for _ in range(number):
            layers += [*normed_convolution(channels, width, 3), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)
    )
