"""Networks of the kind that courses and tutorials build: dense ones, and layers of convolutions."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tenfold.models.blocks import (
    ACTIVATIONS,
    Activation,
    Width,
    averaged_classifier,
    normed_convolution,
    too_small,
)
from tenfold.registry import rule, traits

_NOT_MONOTONIC = ("prelu", "swish", "gelu")
"""Activations that fall somewhere, or may learn to, so that pooling before them is not the same."""
_VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each stage, by depth; configurations A, B, D and E of table 1."""

ConvolutionNorm = Literal["batch", "batch_after", "none"]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
has_odd_kernels = rule("kernel_size", "odd", lambda o: o.kernel_size > 0 and o.kernel_size % 2 == 1)


@traits(any_size=False, muon=False)
def ann(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    widths: tuple[Width, ...] = (512, 256),
    activation: Activation = "relu",
    dropout: ShareBelowOne = 0.2,
    norm: Literal["batch", "none"] = "batch",
) -> nn.Module:
    """A fully connected network, which doesn't know which pixels are neighbours.

    Flatten, (linear, norm, activation, dropout) for each of `widths`, linear.

    widths: Units of each hidden layer.
    dropout: Share of the dense units that training drops.
    norm: Batch norm after each layer, or none.
    """
    inputs = 3 * image_size[0] * image_size[1]
    layers = _dense(inputs, widths, num_classes, activation=activation, dropout=dropout, norm=norm)
    return nn.Sequential(nn.Flatten(), *layers)


has_odd_kernels = rule("kernel_size", "odd", lambda o: o.kernel_size > 0 and o.kernel_size % 2 == 1)


@traits(any_size=False)
@has_odd_kernels
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
    widths: tuple[Width, ...] = (32, 64, 128),
    kernel_size: int = 3,
    dense: tuple[Width, ...] = (128,),
    activation: Activation = "relu",
    dropout: ShareBelowOne = 0.2,
    dropout_layers: int = 0,
    norm: ConvolutionNorm = "batch",
    initial_weights: Literal["pytorch", "keras"] = "pytorch",
) -> nn.Module:
    """(convolution, norm, activation, 2x2 max pool) for each of `widths`, then dense layers.

    Raises TenfoldError where there are more blocks than the images can be halved.

    widths: Channels of each block; every block halves the resolution.
    kernel_size: Side of the convolutions in pixels; odd.
    dense: Units of each dense layer before the output.
    dropout: Share of the dense units that training drops.
    dropout_layers: Dense layers that dropout follows, from the first on; 0 for all.
    norm: Batch norm before each activation, after it (`batch_after`), or none.
    initial_weights: Whose defaults they are.
    """
    height, width = (side >> len(widths) for side in image_size)
    if min(height, width) < 1:
        few = "give model.widths fewer entries, or "
        raise too_small(f"the {len(widths)} blocks of cnn", image_size, or_else=few)
    layers = _convolutions(
        widths, [True] * len(widths), kernel_size, activation, padding=kernel_size // 2, norm=norm
    )
    layers += [nn.Flatten()]
    layers += _dense(
        widths[-1] * height * width,
        dense,
        num_classes,
        activation=activation,
        dropout=dropout,
        norm=norm,
        dropout_layers=dropout_layers,
    )
    network = nn.Sequential(*layers)
    return _with_weights_of_keras(network) if initial_weights == "keras" else network


