"""Parts that several networks are built from."""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from tenfold.errors import TenfoldError


class Layer(NamedTuple):
    """A module whose output is worth a look: (N, C, H, W) maps, or what `as_maps` makes maps of."""

    name: str
    module: nn.Module
    as_maps: Callable[[Tensor], Tensor] | None = None


Activation = Annotated[
    Literal["relu", "leaky_relu", "prelu", "elu", "swish", "gelu", "sigmoid", "tanh"],
    Field(description="The non-linearity after each layer."),
]
Width = Annotated[int, Field(gt=0)]

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
    padding = kernel_size // 2
    convolution = nn.Conv2d(
        channels, width, kernel_size, stride, padding, groups=groups, bias=False
    )
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def normed_convolution(
    channels: int, width: int, kernel_size: int, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """`he_convolution` and its batch norm."""
    convolution = he_convolution(channels, width, kernel_size, stride=stride, groups=groups)
    return [convolution, nn.BatchNorm2d(width)]


def blocks_of_stages(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Stage and stride of each block: the first one of every stage but the first halves."""
    for stage, number in enumerate(numbers):
        for index in range(number):
            yield stage, 2 if stage > 0 and index == 0 else 1


def averaged_classifier(channels: int, num_classes: int) -> list[nn.Module]:
    """From (N, C, H, W) maps to logits: the mean over each map and a linear layer."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]


def too_small(name: str, image_size: tuple[int, int], *, or_else: str = "") -> TenfoldError:
    """What to raise where the network `name` can't halve images as often as it would."""
    return TenfoldError(
        f"Images of {image_size[0]}x{image_size[1]} pixels are too small for {name}; {or_else}"
        "choose a larger data.image_size, such as --set data.image_size=32."
    )
