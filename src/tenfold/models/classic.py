"""Small convolutional networks of the kind that courses and tutorials build."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tenfold.errors import TenfoldError
from tenfold.models.blocks import (
    Activation,
    ConvolutionNorm,
    Dense,
    Depth,
    Dropout,
    KernelSize,
    Width,
    averaged_classifier,
    convolution_block,
    dense_layers,
    too_small,
)
from tenfold.registry import rule, traits


@traits(any_size=False)
@rule("widths", "a list with at least one number", lambda o: len(o.widths) > 0)
@rule(
    "dropout_layers",
    "from 0 to the length of model.dense",
    lambda o: 0 <= o.dropout_layers <= len(o.dense),
)
def cnn(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    widths: Annotated[
        tuple[Width, ...],
        Field(description="Channels of each block; every block halves the resolution."),
    ] = (32, 64, 128),
    kernel_size: KernelSize = 3,
    dense: Dense = (128,),
    activation: Activation = "relu",
    dropout: Dropout = 0.2,
    dropout_layers: Annotated[
        int,
        Field(description="Dense layers that dropout follows, from the first on; 0 for all."),
    ] = 0,
    norm: ConvolutionNorm = "batch",
    initial_weights: Annotated[
        Literal["pytorch", "keras"], Field(description="Whose defaults they are.")
    ] = "pytorch",
) -> nn.Module:
    """(convolution, norm, activation, 2x2 max pool) for each of `widths`, then dense layers.

    Shape: `(N, 3, H, W)` float -> `(N, num_classes)` logits. Raises TenfoldError where there are
    more blocks than the images can be halved.
    """
    height, width = image_size[0] >> len(widths), image_size[1] >> len(widths)
    if min(height, width) < 1:
        raise TenfoldError(
            f"{len(widths)} blocks halve {image_size[0]}x{image_size[1]} images to nothing; "
            "give model.widths fewer entries or choose a larger data.image_size."
        )
    layers: list[nn.Module] = []
    channels = 3
    for block_width in widths:
        block = partial(convolution_block, channels, block_width, pooled=True)
        layers += block(
            kernel_size=kernel_size, padding=kernel_size // 2, activation=activation, norm=norm
        )
        channels = block_width
    features = channels * height * width
    hidden = dense_layers(
        features,
        dense,
        activation=activation,
        dropout=dropout,
        norm=norm,
        dropout_layers=dropout_layers,
    )
    network = nn.Sequential(
        *layers, nn.Flatten(), *hidden, nn.Linear(dense[-1] if dense else features, num_classes)
    )
    return _with_weights_of_keras(network) if initial_weights == "keras" else network


@traits(any_size=False, muon=False)
def lenet(
    *, num_classes: int, image_size: tuple[int, int], activation: Activation = "relu"
) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) for colour images, with max pools.

    5x5 convolutions of 6 and 16 channels, each pooled, dense layers of 120 and 84: 62,006
    parameters for ten classes of 32x32. Shape: `(N, 3, H, W)` float -> `(N, num_classes)` logits.
    Raises TenfoldError for images of less than 16 pixels.
    """
    return _unpadded(
        "lenet",
        num_classes=num_classes,
        image_size=image_size,
        widths=(6, 16),
        kernel_size=5,
        pool_last=True,
        dense=(120, 84),
        activation=activation,
    )


@traits(any_size=False, muon=False)
def tutorial_cnn(
    *, num_classes: int, image_size: tuple[int, int], activation: Activation = "relu"
) -> nn.Module:
    """The network of TensorFlow's tutorial on convolutional networks.

    3x3 convolutions of 32, 64 and 64 channels, unpadded, the first two pooled, and a dense layer of
    64: 122,570 parameters for ten classes of 32x32. Initial weights are Keras's, which ends 3
    points higher after ten epochs than PyTorch's. Shape: `(N, 3, H, W)` float -> `(N, num_classes)`
    logits. Raises TenfoldError for images of less than 18 pixels.
    """
    network = _unpadded(
        "tutorial_cnn",
        num_classes=num_classes,
        image_size=image_size,
        widths=(32, 64, 64),
        kernel_size=3,
        pool_last=False,
        dense=(64,),
        activation=activation,
    )
    return _with_weights_of_keras(network)


