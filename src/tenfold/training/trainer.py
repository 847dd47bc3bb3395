"""One training run, readable from top to bottom: set up, then epochs of steps, then the weights.

Nothing here sees the test set. Every random choice is a function of the seed and of the place in
the run, so what is not in `TrainingState` is the same again after a resume.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tenfold.data.splits import TrainingData
from tenfold.errors import TenfoldError
from tenfold.evaluation.trained import TrainedModel
from tenfold.interruption import Interruption
from tenfold.progress import Progress
from tenfold.recipe import Recipe
from tenfold.training.batches import Part, derive_seed, epoch_batches, hardest, seed_generators
from tenfold.training.devices import make_accelerator, memory_errors, on_first_process
from tenfold.training.distributed import Decision
from tenfold.training.losses import loss_of
from tenfold.training.optimizers import all_finite, note_not_finite, set_learning_rate
from tenfold.training.reporters import Reporter
from tenfold.training.schedules import step_share
from tenfold.training.stages import Stage
from tenfold.training.state import History, Sums, TrainingState
from tenfold.training.validation import Note, validate
from tenfold.waiting import sharing_cores

CHECKPOINT_SECONDS = 120.0
"""Longest time between two checkpoints within an epoch."""

RESAVE_SECONDS = 10.0
"""Between checkpoints at the ends of epochs that take less on a GPU."""


@dataclass(frozen=True)
class Fitted:
    """A trained model, and how training went."""

    model: TrainedModel
    history: History


def fit(
    recipe: Recipe,
    data: TrainingData,
    *,
    accelerator: Accelerator | None = None,
    restore: Callable[[TrainingState], None] | None = None,
    save: Callable[[TrainingState], None] | None = None,
    milestone: Callable[[int, TrainedModel], None] | None = None,
    reporter: Reporter | None = None,
    predicted: Note | None = None,
    progress: Progress | None = None,
    first_stage: int = 0,
) -> Fitted:
    """Train `recipe` on `data` and return the final weights with their history.

    Runs on as many processes as the launcher started; each takes its share of every batch. While
    it trains, threads wait for each other as suits what else the cores do (`tenfold.waiting`), and
    steps that have become far slower than the first are said once.

    restore: called once with the fresh state, to bring it to where an earlier session stopped.
    save: called with the state after every epoch, at least every two minutes, and before an
    interrupted run leaves. On the first process alone, milestone is called with the number of
    epochs and the weights at each of the recipe's milestones, predicted with the predictions of the
    validation images after every epoch, and reporter is told how it goes.
    first_stage: the one that `restore` goes on with. progress: for features that take a while.

    Raises DivergedError before a step with a loss or gradient that is not finite;
    InterruptedRunError after saving, on SIGTERM or SIGUSR1, and StoppedByUserError on Ctrl-C;
    TenfoldError where data and recipe don't fit or memory runs out.

    >>> from tenfold import load_data, load_recipe
    >>> from tenfold.data.splits import training_data
    >>> data = training_data(load_data("digits"), train_size=64, validation_size=32, seed=0)
    >>> recipe = load_recipe("ann", {"training.epochs": 2, "training.min_steps": 0})
    >>> len(fit(recipe, data).history.metrics)
    2
    """
    with memory_errors(recipe), sharing_cores(), Interruption() as interruption:
        start = partial(
            Trainer,
            recipe,
            data,
            accelerator=accelerator or make_accelerator(recipe),
            interruption=interruption,
            save=save,
            milestone=milestone,
            reporter=reporter,
            predicted=predicted,
            progress=progress,
        )
        trainer = start(first_stage)
        if restore is not None:
            trainer.restore(restore)
        trainer.train()
        while not trainer.is_last():
            trainer.hand_over()
            trainer = start(trainer.history.stage, previous=trainer.state)
            trainer.train()
        trainer.take_best()
    return Fitted(trainer.trained(), trainer.history)


class Trainer(Stage):
    """Trains a stage: epochs of steps, each epoch validated, written down and saved."""

    def train(self) -> None:
        """The epochs that are still to be done."""
        self.inputs.prepare(self.progress)  # Before anybody counts the seconds of an epoch.
        is_new = self.history.stage_epoch == self.history.step == 0
        if is_new:
            self.count_features()
        self._decide(0.0, ask=True)  # From here on all have one clock.
        if is_new:
            self.history.stage_started = self.agreement.elapsed
        self.reporter.started(self.plan())
        while self.history.ended is None:
            self._train_epoch()
            self._end_epoch()
        # A signal that came while the last epoch was validated.
        self.leave_if_asked()
        assert self.history.ended is not None
        self.finish()
        self.reporter.ended(self.history.ended)

    def _train_epoch(self) -> None:
        """The steps of an epoch that are still to be done."""
        history, recipe, losses = self.history, self.recipe, self.state.losses
        chosen = None
        if losses is not None:
            chosen = hardest(losses, self.num_images, seed=recipe.seed, epoch=history.epoch)
        batches = epoch_batches(
            self.num_images,
            self.options.batch_size,
            seed=recipe.seed,
            epoch=history.epoch,
            least=self.least,
            device=self.accelerator.device,
            chosen=chosen,
        )
        shares = [self._share(batch) for batch in batches]
        self.inputs.start_epoch(history.epoch, [part for share in shares for part in share])
        self.network.train()
        self.last_checked = time.monotonic()
        for step in range(history.step, len(batches)):
            started = time.perf_counter()
            loss = self._step(shares[step], step, batch_size=len(batches[step]))
            if step + 1 == len(batches):  # The device catches up within the time of training.
                self.sums.settle()
            seconds = time.perf_counter() - started
            history.step = step + 1
            history.training_seconds += seconds
            self.step_times.note(seconds, size=self.size)
            self.count_step(len(batches[step]))
            self.reporter.stepped(
                epoch=history.epoch + 1,
                step=step + 1,
                loss=loss,
                images_per_second=len(batches[step]) / seconds,
            )
            decision = self._decide(seconds, ask=step + 1 == len(batches))
            if decision is None:
                continue
            if decision.leave:
                self.leave()
            if decision.is_last:
                history.ended = "time limit"
                return
            if decision.save:
                self.checkpoint()
                self.last_checked = time.monotonic()

    def _share(self, batch: Tensor) -> Sequence[Tensor]:
        """The parts of `batch`, its indices, that this process computes."""
        parts = self.options.accumulate
        first = self.accelerator.process_index * parts
        return batch.tensor_split(self.accelerator.num_processes * parts)[first : first + parts]

    def _decide(self, seconds: float, *, ask: bool) -> Decision | None:
        """What all processes do after a step of so many seconds; None where that is yet to be
        decided. ask: decide now."""
        return self.agreement.after_step(
            seconds=seconds,
            leave=self.interruption.signal is not None,
            save=time.monotonic() - self.last_checked > CHECKPOINT_SECONDS,
            ask=ask,
        )

    def _position(self, step: int) -> float:
        """How many steps of the stage lie before `step` of the present epoch.

        Where the time limit would come before the last step, time counts instead: as many of the
        steps count as done as would have been by then, if the last of them came at the limit.
        """
        before = float(self.history.stage_epoch * self.steps_per_epoch + step)
        limit, started = self.options.time_limit_seconds, self.history.stage_started
        if not limit:
            return before
        share = step_share(
            min((self.agreement.elapsed - started) / max(limit - started, 1e-9), 1.0),
            sizes=self.options.sizes,
            until=self.options.sizes_until,
            side=self.inputs.side,
        )
        return max(before, share * self.total_steps)

    def _enter(self, position: float) -> None:
        """Size of the images, learning rate and what still learns, after so many steps."""
        done, options = position / self.total_steps, self.options
        side, sizes = self.inputs.side, zip(options.sizes, options.sizes_until, strict=True)
        self.size = next((min(size, side) for size, until in sizes if done < until), side)
        set_learning_rate(self.state.optimizer, self._rate_factor(position))
        num_frozen = sum(done >= share for share in options.freeze_from)
        if num_frozen > self.num_frozen:
            for block in self.blocks[self.num_frozen : num_frozen]:
                block.requires_grad_(False)
            self.network.train()  # A pretrained network's norms stay as they are from here on.
            self.num_frozen = num_frozen

    def _rate_factor(self, position: float) -> float:
        """What learning rates are multiplied by at `position`."""
        factor: float = self.recipe.schedule(
            position, total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch
        )
        return self.history.plateau.factor * factor

    def _step(self, share: Sequence[Tensor], step: int, *, batch_size: int) -> float:
        """One update of the weights from a batch of which this process computes `share`.

        Returns the mean loss over that share, or the last one known where the device lags behind.
        """
        accelerator, state, history = self.accelerator, self.state, self.history
        self._enter(self._position(step))
        for group in state.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        loss_sum = 0.0
        for index, indices in enumerate(share):
            number = accelerator.process_index * len(share) + index
            seed = derive_seed(self.recipe.seed, "step", history.epoch, step, number)
            seed_generators(seed, accelerator.device)
            part = self.inputs.part(
                indices, step=step, batch_size=batch_size, number=number, size=self.size
            )
            is_last = index == len(share) - 1
            with contextlib.nullcontext() if is_last else accelerator.no_sync(self.network):
                loss_sum += self._accumulate(part, indices)
        self._require_finite()
        state.optimizer.step()
        # In fp16 the scaler leaves out steps whose gradient overflowed.
        if state.average is not None and not accelerator.optimizer_step_was_skipped:
            state.average.update_parameters(state.model)
        return self.sums.known_loss() if self.sums.defers else loss_sum / sum(map(len, share))

    def _accumulate(self, part: Part, indices: Tensor) -> float:
        """Add the gradient of a part of a batch, the images at `indices`; returns the sum of its
        losses where it is known."""
        scaler, sums = self.accelerator.scaler, self.sums
        with self.accelerator.autocast():
            logits = self.network(part.inputs)
        wanted = (len(part.labels), self.data.train.num_classes)
        if (found := getattr(logits, "shape", None)) != wanted:
            raise TenfoldError(
                f"{self.recipe.model.name} must give logits of the shape {wanted}, for each image "
                f"one a class, not {tuple(found) if found else type(logits).__name__}."
            )
        # A copy also of float32, for the next pass of a recorded graph writes over its outputs.
        logits = logits.to(torch.float32, copy=sums.defers)
        loss = self.batch_loss(part, indices, logits)
        value = 0.0
        if not sums.defers:
            value = float(loss.detach())
            # Several processes see it in the gradient that they share, unless a scaler skips that.
            is_seen_here = self.agreement.is_alone or scaler is not None
            if is_seen_here and self.agreement.any(not math.isfinite(value)):
                raise sums.diverged(f"The loss is {value}")
        # Processes average their gradients, so weights by share of the batch are scaled back up.
        factor = part.weight * self.accelerator.num_processes
        scaled = loss * factor if factor != 1 else loss
        (scaled if scaler is None else scaler.scale(scaled)).backward()
        sums.count(loss.detach() if sums.defers else value, logits.detach(), part.labels)
        return value * len(part.labels)

    def batch_loss(self, part: Part, indices: Tensor, logits: Tensor) -> Tensor:
        """The mean loss of a part, each image with the weight of its class if they are balanced.

        The losses of its images are noted where they decide what is trained on.
        """
        losses, weights, teacher = self.state.losses, self.class_weights, self.teacher
        alone = losses is None and weights is None and teacher is None
        of_labels = partial(
            loss_of,
            self.recipe.loss,
            logits,
            weight=weights,
            label_smoothing=self.options.label_smoothing,
            mean=alone,
        )
        loss = of_labels(part.labels)
        if part.mix is not None:
            other = of_labels(part.labels[part.mix.partner])
            loss = part.mix.share * loss + (1 - part.mix.share) * other
        if teacher is not None:
            share = self.recipe.distillation.share
            loss = share * teacher.losses(part.inputs, logits) + (1 - share) * loss
        if losses is not None:
            losses[1, indices] = loss.detach().float()
        # By the number of images, not by the sum of weights, so that parts add up to the batch.
        return loss if alone else loss.mean()

    def _require_finite(self) -> None:
        """Clip the gradient if asked to, and stop before a step that would spoil the weights."""
        limit, scaler = self.options.clip_norm, self.accelerator.scaler
        if scaler is not None and limit == 0:
            return  # In fp16 the scaler itself skips steps whose gradient overflowed.
        groups = self.state.optimizer.param_groups
        parameters = [p for group in groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters]
        if limit > 0:
            norm = float(self.accelerator.clip_grad_norm_(parameters, limit))
            is_fine = scaler is not None or math.isfinite(norm)
        elif self.sums.defers:
            note_not_finite(gradients, self.sums.spoilt)
            return
        else:
            is_fine = all_finite(gradients)
            norm = math.nan if is_fine else float(nn.utils.get_total_norm(gradients))
        if not is_fine:
            raise self.sums.diverged(f"The norm of the gradient is {norm}")

    def _require_finite_weights(self, validation_loss: float | None) -> None:
        """Save nothing that the last step has spoilt: a finite gradient can be a huge step."""
        state = self.state
        norm = float(nn.utils.get_total_norm([p.detach() for p in state.model.parameters()]))
        averages = [t for own in state.optimizer.state.values() for t in own.values()]
        kept = [bool(t.isfinite().all()) for t in averages if isinstance(t, Tensor)]
        finite = math.isfinite(norm) and math.isfinite(validation_loss or 0.0)
        if not finite or not all(kept):
            raise self.sums.diverged("The weights are no longer finite")

    def _end_epoch(self) -> None:
        """Validate, write the epoch down, decide whether it was the last, and save."""
        history, recipe = self.history, self.recipe
        sums, started = self.sums.total(), time.monotonic()
        validated = validate(
            self.trained(),
            self.data.validation,
            self.accelerator,
            is_frozen=self.is_frozen,
            note=self.predicted,
        )
        validation_seconds = time.monotonic() - started
        rate = recipe.optimizer.lr * self._rate_factor(self._position(history.step - 1))
        metrics: dict[str, Any] = {
            "epoch": history.epoch + 1,
            "step": history.epoch * self.steps_per_epoch + history.step,
            "learning_rate": rate,
            "train_loss": sums.loss / max(sums.num_images, 1),
            "train_accuracy": sums.num_correct / max(sums.num_images, 1),
            **validated,
        }
        self._require_finite_weights(metrics["validation_loss"])
        before = history.timings[-1]["training_seconds"] if history.timings else 0.0
        timings = {
            "epoch": history.epoch + 1,
            "training_seconds": history.training_seconds,
            "images_per_second": sums.num_images / max(history.training_seconds - before, 1e-9),
        }
        history.metrics.append(metrics)
        history.timings.append(timings)
        if recipe.schedule.name == "plateau":
            history.plateau.update(recipe.schedule, metrics["validation_loss"])
        self._keep_best(metrics["validation_accuracy"])
        if self.state.losses is not None:
            self.state.losses[0].copy_(self.state.losses[1])
        history.epoch, history.step, history.sums = history.epoch + 1, 0, Sums()
        if history.ended is None and history.stage_epoch >= self.num_epochs:
            history.ended = "finished"
        # Another step would be followed by another validation.
        left = self.agreement.seconds_left
        is_late = left is not None and left <= validation_seconds
        if history.ended is None and self.agreement.any(is_late):
            history.ended = "time limit"
        self._keep(metrics, timings)

    def _keep(self, metrics: dict[str, Any], timings: dict[str, Any]) -> None:
        """Save the state at the end of an epoch, and its weights where they are a milestone."""
        epoch = self.history.epoch
        # Before the checkpoint: a run that is killed between the two comes here again.
        if epoch in self.options.milestones and (milestone := self.milestone) is not None:
            on_first_process(self.accelerator, lambda: milestone(epoch, self.trained()))
        # On a fast device another checkpoint so soon is not worth its time.
        is_new = self.sums.defers and time.monotonic() - self.last_saved < RESAVE_SECONDS
        if self.history.ended or not is_new:
            self.checkpoint()
        self.reporter.epoch_ended(metrics, timings)
        if self.history.ended is None:
            self.leave_if_asked()

    def _keep_best(self, accuracy: float | None) -> None:
        """Under early stopping, remember the best weights and stop when they are old."""
        history, patience = self.history, self.options.early_stopping
        if not patience or accuracy is None:
            return
        if accuracy > history.best_accuracy:
            history.best_accuracy, history.best_epoch = accuracy, history.epoch + 1
            weights = self.state.evaluated_model.state_dict()
            self.state.best = {name: t.detach().clone() for name, t in weights.items()}
        elif history.best_epoch is not None and history.epoch + 1 - history.best_epoch >= patience:
            history.ended = history.ended or "early stopping"
