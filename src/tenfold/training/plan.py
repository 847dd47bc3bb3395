"""A recipe that ends within a given time on this machine, and what it may be expected to reach."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from tenfold.data import Dataset
from tenfold.data.splits import training_data
from tenfold.errors import TenfoldError
from tenfold.evaluation.evaluate import split_of, splitting
from tenfold.evaluation.trained import num_views
from tenfold.recipe import Recipe, load_recipe, recipe_from_dict
from tenfold.recipe.models import KINDS
from tenfold.results.measured import read_measured
from tenfold.run import RunFolder
from tenfold.training.bench import (
    product_rate,
    speed_of_run,
    speed_of_transfer,
    step_seconds,
)
from tenfold.training.choice import TRANSFER, in_parts, is_best_from_scratch, with_sizes_for


class Rung(NamedTuple):
    """A recipe with its cost on CIFAR-10, in matmul-equivalents, and accuracy on test."""

    recipe: str
    cost: float
    accuracy: float


def _ladder() -> tuple[Rung, ...]:
    measured = read_measured()
    found = ((name, measured.first(name)) for name in measured.recipes if name.startswith("fast-"))
    rungs = (
        Rung(name, one.matmul_equivalents, one.accuracy.center)
        for name, one in found
        if one and one.matmul_equivalents
    )
    return tuple(sorted(rungs, key=lambda rung: rung.cost))


LADDER = _ladder()
"""The fast recipes as they were measured, from cheap to dear."""

REFERENCE_PIXELS = 50_000 * 32 * 32
"""Of the images that the costs of the ladder are about."""

PROBE_SECONDS = 0.3
MARGIN = 0.05
"""Share of the time that is kept for what nobody can foresee."""

CLOSING_SECONDS = 4.0
"""For writing the result and the page; on a machine of the reference's speed."""

REFERENCE_RATE = 80e9
"""Matrix products of one core of the reference machine, in FLOP/s."""

VIEWS_SHARE = 0.05
"""Of the time that test-time views may take, as far as that is known before."""

SHORTEST_SECONDS, FEWEST_STEPS = 1.0, 4
"""Of training, below which a plan makes no sense."""

ENOUGH_EPOCHS = 0.6
"""Share of a rung's epochs that must fit; with fewer, the rung below makes more of the time."""

HOPEFUL = 2.0
"""Times what a machine's matrix products suggest may it be able to pay for: one that is good at the
fast recipes' precision does better, and what really fits is measured."""

ONE_IS_BETTER = 0.9
"""Of the time with all threads that one thread must not exceed to be preferred."""

HEAD_STEP_SECONDS = 0.001
"""Of a step of the head on features that are there."""

TRAINING_SHARE = 4
"""Forward passes that a step takes at least; where even so many don't fit, it is not measured."""

SMALLER = 96
"""Side in pixels of a pretrained network's images where there is no time for its usual ones."""

TOO_MANY_EPOCHS = 10
"""Epochs planned over those expected to fit, so that the clock ends the run and not the plan, even
where the machine was busy when it was measured."""


class Planned(NamedTuple):
    """recipe: what to train, on `dataset`. expected: accuracy on test, where the data set is a
    known one. closing_seconds: for evaluation and page, which the recipe's time limit leaves.
    """

    recipe: Recipe
    dataset: Dataset
    expected: float | None
    closing_seconds: float


