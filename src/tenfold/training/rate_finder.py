"""A learning rate from loss against rate, as Smith proposes.

On a network that is thrown away the rate rises exponentially from step to step; well below the
rate at which the loss stops falling lies a good one. Leslie N. Smith, "Cyclical Learning Rates for
Training Neural Networks", WACV 2017, arXiv:1506.01186.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from tenfold.data import Dataset
from tenfold.data.splits import TrainingData, training_data
from tenfold.errors import TenfoldError
from tenfold.evaluation.evaluate import splitting
from tenfold.evaluation.loading import load_data
from tenfold.progress import Progress
from tenfold.recipe import Recipe, load_recipe
from tenfold.training.batches import derive_seed, epoch_batches, seed_generators
from tenfold.training.devices import make_accelerator
from tenfold.training.optimizers import set_learning_rate
from tenfold.training.trainer import Trainer

LOWEST, HIGHEST = 1e-6, 10.0
NUM_STEPS = 100
SMOOTHING = 0.9
"""Weight of the past in the moving average of the loss."""
DIVERGED = 3.0
"""Times the lowest smoothed loss, at which the search ends."""


@dataclass(frozen=True)
class FoundRate:
    """Loss against learning rate, and the rate to use.

    rates, losses, smoothed: one a step, until the loss diverged. lowest: the rate at which the
    smoothed loss was lowest. lr: a tenth of that.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    lowest: float
    lr: float


def find_lr(
    recipe: Recipe | str,
    data: Dataset | None = None,
    *,
    accelerator: Accelerator | None = None,
    progress: Progress | None = None,
) -> FoundRate:
    """Try learning rates on a copy of the network of `recipe`, in its first stage.

    recipe: also a shipped one's name or a path. data: what the recipe names, if not given; of it
    training images alone are used. Nothing is written. Raises TenfoldError where no rate lowers
    the loss, and as `tenfold.train` does.

    >>> from tenfold import load_data
    >>> found = find_lr("ann", load_data("digits"))
    >>> 0 < found.lr < found.lowest
    True
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    # A compiled network would take longer to compile than to try, and a clock would end it.
    options = {"compile": False, "time_limit_seconds": 0.0, "precision": "float32"}
    recipe = recipe.but(training=recipe.training.but(**options))
    data = data if data is not None else load_data(recipe, progress=progress)
    return _search(
        recipe,
        training_data(data, **splitting(recipe.data)),
        accelerator or make_accelerator(recipe),
        progress,
    )


def _search(
    recipe: Recipe, data: TrainingData, accelerator: Accelerator, progress: Progress | None
) -> FoundRate:
    if accelerator.num_processes > 1:
        raise TenfoldError("Learning rates are tried in one process; start without the launcher.")
    trainer = Trainer(recipe, data, accelerator=accelerator, progress=progress)
    trainer.inputs.prepare(trainer.progress)
    trainer.network.train()
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average = 0.0
    for step, batch in enumerate(itertools.islice(_batches(trainer), NUM_STEPS)):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (NUM_STEPS - 1))
        loss = _step(trainer, batch, step, factor=rate / trainer.recipe.optimizer.lr)
        trainer.progress("trying rates", step + 1, NUM_STEPS)
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        found = average / (1 - SMOOTHING ** (step + 1))  # Unbiased, as Adam's averages are.
        if not math.isfinite(found) or found > DIVERGED * min([*smoothed, found]):
            break
        rates.append(rate)
        losses.append(loss)
        smoothed.append(found)
    best = min(range(len(smoothed)), key=smoothed.__getitem__, default=0)
    if best == 0:
        raise TenfoldError(
            f"No learning rate from {LOWEST:g} on lowers the loss of {recipe.name}; check the "
            "images and labels, and the network."
        )
    lr = float(f"{rates[best] / 10:.1g}")
    return FoundRate(tuple(rates), tuple(losses), tuple(smoothed), rates[best], lr)


def _batches(trainer: Trainer) -> Iterator[Tensor]:
    """Batches of one epoch after another."""
    for epoch in itertools.count():
        batches = epoch_batches(
            len(trainer.inputs),  # Of all images, whatever training.select leaves of them.
            trainer.recipe.training.batch_size,
            seed=trainer.recipe.seed,
            epoch=epoch,
            device=trainer.accelerator.device,
        )
        trainer.inputs.start_epoch(epoch, batches)
        yield from batches


def _step(trainer: Trainer, batch: Tensor, step: int, *, factor: float) -> float:
    """One update at `factor` times the recipe's rates; the mean loss before it."""
    optimizer, device = trainer.state.optimizer, trainer.accelerator.device
    set_learning_rate(optimizer, factor)
    optimizer.zero_grad()
    seed_generators(derive_seed(trainer.recipe.seed, "rate", step), device)
    part = trainer.inputs.part(batch, step=step, batch_size=len(batch), number=0)
    loss = trainer.batch_loss(part, batch, trainer.network(part.inputs).float())
    torch.autograd.backward(loss)
    optimizer.step()
    return float(loss.detach())
