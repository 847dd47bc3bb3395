"""Schedules against those of PyTorch, where both mean the same, and against hand calculation."""

import itertools
import math

import pytest
import torch
from torch.optim import lr_scheduler

from parts import constant, cosine, linear, one_cycle, plateau, step_schedule
from tenfold.recipe import load_recipe
from tenfold.training.schedules import Plateau, step_share

TOTAL, PER_EPOCH = 60, 12


def ours(schedule, *, total=TOTAL, per_epoch=PER_EPOCH):
    return [schedule(step, total_steps=total, steps_per_epoch=per_epoch) for step in range(total)]


def theirs(make, *, total=TOTAL):
    """The rates that a scheduler of PyTorch gives an optimiser whose rate is 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("final", [0.0, 0.05, 1.0])
def test_cosine_and_linear_are_those_of_pytorch(final):
    assert ours(cosine(final=final)) == pytest.approx(
        theirs(lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=final)), abs=1e-9
    )
    assert ours(linear(final=final)) == pytest.approx(
        theirs(lambda o: lr_scheduler.LinearLR(o, 1.0, final, TOTAL)), abs=1e-9
    )


@pytest.mark.parametrize(("every", "factor"), [(1, 0.5), (2, 0.1), (10, 0.1), (0.25, 0.9)])
def test_steps_are_those_of_pytorch(every, factor):
    assert ours(step_schedule(every_epochs=every, factor=factor)) == pytest.approx(
        theirs(lambda o: lr_scheduler.StepLR(o, int(every * PER_EPOCH), gamma=factor))
    )


@pytest.mark.parametrize(("every", "per_epoch"), [(0.1, 30), (1.1, 10), (0.55, 20), (2.3, 100)])
def test_steps_fall_where_they_should_whatever_the_rounding(every, per_epoch):
    found = ours(step_schedule(every_epochs=every, factor=0.5), total=300, per_epoch=per_epoch)
    assert found == [0.5 ** (step // round(every * per_epoch)) for step in range(300)]


def test_cuts_are_the_milestones_of_pytorch():
    cuts = step_schedule(cuts=(1.5, 4), factor=0.1)
    assert ours(cuts) == pytest.approx(
        theirs(
            lambda o: lr_scheduler.MultiStepLR(o, [int(1.5 * PER_EPOCH), 4 * PER_EPOCH], gamma=0.1)
        )
    )


def test_a_paper_s_network_is_trained_with_both_cuts_of_its_rate():
    schedule = load_recipe("resnet20").schedule
    rates = [
        schedule(step, total_steps=64_064, steps_per_epoch=352)
        for step in (31_990, 32_010, 47_990, 48_020, 64_063)
    ]
    assert rates == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("final", [0.0, 0.2])
def test_warm_up_then_cosine_is_that_of_pytorch(final):
    steps = 2 * PER_EPOCH

    def make(optimizer):
        parts = [
            lr_scheduler.LinearLR(optimizer, 1 / (steps + 1), 1.0, steps),
            lr_scheduler.CosineAnnealingLR(optimizer, TOTAL - steps, eta_min=final),
        ]
        return lr_scheduler.SequentialLR(optimizer, parts, [steps])

    found = ours(cosine(warmup_epochs=2, final=final))
    assert found == pytest.approx(theirs(make), abs=1e-6)


@pytest.mark.parametrize("peak", [0.1, 0.25, 0.5])
@pytest.mark.parametrize(("initial", "final"), [(0.1, 0.01), (0.5, 0.5), (0.04, 0.001)])
def test_one_cycle_is_that_of_pytorch(peak, initial, final):
    # PyTorch's cycle ends on its last step; ours would end one step after it.
    expected = theirs(
        lambda o: lr_scheduler.OneCycleLR(
            o,
            max_lr=1.0,
            total_steps=TOTAL + 1,
            pct_start=(peak * TOTAL + 1) / (TOTAL + 1),
            anneal_strategy="linear",
            div_factor=1 / initial,
            final_div_factor=initial / final,
            cycle_momentum=False,
        )
    )
    found = ours(one_cycle(peak=peak, initial=initial, final=final))
    assert found == pytest.approx(expected, abs=1e-9)


def test_one_cycle_by_hand():
    found = ours(one_cycle(peak=0.5, initial=0.2, final=0.0), total=4, per_epoch=2)
    assert found == pytest.approx([0.2, 0.6, 1.0, 0.5])
    assert ours(one_cycle(peak=0, final=0.5), total=4) == pytest.approx([1, 0.875, 0.75, 0.625])
    assert ours(one_cycle(peak=1, initial=0), total=4) == pytest.approx([0, 0.25, 0.5, 0.75])


SCHEDULES = {
    "constant": constant,
    "step": step_schedule,
    "cosine": cosine,
    "linear": linear,
    "plateau": plateau,
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("epochs", [0.5, 1, 2.5])
def test_warm_up_rises_in_a_straight_line_to_the_full_rate(name, epochs):
    schedule = SCHEDULES[name](warmup_epochs=epochs)
    steps = int(epochs * PER_EPOCH)
    rates = ours(schedule)
    assert rates[0] > 0
    rises = [b - a for a, b in itertools.pairwise(rates[: steps + 1])]
    assert rises == pytest.approx([1 / (steps + 1)] * steps)
    assert rates[steps] == pytest.approx(1.0)
    assert max(rates) == pytest.approx(1.0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("epochs", [5, 50])
def test_a_warm_up_as_long_as_the_run_never_reaches_the_full_rate(name, epochs):
    rates = ours(SCHEDULES[name](warmup_epochs=epochs))
    assert rates == sorted(rates)
    assert rates == pytest.approx([(step + 1) / (TOTAL + 1) for step in range(TOTAL)])


def test_a_constant_rate_is_constant():
    assert ours(constant()) == [1.0] * TOTAL
    assert ours(plateau()) == [1.0] * TOTAL


@pytest.mark.parametrize("schedule", [c() for c in SCHEDULES.values()] + [one_cycle()])
def test_a_run_of_one_step_has_a_rate(schedule):
    (rate,) = ours(schedule, total=1, per_epoch=1)
    assert 0 < rate <= 1


# -- the plateau ---------------------------------------------------------------------------------

LOSSES = [2.0, 1.5, 1.5, 1.6, 1.4, 1.41, 1.42, 1.43, 1.44, 1.45, 1.3, 1.3, 1.3, 1.3, 1.3, 1.3, 1.2]


@pytest.mark.parametrize("patience", [0, 1, 2, 5])
@pytest.mark.parametrize("losses", [LOSSES, LOSSES[::-1], [1.0, math.nan, math.nan, 0.9, math.inf]])
def test_the_plateau_is_that_of_pytorch(patience, losses):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience, threshold=0.0, eps=0.0
    )
    state = Plateau()
    for loss in losses:
        state.update(plateau(factor=0.5, patience=patience), loss)
        reference.step(loss)
        assert state.factor == optimizer.param_groups[0]["lr"]


def test_the_plateau_by_hand():
    state, schedule = Plateau(), plateau(factor=0.1, patience=2)
    factors = []
    for loss in (1.0, 0.9, 0.9, 0.91, 0.95, 0.9, 0.9, 0.9, 0.8):
        state.update(schedule, loss)
        factors.append(state.factor)
    assert factors == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])
    assert state.best_loss == 0.8


def test_steps_with_small_pictures_take_less_of_the_time():
    # Half of the steps at half the side cost a quarter each: a fifth of the time.
    options = {"sizes": (16,), "until": (0.5,), "side": 32}
    assert step_share(0.0, **options) == 0
    assert step_share(0.1, **options) == pytest.approx(0.25)
    assert step_share(0.2, **options) == pytest.approx(0.5)
    assert step_share(0.6, **options) == pytest.approx(0.75)
    assert step_share(1.0, **options) == 1.0
    for share in (0.0, 0.3, 1.0):
        assert step_share(share, sizes=(), until=(), side=32) == pytest.approx(share)


def test_sizes_of_no_steps_take_no_time():
    assert step_share(0.5, sizes=(8, 16), until=(0.0, 0.0), side=32) == pytest.approx(0.5)
    assert step_share(0.5, sizes=(40,), until=(0.5,), side=32) == pytest.approx(0.5)