@traits(any_size=False, muon=False)
def lenet(
    *, num_classes: int, image_size: tuple[int, int], activation: Activation = "relu"
) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) for colour images, with max pools.

    5x5 convolutions of 6 and 16 channels, each pooled, dense layers of 120 and 84: 62,006
    parameters for ten classes of 32x32. Raises TenfoldError for images of less than 16 pixels.
    """
    convolutions = (6, 16), (True, True), 5, activation
    return _unpadded("lenet", num_classes, image_size, convolutions, dense=(120, 84))


@traits(any_size=False, muon=False)
def tutorial_cnn(
    *, num_classes: int, image_size: tuple[int, int], activation: Activation = "relu"
) -> nn.Module:
    """The network of TensorFlow's tutorial on convolutional networks.

    3x3 convolutions of 32, 64 and 64 channels, unpadded, the first two pooled, and a dense layer of
    64: 122,570 parameters for ten classes of 32x32. Initial weights are Keras's, which ends 3
    points higher after ten epochs than PyTorch's. Raises TenfoldError for images of less than 18
    pixels.
    """
    convolutions = (32, 64, 64), (True, True, False), 3, activation
    network = _unpadded("tutorial_cnn", num_classes, image_size, convolutions, dense=(64,))
    return _with_weights_of_keras(network)


@has_odd_kernels
def pyramid(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    depth: Annotated[int, Field(ge=1, le=100)] = 4,
    first_width: Width = 32,
    last_width: Width = 256,
    kernel_size: int = 3,
    activation: Activation = "relu",
    dropout: ShareBelowOne = 0.0,
    norm: ConvolutionNorm = "batch",
) -> nn.Module:
    """Convolutions whose channels grow while the resolution falls, then the mean over the image.

    `depth` convolutions, from `first_width` to `last_width` channels by equal ratios; max pools
    between them, evenly spread, while 4 pixels or more are left.

    depth: Number of convolutions.
    first_width: Channels of the first; those between grow by equal ratios.
    last_width: Channels of the last convolution.
    kernel_size: Side of the convolutions in pixels; odd.
    dropout: Share of the last convolution's outputs dropped.
    norm: Batch norm before each activation, after it (`batch_after`), or none.
    """
    num_pools = max(min(min(image_size).bit_length() - 3, depth - 1), 0)
    places = {(i + 1) * depth // (num_pools + 1) - 1 for i in range(num_pools)}
    pooled = [index in places for index in range(depth)]
    widths = growing_widths(depth, first_width, last_width)
    layers = _convolutions(
        widths, pooled, kernel_size, activation, padding=kernel_size // 2, norm=norm
    )
    if dropout > 0:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, *averaged_classifier(widths[-1], num_classes))


def growing_widths(depth: int, first: int, last: int) -> list[int]:
    """`depth` widths from `first` to `last` by equal ratios, those between in multiples of 8.

    Vector units work on 8 or 16 channels at once, so that other widths cost as much as the next
    multiple.
    """
    if depth == 1:
        return [last]
    widths = [first * (last / first) ** (i / (depth - 1)) for i in range(depth)]
    return [first, *(max(round(width / 8) * 8, 8) for width in widths[1:-1]), last]


def vgg(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    depth: Literal[11, 13, 16, 19] = 16,
) -> nn.Module:
    """3x3 convolutions in five stages of 64 to 512 channels, with 2x2 max pools between them.

    Simonyan and Zisserman 2015 (arXiv 1409.1556), with batch norm. As usual for small images, one
    linear layer replaces the paper's three; it sees the maximum of each map, which for 32 pixels is
    the fifth 2x2 pool. Raises TenfoldError for images of fewer than 16 pixels.

    depth: Layers with weights, in the paper's count.
    """
    if min(image_size) < 16:
        raise too_small("vgg", image_size)
    layers: list[nn.Module] = []
    channels = 3
    for stage, number in enumerate(_VGG[depth]):
        if stage > 0:
            layers.append(nn.MaxPool2d(2))
        width = min(64 << stage, 512)
        for _ in range(number):
            layers += [*normed_convolution(channels, width, 3), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)
    )


def _convolutions(
    widths: Sequence[int],
    pooled: Sequence[bool],
    kernel_size: int,
    activation: str,
    *,
    padding: int = 0,
    norm: str = "none",
) -> list[nn.Module]:
    """(convolution, norm, activation, 2x2 max pool if `pooled`) for each of `widths`, or with norm
    after the activation (`batch_after`)."""
    layers: list[nn.Module] = []
    channels = 3
    for width, is_pooled in zip(widths, pooled, strict=True):
        # A bias before a batch norm would be subtracted again with the mean.
        bias = norm != "batch"
        convolution = nn.Conv2d(channels, width, kernel_size, padding=padding, bias=bias)
        block: list[nn.Module] = [convolution, ACTIVATIONS[activation]()]
        if norm != "none":
            block.insert(1 if norm == "batch" else 2, nn.BatchNorm2d(width))
        if is_pooled:
            # Pooling before an activation quarters its work, the same where that never falls.
            is_same = norm != "batch_after" and activation not in _NOT_MONOTONIC
            block.insert(len(block) - is_same, nn.MaxPool2d(2))
        layers += block
        channels = width
    return layers


def _dense(
    inputs: int,
    widths: Sequence[int],
    num_classes: int,
    *,
    activation: str,
    dropout: float = 0.0,
    norm: str = "none",
    dropout_layers: int = 0,
) -> list[nn.Module]:
    """(linear, norm, activation, dropout) for each of `widths`, from `(N, inputs)`, and the output.

    dropout_layers: how many of them have dropout, from the first on; 0 for all.
    """
    layers: list[nn.Module] = []
    for index, width in enumerate(widths):
        layers.append(nn.Linear(inputs, width, bias=norm == "none"))
        if norm != "none":
            layers.append(nn.BatchNorm1d(width))
        layers.append(ACTIVATIONS[activation]())
        if dropout > 0 and index < (dropout_layers or len(widths)):
            layers.append(nn.Dropout(dropout))
        inputs = width
    return [*layers, nn.Linear(inputs, num_classes)]


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
    num_classes: int,
    image_size: tuple[int, int],
    convolutions: tuple[Sequence[int], Sequence[bool], int, str],
    *,
    dense: Sequence[int],
) -> nn.Module:
    """Unpadded convolutions, then dense layers; without norms."""
    widths, pooled, kernel_size, activation = convolutions
    maps, used = [], []
    for side in image_size:
        for is_pooled in pooled:
            side = (side - kernel_size + 1) // (2 if is_pooled else 1)
        maps.append(side)
        for is_pooled in reversed(pooled):
            side = (2 if is_pooled else 1) * side + kernel_size - 1
        used.append(side)
    if min(maps) < 1:
        raise too_small(name, image_size)
    features = widths[-1] * maps[0] * maps[1]
    layers = [*_convolutions(*convolutions), nn.Flatten()]
    layers += _dense(features, dense, num_classes, activation=activation)
    return _Cropped(*layers, used=(used[0], used[1]))


class _Cropped(nn.Sequential):
    """Layers that look at no more than the `used` (height, width) of an image, from its top left.

    A 2x2 pool of 13 rows drops the last one. Neither that nor what led to it need be computed,
    which saves 8 % of a step of `tutorial_cnn` and changes nothing that it predicts.
    """

    def __init__(self, *layers: nn.Module, used: tuple[int, int]) -> None:
        super().__init__(*layers)
        self.used = used

    def forward(self, inputs: Tensor) -> Tensor:
        """`(N, 3, H, W)` -> `(N, num_classes)`."""
        if inputs.shape[2:] != self.used:
            height, width = self.used
            is_last = inputs.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if is_last else torch.contiguous_format
            inputs = inputs[:, :, :height, :width].contiguous(memory_format=layout)
        outputs: Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
        return outputs
