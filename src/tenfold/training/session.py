"""What the functions of the loop share, and what a reporter is told before the first step."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from tenfold.data.normalisation import Normalisation
from tenfold.data.splits import TrainingData
from tenfold.errors import DivergedError
from tenfold.evaluation.trained import TrainedModel
from tenfold.interruption import Interruption
from tenfold.models import Pretrained, count_trained
from tenfold.progress import Progress
from tenfold.recipe import Recipe
from tenfold.training.agreement import Agreement, Decision
from tenfold.training.batches import Part, TrainingInputs
from tenfold.training.clock import StepTimes
from tenfold.training.devices import on_first_process
from tenfold.training.losses import loss_of
from tenfold.training.memory import expected_bytes
from tenfold.training.reporters import Plan, Reporter
from tenfold.training.selection import note
from tenfold.training.stages import why_stop
from tenfold.training.state import Sums, TrainingState

logger = logging.getLogger("tenfold")

SETTLED_AT_ONCE = 50
"""Batches whose right answers are counted together; one by one, that takes 1 % of a small step."""

CHECKPOINT_SECONDS = 120.0
"""Longest time between two checkpoints within an epoch."""

RESAVE_SECONDS = 10.0
"""Between checkpoints at the ends of epochs that take less on a GPU."""


Validate = Callable[[TrainedModel], dict[str, float | None]]
"""The values of an epoch's log."""


