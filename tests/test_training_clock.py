"""The clock of timed training, against cases by hand."""

import os
import signal

import pytest
import torch
from torch import nn

from tenfold.errors import InterruptedRunError
from tenfold.training import train as training
from tenfold.training.clock import Clock, Closing, forward_seconds, step_share
from tiny_training import tiny


def test_without_a_closing_time_is_a_straight_line():
    clock = Clock(100.0)
    assert [clock.share(elapsed) for elapsed in (0, 25, 100, 130)] == [0, 0.25, 1.0, 1.0]
    assert clock.left(30) == 70
    assert not clock.wants_look(99)


@pytest.mark.parametrize(
    ("measured", "limit"), [(0.001, 100), (0.0005, 110), (0.002, 80), (0.1, 80), (0.00001, 113)]
)
def test_what_evaluation_does_not_need_is_trained(measured, limit):
    clock = Clock(100.0, Closing(20.0, 4.0, picture_seconds=0.001))
    assert not clock.wants_look(74)
    assert clock.wants_look(80)
    clock.correct(80.0, measured)
    assert not clock.wants_look(90)
    # A third of 20 s less at the most; and what is over is over.
    assert clock.left(80.0) == pytest.approx(limit - 80, abs=0.4)
    assert clock.share(80.0) == pytest.approx(0.8)
    shares = [clock.share(80.0 + part * (limit - 80)) for part in (0.0, 0.5, 1.0)]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0, abs=0.01) or limit == 80


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


def test_a_forward_pass_is_measured_and_the_network_left_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = network[1].running_mean.clone()
    found = forward_seconds(network, torch.rand(10, 3, 8, 8), seconds=0.01)
    assert 0 < found < 0.1
    assert network.training
    assert torch.equal(network[1].running_mean, before)


class Stopping:
    """Ends the run by a signal in its first step."""

    def stepped(self, **others):
        os.kill(os.getpid(), signal.SIGTERM)

    def started(self, plan):
        pass

    def epoch_ended(self, metrics, timings):
        pass

    def ended(self, reason):
        pass


def test_a_resumed_run_knows_what_was_left_for_evaluation_and_page(tmp_path, monkeypatch):
    seen, fit = [], training.fit

    def watched(*arguments, closing, **options):
        seen.append(closing)
        return fit(*arguments, closing=closing, **options)

    monkeypatch.setattr(training, "fit", watched)
    recipe = tiny("data.name=digits", "training.time_limit_seconds=300", "training.epochs=1")
    options = {"folder": tmp_path, "threads": 1, "cpu": True}
    closing = Closing(20.0, 4.0, picture_seconds=0.001)
    for left in (closing, None):  # A session that is stopped at once hands it on, too.
        with pytest.raises(InterruptedRunError):
            training.train(
                recipe,
                options=training.TrainOptions(**options, closing=left),
                reporter=Stopping(),
            )
    training.train(recipe, options=training.TrainOptions(**options))
    assert seen == [closing] * 3
