"""The clock of timed training, against cases by hand."""

import pytest

from tenfold.training.schedules import step_share


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
