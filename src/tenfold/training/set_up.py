"""What a stage of a training is made of, and what its images must have."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tenfold.data.normalisation import Normalisation, normalisation_of
from tenfold.data.splits import TrainingData
from tenfold.errors import TenfoldError
from tenfold.evaluation.trained import build_network
from tenfold.models import Pretrained, Speedrun
from tenfold.models.pretrained import load_weights, preprocessing_of
from tenfold.recipe import Recipe
from tenfold.training.batches import TrainingImages, derive_seed
from tenfold.training.selection import num_selected

WHITENED_IMAGES = 2000
"""From which the first layer of a fast network is computed."""


def require_enough(recipe: Recipe, data: TrainingData, num_processes: int) -> int:
    """Two images for every part of every batch, since a batch norm can't do with one.

    Returns how many images that is. Raises TenfoldError where there are not as many.
    """
    parts = num_processes * recipe.training.accumulate
    if len(data.train) < 2:
        raise TenfoldError(
            f"Training needs at least 2 pictures, and there are {len(data.train)}; add some, or "
            "make data.validation_size smaller."
        )
    number = num_selected(len(data.train), recipe.training.select)
    smallest = min(number, recipe.training.batch_size)
    if smallest < 2 * parts:
        raise TenfoldError(
            f"A batch of {smallest} pictures can't be split over {parts} processes and "
            "accumulated parts with two pictures each; use fewer of them, more pictures, or a "
            "larger training.batch_size."
        )
    off = {"training.freeze_from": "[]"} if recipe.training.freeze_from else {}
    if recipe.training.select < 1:
        off["training.select"] = "1"
    for name, value in off.items():
        if num_processes > 1:
            raise TenfoldError(
                f"{name} works in one process only; start tenfold without the launcher, or leave "
                f"it out with --set {name}={value}."
            )
    needs_validation = (
        "schedule.name = 'plateau'"
        if recipe.schedule.name == "plateau"
        else "training.early_stopping"
        if recipe.training.early_stopping
        else None
    )
    if needs_validation and data.validation is None:
        raise TenfoldError(
            f"{needs_validation} needs validation pictures, and there are none; set "
            "data.validation_size, such as --set data.validation_size=0.1."
        )
    return 2 * parts


def normalisation_for(recipe: Recipe, data: TrainingData) -> Normalisation:
    """What pixels become: computed from the training images, or as the network is used to."""
    if recipe.model.name == "pretrained" and recipe.data.normalisation == "pretrained":
        wanted = preprocessing_of(recipe.model.backbone)
        return Normalisation(wanted.mean, wanted.std)
    if recipe.data.normalisation == "given":
        (red, green, blue), std = recipe.data.mean, recipe.data.std
        return Normalisation((red, green, blue), (std[0], std[1], std[2]))
    return normalisation_of(data.train, recipe.data.normalisation)


def build_model(
    recipe: Recipe, data: TrainingData, images: TrainingImages, device: torch.device
) -> tuple[nn.Module, str | None]:
    """The network with its initial weights, and where they are from if they are not random."""
    torch.manual_seed(derive_seed(recipe.seed, "initial weights"))
    model = build_network(
        recipe, num_classes=data.train.num_classes, image_size=data.train.size
    ).to(device)
    if isinstance(model, Speedrun):
        model.whiten(images.plain(WHITENED_IMAGES))
    if isinstance(model, Pretrained):
        return model, load_weights(model, recipe.model.weights)
    return model, None


def weights_of_classes(data: TrainingData, device: torch.device) -> Tensor:
    """(C,) float32 by the inverse of a class's share; their mean over the images is 1."""
    counts = np.bincount(data.train.labels, minlength=data.train.num_classes)
    present = counts > 0
    weights = np.where(present, len(data.train) / (present.sum() * np.maximum(counts, 1)), 0.0)
    return torch.tensor(weights, dtype=torch.float32, device=device)


class MovingAverage(AveragedModel):
    """Of weights and running statistics, over the last tenth of the run while that is young.

    The decay rises to the one asked for as TensorFlow's ExponentialMovingAverage has it: after a
    hundred steps 0.999 would keep 90 % of the weights that were drawn at first.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=self._mix, use_buffers=True)
        self._decay = decay

    def _mix(self, averages: Any, values: Any, _: Any) -> None:
        number = int(self.n_averaged)  # On the processor, where nobody waits for it.
        decay = min(self._decay, (1 + number) / (10 + number))
        get_ema_multi_avg_fn(decay)(averages, values, None)  # type: ignore[no-untyped-call]


def prepared(
    accelerator: Accelerator, learner: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, Any]:
    """Both for several processes or a scaler, if there are any.

    For one process without one Accelerate adds nothing but its own time: half a second of imports,
    and with its optimiser 0.1 ms a step.
    """
    if accelerator.num_processes == 1 and accelerator.scaler is None:
        return learner, optimizer
    network, prepared = accelerator.prepare(learner, optimizer)
    # Undo what Accelerate does to the network's own forward pass where precision is mixed:
    # validation and evaluation would compute in bf16, and a run say other figures than its file.
    if learner.__dict__.pop("_original_forward", None) is not None:
        del learner.forward
    return network, prepared if accelerator.scaler is not None else optimizer
