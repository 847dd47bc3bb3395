"""How long a study has still to go, reckoned by hand."""

import pytest

from tenfold.studies.pace import Pace
from tenfold.studies.trials import Trial


class Clock:
    """A clock that stands unless it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def trials(*names: str) -> list[Trial]:
    """Trials of the variants named, `a0` being seed 0 of `a`."""
    return [Trial(name[0], "cnn", (), int(name[1])) for name in names]


def test_nothing_is_known_before_the_first_epochs() -> None:
    clock = Clock()
    [a] = trials("a0")
    pace = Pace({a: 10}, clock=clock)
    assert pace.seconds_left() is None
    pace.start(a, epochs=10)
    clock.now += 30  # The first step takes long, since so much is imported for it.
    pace.advance(a, 0.01)
    assert pace.seconds_left() is None
    clock.now += 2
    pace.advance(a, 1.01)
    assert pace.seconds_left() == pytest.approx(2 * 8.99)


def test_one_after_the_other_with_an_unknown_variant_at_the_mean() -> None:
    clock = Clock()
    a0, b0, a1, c0 = trials("a0", "b0", "a1", "c0")
    pace = Pace({a0: 10, b0: 5, a1: 10, c0: 100}, clock=clock)
    pace.skip(a0, training_seconds=20)
    assert (pace.done_epochs, pace.total_epochs) == (10, 125)
    assert pace.seconds_left() == pytest.approx(2 * (5 + 10 + 100))
    pace.start(b0, epochs=5)
    clock.now += 30
    pace.advance(b0, 5)
    pace.end(b0)
    # An epoch of b takes 6 seconds, of a 2, of c presumably 4.
    assert pace.seconds_left() == pytest.approx(2 * 10 + 4 * 100)
    assert pace.done_epochs == 15


def test_jobs_share_what_is_left() -> None:
    clock = Clock()
    a0, a1, a2, a3 = trials("a0", "a1", "a2", "a3")
    pace = Pace({a0: 10, a1: 10, a2: 10, a3: 10}, num_jobs=2, clock=clock)
    pace.skip(a0, training_seconds=10)
    # Two at once for 10 seconds, then one alone for as long.
    assert pace.seconds_left() == pytest.approx(20)
    pace.start(a1, epochs=10)
    pace.start(a2, epochs=10)
    pace.advance(a1, 8)
    pace.advance(a2, 1)
    # The first slot is free after 2 seconds and then busy for 10, the second after 9.
    assert pace.seconds_left() == pytest.approx(12)
    assert pace.done_epochs == 19


def test_a_resumed_trial_has_less_to_do_and_a_failed_one_nothing() -> None:
    clock = Clock()
    a0, a1 = trials("a0", "a1")
    pace = Pace({a0: 10, a1: 10}, clock=clock)
    pace.start(a0, epochs=12, done=6)
    clock.now += 6
    pace.advance(a0, 8)
    clock.now += 3
    pace.advance(a0, 9)
    assert pace.seconds_left() == pytest.approx(3 * 3 + 3 * 10)
    assert (pace.done_epochs, pace.total_epochs) == (9, 22)
    pace.end(a0)
    pace.end(a1)
    assert pace.seconds_left() == 0
    assert pace.done_epochs == 22