@dataclass
class Session:
    """What the functions of the loop share; `state` is all that changes from step to step.

    recipe: of this stage, and whole the run's. trains: what learns in this stage, and follow in
    those after it. network: `state.model`, wrapped for the processes and the precision. write:
    puts a checkpoint on the disk, and milestone the weights of an epoch, on the first process
    alone. least_pictures: that a batch must have. blocks: of the network, from its input on; the
    first num_frozen of them no longer learn. class_weights: (C,), or None where all pictures weigh
    the same. size: side in pixels of the images of the present step. is_deferred: whether losses
    and gradients are looked at some batches later, so that Python never waits for the device;
    spoilt: 1 where one of them was not finite since.
    """

    recipe: Recipe
    whole: Recipe
    trains: str
    follow: tuple[str, ...]
    accelerator: Accelerator
    agreement: Agreement
    network: nn.Module
    state: TrainingState
    pictures: TrainingInputs
    data: TrainingData
    normalisation: Normalisation
    validate: Validate
    reporter: Reporter
    progress: Progress
    write: Callable[[TrainingState], None]
    milestone: Callable[[int, TrainedModel], None]
    interruption: Interruption
    steps_per_epoch: int
    num_images: int
    least_pictures: int
    blocks: list[nn.Module]
    class_weights: Tensor | None
    is_deferred: bool
    spoilt: Tensor
    num_frozen: int = 0
    size: int = 0
    step_times: StepTimes = field(default_factory=StepTimes)
    started: float = 0.0
    validation_seconds: float = 0.0
    last_saved: float = -math.inf
    last_checked: float = 0.0
    _losses: list[tuple[float | Tensor, int]] = field(default_factory=list)
    _unscored: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _known_loss: float | None = None

    def trained(self, module: nn.Module) -> TrainedModel:
        """The model that `module`'s weights make."""
        train = self.data.train
        return TrainedModel(
            module,
            self.whole,
            train.class_names,
            self.normalisation,
            train.size,
            white_level=self.data.white_level,
        )

    @property
    def num_validation(self) -> int:
        """Images that the weights are validated on."""
        return len(self.data.validation) if self.data.validation is not None else 0

    @property
    def num_epochs(self) -> int:
        """The stage's epochs, or as many more as its fewest steps take."""
        options = self.recipe.training
        return max(options.epochs, -(-options.min_steps // self.steps_per_epoch))

    @property
    def total_steps(self) -> int:
        """Steps of the whole stage."""
        return self.steps_per_epoch * self.num_epochs

    @property
    def seconds_left(self) -> float | None:
        """Until the time limit by this process's clock, where there is one."""
        limit = self.recipe.training.time_limit_seconds
        return max(limit - (time.monotonic() - self.started), 0.0) if limit else None

    @property
    def elapsed(self) -> float:
        """Seconds since the set-up, of all sessions together, the same on every process."""
        return self.agreement.elapsed(time.monotonic() - self.started)

    def after_step(self, seconds: float, *, ask: bool) -> Decision | None:
        """What all processes do after a step of so many seconds; None where that is yet to be
        decided. ask: decide now."""
        return self.agreement.after_step(
            seconds=seconds,
            elapsed=time.monotonic() - self.started,
            leave=self.interruption.signal is not None,
            save=time.monotonic() - self.last_checked > CHECKPOINT_SECONDS,
            ask=ask,
        )

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

    def batch_loss(self, part: Part, indices: Tensor, logits: Tensor) -> Tensor:
        """The mean loss of a part, each image with the weight of its class if they are balanced.

        The losses of its images are noted where they decide what is trained on.
        """
        losses, weights = self.state.losses, self.class_weights
        alone = losses is None and weights is None
        of_labels = partial(
            loss_of,
            self.recipe.loss,
            logits,
            weight=weights,
            label_smoothing=self.recipe.training.label_smoothing,
            mean=alone,
        )
        loss = of_labels(part.labels)
        if part.mix is not None:
            other = of_labels(part.labels[part.mix.partner])
            loss = part.mix.share * loss + (1 - part.mix.share) * other
        if losses is not None:
            note(losses, indices, loss)
        # By the number of images, not by the sum of weights, so that parts add up to the batch.
        return loss if alone else loss.mean()

    def total_sums(self) -> Sums:
        """The sums of the epoch over all processes."""
        self.settle()
        sums = self.state.history.sums
        if self.accelerator.num_processes == 1:
            return Sums(sums.loss, sums.num_correct, sums.num_images)
        values = [sums.loss, sums.num_correct, float(sums.num_images)]
        own = torch.tensor(values, dtype=torch.float64)
        loss, correct, images = self.accelerator.reduce(own.to(self.accelerator.device)).tolist()
        return Sums(loss, correct, int(images))

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
        """What `validate` says of the weights; its time is kept."""
        started = time.monotonic()
        found = self.validate(self.trained(self.state.evaluated_model))
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

    def note_stage(self) -> None:
        """Write down what the stage learned and how well; every stage once."""
        history = self.state.history
        if len(history.stages) > history.stage:
            return
        reached = [m["validation_accuracy"] for m in history.metrics[history.first_epoch :]]
        best = history.best_epoch
        history.stages.append(
            {
                "trains": self.trains,
                "epochs": history.stage_epoch,
                "num_trained": count_trained(self.state.model),
                "validation_accuracy": reached[-1] if best is None else history.best_accuracy,
            }
        )

    def stops_here(self) -> bool:
        """Whether time is up, or the stages that follow could show nothing, which is noted."""
        history = self.state.history
        if history.ended == "time limit":
            return True
        reason = why_stop(
            self.recipe,
            trains=self.trains,
            accuracy=history.stages[-1]["validation_accuracy"],
            num_images=self.num_validation,
        )
        if not reason:
            return False
        if self.accelerator.is_main_process:
            logger.info("Training stops at the head: %s.", reason)
        nothing = {"epochs": 0, "num_trained": 0, "validation_accuracy": None}
        history.stages += [
            {"trains": trains, **nothing, "skipped": reason} for trains in self.follow
        ]
        return True

    def finish_stage(self) -> None:
        """Give the network the weights that were best, and let the history go on."""
        state = self.state
        if state.best is not None:
            state.evaluated_model.load_state_dict(state.best)
            state.best = None
        if state.average is not None:
            state.model.load_state_dict(state.average.module.state_dict())
        state.history.begin_stage()
        self.accelerator.free_memory()

    def restore(self, restore: Callable[[TrainingState], None]) -> None:
        """Bring the state to where a checkpoint has it."""
        compiled = self.state.history.compile_seconds
        restore(self.state)
        self.state.history.compile_seconds += compiled
        self.started -= self.state.history.fit_seconds
        sums = self.state.history.sums_by_process
        if len(sums) == self.accelerator.num_processes:
            self.state.history.sums = sums[self.accelerator.process_index]


def describe_plan(session: Session) -> Plan:
    """What a reporter is told before the first step."""
    history, options = session.state.history, session.recipe.training
    model, accelerator, memory = session.state.model, session.accelerator, None
    on_cpu = accelerator.device.type == "cpu"
    if isinstance(model, Pretrained) and session.trains != "head" and on_cpu:
        batch = min(options.batch_size, session.num_images)
        num_parts = accelerator.num_processes * options.accumulate
        memory = expected_bytes(model, num_images=-(-batch // num_parts))
    return Plan(
        recipe=session.recipe.name,
        model=session.recipe.model.name,
        trains=session.trains,
        num_parameters=count_trained(session.state.model),
        num_train=len(session.pictures),
        num_validation=session.num_validation,
        epochs=history.first_epoch + session.num_epochs,
        steps_per_epoch=session.steps_per_epoch,
        device=str(session.accelerator.device),
        threads=torch.get_num_threads(),
        processes=session.accelerator.num_processes,
        first_step=history.first_epoch * session.steps_per_epoch,
        is_last=not session.follow,
        resumed_step=history.epoch * session.steps_per_epoch + history.step,
        seconds_left=session.seconds_left,
        min_steps=options.min_steps if session.num_epochs > options.epochs else 0,
        memory_bytes=memory,
    )
