"""Muon: steps whose matrices are orthogonal (Jordan 2024, kellerjordan.github.io/posts/muon)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn, optim

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that Newton-Schulz iterates: steep at 0, and then from 0.7 to 1.2."""


class Muon(optim.Optimizer):
    """Orthogonalised momentum for convolutions, Nesterov SGD for the rest, in one optimiser.

    convolutions: weights of four dimensions whose scale has no effect on the network, for a norm
    follows them; each is brought back to the norm that one filter of length 1 an output has.
    others: groups of parameters with their `lr` and `weight_decay`, the share that a step at the
    full rate takes away.
    """

    def __init__(
        self,
        convolutions: list[nn.Parameter],
        others: list[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        sgd_momentum: float,
        iterations: int,
    ) -> None:
        groups: list[dict[str, Any]] = [
            {"params": convolutions, "lr": lr, "momentum": momentum, "orthogonal": True},
            *({**group, "momentum": sgd_momentum, "orthogonal": False} for group in others),
        ]
        for group in groups:
            group.setdefault("weight_decay", 0.0)
            group["full_lr"] = group["lr"]
        _forget_compiler(optim.Optimizer.add_param_group)
        super().__init__([group for group in groups if group["params"]], {})
        self._iterations = iterations

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients that the parameters have; `closure` is not supported."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters]
            buffers = [self._buffer(p) for p in parameters]
            if group["orthogonal"]:
                self._step_convolutions(group, parameters, gradients, buffers)
            else:
                _step_others(group, parameters, gradients, buffers)

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer

    def _step_convolutions(
        self,
        group: dict[str, Any],
        parameters: list[Tensor],
        gradients: list[Tensor],
        buffers: list[Tensor],
    ) -> None:
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, gradients)
        ahead = torch._foreach_add(gradients, buffers, alpha=group["momentum"])
        for parameter, direction in zip(parameters, ahead, strict=True):
            parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
            # In the order of channels_last memory these are views; any order of columns will do.
            matrix = direction.permute(0, 2, 3, 1).reshape(len(direction), -1)
            step = orthogonalise(matrix, iterations=self._iterations)
            rows = parameter.permute(0, 2, 3, 1)
            rows.add_(step.view(rows.shape), alpha=-group["lr"])


def _step_others(
    group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor], buffers: list[Tensor]
) -> None:
    momentum, lr = group["momentum"], group["lr"]
    if group["weight_decay"] > 0:
        decay = group["weight_decay"] / group["full_lr"]
        gradients = list(torch._foreach_add(gradients, parameters, alpha=decay))
    torch._foreach_mul_(buffers, momentum)
    torch._foreach_add_(buffers, gradients)
    torch._foreach_add_(parameters, gradients, alpha=-lr)
    torch._foreach_add_(parameters, buffers, alpha=-lr * momentum)


def _forget_compiler(function: Callable[..., object]) -> None:
    """Keep `function` from importing torch's compiler, which it would only tell to leave it alone.

    That takes a second, of runs that take ten.
    """
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None and not hasattr(wrapped, "__dynamo_disable"):
        wrapped.__dynamo_disable = wrapped


def orthogonalise(matrix: Tensor, *, iterations: int) -> Tensor:
    """(R, C) with singular values near 1 and the same singular vectors, by Newton-Schulz.

    On a GPU in bf16, which is enough: the values end between 0.7 and 1.2 anyhow.
    """
    first, second, third = COEFFICIENTS
    current = matrix.bfloat16() if matrix.is_cuda else matrix
    current = current / (current.norm() + 1e-7)
    is_tall = current.shape[0] > current.shape[1]
    if is_tall:
        current = current.T
    for _ in range(iterations):
        gram = current @ current.T
        factor = torch.addmm(gram, gram, gram, beta=second, alpha=third)
        current = torch.addmm(current, factor, current, beta=first)
    return (current.T if is_tall else current).to(matrix.dtype)
