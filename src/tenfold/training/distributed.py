"""Processes that train together: what they decide alike, how they end, and their batch norms.

Decisions take one reduction every few steps. What fails on one process is said by all, whatever
they wait for.
"""

import contextlib
import gc
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store
from torch.nn.modules.batchnorm import _BatchNorm

from tenfold.errors import (
    DivergedError,
    InterruptedRunError,
    StoppedByUserError,
    TenfoldError,
    sentence_of,
)

ASK_SECONDS = 0.2
"""Between two decisions: what a signal or the end of the time waits for at most."""

MOST_STEPS = 50


class Decision(NamedTuple):
    """What holds on every process after a step. leave: a signal came to one of them. save: a
    checkpoint is due. is_last: no further step fits into the time that is left."""

    leave: bool
    save: bool
    is_last: bool


class Agreement:
    """Decisions after steps; one process alone decides after each.

    Several are asked every few steps, all after the same ones, and share a clock meanwhile: that of
    the first process, which goes on by the time that the slowest took for a step. limit: seconds
    that training may take, 0 for any number. started: when that was, by `time.monotonic`, less what
    earlier sessions took.
    """

    def __init__(self, accelerator: Accelerator, *, limit: float, started: float) -> None:
        self._accelerator = accelerator
        self._limit, self.started = limit, started
        self._elapsed = self._step_seconds = 0.0
        self._since = self._pause = 0

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody else to ask."""
        number: int = self._accelerator.num_processes
        return number == 1

    @property
    def own_seconds(self) -> float:
        """Since the start, by this process's clock."""
        return time.monotonic() - self.started

    @property
    def seconds_left(self) -> float | None:
        """Until the time limit by this process's clock, where there is one."""
        return max(self._limit - self.own_seconds, 0.0) if self._limit else None

    @property
    def elapsed(self) -> float:
        """Seconds since the start, the same on every process."""
        if self.is_alone:
            return self.own_seconds
        return self._elapsed + self._since * self._step_seconds

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any process; all of them must ask."""
        return flag if self.is_alone else bool(self._greatest([float(flag)])[0])

    def after_step(
        self, *, seconds: float, leave: bool, save: bool, ask: bool = False
    ) -> Decision | None:
        """What follows from a step, or None where that is decided a few steps later.

        seconds: that the step took. ask: decide now.
        """
        if self.is_alone:
            return Decision(leave, save, self._fitting(self.own_seconds, seconds) < 1)
        self._since += 1
        if self._since <= self._pause and not ask:
            return None
        first = self._accelerator.is_main_process
        answers = self._greatest([leave, save, self.own_seconds if first else 0.0, seconds])
        _, _, self._elapsed, self._step_seconds = answers
        fitting = self._fitting(self._elapsed, self._step_seconds)
        self._since = self._pause = 0
        if self._step_seconds > 0:
            pause = min(ASK_SECONDS / self._step_seconds, MOST_STEPS, fitting - 1)
            self._pause = max(int(pause), 0)
        return Decision(answers[0] > 0, answers[1] > 0, fitting < 1)

    def _fitting(self, elapsed: float, seconds: float) -> float:
        """Steps of so many seconds that fit into the time that is left."""
        left = self._limit - elapsed
        return left / seconds if self._limit and seconds > 0 else float("inf")

    def _greatest(self, values: list[float]) -> list[float]:
        """Of each value the greatest of all processes."""
        found = torch.tensor(values, dtype=torch.float64, device=self._accelerator.device)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        greatest: list[float] = found.tolist()
        return greatest


POLL_SECONDS = 0.5
"""Until a failure of another process is noticed."""

LEAVING_SECONDS = 5.0
"""For a process to leave by itself after that, and for the others to hear of a failure."""

LOST = (
    "Another process of this training ended without a word; the same command goes on from what was "
    "saved."
)

LOST_WORDS = ("gloo", "nccl", "closed by peer", "connection", "store", "recv", "send")
"""Of what gloo, NCCL or the store say where another process is gone."""

_trainings = itertools.count()


@contextlib.contextmanager
def ending_together(accelerator: Accelerator) -> Iterator[None]:
    """A context that an error on one process ends on all of them, with its sentence.

    A process that waits for another one in the middle of a sum can't be woken: where it is still
    there some seconds later, it says the sentence and ends at once. Everything that training
    writes is written whole or not at all. One process alone has nobody to tell.
    """
    if accelerator.num_processes == 1:
        yield
        return
    failures = _Failures(accelerator.num_processes)
    try:
        yield
    except BaseException as error:
        # What another one's end brought about here: a lost connection, a signal of the launcher.
        if isinstance(error, RuntimeError | InterruptedRunError):
            lost = isinstance(error, RuntimeError) and any(
                word in str(error).lower() for word in LOST_WORDS
            )
            heard = failures.heard(wait=lost) or (
                Failure(LOST, TenfoldError.exit_status) if lost else None
            )
            if heard is not None:
                raise heard.error() from error
        failures.tell(error)
        raise
    finally:
        failures.leave()
    # Threads of the process group end with its last reference, and must before the process.
    accelerator.free_memory()
    gc.collect()


class Failure(NamedTuple):
    """What a process said before it ended, and its exit status."""

    message: str
    status: int

    def error(self) -> TenfoldError:
        """It as an error of this process."""
        kinds = (DivergedError, InterruptedRunError, StoppedByUserError)
        found = {kind.exit_status: kind for kind in kinds}.get(self.status, TenfoldError)
        return found(self.message)


class _Failures:
    """The first failure of all processes, in the store by which they found each other."""

    def __init__(self, num_processes: int) -> None:
        self._store = PrefixStore(f"tenfold/{next(_trainings)}", _get_default_store())
        self._num_processes = num_processes
        self._has_left = threading.Event()
        self._heard: Failure | None = None
        self._knows = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def heard(self, *, wait: bool = False) -> Failure | None:
        """What another process said, if it did. wait: for a moment, since one must have failed."""
        deadline = time.monotonic() + LEAVING_SECONDS * wait
        while self._heard is None:
            try:
                if self._store.check(["failure"]):
                    self._heard = Failure(*json.loads(self._store.get("failure")))
            except RuntimeError:  # The process that kept the store is gone.
                self._heard = Failure(LOST, TenfoldError.exit_status)
            if time.monotonic() >= deadline:
                break
            time.sleep(POLL_SECONDS / 5)
        return self._heard

    def tell(self, error: BaseException) -> None:
        """Let the others know, and stay until they do: the store may go with this process."""
        self._has_left.set()
        failure = Failure("Another process was stopped.", StoppedByUserError.exit_status)
        if isinstance(error, Exception):
            failure = Failure(sentence_of(error), getattr(error, "exit_status", 2))
        with contextlib.suppress(RuntimeError):
            self._store.compare_set("failure", "", json.dumps(failure))
            self._note_that_it_knows()
            deadline = time.monotonic() + LEAVING_SECONDS
            while self._store.add("knowing", 0) < self._num_processes:
                if time.monotonic() > deadline:
                    break
                time.sleep(POLL_SECONDS / 5)

    def leave(self) -> None:
        """This process needs no more news."""
        self._has_left.set()
        self._thread.join()
        self._note_that_it_knows()

    def _note_that_it_knows(self) -> None:
        if not self._knows:
            self._knows = True
            with contextlib.suppress(RuntimeError):
                self._store.add("knowing", 1)

    def _watch(self) -> None:
        while not self._has_left.wait(POLL_SECONDS):
            if (failure := self.heard()) is not None:
                break
        else:
            return
        self._note_that_it_knows()
        if not self._has_left.wait(LEAVING_SECONDS):
            sys.stderr.write(f"error: {failure.message}\n")
            sys.stderr.flush()
            os._exit(failure.status)


def synchronise(network: nn.Module) -> None:
    """Make the batch norms of `network` share their statistics in training, on any device.

    Names and weights stay as they are. Raises TenfoldError for a kind of batch norm that does more
    than norm.
    """
    for module in network.modules():
        if type(module) in _SYNCED:
            module.__class__ = _SYNCED[type(module)]
        elif isinstance(module, _BatchNorm):
            raise TenfoldError(
                f"training.sync_batch_norm can't synchronise {type(module).__name__}, which this "
                "network has; leave it out with --set training.sync_batch_norm=false."
            )


class _Synced(_BatchNorm):
    """A batch norm over the shares of all processes; every process must call it alike."""

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or inputs.is_meta:  # Where FLOP are counted nobody else is.
            return super().forward(inputs)
        values = inputs.float()
        count = values.new_full((1,), values.numel() / values.shape[1])
        others = [0, *range(2, values.ndim)]
        sums = [values.sum(others), values.square().sum(others), count]
        total = _Summed.apply(torch.cat(sums))
        number = total[-1].detach()
        mean, square = (total[:-1] / number).view(2, -1)
        variance = (square - mean.square()).clamp(min=0)
        with torch.no_grad():
            self._note(mean, variance * number / (number - 1).clamp(min=1))
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else scale * self.weight
        offset = -mean * scale if self.bias is None else self.bias - mean * scale
        shape = (-1, *(1 for _ in others[1:]))
        outputs: Tensor = values * scale.view(shape) + offset.view(shape)
        return outputs.to(inputs.dtype)

    def _note(self, mean: Tensor, variance: Tensor) -> None:
        """Let the running statistics follow."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


_SYNCED: dict[type[nn.Module], type[nn.Module]] = {
    kind: type(f"Synced{kind.__name__}", (_Synced, kind), {})
    for kind in (nn.BatchNorm1d, nn.BatchNorm2d)
}


class _Summed(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        [gradient] = gradients
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total
