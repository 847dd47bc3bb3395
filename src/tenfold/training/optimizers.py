"""Optimisers and the groups of parameters that they treat differently."""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn, optim

from tenfold.models import Pretrained
from tenfold.registry import PartOptions, rule
from tenfold.training.eager import eager
from tenfold.training.muon import Muon

SGD, Adam, AdamW = eager(optim.SGD), eager(optim.Adam), eager(optim.AdamW)
Groups = list[dict[str, Any]]
LearningRate = Annotated[
    float, Field(gt=0, description="Learning rate that the schedule multiplies.")
]
Momentum = Annotated[
    float, Field(ge=0, lt=1, description="Share of the last step that goes into the next one.")
]
Betas = Annotated[
    tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]],
    Field(description="Decay of the averages of the gradient and of its square."),
]
WeightDecay = Annotated[
    float,
    Field(
        ge=0,
        description="Not applied to norms, biases, and the positions and tokens of transformers.",
    ),
]


@rule("nesterov", "false where momentum is 0", lambda o: o.momentum > 0 or not o.nesterov)
def sgd(
    groups: Groups,
    *,
    lr: LearningRate = 0.1,
    momentum: Momentum = 0.9,
    nesterov: Annotated[
        bool, Field(description="Look ahead along the momentum (Nesterov 1983).")
    ] = False,
    weight_decay: WeightDecay = 0.0,
) -> optim.Optimizer:
    """Stochastic gradient descent with momentum."""
    del weight_decay  # Of each group.
    return SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)


def adam(
    groups: Groups,
    *,
    lr: LearningRate = 0.001,
    betas: Betas = (0.9, 0.999),
    weight_decay: WeightDecay = 0.0,
) -> optim.Optimizer:
    """Adam (Kingma and Ba 2015); weight decay is added to the gradient."""
    del weight_decay
    # Fused, a step goes through memory once: a third of the time on two cores.
    return Adam(groups, lr=lr, betas=betas, fused=True)


def adamw(
    groups: Groups,
    *,
    lr: LearningRate = 0.001,
    betas: Betas = (0.9, 0.999),
    weight_decay: WeightDecay = 0.01,
) -> optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    del weight_decay
    return AdamW(groups, lr=lr, betas=betas, fused=True)


def muon(
    groups: Groups,
    *,
    lr: Annotated[
        float,
        Field(gt=0, description="Learning rate of convolutions, that the schedule multiplies."),
    ] = 0.24,
    momentum: Annotated[float, Field(ge=0, lt=1, description="As of SGD, for convolutions.")] = 0.6,
    head_lr: Annotated[float, Field(gt=0, description="Learning rate of linear layers.")] = 300.0,
    bias_lr: Annotated[float, Field(gt=0, description="Learning rate of norms and biases.")] = 25.0,
    sgd_momentum: Annotated[
        float, Field(ge=0, lt=1, description="As of SGD, for what isn't a convolution.")
    ] = 0.85,
    weight_decay: Annotated[
        float,
        Field(
            ge=0,
            description="What a step at the full rate takes away of what isn't a convolution.",
        ),
    ] = 0.0,
    iterations: Annotated[
        int,
        Field(ge=1, le=20, description="Newton-Schulz iterations that make a step orthogonal."),
    ] = 3,
) -> optim.Optimizer:
    """Muon (Jordan 2024) for convolutions, Nesterov SGD for everything else."""
    return Muon(
        [parameter for group in groups for parameter in group["params"]],
        lr=lr,
        head_lr=head_lr,
        bias_lr=bias_lr,
        momentum=momentum,
        sgd_momentum=sgd_momentum,
        weight_decay=weight_decay,
        iterations=iterations,
    )


def build_optimizer(
    model: nn.Module,
    options: PartOptions,
    *,
    layer_decay: float = 1.0,
) -> optim.Optimizer:
    """The recipe's optimiser over what learns in `model`, weight decay kept off norms and biases.

    Those are the parameters of fewer than two dimensions; and it is kept off what a network of timm
    names in `no_weight_decay`, such as positions and class tokens. A rate is multiplied by
    `layer_decay` for each block of a pretrained network that lies behind a parameter.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if options.name == "muon":  # Which groups them by their dimensions.
        chosen: optim.Optimizer = options([{"params": parameters}])
        return chosen
    spared: set[nn.Parameter] = set()
    for module in model.modules():
        names: set[str] = getattr(module, "no_weight_decay", set)()
        if names:
            spared.update(p for name, p in module.named_parameters() if name in names)
    blocks = model.groups() if isinstance(model, Pretrained) and layer_decay < 1 else []
    depths = {p: depth for depth, block in enumerate(reversed(blocks)) for p in block}
    gathered: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in parameters:
        depth = depths.get(parameter, 0)
        decays = parameter.ndim >= 2 and parameter not in spared
        decay = getattr(options, "weight_decay", 0.0) if decays else 0.0
        gathered.setdefault((layer_decay**depth, decay), []).append(parameter)
    groups: Groups = []
    for (factor, decay), members in gathered.items():
        # Weights first, as it always was: the order is that of a checkpoint.
        members.sort(key=lambda p: p.ndim < 2)
        lr = factor * options.lr
        groups.append({"params": members, "lr": lr, "full_lr": lr, "weight_decay": decay})
    found: optim.Optimizer = options(groups)
    for group in found.param_groups:
        group.setdefault("full_lr", group["lr"])
    return found


def set_learning_rate(optimizer: optim.Optimizer, factor: float) -> None:
    """Give every group `factor` times the learning rate that it was made with."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["full_lr"]


def all_finite(gradients: list[Tensor]) -> bool:
    """Whether no gradient has an infinite value or one that is not a number."""
    if not gradients:
        return True
    found = torch.zeros((), device=gradients[0].device)
    note_not_finite(gradients, found)
    return not found.item()


def note_not_finite(gradients: list[Tensor], found: Tensor) -> None:
    """Set `found`, a float32 scalar, to 1 where `all_finite` would say no, without waiting."""
    # What a gradient scaler uses, with a scale of 1: a third of the time of a norm over all.
    scale = torch.ones((), device=found.device)
    torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, scale)
