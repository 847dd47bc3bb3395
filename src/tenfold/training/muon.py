"""Muon: steps whose matrices are orthogonal (Jordan 2024, kellerjordan.github.io/posts/muon)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim

from tenfold.training.eager import eager

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that Newton-Schulz iterates: steep at 0, and then from 0.7 to 1.2."""


@eager
class Muon(optim.Optimizer):
    """Orthogonalised momentum for convolutions, Nesterov SGD for the rest, in one optimiser.

    Convolutions are the weights of four dimensions, whose scale has no effect on the network, for a
    norm follows them; each is brought back to the norm that one filter of length 1 an output has.
    weight_decay: the share that a step at the full rate takes away of the others.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        *,
        lr: float,
        head_lr: float,
        bias_lr: float,
        momentum: float,
        sgd_momentum: float,
        weight_decay: float,
        iterations: int,
    ) -> None:
        sgd = {"momentum": sgd_momentum, "weight_decay": weight_decay, "orthogonal": False}
        muon = {"momentum": momentum, "weight_decay": 0.0, "orthogonal": True}
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim == 4], "lr": lr, **muon},
            {"params": [p for p in parameters if 2 <= p.ndim < 4], "lr": head_lr, **sgd},
            {"params": [p for p in parameters if p.ndim < 2], "lr": bias_lr, **sgd},
        ]
        used = [{**group, "full_lr": group["lr"]} for group in groups if group["params"]]
        super().__init__(used, {})
        self._iterations = iterations
        self._recorded: dict[tuple[int, ...], _Recorded] = {}

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
        if not parameters[0].is_cuda:
            _move(parameters, ahead, group["lr"], iterations=self._iterations)
            return
        places = tuple(parameter.data_ptr() for parameter in parameters)
        if places not in self._recorded:
            self._recorded[places] = _Recorded(parameters, ahead, iterations=self._iterations)
        self._recorded[places].move(ahead, group["lr"])


class _Recorded:
    """`_move` on a GPU as a CUDA graph: its two hundred kernels take longer to launch than to run.

    parameters: whose place in memory stays. directions: of the shapes that are to come.
    """

    def __init__(
        self, parameters: list[Tensor], directions: Sequence[Tensor], *, iterations: int
    ) -> None:
        self._directions = [torch.zeros_like(direction) for direction in directions]
        self._rate = torch.zeros((), device=parameters[0].device)
        before = [parameter.clone() for parameter in parameters]
        _move(parameters, self._directions, self._rate, iterations=iterations)  # Sets things up.
        torch._foreach_copy_(parameters, before)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            _move(parameters, self._directions, self._rate, iterations=iterations)

    def move(self, directions: Sequence[Tensor], rate: float) -> None:
        torch._foreach_copy_(self._directions, list(directions))
        self._rate.fill_(rate)
        self._graph.replay()


def _move(
    parameters: list[Tensor],
    directions: Sequence[Tensor],
    rate: float | Tensor,
    *,
    iterations: int,
) -> None:
    """Bring convolutions to their norm and go `rate` times the orthogonalised directions back."""
    for parameter, direction in zip(parameters, directions, strict=True):
        parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
        # In the order of channels_last memory these are views; any order of columns will do.
        matrix = direction.permute(0, 2, 3, 1).reshape(len(direction), -1)
        step = orthogonalise(matrix, iterations=iterations)
        rows = parameter.permute(0, 2, 3, 1)
        if isinstance(rate, Tensor):
            rows.addcmul_(step.view(rows.shape), rate, value=-1)
        else:
            rows.add_(step.view(rows.shape), alpha=-rate)


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
