"""What a run is made of before its first step: network, optimiser, pictures, processes."""

import math
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

from tenfold.data import Images
from tenfold.data.normalisation import normalisation_of
from tenfold.data.splits import TrainingData
from tenfold.errors import DivergedError, TenfoldError
from tenfold.evaluation.metrics import cross_entropy
from tenfold.evaluation.predictions import predict_images
from tenfold.evaluation.trained import TrainedModel, build_network
from tenfold.models import Speedrun, blocks_of, count_parameters
from tenfold.recipe import PlateauSchedule, Recipe
from tenfold.training.batches import TrainingPictures, batch_sizes, derive_seed
from tenfold.training.clock import Clock
from tenfold.training.compiling import compile_network
from tenfold.training.interruption import Interruption
from tenfold.training.optimizers import build_optimizer, update_of
from tenfold.training.reporters import Plan, Reporter, Reporters
from tenfold.training.selection import num_selected, unseen_losses
from tenfold.training.state import TrainingState

T = TypeVar("T")

SETTLED_AT_ONCE = 50
"""Batches whose right answers are counted together; one by one, that takes 1 % of a small step."""

RESAVE_SECONDS = 10.0
"""Between checkpoints at the ends of epochs that take less on a GPU."""

WHITENED_PICTURES = 2000
"""From which the first layer of a fast network is computed."""


@dataclass
class Session:
    """What the functions of the loop share; `state` is all that changes from step to step.

    network: `state.model`, wrapped for the processes and the precision. update: a step of
    `state.optimizer`. validation: the values of an epoch's log. write: puts a checkpoint on the
    disk, and milestone the weights of an epoch, on the first process alone. least_pictures: that
    a batch must have. blocks: of the network, from its input on; the first num_frozen of them no
    longer learn. is_deferred: whether losses and gradients are looked at some batches later, so
    that Python never waits for the device; spoilt: 1 where one of them was not finite since.
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
    num_images: int
    least_pictures: int
    blocks: list[nn.Module]
    is_deferred: bool
    spoilt: Tensor
    num_frozen: int = 0
    clock: Clock | None = None
    started: float = 0.0
    validation_seconds: float = 0.0
    last_saved: float = -math.inf
    _losses: list[tuple[float | Tensor, int]] = field(default_factory=list)
    _unscored: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _known_loss: float | None = None

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

    def count(self, loss: float | Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a part of a batch, its mean loss, (P, K) and (P,), to the sums of the epoch.

        They are up to date after the next `settle`.
        """
        self._losses.append((loss, len(labels)))
        self._unscored.append((logits, labels))
        if len(self._unscored) >= SETTLED_AT_ONCE:
            self.settle()

    def settle(self) -> None:
        """Bring the sums of the epoch up to date.

        Raises DivergedError where that shows a loss or gradient that was not finite.
        """
        sums = self.state.history.sums
        if self._unscored:
            logits, labels = (torch.cat(tensors) for tensors in zip(*self._unscored, strict=True))
            sums.num_correct += int((logits.argmax(dim=1) == labels).sum())
            self._unscored.clear()
        if self._losses:
            losses, counts = zip(*self._losses, strict=True)
            self._losses.clear()
            values = torch.stack(losses).tolist() if self.is_deferred else losses
            for value, count in zip(values, counts, strict=True):
                sums.loss += value * count
                sums.num_images += count
            self._known_loss = values[-1]
            if self.is_deferred and (self.spoilt.item() or not all(map(math.isfinite, values))):
                raise self.diverged("A loss or gradient is not finite", some_steps_ago=True)

    def known_loss(self) -> float:
        """Mean loss of the last part of a batch that `settle` has seen."""
        if self._known_loss is None:
            self.settle()
        assert self._known_loss is not None
        return self._known_loss

    def diverged(self, found: str, *, some_steps_ago: bool = False) -> DivergedError:
        """The error for `found`, which is before the present step or some steps ago."""
        history = self.state.history
        place = f"epoch {history.epoch + 1}, step {history.step + 1}"
        when = (
            "or somewhat earlier, so training stopped"
            if some_steps_ago
            else "so training stopped before that step"
        )
        return DivergedError(
            f"{found} in {place}, {when}; lower optimizer.lr (it is {self.recipe.optimizer.lr:g}), "
            "or set training.clip_norm."
        )

    def timed_validation(self) -> dict[str, float | None]:
        """What `validation` says; its time is kept."""
        started = time.monotonic()
        found = self.validation()
        self.validation_seconds = time.monotonic() - started
        return found

    def saved_just_now(self) -> bool:
        """Whether a checkpoint is so new that another is not worth its time on a fast device."""
        return self.is_deferred and time.monotonic() - self.last_saved < RESAVE_SECONDS

    def save(self) -> None:
        """Write a checkpoint; every process must call this at the same place."""
        self.settle()
        self.last_saved = time.monotonic()
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
        compiled = self.state.history.compile_seconds
        restore(self.state)
        self.state.history.compile_seconds += compiled
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
    pictures = TrainingPictures(
        data.train,
        augmentation=recipe.augmentation,
        normalisation=normalisation,
        device=accelerator.device,
        seed=recipe.seed,
    )
    model = _build_model(recipe, data, pictures, accelerator.device)
    optimizer = build_optimizer(model, recipe.optimizer)
    average = _moving_average(model, recipe.training.ema_decay)
    network, prepared = accelerator.prepare(model, optimizer)
    _leave_precision_to_the_loop(model)
    # Without a scaler Accelerate's optimiser adds nothing but its own time, 0.1 ms a step.
    if accelerator.scaler is None:
        prepared = optimizer
    state = TrainingState(model=model, optimizer=prepared, average=average)
    num_images = len(data.train)
    if recipe.training.select < 1:
        state.losses = unseen_losses(num_images, device=accelerator.device)
        num_images = num_selected(num_images, recipe.training.select)
    if recipe.training.compile:
        network, state.history.compile_seconds = compile_network(
            network,
            recipe,
            num_images=num_images,
            num_processes=accelerator.num_processes,
            size=data.train.size,
            precision=accelerator.autocast,
        )

    def trained(module: nn.Module) -> TrainedModel:
        names, size = data.train.class_names, data.train.size
        return TrainedModel(module, recipe, names, normalisation, size)

    def validation() -> dict[str, float | None]:
        # The running statistics of batch norms differ between processes; the first one's count.
        return on_first_process(
            accelerator, lambda: _validate(trained(state.evaluated_model), data.validation)
        )

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
        steps_per_epoch=len(batch_sizes(num_images, recipe.training.batch_size, least=least)),
        num_images=num_images,
        least_pictures=least,
        is_deferred=_can_defer(recipe, accelerator),
        spoilt=torch.zeros((), device=accelerator.device),
        blocks=blocks_of(model),
        started=started,
    )


