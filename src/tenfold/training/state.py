"""All state of a run in one place: what it has done so far, and what a checkpoint holds."""

import math
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from pydantic import TypeAdapter
from torch import Tensor, nn, optim
from torch.optim.swa_utils import AveragedModel

from tenfold.errors import DivergedError, TenfoldError
from tenfold.evaluation.trained import require_same_tensors
from tenfold.recipe import Recipe
from tenfold.training.devices import can_defer
from tenfold.training.schedules import Plateau


@dataclass
class Sums:
    """Running sums over the epoch so far, of this process alone."""

    loss: float = 0.0
    num_correct: float = 0.0
    num_images: int = 0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass
class History:
    """How far a run has come; plain values, exact in JSON.

    stage: place of the present one among the recipe's stages; first_epoch: those completed before
    it. weights: where a pretrained network has its weights from, in words. stages: what the stages
    before learned, and how well. epoch: epochs completed. step: steps completed within the present
    epoch. sums: of the present epoch on this process; sums_by_process: all of them, as of the last
    checkpoint. flop: counted, of all steps and features so far; None where that is not known.
    training_seconds: spent in steps. fit_seconds: from the set-up to the last
    checkpoint, of all sessions so far. stage_started: of those, until the present stage's first
    step. compile_seconds: of those, spent on compiling the network.
    wall_seconds, process_seconds: of all sessions so far, everything included. metrics, timings:
    the lines of the run folder's logs. ended: why training is over, or None.
    """

    stage: int = 0
    first_epoch: int = 0
    weights: str | None = None
    stages: list[dict[str, Any]] = field(default_factory=list)
    epoch: int = 0
    step: int = 0
    sums: Sums = field(default_factory=Sums)
    sums_by_process: list[Sums] = field(default_factory=list)
    flop: float | None = None
    training_seconds: float = 0.0
    fit_seconds: float = 0.0
    stage_started: float = 0.0
    compile_seconds: float = 0.0
    wall_seconds: float = 0.0
    process_seconds: float = 0.0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    plateau: Plateau = field(default_factory=Plateau)
    best_accuracy: float = -1.0
    best_epoch: int | None = None
    ended: str | None = None

    @property
    def stage_epoch(self) -> int:
        """Epochs completed in the present stage."""
        return self.epoch - self.first_epoch

    def begin_stage(self) -> None:
        """Go on to the next stage, after the last epoch of the present one."""
        self.stage += 1
        self.first_epoch = self.epoch
        self.plateau = Plateau()
        self.best_accuracy, self.best_epoch = -1.0, None
        self.ended = None

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "History":
        """The history that `to_dict` wrote."""
        return TypeAdapter(cls).validate_python(values)


