"""What processes that train together decide alike, in one reduction every few steps."""

import time
from typing import NamedTuple

import torch
from accelerate import Accelerator

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
        told = torch.tensor(values, dtype=torch.float64, device=self._accelerator.device)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        greatest: list[float] = told.tolist()
        return greatest
