"""Who is told how training goes. The loop knows nothing of terminals or files of curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Plan:
    """What is about to be trained.

    trains: what of the network learns, `all` where it is not pretrained. num_parameters: that
    learn. first_step: steps of the stages before; is_last: whether no stage follows. resumed_step:
    steps done, more than first_step where it is resumed. seconds_left: of the recipe's time limit,
    or None. min_steps: of the recipe, where they take more epochs than it names, else 0.
    memory_bytes: that a pretrained network is expected to take on a processor, else None.
    """

    recipe: str
    model: str
    trains: str
    num_parameters: int
    num_train: int
    num_validation: int
    epochs: int
    steps_per_epoch: int
    device: str
    threads: int
    processes: int
    first_step: int
    is_last: bool
    resumed_step: int
    seconds_left: float | None
    min_steps: int = 0
    memory_bytes: int | None = None


class Reporter(Protocol):
    """Told of each event of a run; only on the process that writes."""

    def started(self, plan: Plan) -> None:
        """Training is about to begin or to go on."""

    def stepped(self, *, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        """Step `step` of epoch `epoch`, both from 1, is done."""

    def epoch_ended(self, metrics: dict[str, Any], timings: dict[str, Any]) -> None:
        """An epoch is done and validated; both are lines of the run's logs."""

    def ended(self, reason: str) -> None:
        """Training is over: finished, early stopping or time limit."""


class Reporters:
    """Several reporters as one; without any, the base of those that listen to some events alone."""

    def __init__(self, reporters: Sequence[Reporter] = ()) -> None:
        self._reporters = reporters

    def started(self, plan: Plan) -> None:
        """See Reporter."""
        for reporter in self._reporters:
            reporter.started(plan)

    def stepped(self, **step: Any) -> None:
        """See Reporter."""
        for reporter in self._reporters:
            reporter.stepped(**step)

    def epoch_ended(self, metrics: dict[str, Any], timings: dict[str, Any]) -> None:
        """See Reporter."""
        for reporter in self._reporters:
            reporter.epoch_ended(metrics, timings)

    def ended(self, reason: str) -> None:
        """See Reporter."""
        for reporter in self._reporters:
            reporter.ended(reason)
