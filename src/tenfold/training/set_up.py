"""What a run is made of before its first step: network, optimiser, pictures, processes."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tenfold.data import Images
from tenfold.data.normalisation import Normalisation, normalisation_of
from tenfold.data.splits import TrainingData
from tenfold.errors import TenfoldError
from tenfold.evaluation.metrics import cross_entropy
from tenfold.evaluation.predictions import Predictions, predict_images
from tenfold.evaluation.trained import TrainedModel, build_network
from tenfold.interruption import Interruption
from tenfold.models import Pretrained, Speedrun, blocks_of
from tenfold.models.pretrained import preprocessing_of
from tenfold.models.weights import load_weights
from tenfold.progress import Progress
from tenfold.recipe import Recipe, StageOptions
from tenfold.training.agreement import Agreement
from tenfold.training.batches import TrainingInputs, TrainingPictures, batch_sizes, derive_seed
from tenfold.training.compiling import compile_network
from tenfold.training.devices import can_defer, on_first_process
from tenfold.training.feature_batches import Extractor, TrainingFeatures
from tenfold.training.optimizers import build_optimizer
from tenfold.training.reporters import Reporter, Reporters
from tenfold.training.selection import num_selected, unseen_losses
from tenfold.training.session import Session, Validate
from tenfold.training.stages import depths_of, recipe_of, stages_of
from tenfold.training.state import History, TrainingState
from tenfold.training.synced_norm import synchronise

WHITENED_PICTURES = 2000
"""From which the first layer of a fast network is computed."""


def set_up(
    recipe: Recipe,
    place: int,
    *,
    data: TrainingData,
    accelerator: Accelerator,
    reporter: Reporter | None,
    save: Callable[[TrainingState], None] | None,
    milestone: Callable[[int, TrainedModel], None] | None,
    interruption: Interruption,
    progress: Progress | None,
    previous: TrainingState | None = None,
) -> Session:
    """Build everything that a stage of `recipe` needs to train on `data`, the same for a seed.

    place: of the stage among the recipe's. previous: where the stage before it ended.
    """
    started = time.monotonic()
    stage = stages_of(recipe)[place]
    whole, recipe = recipe, recipe_of(recipe, stage)
    least = _require_enough(recipe, data, accelerator.num_processes)
    normalisation = _normalisation(recipe, data)
    pictures = TrainingPictures(
        data.train,
        augmentation=recipe.augmentation,
        normalisation=normalisation,
        device=accelerator.device,
        seed=recipe.seed,
    )
    history = previous.history if previous is not None else History()
    if previous is not None:
        model, started = previous.model, started - history.fit_seconds
    else:
        model, history.weights = _build_model(recipe, data, pictures, accelerator.device)
    learner, inputs, validate = _parts_of(
        model,
        stage,
        data,
        pictures,
        normalisation,
        accelerator=accelerator,
        seed=recipe.seed,
        interruption=interruption,
        progress=progress,
    )
    state, network, num_images = _state_of(
        recipe, stage, model, learner, history, accelerator, num_train=len(data.train)
    )
    if previous is not None and previous.losses is not None:
        state.losses = previous.losses
    if recipe.training.compile and stage.trains != "head":
        network = _compiled(network, recipe, state, data, num_images, accelerator)
    return Session(
        recipe=recipe,
        whole=whole,
        trains=stage.trains,
        follow=tuple(each.trains for each in stages_of(whole)[place + 1 :]),
        accelerator=accelerator,
        agreement=Agreement(accelerator, limit=recipe.training.time_limit_seconds),
        network=network,
        state=state,
        pictures=inputs,
        data=data,
        normalisation=normalisation,
        validate=validate,
        progress=progress if progress is not None else lambda label, done, total: None,
        reporter=reporter if reporter and accelerator.is_main_process else Reporters([]),
        write=save if save is not None else lambda state: None,
        milestone=milestone if milestone is not None else lambda epoch, model: None,
        interruption=interruption,
        steps_per_epoch=len(batch_sizes(num_images, recipe.training.batch_size, least=least)),
        num_images=num_images,
        least_pictures=least,
        is_deferred=can_defer(recipe, accelerator),
        spoilt=torch.zeros((), device=accelerator.device),
        blocks=blocks_of(model),
        class_weights=_class_weights(data, accelerator.device) if recipe.training.balance else None,
        started=started,
    )


def _state_of(
    recipe: Recipe,
    stage: StageOptions,
    model: nn.Module,
    learner: nn.Module,
    history: History,
    accelerator: Accelerator,
    *,
    num_train: int,
) -> tuple[TrainingState, nn.Module, int]:
    """What changes from step to step, the network for the processes, and how many of `num_train`
    images an epoch trains on."""
    if recipe.training.sync_batch_norm and accelerator.num_processes > 1:
        synchronise(learner)
    depths = depths_of(model) if stage.layer_decay < 1 else {}
    optimizer = build_optimizer(
        model, recipe.optimizer, layer_decay=stage.layer_decay, depths=depths
    )
    decay = recipe.training.ema_decay
    average = _MovingAverage(model, decay) if decay else None
    network, prepared = _prepared(accelerator, learner, optimizer)
    state = TrainingState(model=model, optimizer=prepared, average=average, history=history)
    if recipe.training.select == 1:
        return state, network, num_train
    state.losses = unseen_losses(num_train, device=accelerator.device)
    return state, network, num_selected(num_train, recipe.training.select)


def _compiled(
    network: nn.Module,
    recipe: Recipe,
    state: TrainingState,
    data: TrainingData,
    num_images: int,
    accelerator: Accelerator,
) -> nn.Module:
    """See `compile_network`; its time goes into the history."""
    network, seconds = compile_network(
        network,
        recipe,
        optimizer=getattr(state.optimizer, "optimizer", state.optimizer),  # Without Accelerate's.
        blocks=blocks_of(state.model),
        num_images=num_images,
        num_processes=accelerator.num_processes,
        size=data.train.size,
        precision=accelerator.autocast,
    )
    state.history.compile_seconds += seconds
    return network


def _normalisation(recipe: Recipe, data: TrainingData) -> Normalisation:
    """What pixels become: computed from the training pictures, or as the network is used to."""
    if recipe.model.name == "pretrained" and recipe.data.normalisation == "pretrained":
        wanted = preprocessing_of(recipe.model.backbone)
        return Normalisation(wanted.mean, wanted.std)
    if recipe.data.normalisation == "given":
        (red, green, blue), std = recipe.data.mean, recipe.data.std
        return Normalisation((red, green, blue), (std[0], std[1], std[2]))
    return normalisation_of(data.train, recipe.data.normalisation)


def _build_model(
    recipe: Recipe, data: TrainingData, pictures: TrainingPictures, device: torch.device
) -> tuple[nn.Module, str | None]:
    """The network with its initial weights, and where they are from if they are not random."""
    torch.manual_seed(derive_seed(recipe.seed, "initial weights"))
    model = build_network(
        recipe, num_classes=data.train.num_classes, image_size=data.train.size
    ).to(device)
    if isinstance(model, Speedrun):
        model.whiten(pictures.plain(WHITENED_PICTURES))
    if isinstance(model, Pretrained):
        return model, load_weights(model, recipe.model.weights)
    return model, None


def _parts_of(
    model: nn.Module,
    stage: StageOptions,
    data: TrainingData,
    pictures: TrainingPictures,
    normalisation: Normalisation,
    *,
    accelerator: Accelerator,
    seed: int,
    interruption: Interruption,
    progress: Progress | None,
) -> tuple[nn.Module, TrainingInputs, Validate]:
    """What learns in `stage`, on what, and how it is validated."""
    if isinstance(model, Pretrained):
        model.open(stage.trains, norms=stage.norms)
    if not isinstance(model, Pretrained) or stage.trains != "head":
        return model, pictures, lambda trained: _validate(trained, data.validation, accelerator)

    features = Extractor(
        model,
        normalisation,
        accelerator=accelerator,
        interruption=interruption,
        progress=progress,
    )

    def versions(told: Progress) -> Tensor:
        # The first version is the picture as it is.
        found = [features(data.train.pixels, told)]
        found += [features(pictures.version(number), told) for number in range(stage.views - 1)]
        if data.validation is not None:  # So that the first validation takes no longer than others.
            features(data.validation.pixels, told)
        return torch.stack(found)

    labels = torch.from_numpy(data.train.labels).to(accelerator.device)
    inputs = TrainingFeatures(versions, labels, seed=seed)
    return model.head, inputs, lambda trained: _validate_head(trained, data.validation, accelerator)


def _class_weights(data: TrainingData, device: torch.device) -> Tensor:
    """(C,) float32 by the inverse of a class's share; their mean over the pictures is 1."""
    counts = np.bincount(data.train.labels, minlength=data.train.num_classes)
    present = counts > 0
    weights = np.where(present, len(data.train) / (present.sum() * np.maximum(counts, 1)), 0.0)
    return torch.tensor(weights, dtype=torch.float32, device=device)


