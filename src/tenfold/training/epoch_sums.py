"""Losses and right predictions of an epoch, added up when the device has them."""

import math

import torch
from accelerate import Accelerator
from torch import Tensor

from tenfold.errors import DivergedError
from tenfold.recipe import Recipe
from tenfold.training.devices import can_defer
from tenfold.training.state import Sums, TrainingState

SETTLED_AT_ONCE = 50
"""Batches whose right predictions are counted together; one by one, that takes 1 % of a small
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
