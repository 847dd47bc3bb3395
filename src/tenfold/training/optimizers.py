"""Optimisers and the groups of parameters that they treat differently."""

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn, optim

from tenfold.models import Pretrained
from tenfold.registry import PartOptions, rule

Kind = TypeVar("Kind", bound=optim.Optimizer)

METHODS = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
"""What torch wraps, so that the compiler leaves it alone."""


def eager(kind: type[Kind]) -> type[Kind]:
    """An optimiser without what makes it import `torch._dynamo` with its first step.

    That takes 1.6 s, and no step of an optimiser is compiled here.
    """
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in METHODS}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    namespace = {**methods, "step": step, "__module__": kind.__module__, "__doc__": kind.__doc__}
    return cast(type[Kind], type(kind.__name__, (kind,), namespace))


COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that Newton-Schulz iterates: steep at 0, and then from 0.7 to 1.2."""


@eager
class Muon(optim.Optimizer):
    """Orthogonalised momentum for convolutions, Nesterov SGD for the rest, in one optimiser
    (Jordan 2024, kellerjordan.github.io/posts/muon).

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
