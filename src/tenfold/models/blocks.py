"""Parts that several networks are built from."""

from collections.abc import Callable, Sequence

from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "prelu": nn.PReLU,
    "swish": lambda: nn.SiLU(inplace=True),
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


def dense_layers(
    inputs: int, widths: Sequence[int], *, activation: str, dropout: float, norm: str
) -> list[nn.Module]:
    """(linear, norm, activation, dropout) for each of `widths`, from `(N, inputs)`."""
    layers: list[nn.Module] = []
    for width in widths:
        # A bias before a batch norm would be subtracted again with the mean.
        layers.append(nn.Linear(inputs, width, bias=norm == "none"))
        if norm == "batch":
            layers.append(nn.BatchNorm1d(width))
        layers.append(ACTIVATIONS[activation]())
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        inputs = width
    return layers
