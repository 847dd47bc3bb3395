"""Networks: each maps `(N, 3, H, W)` float images to `(N, num_classes)` logits.

`registry.SHIPPED` names them; a signature is the schema of its options.
"""

from torch import nn

from tenfold.models.pretrained import Pretrained
from tenfold.models.speedrun import Speedrun

__all__ = ["Pretrained", "Speedrun", "blocks_of", "count_parameters", "count_trained"]


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The parts of `model` that learn, from its input on, without the one that gives the logits."""
    parts = list(model.children())
    if isinstance(model, Speedrun):
        parts = [model.whitening, *model.groups, model.head]
    return [part for part in parts if count_parameters(part) > 0][:-1]


def count_parameters(model: nn.Module) -> int:
    """How many numbers `model` has learned, in a pretrained network also before."""
    if isinstance(model, Pretrained):
        return sum(p.numel() for p in model.parameters())
    return count_trained(model)


def count_trained(model: nn.Module) -> int:
    """How many numbers of `model` learn now."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
