"""What a training says while it goes on."""

import dataclasses
import time

from tenfold.console.output import Output
from tenfold.console.studies import Epochs
from test_training_reporters import EPOCHS, PLAN

METRICS = {**EPOCHS[0][0], "train_accuracy": 0.5, "validation_accuracy": None}
TIMINGS = EPOCHS[0][1]


def lines_of(capsys, plan) -> list[str]:
    with Output().training() as reporter:
        reporter.started(plan)
        time.sleep(0.02)
        reporter.epoch_ended(METRICS, TIMINGS)
        reporter.ended("time limit" if plan.seconds_left else "finished")
    return capsys.readouterr().out.splitlines()


def test_a_run_of_so_many_epochs_counts_them(capsys):
    started, epoch, *rest = lines_of(capsys, PLAN)
    assert "2 epochs of 10 steps on cpu" in started
    assert epoch.startswith("epoch 1/2  train loss 1.500")
    assert not rest


def test_a_run_within_a_time_promises_no_number_of_epochs(capsys):
    # So many are planned that the clock ends the run and not the plan.
    plan = dataclasses.replace(PLAN, epochs=2000, seconds_left=12.0)
    started, epoch, ended = lines_of(capsys, plan)
    assert "12 s, but at most 2,000 epochs of 10 steps, on cpu" in started
    assert epoch.startswith("epoch 1  train loss 1.500")
    assert epoch.endswith("12 s left")
    assert ended == "Training ended by time limit."


def test_the_end_of_a_stage_is_not_told_as_that_of_the_run(capsys):
    # Two epochs of ten steps, and the first of them is the stage's only one.
    stage = dataclasses.replace(PLAN, epochs=1, is_last=False)
    assert lines_of(capsys, stage)[1].endswith("0.0 s left of this stage")
    assert lines_of(capsys, dataclasses.replace(PLAN, epochs=1))[1].endswith("0.0 s left")


def test_more_epochs_than_the_recipe_has_are_counted_in_what_is_left():
    epochs = Epochs({"a": 2, "b": 2}, before=2)
    assert (epochs.done, epochs.total) == (2, 6)
    # So few images that a run has to see them 25 times as often.
    epochs.take("a", {"event": "started", "steps_per_epoch": 4, "epochs": 50, "resumed_step": 0})
    assert epochs.total == 150
    assert epochs.of("b") == 50
    epochs.take("a", {"event": "epoch", "epoch": 10})
    assert epochs.done == 60
    epochs.end("a")
    assert epochs.done == 100
    assert epochs.seconds_left() > 0
    epochs.end("b")
    assert epochs.seconds_left() == 0
