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
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tenfold.data.splits import TrainingData
from tenfold.errors import (
    InterruptedRunError,
    StoppedByUserError,
)
from tenfold.evaluation.trained import TrainedModel
from tenfold.interruption import Interruption
from tenfold.progress import Progress
from tenfold.recipe import Recipe
from tenfold.training.batches import (
    Part,
    derive_seed,
    epoch_batches,
    seed_generators,
)
from tenfold.training.clock import step_share
from tenfold.training.devices import make_accelerator
from tenfold.training.memory import memory_errors
from tenfold.training.optimizers import all_finite, note_not_finite, set_learning_rate
from tenfold.training.reporters import Reporter
from tenfold.training.selection import begin_next_epoch, hardest
from tenfold.training.session import Session, describe_plan
from tenfold.training.set_up import set_up
from tenfold.training.state import History, Sums, TrainingState
from tenfold.waiting import sharing_cores


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
    epochs and the weights at each of the recipe's milestones, and reporter is told how it goes.
    first_stage: the one that `restore` goes on with. progress: for features that take a while.

    Raises DivergedError before a step with a loss or gradient that is not finite;
    InterruptedRunError after saving, on SIGTERM or SIGUSR1, and StoppedByUserError on Ctrl-C;
    TenfoldError where data and recipe don't fit or memory runs out.
    """
    with memory_errors(recipe), sharing_cores(), Interruption() as interruption:
        start = partial(
            set_up,
            data=data,
            accelerator=accelerator or make_accelerator(recipe),
            reporter=reporter,
            save=save,
            milestone=milestone,
            interruption=interruption,
            progress=progress,
        )
        session = start(recipe, first_stage)
        if restore is not None:
            session.restore(restore)
        _train_stage(session)
        while session.follow and not session.stops_here():
            session.finish_stage()
            session = start(recipe, session.state.history.stage, previous=session.state)
            _train_stage(session)
    state = session.state
    final = state.evaluated_model
    if state.best is not None:
        final.load_state_dict(state.best)
    return Fitted(session.trained(final), state.history)


def _train_stage(session: Session) -> None:
    """The epochs of a stage that are still to be done."""
    session.pictures.prepare(_watched(session))  # Before anybody counts the seconds of an epoch.
    session.after_step(0.0, ask=True)  # From here on all have one clock.
    session.reporter.started(describe_plan(session))
    while session.state.history.ended is None:
        _train_epoch(session)
        _end_epoch(session)
    # A signal that came while the last epoch was validated.
    _leave_if_asked(session)
    assert session.state.history.ended is not None
    session.note_stage()
    session.reporter.ended(session.state.history.ended)


def _train_epoch(session: Session) -> None:
    """The steps of an epoch that are still to be done."""
    history, options = session.state.history, session.recipe.training
    batches = epoch_batches(
        session.num_images,
        options.batch_size,
        seed=session.recipe.seed,
        epoch=history.epoch,
        least=session.least_pictures,
        device=session.accelerator.device,
        chosen=_chosen(session),
    )
    shares = [_share(session, batch) for batch in batches]
    session.pictures.start_epoch(history.epoch, [part for share in shares for part in share])
    session.network.train()
    session.last_checked = time.monotonic()
    for step in range(history.step, len(batches)):
        started = time.perf_counter()
        loss = _step(session, shares[step], step, batch_size=len(batches[step]))
        if step + 1 == len(batches):  # The device catches up within the time of training.
            session.settle()
        seconds = time.perf_counter() - started
        history.step = step + 1
        history.training_seconds += seconds
        session.step_times.note(seconds, size=session.size)
        session.reporter.stepped(
            epoch=history.epoch + 1,
            step=step + 1,
            loss=loss,
            images_per_second=len(batches[step]) / seconds,
        )
        decision = session.after_step(seconds, ask=step + 1 == len(batches))
        if decision is None:
            continue
        if decision.leave:
            _leave(session)
        if decision.is_last:
            history.ended = "time limit"
            return
        if decision.save:
            session.save()
            session.last_checked = time.monotonic()


def _watched(session: Session) -> Progress:
    """Progress of what takes minutes before a step, which a signal may end."""

    def told(label: str, done: int, total: int | None) -> None:
        _leave_if_asked(session)
        session.progress(label, done, total)

    return told


def _chosen(session: Session) -> Tensor | None:
    """Indices of the pictures that the epoch trains on, or None for all."""
    losses, epoch = session.state.losses, session.state.history.epoch
    if losses is None:
        return None
    return hardest(losses, session.num_images, seed=session.recipe.seed, epoch=epoch)


def _share(session: Session, batch: Tensor) -> Sequence[Tensor]:
    """The parts of `batch`, its indices, that this process computes."""
    accelerator, parts = session.accelerator, session.recipe.training.accumulate
    if accelerator.num_processes * parts == 1:
        return [batch]
    first = accelerator.process_index * parts
    return torch.tensor_split(batch, accelerator.num_processes * parts)[first : first + parts]


def _position(session: Session, step: int) -> float:
    """How many steps of the stage lie before `step` of the present epoch.

    Where the time limit would come before the last step, time counts instead: as many of the steps
    count as done as would have been by then, if the last of them came at the limit.
    """
    before = float(session.state.history.stage_epoch * session.steps_per_epoch + step)
    options = session.recipe.training
    if not options.time_limit_seconds:
        return before
    share = step_share(
        min(session.elapsed / options.time_limit_seconds, 1.0),
        sizes=options.sizes,
        until=options.sizes_until,
        side=session.pictures.side,
    )
    return max(before, share * session.total_steps)


def _size(session: Session, done: float) -> int:
    """The side in pixels of the pictures when a share `done` of the steps lies behind."""
    options = session.recipe.training
    sizes = zip(options.sizes, options.sizes_until, strict=True)
    side = session.pictures.side
    return next((min(size, side) for size, until in sizes if done < until), side)


def _freeze(session: Session, done: float) -> None:
    """Let go of the gradients of blocks that no longer learn when a share `done` is behind."""
    num_frozen = sum(done >= share for share in session.recipe.training.freeze_from)
    if num_frozen <= session.num_frozen:
        return
    for block in session.blocks[session.num_frozen : num_frozen]:
        block.requires_grad_(False)
    session.network.train()  # A pretrained network's norms stay as they are from here on.
    session.num_frozen = num_frozen


def _step(session: Session, share: Sequence[Tensor], step: int, *, batch_size: int) -> float:
    """One update of the weights from a batch of which this process computes `share`.

    Returns the mean loss over that share, or the last one known where the device lags behind.
    """
    recipe, accelerator = session.recipe, session.accelerator
    state, history = session.state, session.state.history
    position = _position(session, step)
    done = position / session.total_steps
    session.size = _size(session, done)
    set_learning_rate(state.optimizer, _rate_factor(session, position))
    _freeze(session, done)
    for group in state.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
    loss_sum = 0.0
    for index, indices in enumerate(share):
        number = accelerator.process_index * len(share) + index
        seed_generators(
            derive_seed(recipe.seed, "step", history.epoch, step, number), accelerator.device
        )
        part = session.pictures.part(
            indices,
            step=step,
            batch_size=batch_size,
            number=number,
            size=session.size,
        )
        is_last = index == len(share) - 1
        with contextlib.nullcontext() if is_last else accelerator.no_sync(session.network):
            loss_sum += _accumulate(session, part, indices)
    _require_finite(session)
    session.state.optimizer.step()
    # In fp16 the scaler leaves out steps whose gradient overflowed.
    if state.average is not None and not accelerator.optimizer_step_was_skipped:
        state.average.update_parameters(state.model)
    return loss_sum / sum(map(len, share)) if not session.is_deferred else session.known_loss()


def _rate_factor(session: Session, position: float) -> float:
    """What learning rates are multiplied by at `position`."""
    history, recipe = session.state.history, session.recipe
    factor: float = recipe.schedule(
        position,
        total_steps=session.total_steps,
        steps_per_epoch=session.steps_per_epoch,
    )
    return history.plateau.factor * factor


def _accumulate(session: Session, part: Part, indices: Tensor) -> float:
    """Add the gradient of a part of a batch, the pictures at `indices`; returns the sum of its
    losses where it is known."""
    with session.accelerator.autocast():
        logits = session.network(part.inputs)
    # A copy also of float32, for the next pass of a recorded graph writes over its outputs.
    logits = logits.to(torch.float32, copy=session.is_deferred)
    loss = session.batch_loss(part, indices, logits)
    value = 0.0
    if not session.is_deferred:
        value = float(loss.detach())
        # Several processes see it in the gradient that they share, unless a scaler skips that.
        told = session.agreement.is_alone or session.accelerator.scaler is not None
        if told and session.agreement.any(not math.isfinite(value)):
            raise session.diverged(f"The loss is {value}")
    # Processes average their gradients, so weights by share of the batch are scaled back up.
    factor = part.weight * session.accelerator.num_processes
    scaled = loss * factor if factor != 1 else loss
    if session.accelerator.scaler is None:
        scaled.backward()
    else:
        session.accelerator.backward(scaled)
    session.count(loss.detach() if session.is_deferred else value, logits.detach(), part.labels)
    return value * len(part.labels)


def _require_finite(session: Session) -> None:
    """Clip the gradient if asked to, and stop before a step that would spoil the weights."""
    limit = session.recipe.training.clip_norm
    scaler = session.accelerator.scaler
    if scaler is not None and limit == 0:
        return  # In fp16 the scaler itself skips steps whose gradient overflowed.
    groups = session.state.optimizer.param_groups
    parameters = [p for group in groups for p in group["params"] if p.grad is not None]
    if limit > 0:
        norm = float(session.accelerator.clip_grad_norm_(parameters, limit))
        if scaler is None and not math.isfinite(norm):
            raise session.diverged(f"The norm of the gradient is {norm}")
        return
    gradients = [p.grad for p in parameters]
    if session.is_deferred:
        note_not_finite(gradients, session.spoilt)
    elif not all_finite(gradients):
        norm = float(nn.utils.get_total_norm(gradients))
        raise session.diverged(f"The norm of the gradient is {norm}")


def _require_finite_weights(session: Session, validation_loss: float | None) -> None:
    """Save no state that the last step has spoilt: a finite gradient can still be a huge step."""
    state = session.state
    weights = [p.detach() for p in state.model.parameters()]
    norm = float(nn.utils.get_total_norm(weights))
    averages = [t for own in state.optimizer.state.values() for t in own.values() if t is not None]
    spoilt = not all(bool(torch.as_tensor(tensor).isfinite().all()) for tensor in averages)
    found = validation_loss if validation_loss is not None else 0.0
    if spoilt or not math.isfinite(norm) or not math.isfinite(found):
        raise session.diverged("The weights are no longer finite")


def _leave_if_asked(session: Session) -> None:
    if session.agreement.any(session.interruption.signal is not None):
        _leave(session)


def _leave(session: Session) -> NoReturn:
    """Save, and say why training ends here."""
    session.save()
    signal, history = session.interruption.signal, session.state.history
    place = "before the evaluation"
    if history.ended is None:
        place = f"in epoch {history.epoch + 1}, step {history.step}"
    if signal is not None and signal.name == "SIGINT":
        raise StoppedByUserError(
            f"Stopped {place}; everything is saved, and the same command resumes it."
        )
    name = signal.name if signal is not None else "a signal to another process"
    raise InterruptedRunError(
        f"Interrupted by {name} {place}; everything is saved, and the same command resumes it."
    )


def _end_epoch(session: Session) -> None:
    """Validate, write the epoch down, decide whether it was the last, and save."""
    history, recipe = session.state.history, session.recipe
    sums = session.total_sums()
    position = history.epoch * session.steps_per_epoch + history.step
    last = _position(session, history.step - 1)
    metrics: dict[str, Any] = {
        "epoch": history.epoch + 1,
        "step": position,
        "learning_rate": recipe.optimizer.lr * _rate_factor(session, last),
        "train_loss": sums.loss / max(sums.num_images, 1),
        "train_accuracy": sums.num_correct / max(sums.num_images, 1),
        **session.timed_validation(),
    }
    _require_finite_weights(session, metrics["validation_loss"])
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
    _keep_best(session, metrics["validation_accuracy"])
    if session.state.losses is not None:
        begin_next_epoch(session.state.losses)
    history.epoch += 1
    history.step = 0
    history.sums = Sums()
    if history.ended is None and history.stage_epoch >= session.num_epochs:
        history.ended = "finished"
    # Another step would be followed by another validation.
    left = session.seconds_left
    is_late = left is not None and left <= session.validation_seconds
    if history.ended is None and session.agreement.any(is_late):
        history.ended = "time limit"
    # Before the checkpoint: a run that is killed between the two comes here again.
    session.keep_milestone()
    if history.ended or not session.saved_just_now():
        session.save()
    session.reporter.epoch_ended(metrics, timings)
    if history.ended is None:
        _leave_if_asked(session)


def _keep_best(session: Session, accuracy: float | None) -> None:
    """Under early stopping, remember the best weights and stop when they are old."""
    history, patience = session.state.history, session.recipe.training.early_stopping
    if not patience or accuracy is None:
        return
    if accuracy > history.best_accuracy:
        history.best_accuracy, history.best_epoch = accuracy, history.epoch + 1
        weights = session.state.evaluated_model.state_dict()
        session.state.best = {name: t.detach().clone() for name, t in weights.items()}
    elif history.best_epoch is not None and history.epoch + 1 - history.best_epoch >= patience:
        history.ended = history.ended or "early stopping"
