"""Wide residual networks (Zagoruyko and Komodakis 2016, arXiv 1605.07146)."""

from typing import Annotated

from pydantic import Field
from torch import nn

from tenfold.models.blocks import Residual, averaged_classifier, he_convolution
from tenfold.registry import rule, traits


@traits(muon=False)
@rule("depth", "6 n + 4, such as 16, 28, 40 or 100", lambda o: o.depth % 6 == 4)
def wide_resnet(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    depth: Annotated[int, Field(ge=10, le=100, description="Layers: 6 n + 4, such as 28.")] = 16,
    widen: Annotated[int, Field(ge=1, le=20, description="Factor of 16, 32 and 64 channels.")] = 4,
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="Share dropped between a block's convolutions.")
    ] = 0.0,
) -> nn.Module:
    """Pre-activation residual blocks in three stages of 16, 32 and 64 times `widen` channels.

    WRN-28-10 has 36.5 million parameters, WRN-16-4 2.75 million. Shape: `(N, 3, H, W)` float ->
    `(N, num_classes)` logits; any size of image will do.
    """
    channels = 16
    layers: list[nn.Module] = [he_convolution(3, channels, 3)]
    for stage in range(3):
        width = widen * (16 << stage)
        for index in range((depth - 4) // 6):
            stride = 2 if stage > 0 and index == 0 else 1
            layers.append(_block(channels, width, stride=stride, dropout=dropout))
            channels = width
    layers += [*_activation(channels)]
    return nn.Sequential(*layers, *averaged_classifier(channels, num_classes))


def _block(channels: int, width: int, *, stride: int, dropout: float) -> nn.Module:
    body = [
        he_convolution(channels, width, 3, stride=stride),
        *_activation(width),
        nn.Dropout(dropout),
        he_convolution(width, width, 3),
    ]
    if channels == width and stride == 1:
        return Residual(nn.Sequential(*_activation(channels), *body))
    # Where the shape changes, the shortcut starts behind the activation, as the authors' code does.
    shortcut = he_convolution(channels, width, 1, stride=stride)
    return nn.Sequential(*_activation(channels), Residual(nn.Sequential(*body), shortcut))


def _activation(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
