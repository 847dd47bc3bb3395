"""What a run is made of before its first step: network, optimiser, pictures, processes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tenfold.data.normalisation import normalisation_of
from tenfold.data.splits import TrainingData
from tenfold.errors import TenfoldError
from tenfold.evaluation.metrics import cross_entropy
from tenfold.evaluation.predictions import predict_images
from tenfold.evaluation.trained import TrainedModel, build_network
from tenfold.models import Speedrun, blocks_of, count_parameters
from tenfold.recipe import PlateauSchedule, Recipe
from tenfold.training.batches import TrainingPictures, derive_seed, num_batches
from tenfold.training.interruption import Interruption
from tenfold.training.optimizers import build_optimizer, update_of
from tenfold.training.reporters import Plan, Reporter, Reporters
from tenfold.training.state import TrainingState

T = TypeVar("T")

SCORED_AT_ONCE = 50
"""Batches whose right answers are counted together; one by one, that takes 1 % of a small step."""

WHITENED_PICTURES = 2000
"""From which the first layer of a fast network is computed."""


@dataclass
class Session:
    """What the functions of the loop share; `state` is all that changes from step to step.

    network: `state.model`, wrapped for the processes and the precision. update: a step of
    `state.optimizer`. validation: the values of an epoch's log. write: puts a checkpoint on the
    disk, and milestone the weights of an epoch, on the first process alone. least_pictures: that
    a batch must have. blocks: of the network, from its input on; the first num_frozen of them no
    longer learn.
    """

    recipe: Recipe
    accelerator: Accelerator
    network: nn.Module
    state: TrainingState
    update: Callable[[], object]
    pictures: TrainingPictures
    validation: Callable[[], dict[str, float | None]]
    trained: Callable[[nn.Module], TrainedModel]
    reporter: Reporter
    write: Callable[[TrainingState], None]
    milestone: Callable[[int, TrainedModel], None]
    interruption: Interruption
    steps_per_epoch: int
    least_pictures: int
    blocks: list[nn.Module]
    num_frozen: int = 0
    started: float = 0.0
    _unscored: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @property
    def num_epochs(self) -> int:
        """The recipe's epochs, or as many more as its fewest steps take."""
        options = self.recipe.training
        return max(options.epochs, -(-options.min_steps // self.steps_per_epoch))

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.num_epochs

    @property
    def elapsed(self) -> float:
        """Seconds since the set-up, of all sessions together, the same on every process."""
        seconds = time.monotonic() - self.started
        if self.accelerator.num_processes == 1:
            return seconds
        return on_first_process(self.accelerator, lambda: seconds)

    def any_process(self, flag: bool) -> bool:
        """Whether `flag` is set on any process, so that all of them decide alike."""
        if self.accelerator.num_processes == 1:
            return flag
        total = self.accelerator.reduce(torch.tensor(float(flag), device=self.accelerator.device))
        return bool(total > 0)

    def score_later(self, logits: Tensor, labels: Tensor) -> None:
        """Count right answers to a batch, (B, K) and (B,), when there are some more of them."""
        self._unscored.append((logits, labels))
        if len(self._unscored) >= SCORED_AT_ONCE:
            self.score()

    def score(self) -> None:
        """Bring the sums of the epoch up to date."""
        if self._unscored:
            logits, labels = (torch.cat(tensors) for tensors in zip(*self._unscored, strict=True))
            self.state.history.sums.num_correct += int((logits.argmax(dim=1) == labels).sum())
            self._unscored.clear()

    def save(self) -> None:
        """Write a checkpoint; every process must call this at the same place."""
        self.score()
        history = self.state.history
        history.fit_seconds = time.monotonic() - self.started
        history.sums_by_process = gather_object([history.sums])
        on_first_process(self.accelerator, lambda: self.write(self.state))

    def keep_milestone(self) -> None:
        """Hand the weights over where the recipe has a milestone after as many epochs."""
        epoch = self.state.history.epoch
        if epoch in self.recipe.training.milestones:
            model = self.trained(self.state.evaluated_model)
            on_first_process(self.accelerator, lambda: self.milestone(epoch, model))

    def restore(self, restore: Callable[[TrainingState], None]) -> None:
        """Bring the state to where a checkpoint has it."""
        restore(self.state)
        self.started -= self.state.history.fit_seconds
        sums = self.state.history.sums_by_process
        if len(sums) == self.accelerator.num_processes:
            self.state.history.sums = sums[self.accelerator.process_index]


def make_accelerator(recipe: Recipe, *, cpu: bool = False) -> Accelerator:
    """The device, the precision and the processes that this run has.

    cpu: stay on the processor even where there is a GPU. Raises TenfoldError where the precision
    isn't to be had on the device.
    """
    precision = available_precision(recipe.training.precision, cpu=cpu)
    if precision == "fp16" and (cpu or not torch.cuda.is_available()):
        raise TenfoldError(
            "training.precision = 'fp16' needs a CUDA GPU, and there is none; use 'bf16' or "
            "'float32'."
        )
    # Accelerate keeps its first answer for the process; a second run may want another precision.
    alone = not torch.distributed.is_available() or not torch.distributed.is_initialized()
    AcceleratorState._reset_state(reset_partial_state=alone)
    return Accelerator(cpu=cpu, mixed_precision="no" if precision == "float32" else precision)


def available_precision(asked: str, *, cpu: bool = False) -> str:
    """What `auto` is on this machine; anything else is what was asked for."""
    if asked != "auto":
        return asked
    if not cpu and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Where bf16 is emulated, it takes longer than float32.
        native = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    return "bf16" if native else "float32"


def on_first_process(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """What `work` returns, or the TenfoldError that it raises, on every process.

    `work` is done on the first process alone. The others, left without an answer, would wait for
    it in vain, and end with a traceback or not at all.
    """
    outcome: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            outcome = [work()]
        except TenfoldError as error:
            outcome = [error]
    if accelerator.num_processes > 1:
        broadcast_object_list(outcome)
    if isinstance(outcome[0], TenfoldError):
        raise outcome[0]
    answer: T = outcome[0]
    return answer


def set_up(
    recipe: Recipe,
    data: TrainingData,
    accelerator: Accelerator,
    *,
    reporter: Reporter | None,
    save: Callable[[TrainingState], None] | None,
    milestone: Callable[[int, TrainedModel], None] | None,
    interruption: Interruption,
) -> Session:
    """Build everything that `recipe` needs to train on `data`, the same for the same seed."""
    started = time.monotonic()
    least = _require_enough(recipe, data, accelerator.num_processes)
    normalisation = normalisation_of(data.train, recipe.data.normalisation)
    torch.manual_seed(derive_seed(recipe.seed, "initial weights"))
    model = build_network(
        recipe, num_classes=data.train.num_classes, image_size=data.train.size
    ).to(accelerator.device)
    pictures = TrainingPictures(
        data.train,
        augmentation=recipe.augmentation,
        normalisation=normalisation,
        device=accelerator.device,
        seed=recipe.seed,
    )
    if isinstance(model, Speedrun):
        model.whiten(pictures.plain(WHITENED_PICTURES))
    average = None
    if recipe.training.ema_decay > 0:
        average = AveragedModel(
            model,
            multi_avg_fn=get_ema_multi_avg_fn(recipe.training.ema_decay),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
    optimizer = build_optimizer(model, recipe.optimizer)
    network, prepared = accelerator.prepare(model, optimizer)
    # Without a scaler Accelerate's optimiser adds nothing but its own time, 0.1 ms a step.
    if accelerator.scaler is None:
        prepared = optimizer
    state = TrainingState(model=model, optimizer=prepared, average=average)

    def trained(module: nn.Module) -> TrainedModel:
        names, size = data.train.class_names, data.train.size
        return TrainedModel(module, recipe, names, normalisation, size)

    def validate() -> dict[str, float | None]:
        if data.validation is None:
            return {"validation_loss": None, "validation_accuracy": None}
        predictions = predict_images(trained(state.evaluated_model), data.validation)
        right = predictions.logits.argmax(axis=1) == predictions.labels
        return {
            "validation_loss": cross_entropy(predictions),
            "validation_accuracy": float(right.mean()),
        }

    def validation() -> dict[str, float | None]:
        # The running statistics of batch norms differ between processes; the first one's count.
        return on_first_process(accelerator, validate)

    return Session(
        recipe=recipe,
        accelerator=accelerator,
        network=network,
        state=state,
        update=update_of(prepared),
        pictures=pictures,
        validation=validation,
        trained=trained,
        reporter=reporter if reporter and accelerator.is_main_process else Reporters([]),
        write=save if save is not None else lambda state: None,
        milestone=milestone if milestone is not None else lambda epoch, model: None,
        interruption=interruption,
        steps_per_epoch=num_batches(len(data.train), recipe.training.batch_size, least=least),
        least_pictures=least,
        blocks=blocks_of(model),
        started=started,
    )


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
    smallest = min(len(data.train), recipe.training.batch_size)
    if smallest < 2 * parts:
        raise TenfoldError(
            f"A batch of {smallest} pictures can't be split over {parts} processes and "
            "accumulated parts with two pictures each; use fewer of them, more pictures, or a "
            "larger training.batch_size."
        )
    if recipe.training.freeze_from and num_processes > 1:
        raise TenfoldError(
            "training.freeze_from works in one process only; start tenfold without the launcher, "
            "or leave it empty with --set training.freeze_from=[]."
        )
    needs_validation = (
        "schedule.name = 'plateau'"
        if isinstance(recipe.schedule, PlateauSchedule)
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


def describe_plan(session: Session, data: TrainingData) -> Plan:
    """What a reporter is told before the first step."""
    history = session.state.history
    return Plan(
        recipe=session.recipe.name,
        model=session.recipe.model.name,
        num_parameters=count_parameters(session.state.model),
        num_train=len(data.train),
        num_validation=len(data.validation) if data.validation is not None else 0,
        epochs=session.num_epochs,
        steps_per_epoch=session.steps_per_epoch,
        device=str(session.accelerator.device),
        threads=torch.get_num_threads(),
        processes=session.accelerator.num_processes,
        resumed_step=history.epoch * session.steps_per_epoch + history.step,
    )
