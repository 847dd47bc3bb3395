"""The artificial neural network that beginners' courses start from: dense layers on raw pixels."""

from collections.abc import Sequence

from torch import nn

from tenfold.models.blocks import dense_layers


def ann(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    widths: Sequence[int],
    activation: str,
    dropout: float,
    norm: str,
) -> nn.Module:
    """Flatten, (linear, norm, activation, dropout) for each of `widths`, linear.

    Shape: `(N, 3, H, W)` float -> `(N, num_classes)` logits; 3,072 inputs for 32x32 pictures.
    """
    inputs = 3 * image_size[0] * image_size[1]
    hidden = dense_layers(inputs, widths, activation=activation, dropout=dropout, norm=norm)
    return nn.Sequential(
        nn.Flatten(), *hidden, nn.Linear(widths[-1] if widths else inputs, num_classes)
    )