class _MovingAverage(AveragedModel):
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


def _prepared(
    accelerator: Accelerator, learner: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, Any]:
    """Both for several processes or a scaler, if there are any.

    For one process without one Accelerate adds nothing but its own time: half a second of imports,
    and with its optimiser 0.1 ms a step.
    """
    if accelerator.num_processes == 1 and accelerator.scaler is None:
        return learner, optimizer
    network, prepared = accelerator.prepare(learner, optimizer)
    _leave_precision_to_the_loop(learner)
    return network, prepared if accelerator.scaler is not None else optimizer


def _leave_precision_to_the_loop(model: nn.Module) -> None:
    """Undo what Accelerate does to the network's own forward pass where precision is mixed.

    Validation and evaluation would compute in bf16 then, and a run say other figures of a model
    than its file does.
    """
    if model.__dict__.pop("_original_forward", None) is not None:
        del model.forward


def _validate(
    model: TrainedModel, images: Images | None, accelerator: Accelerator
) -> dict[str, float | None]:
    """The values of an epoch's log, of which each process computes its share; None where there are
    no images to validate on."""
    if images is None:
        return {"validation_loss": None, "validation_accuracy": None}
    if accelerator.num_processes == 1:
        return _values(predict_images(model, images))
    # The running statistics of batch norms differ between processes; the first one's count.
    for buffer in model.module.buffers():
        torch.distributed.broadcast(buffer, 0)
    bounds = np.linspace(0, len(images), accelerator.num_processes + 1).astype(np.int64)
    first, end = bounds[accelerator.process_index :][:2]
    parts: list[Any] = [None] * accelerator.num_processes
    own = predict_images(model, images.take(np.arange(first, end))) if end > first else None
    torch.distributed.all_gather_object(parts, own)
    found = [part for part in parts if part is not None]
    logits, labels, ids = (np.concatenate([part[k] for part in found]) for k in range(3))
    return _values(Predictions(logits, labels, ids, model.class_names))