def pyramid(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    depth: Depth = 4,
    first_width: Annotated[
        int,
        Field(gt=0, description="Channels of the first; those between grow by equal ratios."),
    ] = 32,
    last_width: Annotated[int, Field(gt=0, description="Channels of the last convolution.")] = 256,
    kernel_size: KernelSize = 3,
    activation: Activation = "relu",
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="Share of the last convolution's outputs dropped.")
    ] = 0.0,
    norm: ConvolutionNorm = "batch",
) -> nn.Module:
    """Convolutions whose channels grow while the resolution falls, then the mean over the image.

    `depth` convolutions, from `first_width` to `last_width` channels by equal ratios; max pools
    between them, evenly spread, while 4 pixels or more are left. Shape: `(N, 3, H, W)` float ->
    `(N, num_classes)` logits.
    """
    num_pools = max(min(min(image_size).bit_length() - 3, depth - 1), 0)
    pooled = {(i + 1) * depth // (num_pools + 1) - 1 for i in range(num_pools)}
    layers: list[nn.Module] = []
    channels = 3
    for index, width in enumerate(growing_widths(depth, first_width, last_width)):
        block = partial(convolution_block, channels, width, pooled=index in pooled)
        layers += block(
            kernel_size=kernel_size, padding=kernel_size // 2, activation=activation, norm=norm
        )
        channels = width
    if dropout > 0:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, *averaged_classifier(channels, num_classes))


def growing_widths(depth: int, first: int, last: int) -> list[int]:
    """`depth` widths from `first` to `last` by equal ratios, those between in multiples of 8.

    Vector units work on 8 or 16 channels at once, so that other widths cost as much as the next
    multiple.
    """
    if depth == 1:
        return [last]
    widths = [first * (last / first) ** (i / (depth - 1)) for i in range(depth)]
    return [first, *(max(round(width / 8) * 8, 8) for width in widths[1:-1]), last]


def _with_weights_of_keras(network: nn.Module) -> nn.Module:
    """`network` with weights as Glorot and Bengio (2010) have them, uniform, and biases of 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def _unpadded(
    name: str,
    *,
    num_classes: int,
    image_size: tuple[int, int],
    widths: Sequence[int],
    kernel_size: int,
    pool_last: bool,
    dense: Sequence[int],
    activation: str,
) -> nn.Module:
    """Unpadded convolutions, all pooled but perhaps the last, then dense layers; without norms."""
    layers: list[nn.Module] = []
    channels, (height, width) = 3, image_size
    pooled = [pool_last or index < len(widths) - 1 for index in range(len(widths))]
    for block_width, is_pooled in zip(widths, pooled, strict=True):
        height, width = height - kernel_size + 1, width - kernel_size + 1
        if is_pooled:
            height, width = height // 2, width // 2
        if min(height, width) < 1:
            raise too_small(name, image_size)
        block = partial(convolution_block, channels, block_width, pooled=is_pooled)
        layers += block(kernel_size=kernel_size, padding=0, activation=activation, norm="none")
        channels = block_width
    features = channels * height * width
    hidden = dense_layers(features, dense, activation=activation, dropout=0.0, norm="none")
    for is_pooled in reversed(pooled):
        height, width = (
            (2 if is_pooled else 1) * size + kernel_size - 1 for size in (height, width)
        )
    layers += [nn.Flatten(), *hidden, nn.Linear(dense[-1], num_classes)]
    return _Cropped(*layers, used=(height, width))


class _Cropped(nn.Sequential):
    """Layers that look at no more than the `used` (height, width) of an image, from its top left.

    A 2x2 pool of 13 rows drops the last one. Neither that nor what led to it need be computed,
    which saves 8 % of a step of `tutorial_cnn` and changes nothing that it answers.
    """

    def __init__(self, *layers: nn.Module, used: tuple[int, int]) -> None:
        super().__init__(*layers)
        self.used = used

    def forward(self, inputs: Tensor) -> Tensor:
        """`(N, 3, H, W)` -> `(N, num_classes)`."""
        height, width = self.used
        if inputs.shape[2:] != self.used:
            is_last = inputs.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if is_last else torch.contiguous_format
            inputs = inputs[:, :, :height, :width].contiguous(memory_format=layout)
        outputs: Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
        return outputs
