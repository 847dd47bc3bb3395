"""The network of the fast recipes (Jordan 2024, arXiv 2404.00498, and the write-ups of Muon).

Everything in it serves to learn more in a step: a first layer that whitens and is not trained,
convolutions that begin as the identity, norms whose scale is fixed, a global max pool, and a head
whose outputs are scaled down.

Legend: N images, C channels, H and W pixels, K side of the whitening patches.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, unfold

from tenfold.models.blocks import ACTIVATIONS, Activation, Width, too_small
from tenfold.registry import rule

NORM_MOMENTUM = 0.4
"""Share of a batch in the running statistics; high, for the weights change fast until the end."""

WHITENING_EPSILON = 5e-4
"""Added to the variances of patches, which are nearly 0 for fine detail."""

IMAGES_AT_ONCE = 500


class Speedrun(nn.Module):
    """Whitening, one group of convolutions for each of `widths`, global max pool, linear head.

    A group is (convolution, 2x2 max pool, norm, activation) and then depth - 1 times (convolution,
    norm, activation), around which a shortcut leads where there are two or more of them. The first
    layer has 6 K^2 channels, K the `whitening_size`. `whiten` must see images before the first step
    of training. Raises TenfoldError for images that the groups can't halve.

    widths: Channels of each group; every group halves the resolution.
    depth: Convolutions of each group; from 3 on, a shortcut leads around all but the first.
    pool_first: Pool ahead of the first convolution of a group, not after it; not in the first
        group.
    whitening_size: Side in pixels of the patches that the first layer decorrelates.
    """

    @rule("widths", "a list with at least one number", lambda o: len(o.widths) > 0)
    def __init__(
        self,
        *,
        num_classes: int,
        image_size: tuple[int, int],
        widths: tuple[Width, ...] = (64, 256, 256),
        depth: Annotated[int, Field(ge=1, le=20)] = 2,
        pool_first: bool = False,
        whitening_size: Annotated[int, Field(ge=1, le=8)] = 2,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        if (min(image_size) - whitening_size + 1) >> len(widths) < 1:
            raise too_small("speedrun", image_size)
        channels = 6 * whitening_size**2
        self.whitening = nn.Conv2d(3, channels, whitening_size)
        self.whitening.weight.requires_grad = False
        self.activation = ACTIVATIONS[activation]()
        self.groups = nn.Sequential()
        for index, width in enumerate(widths):
            first = pool_first and index > 0
            group = _Group(channels, width, depth, pool_first=first, activation=activation)
            self.groups.append(group)
            channels = width
        self.head = nn.Linear(channels, num_classes, bias=False)
        nn.init.normal_(self.head.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.groups(self.activation(self.whitening(inputs)))
        # Not amax: where a compiled pass recomputes bf16 features, its gradient is 0/0.
        pooled = max_pool2d(features, features.shape[2:]).flatten(1)
        logits: Tensor = self.head(pooled) / pooled.shape[1]
        return logits

    @torch.no_grad()
    def whiten(self, inputs: Tensor) -> None:
        """Make the first layer decorrelate the patches of `inputs`, (N, 3, H, W) normalised.

        Its filters are the eigenvectors of the patches' covariance over the roots of their
        eigenvalues, and the negatives of them.
        """
        size = self.whitening.kernel_size[0]
        width = 3 * size**2
        # Not every device has float64, or eigenvectors.
        covariance = torch.zeros(width, width, dtype=torch.float64)
        num_patches = 0
        for block in torch.split(inputs, IMAGES_AT_ONCE):
            # Patches side by side: those that overlap would say little more.
            patches = unfold(block, size, stride=size).transpose(0, 1).reshape(width, -1)
            covariance += (patches @ patches.T).cpu()
            num_patches += patches.shape[1]
        values, vectors = torch.linalg.eigh(covariance / num_patches)
        filters = (vectors / (values.clamp(min=0) + WHITENING_EPSILON).sqrt()).T
        weight = self.whitening.weight
        weight.copy_(torch.cat([filters, -filters]).to(weight.dtype).view(weight.shape))
        self.whitening.bias.zero_()  # type: ignore[union-attr]  # it has one


class _Group(nn.Module):
    """Convolutions of one width, which halve the resolution once."""

    def __init__(
        self, channels: int, width: int, depth: int, *, pool_first: bool, activation: str
    ) -> None:
        super().__init__()
        pool = nn.MaxPool2d(2)
        convolution = _convolution(channels, width)
        ordered = [pool, convolution] if pool_first else [convolution, pool]
        self.first = nn.Sequential(*ordered, _norm(width), ACTIVATIONS[activation]())
        layers: list[nn.Module] = []
        for _ in range(depth - 1):
            layers += [_convolution(width, width), _norm(width), ACTIVATIONS[activation]()]
        self.shortcut = depth > 2
        self.last = layers.pop() if self.shortcut else nn.Identity()
        self.others = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        entered = self.first(inputs)
        outputs: Tensor = self.others(entered)
        return self.last(outputs + entered) if self.shortcut else outputs


def _convolution(channels: int, width: int) -> nn.Conv2d:
    """3x3, its first filters the identity."""
    convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight[:channels])
    return convolution


def _norm(width: int) -> nn.BatchNorm2d:
    """A batch norm whose scale stays 1."""
    norm = nn.BatchNorm2d(width, momentum=NORM_MOMENTUM)
    norm.weight.requires_grad = False
    return norm
