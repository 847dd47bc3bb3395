"""How compute threads wait for each other, and what others on the cores change about it."""

import logging
import os
import subprocess
import sys
import threading
import time

import pytest
import torch

import tiny_training
from tenfold.training.schedules import StepTimes
from tenfold.training.trainer import fit
from tenfold.waiting import Balance, sharing_cores, waiting_asleep

on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="libgomp is PyTorch's on Linux alone"
)

SLEEPS = """
import sys, time
import torch
from pathlib import Path
from tenfold.waiting import waiting_asleep

torch.set_num_threads(2)
numbers = torch.ones(1 << 17)


def sleeps():
    def count():
        lines = [p.read_text() for p in Path("/proc/self/task").glob("*/status")]
        return sum(int(text.split("voluntary_ctxt_switches:")[1].split()[0]) for text in lines)

    numbers.add_(1)
    before = count()
    for _ in range(40):
        numbers.add_(1)  # By two threads.
        end = time.perf_counter() + 2e-4
        while time.perf_counter() < end:  # The second has nothing to do.
            pass
    return count() - before


def in_patience():
    with waiting_asleep():
        return sleeps()


for _ in range(3):
    print(sleeps(), in_patience(), sleeps())
"""


@on_linux
def test_threads_sleep_while_told_to_and_spin_again_afterwards(run_python):
    if any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")):
        pytest.skip("the environment has decided how threads wait")
    done = run_python(SLEEPS)
    assert done.returncode == 0, done.stderr
    rows = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
    before, during, after = (min(column) for column in zip(*rows, strict=True))
    assert during > 20
    assert max(before, after) < during / 2


@pytest.mark.parametrize(
    ("computed", "waited", "sleepy"),
    [
        (1.0, 0.0, False),
        (0.6, 0.4, True),
        (0.5, 0.5, True),
        (0.95, 0.05, False),
        (0.0, 0.01, False),
    ],
    ids=["idle cores", "one busy program on two cores", "two", "a moment", "nothing to compute"],
)
def test_threads_wait_asleep_where_cores_are_lacking(computed, waited, sleepy):
    balance = Balance()
    for _ in range(3):
        balance.look(computed=computed, waited=waited)
    assert balance.is_sleepy is sleepy


def test_threads_spin_again_once_cores_have_been_free_for_a_while():
    balance = Balance()
    balance.look(computed=0.5, waited=0.5)
    balance.look(computed=1.0, waited=0.0)
    balance.look(computed=0.9, waited=0.1)
    assert balance.is_sleepy, "cores are neither free nor lacking"
    for _ in range(4):
        balance.look(computed=1.0, waited=0.01)
    assert not balance.is_sleepy


@on_linux
def test_busy_cores_are_noticed_and_left_again():
    torch.ones(1 << 17).add_(1)
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(4 * (os.cpu_count() or 1))
    ]
    try:
        before = threading.active_count()
        with sharing_cores():
            deadline = time.monotonic() + 60
            while threading.active_count() < before + 2:  # The watch, and who holds idle threads.
                assert time.monotonic() < deadline
                sum(range(100_000))
        assert threading.active_count() == before
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_how_threads_wait_changes_no_bit_and_no_environment():
    def environment():
        return {name: value for name, value in os.environ.items() if "OMP" in name}

    before = environment()
    recipe, data = tiny_training.tiny(), tiny_training.data()
    one = fit(recipe, data)
    with waiting_asleep():
        other = fit(recipe, data)
    assert tiny_training.same(tiny_training.weights(one), tiny_training.weights(other))
    assert environment() == before


def test_steps_that_become_far_slower_are_said_once(caplog):
    times = StepTimes()
    with caplog.at_level(logging.WARNING, logger="tenfold"):
        for size, seconds in ((16, 0.1), (32, 0.5), (16, 0.2)):
            for _ in range(40):
                times.note(seconds, size=size)
        assert not caplog.records, "larger images take longer, and twice as long is no matter"
        for _ in range(100):
            times.note(0.6, size=16)
    assert [record.getMessage() for record in caplog.records] == [
        "A step takes 0.6 s now and took 0.1 s at first; other programs on these cores slow "
        "training down."
    ]


def test_fit_says_when_its_steps_have_become_far_slower(monkeypatch, caplog):
    from tenfold.training.batches import TrainingImages

    part, calls = TrainingImages.part, []

    def slower(self, *arguments, **keywords):
        calls.append(1)
        time.sleep(0.002 if len(calls) <= 30 else 0.2)
        return part(self, *arguments, **keywords)

    monkeypatch.setattr(TrainingImages, "part", slower)
    monkeypatch.setattr(StepTimes, "FEW", 3)
    with caplog.at_level(logging.WARNING, logger="tenfold"):
        fit(tiny_training.tiny("training.epochs=8"), tiny_training.data())
    assert sum("took" in record.getMessage() for record in caplog.records) == 1