@dataclass
class TrainingState:
    """Everything that changes while training: weights, their averages, the optimiser, history.

    average: moving average of the weights, or None. best: weights of the best epoch so far under
    early stopping, or None. losses: (2, N) of the images where they decide which of them an epoch
    trains on, or None.
    """

    model: nn.Module
    optimizer: optim.Optimizer
    average: AveragedModel | None
    best: dict[str, torch.Tensor] | None = None
    losses: torch.Tensor | None = None
    history: History = field(default_factory=History)

    @property
    def evaluated_model(self) -> nn.Module:
        """The weights that are validated and saved: the averaged ones where there are any."""
        return self.average.module if self.average is not None else self.model

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor of the state, under names that say what it belongs to."""
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": t for name, t in self.average.state_dict().items()}
        if self.best is not None:
            tensors |= {f"best.{name}": t for name, t in self.best.items()}
        if self.losses is not None:
            tensors["losses"] = self.losses
        for index, parameter in enumerate(self._parameters()):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{name}"] = value
                elif isinstance(value, int | float):
                    kind = torch.float64 if isinstance(value, float) else None
                    tensors[f"number.{index}.{name}"] = torch.tensor(value, dtype=kind)
                elif value is not None:
                    raise TenfoldError(
                        f"The optimiser keeps {name!r} of the type {type(value).__name__} of a "
                        "parameter, which a checkpoint can't hold; keep tensors and numbers there."
                    )
        return tensors

    def load_tensors(
        self, tensors: dict[str, torch.Tensor], *, source: str, with_optimizer: bool = True
    ) -> None:
        """Take over what `tensors` gave. Raises TenfoldError, with the difference, where it
        belongs to another network.

        with_optimizer: whether the same kind of optimiser has left them; another has no use for
        what it remembered.
        """
        groups: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            groups.setdefault(kind, {})[rest] = tensor
        require_same_tensors(groups.get("model", {}), self.model.state_dict(), source=source)
        self.model.load_state_dict(groups["model"])
        if self.average is not None:
            if "average" not in groups:
                raise TenfoldError(f"{source} has no averaged weights; train the run again.")
            self.average.load_state_dict(groups["average"])
        self.best = groups.get("best")
        if self.losses is not None:
            losses = groups.get("losses", {}).get("")
            if losses is None or losses.shape != self.losses.shape:
                raise TenfoldError(
                    f"{source} has no losses of these images, by which training.select chooses; "
                    "train the run again."
                )
            self.losses.copy_(losses)
        self.optimizer.state.clear()
        if with_optimizer:
            self._load_optimizer(groups.get("optimizer", {}), groups.get("number", {}))

    def _load_optimizer(self, tensors: dict[str, Tensor], numbers: dict[str, Tensor]) -> None:
        parameters = self._parameters()
        for name, tensor in tensors.items():
            index, _, key = name.partition(".")
            parameter = parameters[int(index)]
            if tensor.shape == parameter.shape:
                # In the parameter's own memory format, so that a step is as fast as before.
                value = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
            else:
                value = tensor.to(parameter.device)
            self.optimizer.state[parameter][key] = value
        for name, number in numbers.items():
            index, _, key = name.partition(".")
            self.optimizer.state[parameters[int(index)]][key] = number.item()

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


SETTLED_AT_ONCE = 50
"""Batches whose correct predictions are counted together; one by one, that takes 1 % of a small
step."""


class EpochSums:
    """Keeps `state.history.sums`.

    defers: whether losses and gradients are looked at some batches later, so that Python never
    waits for the device; spoilt: 1 where one of them was not finite since.
    """

    def __init__(self, state: TrainingState, recipe: Recipe, accelerator: Accelerator) -> None:
        self._state, self._accelerator, self._lr = state, accelerator, recipe.optimizer.lr
        self.defers = can_defer(recipe, accelerator)
        self.spoilt = torch.zeros((), device=accelerator.device)
        self._losses: list[tuple[float | Tensor, int]] = []
        self._unscored: list[tuple[Tensor, Tensor]] = []
        self._known_loss: float | None = None

    def count(self, loss: float | Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a part of a batch, its mean loss, (P, K) and (P,).

        The sums are up to date after the next `settle`.
        """
        self._losses.append((loss, len(labels)))
        self._unscored.append((logits, labels))
        if len(self._unscored) >= SETTLED_AT_ONCE:
            self.settle()

    def settle(self) -> None:
        """Bring the sums up to date.

        Raises DivergedError where that shows a loss or gradient that was not finite.
        """
        if not self._losses:
            return
        sums = self._state.history.sums
        logits, labels = (torch.cat(tensors) for tensors in zip(*self._unscored, strict=True))
        sums.num_correct += int((logits.argmax(dim=1) == labels).sum())
        losses, counts = zip(*self._losses, strict=True)
        self._unscored.clear()
        self._losses.clear()
        values = torch.stack(losses).tolist() if self.defers else losses
        for value, count in zip(values, counts, strict=True):
            sums.loss += value * count
            sums.num_images += count
        self._known_loss = values[-1]
        if self.defers and (self.spoilt.item() or not all(map(math.isfinite, values))):
            raise self.diverged("A loss or gradient is not finite", some_steps_ago=True)

    def total(self) -> Sums:
        """The sums over all processes."""
        self.settle()
        sums = self._state.history.sums
        if self._accelerator.num_processes == 1:
            return sums
        values = [sums.loss, sums.num_correct, float(sums.num_images)]
        own = torch.tensor(values, dtype=torch.float64, device=self._accelerator.device)
        loss, correct, images = self._accelerator.reduce(own).tolist()
        return Sums(loss, correct, int(images))

    def known_loss(self) -> float:
        """Mean loss of the last part of a batch that `settle` has seen."""
        if self._known_loss is None:
            self.settle()
        assert self._known_loss is not None
        return self._known_loss

    def diverged(self, found: str, *, some_steps_ago: bool = False) -> DivergedError:
        """The error for `found`, which is before the present step or some steps ago."""
        history = self._state.history
        place = f"epoch {history.epoch + 1}, step {history.step + 1}"
        when = "so training stopped before that step"
        if some_steps_ago:
            when = "or somewhat earlier, so training stopped"
        return DivergedError(
            f"{found} in {place}, {when}; lower optimizer.lr (it is {self._lr:g}), or set "
            "training.clip_norm."
        )
