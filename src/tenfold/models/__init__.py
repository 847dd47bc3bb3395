"""Networks by name. Every one maps `(N, 3, H, W)` float pictures to `(N, num_classes)` logits."""

from collections.abc import Callable
from typing import Any

from torch import nn

from tenfold.errors import TenfoldError
from tenfold.models.classic import cnn, lenet, pyramid, tutorial_cnn
from tenfold.models.dense import ann
from tenfold.models.pretrained import Pretrained, pretrained
from tenfold.models.resnet import cifar_resnet, resnet
from tenfold.models.speedrun import Speedrun, speedrun

__all__ = [
    "MODELS",
    "Pretrained",
    "Speedrun",
    "blocks_of",
    "build",
    "count_parameters",
    "count_trained",
]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "ann": ann,
    "cnn": cnn,
    "lenet": lenet,
    "tutorial_cnn": tutorial_cnn,
    "pyramid": pyramid,
    "resnet": resnet,
    "cifar_resnet": cifar_resnet,
    "speedrun": speedrun,
    "pretrained": pretrained,
}


def build(name: str, *, num_classes: int, image_size: tuple[int, int], **options: Any) -> nn.Module:
    """The network `name`, freshly initialised from torch's global generator.

    num_classes: length of the logits. image_size: height and width of the pictures in pixels.
    options: the fields of the network's options in a recipe. Raises TenfoldError for an unknown
    name or where the pictures are too small for the network.
    """
    if name not in MODELS:
        raise TenfoldError(f"There is no model {name!r}; there are: {', '.join(sorted(MODELS))}.")
    return MODELS[name](num_classes=num_classes, image_size=image_size, **options)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The parts of `model` that learn, from its input on, without the one that gives the logits."""
    parts = model.blocks() if isinstance(model, Speedrun) else list(model.children())
    return [part for part in parts if count_parameters(part) > 0][:-1]


def count_parameters(model: nn.Module) -> int:
    """How many numbers `model` has learned, in a pretrained network also before."""
    if isinstance(model, Pretrained):
        return sum(p.numel() for p in model.parameters())
    return count_trained(model)


def count_trained(model: nn.Module) -> int:
    """How many numbers of `model` learn now."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