def plan_run(
    recipe: Recipe | None,
    dataset: Dataset,
    *,
    seconds: float,
    spent: float = 0.0,
    overrides: Sequence[str] = (),
    device: torch.device,
    evaluates_test: bool = True,
    writes_page: bool = True,
    may_set_threads: bool = True,
    load: Callable[[Recipe], Dataset] | None = None,
) -> Planned:
    """The best recipe for `dataset` whose run ends within `seconds`, evaluation included.

    recipe: what to train; None picks a pretrained network, all of it or its head, where `load` is
    given and the images are photographs or few, and otherwise one of the fast recipes. overrides:
    what the user asks for. spent: seconds that are over already. load: gives the data set as
    another recipe wants it.

    Measures this machine for a second or two, and leaves torch with as many threads as are best
    now, if it `may_set_threads`. Raises TenfoldError where the time is too short.
    """
    started = time.monotonic() - spent
    if device.type == "cpu" and may_set_threads:
        is_own = recipe is not None and recipe.model.name != "pretrained"
        use_best_threads(recipe if recipe and is_own else load_recipe(LADDER[0].recipe))
    rate = product_rate(device, seconds=PROBE_SECONDS)
    page_seconds = _page_seconds(device) if writes_page else 0.0
    fit = _Clock(seconds, started, page_seconds, device, evaluates_test).fit
    if recipe is not None:
        return fit(recipe, dataset).planned(expected=None)
    if load is not None and not is_best_from_scratch(dataset.train):
        for candidate, images in _transfers(dataset, load, overrides):
            fitted = fit(candidate, images)
            if fitted.epochs >= 1 and fitted.limit >= fitted.shortest:
                return fitted.planned(expected=None)
        dataset = load(load_recipe(LADDER[0].recipe, ["data.image_size=0", *overrides]))
    size = len(dataset.train) * math.prod(dataset.train.size) / REFERENCE_PIXELS
    for rung in affordable_rungs(HOPEFUL * seconds * rate, size):
        # The images are those of `dataset`, whatever size the rung was measured at.
        chosen = load_recipe(rung.recipe, ["data.image_size=0", *overrides])
        chosen = with_sizes_for(chosen, min(dataset.train.size))
        fitted = fit(chosen, dataset, may_drop_views=True)
        # More epochs than the rung's give less than the next one, so that none is promised.
        share = min(fitted.epochs / chosen.training.epochs, 1.0)
        if share >= ENOUGH_EPOCHS or rung == LADDER[0]:
            break
    known = dataset.name == "cifar10"
    return fitted.planned(expected=expected_accuracy(rung.cost * share) if known else None)


def _transfers(
    dataset: Dataset, load: Callable[[Recipe], Dataset], overrides: Sequence[str]
) -> Iterator[tuple[Recipe, Dataset]]:
    """All of the pretrained network, or its head on ever fewer and smaller images."""
    recipe = load_recipe(TRANSFER, overrides)
    head = recipe.stages[0]
    yield in_parts(recipe, len(dataset.train), overrides), dataset
    for views in (2, 1):
        yield recipe.but(stages=(head.but(views=views),)), dataset
    if min(dataset.train.size) > SMALLER:
        smaller = recipe.but(model=recipe.model.but(input_size=SMALLER), stages=(head,))
        yield smaller, load(smaller)


class _Fitted(NamedTuple):
    """What a recipe makes of `seconds`; those of training, `limit`, may be too few, or below 0.

    fixed: of these, what comes before the clock decides, such as features. epochs: those that fit
    into the rest, or of a head alone 1 where all is done. step_seconds: of one step of training.
    """

    recipe: Recipe
    dataset: Dataset
    seconds: float
    limit: float
    closing_seconds: float
    epochs: float
    step_seconds: float
    fixed: float = 0.0

    @property
    def shortest(self) -> float:
        """Seconds of training below which a plan makes no sense."""
        return self.fixed + max(SHORTEST_SECONDS, FEWEST_STEPS * self.step_seconds)

    def planned(self, expected: float | None) -> Planned:
        """The plan. Raises TenfoldError where too little of the time is left for training."""
        if self.limit < self.shortest:
            missing = (self.shortest - self.limit) / (1 - MARGIN)
            least = math.ceil(self.seconds + missing)
            raise TenfoldError(
                f"--time is too short by {math.ceil(missing)} s for starting, training for some "
                f"steps and evaluating {self.recipe.name} here; the least run takes about {least} "
                f"s, so give --time {least}s or more."
            )
        recipe = _timed(self.recipe, math.ceil(TOO_MANY_EPOCHS * self.epochs), self.limit)
        return Planned(recipe, self.dataset, expected, self.closing_seconds)


