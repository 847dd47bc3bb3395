"""Small convolutional networks of the kind that tutorials build."""

from collections.abc import Sequence

from torch import nn

from tenfold.errors import TenfoldError
from tenfold.models.blocks import ACTIVATIONS, dense_layers


def cnn(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    widths: Sequence[int],
    kernel_size: int,
    dense: Sequence[int],
    activation: str,
    dropout: float,
    norm: str,
) -> nn.Module:
    """(convolution, norm, activation, 2x2 max pool) for each of `widths`, then dense layers.

    Shape: `(N, 3, H, W)` float -> `(N, num_classes)` logits. Raises TenfoldError where there are
    more blocks than the pictures can be halved.
    """
    height, width = image_size[0] >> len(widths), image_size[1] >> len(widths)
    if min(height, width) < 1:
        raise TenfoldError(
            f"{len(widths)} blocks halve {image_size[0]}x{image_size[1]} pictures to nothing; "
            "give model.widths fewer entries or choose a larger data.image_size."
        )
    layers: list[nn.Module] = []
    channels = 3
    for block_width in widths:
        layers.append(
            nn.Conv2d(
                channels, block_width, kernel_size, padding=kernel_size // 2, bias=norm == "none"
            )
        )
        if norm == "batch":
            layers.append(nn.BatchNorm2d(block_width))
        # Pooling first quarters the work of the activation; both orders give the same for any
        # activation that never falls, which is all but Swish and GELU.
        if activation in ("swish", "gelu"):
            layers += [ACTIVATIONS[activation](), nn.MaxPool2d(2)]
        else:
            layers += [nn.MaxPool2d(2), ACTIVATIONS[activation]()]
        channels = block_width
    features = channels * height * width
    hidden = dense_layers(features, dense, activation=activation, dropout=dropout, norm=norm)
    return nn.Sequential(
        *layers, nn.Flatten(), *hidden, nn.Linear(dense[-1] if dense else features, num_classes)
    )