def _build_model(
    recipe: Recipe, data: TrainingData, pictures: TrainingPictures, device: torch.device
) -> nn.Module:
    """The network with its initial weights."""
    torch.manual_seed(derive_seed(recipe.seed, "initial weights"))
    model = build_network(
        recipe, num_classes=data.train.num_classes, image_size=data.train.size
    ).to(device)
    if isinstance(model, Speedrun):
        model.whiten(pictures.plain(WHITENED_PICTURES))
    return model


def _moving_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """Of weights and running statistics; None without a decay."""
    if decay == 0:
        return None
    return AveragedModel(
        model,
        multi_avg_fn=get_ema_multi_avg_fn(decay),  # type: ignore[no-untyped-call]
        use_buffers=True,
    )


def _leave_precision_to_the_loop(model: nn.Module) -> None:
    """Undo what Accelerate does to the network's own forward pass where precision is mixed.

    Validation and evaluation would compute in bf16 then, and a run say other figures of a model
    than its file does.
    """
    if model.__dict__.pop("_original_forward", None) is not None:
        del model.forward


def _validate(model: TrainedModel, images: Images | None) -> dict[str, float | None]:
    """The values of an epoch's log, None where there are no pictures to validate on."""
    if images is None:
        return {"validation_loss": None, "validation_accuracy": None}
    predictions = predict_images(model, images)
    right = predictions.logits.argmax(axis=1) == predictions.labels
    return {
        "validation_loss": cross_entropy(predictions),
        "validation_accuracy": float(right.mean()),
    }


def _can_defer(recipe: Recipe, accelerator: Accelerator) -> bool:
    """Whether a step can be taken without knowing its loss: nothing but a report depends on it.

    Several processes must agree before each step, a scaler or a limit of the norm must know the
    gradient, and a limit of the time how long a step took. On a processor there is nobody to run
    ahead of.
    """
    alone = accelerator.num_processes == 1 and accelerator.scaler is None
    needed = recipe.training.clip_norm > 0 or recipe.training.time_limit_seconds > 0
    return accelerator.device.type != "cpu" and alone and not needed


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
        seconds_left=max(session.clock.left(session.elapsed), 0.0) if session.clock else None,
    )
