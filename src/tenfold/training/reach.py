"""What it costs to train to an accuracy: seconds, core-seconds and matmul-equivalents.

Matmul-equivalents are seconds times the float32 matrix products that the machine computes a second
meanwhile. They compare between machines, and between hours of a machine that others use too: the
product is timed before the run, between its epochs and after it.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tenfold.errors import TenfoldError
from tenfold.recipe import Recipe, load_recipe
from tenfold.results.runs import Cost, Result, read_provenance, read_result
from tenfold.run import RunFolder, runs_of
from tenfold.training.bench import Rates, product_rate
from tenfold.training.devices import available_precision, instruction_set
from tenfold.training.reporters import Reporter, Reporters
from tenfold.training.train import TrainOptions, train

RECIPES = {
    "cpu": {"75": "fast-75", "85": "fast-85", "91": "fast-91", "94": "fast-94"},
    "cuda": {"94": "gpu-94", "95": "gpu-95", "96": "gpu-96"},
}
"""The recipe that is meant to reach an accuracy in per cent, by kind of device."""


class Meter(Reporters):
    """A reporter that probes the machine at the ends of epochs, and takes that out of the time.

    probe: returns FLOP/s. Time counts from here on.
    """

    def __init__(self, probe: Callable[[], float]) -> None:
        super().__init__()
        self._probe = probe
        self._marks: list[tuple[float, float]] = [(0.0, probe())]
        self._started = time.perf_counter()
        self._core_started = time.process_time()
        self._core_seconds = self._probing = self._core_probing = 0.0

    def mark(self) -> None:
        """Probe once more."""
        now, core_now = time.perf_counter(), time.process_time()
        worked = now - self._started - self._probing
        self._core_seconds = core_now - self._core_started - self._core_probing
        self._marks.append((worked, self._probe()))
        self._probing += time.perf_counter() - now
        self._core_probing += time.process_time() - core_now

    @property
    def cost(self) -> Cost:
        """Of the time from the start to the last mark."""
        products = 0.0
        for (before, first), (after, second) in pairwise(self._marks):
            products += (after - before) * (first + second) / 2
        seconds = self._marks[-1][0]
        return Cost(
            seconds=seconds,
            core_seconds=self._core_seconds,
            product_rate=products / seconds if seconds else self._marks[0][1],
            matmul_equivalents=products,
        )

    def epoch_ended(self, metrics: dict[str, Any], timings: dict[str, Any]) -> None:
        """Probe between epochs."""
        self.mark()


class Reached(NamedTuple):
    """One seed's run: its folder, its result, whose cost is without compiling, the precision that
    it computed in, and whether an earlier command has trained it."""

    seed: int
    folder: Path
    result: Result
    cost: Cost
    precision: str | None
    is_kept: bool = False

    @property
    def accuracy(self) -> float:
        """On test."""
        return self.result.splits["test"].accuracy


def recipe_for(target: str, device: torch.device, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that is to reach `target` per cent on `device`, with changes (KEY=VALUE).

    Raises TenfoldError where there is none, and where a change doesn't fit.
    """
    recipes = RECIPES[device.type if device.type in RECIPES else "cpu"]
    if target not in recipes:
        raise TenfoldError(
            f"--to {target!r} has no recipe for {device.type}; choose one of {', '.join(recipes)}."
        )
    return load_recipe(recipes[target], overrides)


def reach(
    recipe: Recipe,
    *,
    num_seeds: int,
    runs: Path,
    device: torch.device,
    rates: Rates,
    reporter: Reporter | None = None,
) -> Iterator[Reached]:
    """Train `recipe` with each of the seeds from 0 on, one after the other.

    A cost is of everything from reading the data to the written result. Seeds that an earlier
    command has finished in `runs`, on such a processor with as many threads and in the same
    precision, are kept; one that was killed begins again, for its seconds are not known.
    """
    precision = available_precision(recipe.training.precision, cpu=device.type == "cpu")
    for seed in range(num_seeds):
        wanted = recipe.but(seed=seed)
        if (kept := _finished(wanted, runs, precision, device)) is not None:
            yield kept
            continue
        meter = Meter(lambda: product_rate(device))
        reporters = Reporters([meter] if reporter is None else [meter, reporter])
        options = TrainOptions(runs=runs, new=True, cpu=device.type == "cpu")
        run = train(wanted, options=options, reporter=reporters).run
        meter.mark()
        result = read_result(run.result)
        training, cost = result.training, meter.cost.without(result.training.compile_seconds)
        if training.flop is not None and training.training_seconds:
            used = training.flop / training.training_seconds / rates.largest(precision)
            cost = cost.model_copy(update={"utilisation": used})
        result = result.model_copy(update={"cost": cost})
        with run.writer():
            result.write(run.result)
        yield Reached(seed, run.path, result, cost, precision)


def _finished(recipe: Recipe, runs: Path, precision: str, device: torch.device) -> Reached | None:
    """The newest finished run of `recipe` whose cost was measured as it would be now."""
    here = (precision, instruction_set(), torch.get_num_threads(), device.type)
    for run in filter(RunFolder.is_finished, runs_of(runs, recipe.name)):
        with contextlib.suppress(TenfoldError):  # Some recipe or result there may be damaged.
            if load_recipe(run.recipe) != recipe:
                continue
            made, result = read_provenance(run.provenance), read_result(run.result)
            kind = torch.device(made.device or "cpu").type
            there = (made.arithmetic, made.instructions, made.threads, kind)
            if result.cost is not None and "test" in result.splits and there == here:
                return Reached(recipe.seed, run.path, result, result.cost, precision, is_kept=True)
    return None