def _validate_head(
    model: TrainedModel, images: Images | None, accelerator: Accelerator
) -> dict[str, float | None]:
    """As `_validate`, where the head alone has changed since the features were computed."""

    def values() -> dict[str, float | None]:
        assert images is not None
        frozen = model.recipe.evaluation.views == "one"
        return _values(predict_images(model, images, frozen=frozen))

    if images is None:
        return _validate(model, images, accelerator)
    return on_first_process(accelerator, values)


def _values(predictions: Predictions) -> dict[str, float | None]:
    return {
        "validation_loss": cross_entropy(predictions),
        "validation_accuracy": float(predictions.right.mean()),
    }


def _require_enough(recipe: Recipe, data: TrainingData, num_processes: int) -> int:
    """Two pictures for every part of every batch, since a batch norm can't do with one.

    Returns how many pictures that is. Raises TenfoldError where there are not as many.
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
    if num_processes > 1:
        _require_one_process(recipe)
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


def _require_one_process(recipe: Recipe) -> None:
    """Raise TenfoldError where `recipe` has what several processes can't do together."""
    off = {"training.freeze_from": "[]"} if recipe.training.freeze_from else {}
    if recipe.training.select < 1:
        off["training.select"] = "1"
    for name, value in off.items():
        raise TenfoldError(
            f"{name} works in one process only; start tenfold without the launcher, or leave it "
            f"out with --set {name}={value}."
        )
