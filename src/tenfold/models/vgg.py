"""VGG networks (Simonyan and Zisserman 2015, arXiv 1409.1556) with batch norm."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from tenfold.models.blocks import averaged_classifier, normed_convolution, too_small

_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Of each stage, by depth; configurations A, B, D and E of table 1."""


def vgg(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    depth: Annotated[
        Literal[11, 13, 16, 19], Field(description="Layers with weights, in the paper's count.")
    ] = 16,
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="Share of features dropped before the classifier.")
    ] = 0.0,
) -> nn.Module:
    """3x3 convolutions in five stages of 64 to 512 channels, each ended by a 2x2 max pool.

    As usual for small images, one linear layer replaces the paper's three. Shape:
    `(N, 3, H, W)` float -> `(N, num_classes)` logits. Raises TenfoldError for images of fewer than
    32 pixels.
    """
    if min(image_size) < 32:
        raise too_small("vgg", image_size)
    layers: list[nn.Module] = []
    channels = 3
    for stage, number in enumerate(_CONVOLUTIONS[depth]):
        width = min(64 << stage, 512)
        for _ in range(number):
            layers += [*normed_convolution(channels, width, 3), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, *averaged_classifier(channels, num_classes, dropout=dropout))
