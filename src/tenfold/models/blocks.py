"""Parts that several networks are built from."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from tenfold.errors import TenfoldError
from tenfold.validation import expected


class Layer(NamedTuple):
    """A module whose output is worth a look: (N, C, H, W) maps, or what `as_maps` makes maps of."""

    name: str
    module: nn.Module
    as_maps: Callable[[Tensor], Tensor] | None = None


# -- options that several networks have, as recipes know them

Activation = Annotated[
    Literal["relu", "leaky_relu", "prelu", "elu", "swish", "gelu", "sigmoid", "tanh"],
    Field(description="The non-linearity after each layer."),
]
ConvolutionNorm = Annotated[
    Literal["batch", "batch_after", "none"],
    Field(description="Batch norm before each activation, after it (`batch_after`), or none."),
]
Depth = Annotated[int, Field(ge=1, le=100, description="Number of convolutions.")]


def _odd(size: int) -> int:
    if size < 1 or size % 2 == 0:
        raise expected("odd")
    return size


KernelSize = Annotated[
    int, AfterValidator(_odd), Field(description="Side of the convolutions in pixels; odd.")
]
Width = Annotated[int, Field(gt=0)]
Dense = Annotated[
    tuple[Width, ...], Field(description="Units of each dense layer before the output.")
]
Dropout = Annotated[
    float, Field(ge=0, lt=1, description="Share of the dense units that training drops.")
]


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "prelu": nn.PReLU,
    "elu": lambda: nn.ELU(inplace=True),
    "swish": lambda: nn.SiLU(inplace=True),
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}

NOT_MONOTONIC = ("prelu", "swish", "gelu")
"""Activations that fall somewhere, or may learn to, so that pooling before them is not the same."""


def convolution_block(
    channels: int,
    width: int,
    *,
    kernel_size: int,
    padding: int,
    activation: str,
    norm: str,
    pooled: bool = False,
) -> list[nn.Module]:
    """(convolution, norm, activation), or with norm after the activation (`batch_after`).

    pooled: with a 2x2 max pool at the end.
    """
    # A bias before a batch norm would be subtracted again with the mean.
    convolution = nn.Conv2d(channels, width, kernel_size, padding=padding, bias=norm != "batch")
    layers: list[nn.Module] = [convolution, ACTIVATIONS[activation]()]
    if norm != "none":
        layers.insert(1 if norm == "batch" else 2, nn.BatchNorm2d(width))
    if pooled:
        # Pooling ahead of an activation quarters its work, and gives the same where it never falls.
        is_same = norm != "batch_after" and activation not in NOT_MONOTONIC
        layers.insert(len(layers) - is_same, nn.MaxPool2d(2))
    return layers


def dense_layers(
    inputs: int,
    widths: Sequence[int],
    *,
    activation: str,
    dropout: float,
    norm: str,
    dropout_layers: int = 0,
) -> list[nn.Module]:
    """(linear, norm, activation, dropout) for each of `widths`, from `(N, inputs)`.

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
    return layers


class Residual(nn.Module):
    """activation(body(x) + shortcut(x)), with `drop` the share of images that the body is left out
    for."""

    def __init__(
        self,
        body: nn.Module,
        shortcut: nn.Module | None = None,
        *,
        activation: nn.Module | None = None,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut or nn.Identity()
        self.activation = activation or nn.Identity()
        self.drop = drop

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.body(inputs)
        if self.training and self.drop > 0:
            kept = torch.rand(len(outputs), 1, 1, 1, device=outputs.device) >= self.drop
            outputs = outputs * kept / (1 - self.drop)
        total: Tensor = self.activation(outputs + self.shortcut(inputs))
        return total


def he_convolution(
    channels: int, width: int, kernel_size: int, *, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """A padded convolution without bias, its initial weights by He et al. (2015)."""
    convolution = nn.Conv2d(
        channels,
        width,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        bias=False,
    )
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def normed_convolution(
    channels: int, width: int, kernel_size: int, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """`he_convolution` and its batch norm."""
    convolution = he_convolution(channels, width, kernel_size, stride=stride, groups=groups)
    return [convolution, nn.BatchNorm2d(width)]


def averaged_classifier(channels: int, num_classes: int) -> list[nn.Module]:
    """From (N, C, H, W) maps to logits: the mean over each map and a linear layer."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]


def too_small(name: str, image_size: tuple[int, int]) -> TenfoldError:
    """What to raise where the network `name` can't halve images as often as it would."""
    return TenfoldError(
        f"Images of {image_size[0]}x{image_size[1]} pixels are too small for {name}; "
        "choose a larger data.image_size, such as --set data.image_size=32."
    )