@dataclass(frozen=True)
class _Clock:
    """The `seconds` that began at `started`, a monotonic time, and what else takes some of them.

    page_seconds: for the result and the page. evaluates_test: whether the test split is seen.
    """

    seconds: float
    started: float
    page_seconds: float
    device: torch.device
    evaluates_test: bool

    def fit(self, recipe: Recipe, dataset: Dataset, *, may_drop_views: bool = False) -> _Fitted:
        """Measure what `recipe` makes of the time."""
        data, test = training_data(dataset, **splitting(recipe.data)), None
        if self.evaluates_test:
            with contextlib.suppress(TenfoldError):  # There may be no test split.
                test = split_of(dataset, "test", recipe.data)
        parts = (data.train, data.validation, test)
        number, num_validation, num_test = (0 if part is None else len(part) for part in parts)
        work = {
            # As many pixels in a square; sizes shrink its side alike.
            "image_size": round(math.prod(data.train.size) ** 0.5),
            "num_classes": data.train.num_classes,
            "device": self.device,
        }
        if recipe.stages:
            return self._fit_stages(recipe, dataset, number, num_validation, num_test, work)
        speed = speed_of_run(recipe, **work)
        # Validation images are seen when the clock has stopped training, and for the result.
        predicting = (2 * num_validation + num_test) * speed.evaluation_seconds
        if may_drop_views and predicting > VIEWS_SHARE * self.seconds:
            # How many images are seen again is only estimated, and training longer is worth more.
            predicting /= num_views(recipe.evaluation)
            recipe = recipe.but(evaluation=recipe.evaluation.but(views="one"))
        closing = predicting + self.page_seconds
        limit = self._left(closing)
        return _Fitted(
            recipe,
            dataset,
            self.seconds,
            limit,
            closing,
            epochs=max(limit, 0.0) / (number * speed.training_seconds),
            step_seconds=speed.training_seconds * min(recipe.training.batch_size, number),
        )

    def _fit_stages(
        self,
        recipe: Recipe,
        dataset: Dataset,
        number: int,
        num_validation: int,
        num_test: int,
        work: dict[str, Any],
    ) -> _Fitted:
        """The same of a recipe whose last stage the clock ends, unless that is a head's."""
        *before, last = recipe.stages
        heads = [stage for stage in recipe.stages if stage.trains == "head"]
        seeing = speed_of_transfer(recipe, **work, trains=False).evaluation_seconds
        features = (number * max((s.views for s in heads), default=0) + num_validation) * seeing
        rest = num_test if last.trains == "head" else 2 * num_validation + num_test
        closing = rest * seeing + self.page_seconds
        steps = math.ceil(number / recipe.training.batch_size)
        steps *= sum(stage.epochs or recipe.training.epochs for stage in heads)
        fixed = (features if heads else 0.0) + HEAD_STEP_SECONDS * steps
        limit = self._left(closing)
        if last.trains == "head" and not before:
            epochs, step_seconds = limit / fixed, HEAD_STEP_SECONDS
        else:
            learning = TRAINING_SHARE * seeing
            if limit > fixed + number * learning:
                learning = speed_of_transfer(recipe, **work).training_seconds
                limit = self._left(closing)
            for stage in before:
                if stage.trains != "head":
                    fixed += (stage.epochs or recipe.training.epochs) * number * learning
            epochs = max(limit - fixed, 0.0) / (number * learning + num_validation * seeing)
            step_seconds = learning * min(recipe.training.batch_size, number)
        return _Fitted(
            recipe, dataset, self.seconds, limit, closing, epochs, step_seconds, fixed=fixed
        )

    def _left(self, closing: float) -> float:
        """For training, now."""
        left = self.seconds - (time.monotonic() - self.started)
        return left - closing - MARGIN * self.seconds


def _page_seconds(device: torch.device) -> float:
    """For the result and the page, which are written by one thread."""
    if device.type != "cpu":
        return CLOSING_SECONDS
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rate = product_rate(device, seconds=PROBE_SECONDS / 3)
    torch.set_num_threads(threads)
    return CLOSING_SECONDS * max(REFERENCE_RATE / rate, 0.5)


