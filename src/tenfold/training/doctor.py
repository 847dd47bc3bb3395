"""What is wrong in how a network trains: dead units, gradients, and the size of its updates.

N images in a batch; a unit is a channel of a map, or an element of a vector.
"""

import copy
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.overrides import TorchFunctionMode

from tenfold.evaluation.evaluate import open_split
from tenfold.evaluation.predictions import map_labels
from tenfold.models import Pretrained
from tenfold.progress import Progress
from tenfold.recipe import PartOptions
from tenfold.run import RunFolder
from tenfold.training.optimizers import build_optimizer
from tenfold.training.stages import recipe_of, stages_of

NUM_IMAGES = 256
ACTIVATIONS = re.compile(
    r"relu6?|leaky_relu|prelu|c?elu|selu|gelu|silu|mish|sigmoid|tanh|softplus|hard(swish|tanh|sigmoid)"
)
"""Functions that are watched, called as modules or not."""
DEAD = 0.3
"""Share of a layer's units from which on it is worth a word; a few are usual."""
VANISHED = 1e-4
"""Of the largest gradient, root mean square by layer."""
EXPLODED = 100.0
"""Norm of the gradient over all layers; one to ten is usual."""
LARGE_UPDATE, SMALL_UPDATE = 0.3, 1e-7
"""Of the weights' norm; about 1e-3 is usual, and Muon takes far larger steps than SGD."""


class Activation(NamedTuple):
    """An activation, and the share of its units that are 0 for every image."""

    name: str
    num_units: int
    dead: float


class LayerHealth(NamedTuple):
    """A weight: root mean square of its gradient, and the norm of an update over its own."""

    name: str
    gradient: float
    update: float


class Finding(NamedTuple):
    """What is wrong, and a sentence with what to try."""

    kind: str
    sentence: str


@dataclass(frozen=True)
class Diagnosis:
    """Activations and layers from the input to the output, and what is wrong with them."""

    num_images: int
    loss: float
    activations: tuple[Activation, ...]
    layers: tuple[LayerHealth, ...]
    findings: tuple[Finding, ...]


def diagnose(
    run: RunFolder, *, data: str | None = None, progress: Progress | None = None
) -> Diagnosis:
    """Examine the network of a finished run on some of its training images.

    data: where those are now, if not where they were. Raises TenfoldError as `evaluate_run` does.
    """
    model, _, images = open_split(run, split="train", data=data, progress=progress)
    step = max(len(images) // NUM_IMAGES, 1)
    chosen = slice(0, step * NUM_IMAGES, step)
    stage = stages_of(model.recipe)[-1]
    if isinstance(model.module, Pretrained):
        model.module.open(stage.trains, norms=stage.norms)
    return examine(
        model.module,
        model.inputs(images.pixels[chosen]),
        torch.from_numpy(map_labels(images, model.class_names)[chosen]),
        optimizer=recipe_of(model.recipe, stage).optimizer,
        layer_decay=stage.layer_decay,
    )


def examine(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    optimizer: PartOptions,
    layer_decay: float = 1.0,
) -> Diagnosis:
    """Take one step of training on a copy of `module`, and look at every layer.

    inputs: what the network takes, (N, ...) float32. labels: (N,) int64.
    """
    network = copy.deepcopy(module).train()
    with torch.random.fork_rng([]), _Watch(network) as watch:
        torch.manual_seed(0)  # Of dropout.
        loss = cross_entropy(network(inputs), labels)
    torch.autograd.backward(loss)
    weights = {
        f"{name}.{kind} {type(layer).__name__}".replace(".weight ", " ").lstrip("."): p
        for name, layer in network.named_modules()
        for kind, p in layer.named_parameters(recurse=False)
        if p.ndim >= 2 and p.grad is not None
    }
    before = [p.detach().clone() for p in weights.values()]
    gradients = [p.grad for p in weights.values() if p.grad is not None]
    norm = float(nn.utils.get_total_norm(gradients))
    sizes = [float(gradient.square().mean().sqrt()) for gradient in gradients]
    build_optimizer(network, optimizer, layer_decay=layer_decay).step()
    layers = [
        LayerHealth(name, size, float((p.detach() - old).norm() / old.norm()))
        for (name, p), old, size in zip(weights.items(), before, sizes, strict=True)
    ]
    findings = [*_dead(watch.found), *_gradients(layers, norm)]
    findings += _updates(layers, none_else=not findings)
    return Diagnosis(
        len(labels), float(loss.detach()), tuple(watch.found), tuple(layers), tuple(findings)
    )


class _Watch(TorchFunctionMode):
    """Notes every activation that `network` computes, by the module that it happens in."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.found: list[Activation] = []
        self._within: list[str] = []
        for name, module in network.named_modules():
            named = f"{name} {type(module).__name__}".strip()
            module.register_forward_pre_hook(lambda *_, named=named: self._within.append(named))
            module.register_forward_hook(lambda *_: self._within.__delitem__(-1))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See TorchFunctionMode."""
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").removesuffix("_")
        if ACTIVATIONS.fullmatch(name) and isinstance(result, Tensor):
            units = result.detach().transpose(1, -1) if result.ndim == 3 else result.detach()
            active = units.transpose(0, 1).flatten(1).abs().amax(dim=1) > 0
            share = 1 - float(active.float().mean())
            self.found.append(Activation(self._within[-1], len(active), share))
        return result


def _dead(activations: Sequence[Activation]) -> list[Finding]:
    return [
        Finding(
            "dead units",
            f"{a.dead:.0%} of the {a.num_units} units of {a.name} are 0 for every image and learn "
            "nothing; try a smaller optimizer.lr, batch norm, or leaky_relu.",
        )
        for a in activations
        if a.dead >= DEAD
    ]


def _gradients(layers: Sequence[LayerHealth], norm: float) -> Iterator[Finding]:
    ordered = sorted(layers, key=lambda layer: layer.gradient)
    if not math.isfinite(norm) or norm > EXPLODED:
        yield Finding(
            "exploding gradients",
            f"The gradient has a norm of {norm:.3g}, most of it in {ordered[-1].name}; try a "
            "smaller optimizer.lr, training.clip_norm=1, or batch norm.",
        )
    elif layers and ordered[0].gradient < VANISHED * ordered[-1].gradient:
        share = ordered[0].gradient / ordered[-1].gradient
        yield Finding(
            "vanishing gradients",
            f"The gradient of {ordered[0].name} is {share:.0e} of the largest, so that it hardly "
            "learns; try relu for sigmoid or tanh, batch norm, or a residual network.",
        )


def _updates(layers: Sequence[LayerHealth], *, none_else: bool) -> list[Finding]:
    """Small steps are worth a word only where `none_else` explains them."""
    kinds = (
        ("large updates", [a for a in layers if a.update > LARGE_UPDATE], "smaller"),
        ("small updates", [a for a in layers if none_else and a.update < SMALL_UPDATE], "larger"),
    )
    return [
        Finding(
            kind,
            f"A step changes {found[0].name} by {found[0].update:.1e} of its weights, as it does "
            f"{len(found)} of {len(layers)} layers; 1e-3 is usual, so try a {change} optimizer.lr.",
        )
        for kind, found, change in kinds
        if found
    ]
