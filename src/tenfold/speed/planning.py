"""A recipe that ends within a given time on this machine, and what it may be expected to reach."""

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch

from tenfold.data import Dataset
from tenfold.data.splits import TrainingData, training_data
from tenfold.errors import TenfoldError
from tenfold.evaluation.evaluate import split_of, splitting
from tenfold.recipe import Recipe, load_recipe
from tenfold.run import runs_of
from tenfold.speed.networks import speed_of_run
from tenfold.speed.rates import product_rate


class Rung(NamedTuple):
    """A recipe with its cost on CIFAR-10, in FLOP of a matrix product, and accuracy on test."""

    recipe: str
    cost: float
    accuracy: float


LADDER = (
    Rung("fast-75", 2.5e12, 0.766),
    Rung("fast-85", 9.6e12, 0.868),
    Rung("fast-91", 4.5e13, 0.914),
    Rung("fast-94", 1.5e14, 0.935),
)
"""From cheap to dear, as docs/speed.md has them; the last is a guess from held-out pictures."""

REFERENCE_PIXELS = 50_000 * 32 * 32
"""Of the pictures that the costs of the ladder are about."""

PROBE_SECONDS = 0.3
MARGIN = 0.04
"""Share of the time that is kept for what nobody can foresee."""

CLOSING_SECONDS = 3.0
"""For writing the result and the page; on a machine of the reference's speed."""

REFERENCE_RATE = 147e9
"""Matrix products of the reference machine, in FLOP/s."""

SHORTEST_SECONDS = 1.0
"""Of training, below which a plan makes no sense."""

TOO_MANY_EPOCHS = 3
"""Epochs planned over those expected to fit, so that the clock ends the run and not the plan, even
where the machine was busy when it was measured."""


class Planned(NamedTuple):
    """recipe: what to train. expected: accuracy on test, where the data set is a known one.

    closing_seconds: for evaluation and page, which the recipe's time limit leaves.
    """

    recipe: Recipe
    expected: float | None
    closing_seconds: float


def plan_run(
    recipe: Recipe | None,
    dataset: Dataset,
    *,
    seconds: float,
    overrides: Sequence[str] = (),
    device: torch.device,
) -> Planned:
    """The best recipe for `dataset` whose run ends `seconds` from now, evaluation included.

    recipe: what to train; None picks one of the fast recipes. overrides: what the user asks for.
    Measures this machine for a second or two. Raises TenfoldError where the time is too short.
    """
    started = time.monotonic()
    rate = product_rate(device, seconds=PROBE_SECONDS)
    chosen = recipe
    if chosen is None:
        pixels = len(dataset.train) * math.prod(dataset.train.size)
        rung = choose_rung(seconds * rate, pixels / REFERENCE_PIXELS)
        # The pictures are those of `dataset`, whatever size the rung was measured at.
        chosen = load_recipe(rung.recipe, ["data.image_size=0", *overrides])
    data = training_data(dataset, **splitting(chosen.data))
    side = min(data.train.size)
    if recipe is None:
        chosen = with_sizes_for(chosen, side)
    speed = speed_of_run(chosen, image_size=side, num_classes=data.train.num_classes, device=device)
    evaluating = _num_evaluated(dataset, data, chosen) * speed.evaluation_seconds
    closing = evaluating + CLOSING_SECONDS * max(REFERENCE_RATE / rate, 0.5)
    left = seconds - (time.monotonic() - started)
    limit = left - closing - MARGIN * seconds
    if limit < SHORTEST_SECONDS:
        missing = math.ceil(SHORTEST_SECONDS - limit)
        raise TenfoldError(
            f"--time is too short by {missing} s for starting, training for a second and "
            f"evaluating {chosen.name} here; give more time."
        )
    epochs = math.ceil(TOO_MANY_EPOCHS * limit / (len(data.train) * speed.training_seconds))
    training = replace(chosen.training, epochs=epochs, min_steps=0, time_limit_seconds=limit)
    known = recipe is None and dataset.name == "cifar10"
    return Planned(
        replace(chosen, training=training),
        expected_accuracy(seconds * rate) if known else None,
        closing,
    )


def _num_evaluated(dataset: Dataset, data: TrainingData, recipe: Recipe) -> int:
    """Pictures that are looked at when training is over."""
    number = len(data.validation) if data.validation is not None else 0
    with contextlib.suppress(TenfoldError):  # There is no test split.
        number += len(split_of(dataset, "test", recipe.data))
    return number


def with_sizes_for(recipe: Recipe, side: int) -> Recipe:
    """`recipe` with its sizes, which are those for pictures of 32 pixels, scaled to `side`."""
    training = recipe.training
    sizes = tuple(max(round(size * side / 64) * 2, 8) for size in training.sizes)
    return replace(recipe, training=replace(training, sizes=sizes))


def choose_rung(operations: float, size: float) -> Rung:
    """The dearest rung that `operations` pay for.

    size: of the data set, in pixels of its training pictures over those of CIFAR-10.
    """
    affordable = [rung for rung in LADDER if rung.cost * size <= operations]
    return affordable[-1] if affordable else LADDER[0]


def expected_accuracy(operations: float) -> float:
    """On CIFAR-10, for a run that costs `operations`.

    The logarithm of the error falls in straight lines over that of the cost, from rung to rung, and
    goes on beyond the ends as between the two nearest.
    """
    errors = [(math.log(rung.cost), math.log(1 - rung.accuracy)) for rung in LADDER]
    x = math.log(operations)
    (x0, y0), (x1, y1) = next(
        (pair for pair in pairwise(errors) if x <= pair[1][0]), (errors[-2], errors[-1])
    )
    return 1 - min(math.exp(y0 + (y1 - y0) * (x - x0) / (x1 - x0)), 0.9)


def unfinished_plan(runs: Path, name: str, wanted: Recipe, *, own_network: bool) -> Recipe | None:
    """The recipe of the newest unfinished run of `name` in `runs` that was planned for `wanted`.

    own_network: whether the plan chose more than the number of epochs and the time limit, so that
    seed and data alone need agree. None where there is none, or another process trains it.
    """
    for run in runs_of(runs, name):
        if run.is_finished() or run.is_held() or not run.recipe.exists():
            continue
        begun = load_recipe(run.recipe)
        training = replace(
            wanted.training,
            epochs=begun.training.epochs,
            min_steps=begun.training.min_steps,
            time_limit_seconds=begun.training.time_limit_seconds,
        )
        same = (begun.seed, begun.data.name) == (wanted.seed, wanted.data.name)
        if same and (own_network or begun == replace(wanted, name=name, training=training)):
            return begun
    return None
