"""How fast the training loop is, against the same network with nothing around it.

Three figures of one recipe, `cnn` unless another is named:
- images per second of bare forward, backward and optimiser steps on one fixed batch in memory;
- images per second of `fit` with shuffling, augmentation, checks and reports, as a share of that;
- peak memory of the process, data and all.

The two are measured in turns, a few steps each, so that a machine whose speed drifts does not
favour either. Prints a table and, with --json, one object.
"""

import argparse
import json
import statistics
import time
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from tenfold.data import load
from tenfold.data.splits import training_data
from tenfold.evaluation.evaluate import splitting
from tenfold.evaluation.trained import build_network
from tenfold.recipe import Recipe, load_recipe
from tenfold.run import peak_memory_bytes
from tenfold.training.optimizers import build_optimizer
from tenfold.training.process import prepare_process
from tenfold.training.trainer import fit

WARMUP_STEPS = 10
TURN_STEPS = 10


class Bare:
    """The recipe's network and optimiser on one fixed batch."""

    def __init__(self, recipe: Recipe, *, num_classes: int, image_size: tuple[int, int]) -> None:
        size = recipe.training.batch_size
        self._model = build_network(recipe, num_classes=num_classes, image_size=image_size)
        self._optimizer = build_optimizer(self._model, recipe.optimizer)
        self._inputs = torch.randn(size, 3, *image_size).to(memory_format=torch.channels_last)
        self._labels = torch.randint(num_classes, (size,))

    def step(self) -> float:
        """Seconds of one step."""
        started = time.perf_counter()
        self._optimizer.zero_grad()
        cross_entropy(self._model(self._inputs), self._labels).backward()
        self._optimizer.step()
        return time.perf_counter() - started


class Turns:
    """A reporter that interrupts `fit` every few steps to take as many bare ones."""

    def __init__(self, bare: Bare) -> None:
        self._bare = bare
        self.bare_seconds: list[float] = []
        self.loop_rates: list[float] = []

    def started(self, plan: Any) -> None:
        """Warm up."""
        for _ in range(WARMUP_STEPS):
            self._bare.step()

    def stepped(self, *, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        """Collect the loop's rate; after a turn of the loop comes one of bare steps."""
        self.loop_rates.append(images_per_second)
        if step % TURN_STEPS == 0:
            self.bare_seconds += [self._bare.step() for _ in range(TURN_STEPS)]

    def epoch_ended(self, metrics: Any, timings: Any) -> None:
        """Nothing to do."""

    def ended(self, reason: str) -> None:
        """Nothing to do."""


def measure(recipe: Recipe) -> dict[str, Any]:
    """Train one epoch of `recipe` in turns with bare steps."""
    threads = prepare_process()
    data = training_data(load(recipe.data.name), **splitting(recipe.data))
    num_classes, size = data.train.num_classes, data.train.size
    turns = Turns(Bare(recipe, num_classes=num_classes, image_size=size))
    fit(recipe, data, reporter=turns)
    bare = recipe.training.batch_size / statistics.median(turns.bare_seconds)
    loop = statistics.median(turns.loop_rates[WARMUP_STEPS:])
    return {
        "recipe": recipe.name,
        "batch_size": recipe.training.batch_size,
        "threads": threads,
        "bare_images_per_second": bare,
        "fit_images_per_second": loop,
        "share": loop / bare,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="cnn")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = measure(load_recipe(arguments.recipe, ["training.epochs=1", "training.min_steps=0"]))
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"recipe {result['recipe']}, batch {result['batch_size']}, {result['threads']} threads")
    print(f"  bare steps on a fixed batch  {result['bare_images_per_second']:8,.0f} images/s")
    print(f"  fit with augmentation        {result['fit_images_per_second']:8,.0f} images/s")
    print(f"  share                        {100 * result['share']:8.1f} %")
    print(f"  peak memory                  {result['peak_memory_bytes'] / 1e9:8.2f} GB")


if __name__ == "__main__":
    main()