def use_best_threads(recipe: Recipe) -> int:
    """Let torch use one thread instead of all where that trains faster; return how many it uses.

    Threads wait for each other after each operation: where another program keeps a core busy, the
    one that must share it holds up all the others.
    """
    everything = torch.get_num_threads()
    seconds = {}
    for threads in {everything, 1}:
        torch.set_num_threads(threads)
        seconds[threads] = step_seconds(recipe)
    best = 1 if seconds[1] < ONE_IS_BETTER * seconds[everything] else everything
    torch.set_num_threads(best)
    return best


def _timed(recipe: Recipe, epochs: int, limit: float) -> Recipe:
    """`recipe` with the clock as its only end, or that of its last stage; a head that trains alone
    keeps its epochs. Raises TenfoldError where its rules forbid that."""
    training = recipe.training.but(
        min_steps=0, milestones=(), early_stopping=0, time_limit_seconds=limit
    )
    if recipe.stages:
        *before, last = recipe.stages
        last = last if last.trains == "head" else last.but(epochs=epochs)
        return _checked(recipe.but(training=training, stages=(*before, last)))
    # In a plan of too many epochs, what is given in epochs must be as many times longer.
    stretched: dict[str, Any] = {
        name: TOO_MANY_EPOCHS * value
        for name, value in recipe.schedule
        if name in ("warmup_epochs", "every_epochs")
    }
    if cuts := getattr(recipe.schedule, "cuts", ()):
        stretched["cuts"] = tuple(TOO_MANY_EPOCHS * cut for cut in cuts)
    schedule = recipe.schedule.but(**stretched)
    return _checked(recipe.but(training=training.but(epochs=epochs), schedule=schedule))


def _checked(recipe: Recipe) -> Recipe:
    # Parts as they are, for their files are named as seen from the recipe's.
    parts = {name: value for name, value in recipe if name in (*KINDS, "augmentation")}
    return recipe_from_dict(recipe.to_dict() | parts, source=recipe.name)


def affordable_rungs(cost: float, size: float) -> list[Rung]:
    """The rungs that `cost` pays for, the dearest first, and the cheapest in any case.

    cost: in matmul-equivalents. size: of the data set, in pixels of its training images over those
    of CIFAR-10.
    """
    rungs = [rung for rung in LADDER if rung.cost * size <= cost]
    return rungs[::-1] or [LADDER[0]]


def expected_accuracy(cost: float) -> float:
    """On CIFAR-10, for a run of `cost` matmul-equivalents.

    The logarithm of the error falls in straight lines over that of the cost, from rung to rung, and
    goes on below the first as between the first two. Nothing is known beyond the last.
    """
    errors = [(math.log(rung.cost), math.log(1 - rung.accuracy)) for rung in LADDER]
    x = min(math.log(max(cost, 1.0)), errors[-1][0])
    (x0, y0), (x1, y1) = next(pair for pair in pairwise(errors) if x <= pair[1][0])
    return 1 - min(math.exp(y0 + (y1 - y0) * (x - x0) / (x1 - x0)), 0.9)


def unfinished_plan(
    earlier: Sequence[RunFolder], wanted: Recipe, changes: Sequence[str], *, own_network: bool
) -> Recipe | None:
    """The recipe of the first unfinished run of `earlier` that was planned for `wanted`.

    changes: what the command overrides. own_network: whether the plan chose the network too, so
    that all that must agree is what `changes` say. None where there is none, or another process
    trains it.
    """
    for run in earlier:
        if run.is_finished() or run.is_held() or not run.recipe.exists():
            continue
        with contextlib.suppress(TenfoldError):  # Some recipe there may be damaged.
            found = load_recipe(run.recipe)
            if not found.training.time_limit_seconds:
                continue
            if own_network:
                same = load_recipe(run.recipe, changes) == found and found.seed == wanted.seed
                same = same and found.data.name == wanted.data.name
            else:
                epochs = found.stages[-1].epochs if found.stages else found.training.epochs
                planned = _timed(wanted, epochs, found.training.time_limit_seconds)
                same = planned.but(name=found.name) == found
            if same:
                return found
    return None
