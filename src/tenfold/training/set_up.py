"""What a stage of a training is made of, and what its images must have."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tenfold.augment import shrunk_size
from tenfold.data.normalisation import Normalisation, normalisation_of
from tenfold.data.splits import TrainingData
from tenfold.errors import TenfoldError, first_line
from tenfold.evaluation.trained import build_network
from tenfold.models import Pretrained, Speedrun
from tenfold.models.pretrained import load_weights, preprocessing_of
from tenfold.own_parts import is_own
from tenfold.recipe import Recipe
from tenfold.training.batches import TrainingImages, batch_sizes, derive_seed, num_selected

WHITENED_IMAGES = 2000
"""From which the first layer of a fast network is computed."""


def require_enough(recipe: Recipe, data: TrainingData, num_processes: int) -> int:
    """Two images for every part of every batch, since a batch norm can't do with one.

    Returns how many images that is. Raises TenfoldError where there are not as many.
    """
    parts = num_processes * recipe.training.accumulate
    if len(data.train) < 2:
        raise TenfoldError(
            f"Training needs at least 2 images, and there are {len(data.train)}; add some, or "
            "make data.validation_size smaller."
        )
    number = num_selected(len(data.train), recipe.training.select)
    smallest = min(number, recipe.training.batch_size)
    if smallest < 2 * parts:
        raise TenfoldError(
            f"A batch of {smallest} images can't be split over {parts} processes and "
            "accumulated parts with two images each; use fewer of them, more images, or a "
            "larger training.batch_size."
        )
    for name, off, is_set in (
        ("training.freeze_from", "[]", bool(recipe.training.freeze_from)),
        ("training.select", "1", recipe.training.select < 1),
    ):
        if is_set and num_processes > 1:
            raise TenfoldError(
                f"{name} works in one process only; start tenfold without the launcher, or leave "
                f"it out with --set {name}={off}."
            )
    for name, is_set in (
        ("schedule.name = 'plateau'", recipe.schedule.name == "plateau"),
        ("training.early_stopping", recipe.training.early_stopping > 0),
    ):
        if is_set and data.validation is None:
            raise TenfoldError(
                f"{name} needs validation images, and there are none; set data.validation_size, "
                "such as --set data.validation_size=0.1."
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
    if is_own(recipe.model.name):
        _require_sizes(model, recipe, size=data.train.size, device=device)
    if isinstance(model, Speedrun):
        model.whiten(images.plain(WHITENED_IMAGES))
    if isinstance(model, Pretrained):
        return model, load_weights(model, recipe.model.weights)
    return model, None


def _require_sizes(
    model: nn.Module, recipe: Recipe, *, size: tuple[int, int], device: torch.device
) -> None:
    """Raise TenfoldError where a network of one's own can't take the run's images.

    size: height and width of whole ones, in pixels.
    """
    remedies = dict.fromkeys(
        ((side, side) for side in recipe.training.sizes),
        "leave training.sizes out with --set training.sizes=[] --set training.sizes_until=[]",
    )
    remedies[size] = "make it fit image_size, which it is given"
    for (height, width), remedy in remedies.items():
        images = torch.zeros((2, 3, height, width), device=device)
        try:
            with torch.no_grad():
                model.eval()(images.to(memory_format=torch.channels_last))
        except RuntimeError as error:
            raise TenfoldError(
                f"{recipe.model.name} can't take images of {height}x{width} pixels "
                f"({first_line(error)}); {remedy}."
            ) from error
        finally:
            model.train()


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


PASSES_BEFORE_REPLAY = 3
"""Of a shape on a GPU: one that warms up, one that is recorded as a graph, and one from it."""


def compile_network(
    network: nn.Module,
    recipe: Recipe,
    *,
    optimizer: optim.Optimizer,
    blocks: Sequence[nn.Module],
    num_images: int,
    size: tuple[int, int],
    accelerator: Accelerator,
) -> tuple[nn.Module, float]:
    """`network` with its passes compiled for each shape that it will be trained on, and the seconds
    that this took. What validates and evaluates goes on with `network` itself.

    On a GPU passes are recorded as CUDA graphs too: launching their kernels one by one takes longer
    than computing them. blocks: that the recipe may freeze. num_images: in the training set. size:
    height and width of whole images, in pixels. Raises TenfoldError where there is no compiler.
    """
    from torch._dynamo.exc import TorchDynamoException  # Takes a second, which others don't need.

    started = time.monotonic()
    training, on_gpu = recipe.training, accelerator.device.type == "cuda"
    mode = "reduce-overhead" if on_gpu else None
    compiled = cast(nn.Module, torch.compile(network, dynamic=False, mode=mode))
    # What cuDNN may choose from; what is recorded meanwhile keeps to its choice.
    choice = torch.backends.cudnn.flags(
        enabled=True,
        benchmark=not training.deterministic,
        deterministic=training.deterministic,
        allow_tf32=torch.backends.cudnn.allow_tf32,
    )
    shapes = _shapes(recipe, num_images, accelerator.num_processes, size)
    try:
        with _unchanged(network, optimizer), choice:
            for num_frozen in range(len(training.freeze_from) + 1):
                if num_frozen:
                    blocks[num_frozen - 1].requires_grad_(False)
                for shape in shapes:
                    inputs = torch.zeros(shape, device=accelerator.device)
                    for _ in range(PASSES_BEFORE_REPLAY if on_gpu else 1):
                        network.zero_grad()
                        with accelerator.autocast():
                            logits = compiled(inputs.to(memory_format=torch.channels_last))
                        logits.float().sum().backward()
                    if on_gpu and not optimizer.state:
                        optimizer.step()  # Whose kernels are loaded at their first use.
    except TorchDynamoException as error:
        raise TenfoldError(
            f"training.compile = true does not work here ({first_line(error)}); leave it out with "
            "--set training.compile=false."
        ) from error
    return compiled, time.monotonic() - started


@contextlib.contextmanager
def _unchanged(network: nn.Module, optimizer: optim.Optimizer) -> Iterator[None]:
    """`network` in training mode; its weights, running statistics and what of it learns, and
    `optimizer`, a new one, are afterwards as before, and gradients None."""
    before = [(t, t.detach().clone()) for t in (*network.parameters(), *network.buffers())]
    learns = [(p, p.requires_grad) for p in network.parameters()]
    network.train()
    yield
    with torch.no_grad():
        for tensor, value in before:
            tensor.copy_(value)
    for parameter, flag in learns:
        parameter.requires_grad_(flag)
    optimizer.state.clear()
    network.zero_grad()


def _shapes(
    recipe: Recipe, num_images: int, num_processes: int, size: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """Of what is computed at once: parts of whole batches and of an epoch's last, at each size."""
    options = recipe.training
    parts = num_processes * options.accumulate
    lengths = batch_sizes(num_images, options.batch_size, least=2 * parts)
    counts = {len(part) for n in lengths for part in torch.arange(n).tensor_split(parts)}
    sizes = [*(shrunk_size(size, side) for side in options.sizes), size]
    return [(count, 3, *one) for one in sizes for count in sorted(counts, reverse=True)]
