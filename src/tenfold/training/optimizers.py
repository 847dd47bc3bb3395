"""Optimisers and the groups of parameters that they treat differently."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn, optim

from tenfold.recipe import (
    AdamOptions,
    AdamWOptions,
    MuonOptions,
    OptimizerOptions,
    SgdOptions,
)
from tenfold.training.muon import Muon


def build_optimizer(
    model: nn.Module,
    options: OptimizerOptions,
    *,
    layer_decay: float = 1.0,
    depths: Mapping[nn.Parameter, int] | None = None,
) -> optim.Optimizer:
    """The recipe's optimiser over what learns in `model`, weight decay kept off norms and biases.

    Those are the parameters of fewer than two dimensions; and it is kept off what a network of timm
    names in `no_weight_decay`, such as positions and class tokens. depths: how many blocks lie
    behind a parameter; for each of them its rate is multiplied by `layer_decay`.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if isinstance(options, MuonOptions):
        return _build_muon(parameters, options)
    spared: set[nn.Parameter] = set()
    for module in model.modules():
        names: set[str] = getattr(module, "no_weight_decay", set)()
        if names:
            spared.update(p for name, p in module.named_parameters() if name in names)
    gathered: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in parameters:
        depth = depths[parameter] if depths and layer_decay < 1 else 0
        decays = parameter.ndim >= 2 and parameter not in spared
        decay = options.weight_decay if decays else 0.0
        gathered.setdefault((layer_decay**depth, decay), []).append(parameter)
    groups: list[dict[str, Any]] = []
    for (factor, decay), members in gathered.items():
        # Weights first, as it always was: the order is that of a checkpoint.
        members.sort(key=lambda p: p.ndim < 2)
        lr = factor * options.lr
        groups.append({"params": members, "lr": lr, "full_lr": lr, "weight_decay": decay})
    if isinstance(options, SgdOptions):
        return optim.SGD(
            groups, lr=options.lr, momentum=options.momentum, nesterov=options.nesterov
        )
    assert isinstance(options, AdamOptions | AdamWOptions)
    kind = optim.Adam if isinstance(options, AdamOptions) else optim.AdamW
    # Fused, a step of Adam goes through memory once: a third of the time on two cores.
    return kind(groups, lr=options.lr, betas=(options.betas[0], options.betas[1]), fused=True)


def _build_muon(parameters: list[nn.Parameter], options: MuonOptions) -> Muon:
    decay = options.weight_decay
    return Muon(
        [p for p in parameters if p.ndim == 4],
        [
            {
                "params": [p for p in parameters if 2 <= p.ndim < 4],
                "lr": options.head_lr,
                "weight_decay": decay,
            },
            {
                "params": [p for p in parameters if p.ndim < 2],
                "lr": options.bias_lr,
                "weight_decay": decay,
            },
        ],
        lr=options.lr,
        momentum=options.momentum,
        sgd_momentum=options.sgd_momentum,
        iterations=options.iterations,
    )


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
