"""Time to an accuracy: a fast recipe trained over several seeds, as a user would wait for it.

A run costs seconds, and seconds times what the machine computed a second meanwhile. The second is
comparable between machines, and between hours of a machine that others use too: its matrix product
is timed before the run, between its epochs and after it.
"""

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tenfold.errors import TenfoldError
from tenfold.recipe import Recipe, load_recipe
from tenfold.results.runs import read_result
from tenfold.speed.rates import product_rate
from tenfold.training.reporters import Reporter, Reporters
from tenfold.training.train import TrainOptions, train

RECIPES = {
    "cpu": {"75": "fast-75", "85": "fast-85", "91": "fast-91", "94": "fast-94"},
    "cuda": {"94": "gpu-94", "95": "gpu-95", "96": "gpu-96"},
}
"""The recipe that is meant to reach an accuracy in per cent, by kind of device."""


class Cost(NamedTuple):
    """seconds: without those of the probes. product_rate: mean of the probes over that time, in
    FLOP/s. operations: seconds times product_rate."""

    seconds: float
    product_rate: float
    operations: float

    def without(self, seconds: float) -> "Cost":
        """The cost of the rest where `seconds` went into something else."""
        return Cost(
            self.seconds - seconds, self.product_rate, self.operations - seconds * self.product_rate
        )


class Meter(Reporters):
    """A reporter that probes the machine at the ends of epochs, and takes that out of the time.

    probe: returns FLOP/s. Time counts from here on.
    """

    def __init__(self, probe: Callable[[], float]) -> None:
        super().__init__()
        self._probe = probe
        self._marks: list[tuple[float, float]] = [(0.0, probe())]
        self._started = time.perf_counter()
        self._probing = 0.0

    def mark(self) -> None:
        """Probe once more."""
        now = time.perf_counter()
        worked = now - self._started - self._probing
        self._marks.append((worked, self._probe()))
        self._probing += time.perf_counter() - now

    @property
    def cost(self) -> Cost:
        """Of the time from the start to the last mark."""
        operations = 0.0
        for (before, first), (after, second) in pairwise(self._marks):
            operations += (after - before) * (first + second) / 2
        seconds = self._marks[-1][0]
        return Cost(seconds, operations / seconds if seconds else self._marks[0][1], operations)

    def epoch_ended(self, metrics: dict[str, Any], timings: dict[str, Any]) -> None:
        """Probe between epochs."""
        self.mark()


class Reached(NamedTuple):
    """One seed's run: its accuracy on test, its cost without compiling, the seconds that this took
    besides, those of the training steps alone, and the folder."""

    seed: int
    accuracy: float
    cost: Cost
    compile_seconds: float
    training_seconds: float
    folder: Path


def recipe_for(target: str, device: torch.device) -> Recipe:
    """The recipe that is to reach `target` per cent on `device`.

    Raises TenfoldError where there is none.
    """
    recipes = RECIPES[device.type if device.type in RECIPES else "cpu"]
    if target not in recipes:
        raise TenfoldError(
            f"--to {target!r} has no recipe for {device.type}; choose one of {', '.join(recipes)}."
        )
    return load_recipe(recipes[target])


def reach(
    recipe: Recipe,
    *,
    num_seeds: int,
    runs: Path,
    device: torch.device,
    reporter: Reporter | None = None,
) -> Iterator[Reached]:
    """Train `recipe` with each of the seeds from 0 on, one after the other.

    A cost is of everything from reading the data to the written result.
    """
    for seed in range(num_seeds):
        meter = Meter(lambda: product_rate(device))
        reporters = Reporters([meter] if reporter is None else [meter, reporter])
        outcome = train(
            recipe.but(seed=seed),
            options=TrainOptions(runs=runs, new=True, cpu=device.type == "cpu"),
            reporter=reporters,
        )
        meter.mark()
        result = read_result(outcome.run.result)
        compiling = result.training.compile_seconds
        yield Reached(
            seed,
            result.splits["test"].accuracy,
            meter.cost.without(compiling),
            compiling,
            result.training.training_seconds or 0.0,
            outcome.run.path,
        )
