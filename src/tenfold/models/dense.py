"""The artificial neural network that beginners' courses start from: dense layers on raw pixels."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from tenfold.models.blocks import Activation, Dropout, Width, dense_layers
from tenfold.registry import traits


@traits(any_size=False, muon=False)
def ann(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    widths: Annotated[tuple[Width, ...], Field(description="Units of each hidden layer.")] = (
        512,
        256,
    ),
    activation: Activation = "relu",
    dropout: Dropout = 0.2,
    norm: Annotated[
        Literal["batch", "none"], Field(description="Batch norm after each layer, or none.")
    ] = "batch",
) -> nn.Module:
    """A fully connected network, which doesn't know which pixels are neighbours.

    Flatten, (linear, norm, activation, dropout) for each of `widths`, linear.

    Shape: `(N, 3, H, W)` float -> `(N, num_classes)` logits; 3,072 inputs for 32x32 images.
    """
    inputs = 3 * image_size[0] * image_size[1]
    hidden = dense_layers(inputs, widths, activation=activation, dropout=dropout, norm=norm)
    return nn.Sequential(
        nn.Flatten(), *hidden, nn.Linear(widths[-1] if widths else inputs, num_classes)
    )
