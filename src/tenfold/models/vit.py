"""A vision transformer for small images (Dosovitskiy et al. 2021, arXiv 2010.11929).

Legend: N images, D width, h and w patches down and across, K heads.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from tenfold.models.blocks import Residual, averaged_classifier, too_small
from tenfold.registry import rule, traits


@traits(muon=False)
@rule(
    "width", "a multiple of 4 and of model.heads", lambda o: not (o.width % 4 or o.width % o.heads)
)
def vit(
    *,
    num_classes: int,
    image_size: tuple[int, int],
    patch: Annotated[int, Field(ge=1, le=32)] = 4,
    depth: Annotated[int, Field(ge=1, le=48)] = 6,
    width: Annotated[int, Field(ge=8, le=1024)] = 192,
    heads: Annotated[int, Field(ge=1, le=16)] = 3,
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> nn.Module:
    """Patches, transformer blocks, and the mean over the patches before a linear head.

    Positions are sines and cosines, and no class token is needed (Beyer et al. 2022, arXiv
    2205.01580). Six blocks of 192 features have 2.7 million parameters. `drop_path` grows from 0 in
    the first block (Huang et al. 2016, arXiv 1603.09382). Rows and columns that fill no
    patch are not seen. Raises TenfoldError where the image is smaller than a patch.

    patch: Side of a patch in pixels.
    depth: Transformer blocks.
    width: Features of a patch.
    heads: Heads of attention.
    drop_path: Share of images that skip the last block.
    """
    if min(image_size) < patch:
        raise too_small("vit", image_size)
    drops = [drop_path * index / max(depth - 1, 1) for index in range(depth)]
    blocks = [_Block(width, heads, drop=drop) for drop in drops]
    network = nn.Sequential(
        _Patches(width, patch), *blocks, _Norm(width), *averaged_classifier(width, num_classes)
    )
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return network


class _Patches(nn.Module):
    """(N, 3, H, W) -> (N, D, h, w), with what tells positions apart."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, width, patch, stride=patch)
        nn.init.trunc_normal_(self.projection.weight, std=(3 * patch**2) ** -0.5)
        nn.init.zeros_(self.projection.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, inputs: Tensor) -> Tensor:
        maps: Tensor = self.projection(inputs)
        _, width, height, across = maps.shape
        rates = 10_000 ** -torch.linspace(0, 1, width // 4, device=maps.device)
        rows, columns = (
            rates[:, None] * torch.arange(size, device=maps.device) for size in (height, across)
        )
        rows = rows[:, :, None].expand(-1, -1, across)
        columns = columns[:, None, :].expand(-1, height, -1)
        return maps + torch.cat([columns.sin(), columns.cos(), rows.sin(), rows.cos()])


class _Block(nn.Module):
    """Attention and two dense layers, (N, D, h, w) in and out, so that maps stay maps.

    In channels_last memory neither of the two transpositions moves anything.
    """

    def __init__(self, width: int, heads: int, *, drop: float) -> None:
        super().__init__()
        attention = nn.Sequential(nn.LayerNorm(width, eps=1e-6), _Attention(width, heads))
        dense = nn.Sequential(
            nn.LayerNorm(width, eps=1e-6),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )
        self.body = nn.Sequential(Residual(attention, drop=drop), Residual(dense, drop=drop))

    def forward(self, maps: Tensor) -> Tensor:
        outputs: Tensor = self.body(maps.permute(0, 2, 3, 1))
        return outputs.permute(0, 3, 1, 2)


class _Attention(nn.Module):
    """Every patch looks at all patches; (N, h, w, D) in and out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs = nn.Linear(width, 3 * width)
        self.outputs = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        split = self.inputs(tokens).flatten(1, 2).unflatten(2, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)  # (N, K, h w, D / K) each
        mixed = scaled_dot_product_attention(query, key, value)
        outputs: Tensor = self.outputs(mixed.transpose(1, 2).reshape(tokens.shape))
        return outputs


class _Norm(nn.LayerNorm):
    """Over the features of each patch, (N, D, h, w) in and out."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
