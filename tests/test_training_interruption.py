"""Signals during training are noted, twice Ctrl-C ends at once, and old handlers come back."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from tenfold.errors import InterruptedRunError
from tenfold.interruption import WATCHED, Interruption, leaving_at_once


@pytest.fixture(autouse=True)
def own_handlers():
    """Handlers that the test can tell apart, and the old ones afterwards."""
    numbers = [getattr(signal, name) for name in WATCHED]
    before = {number: signal.signal(number, ignore) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ignore(number, frame):
    pass


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_is_noted(name):
    number = getattr(signal, name)
    with Interruption() as interruption:
        assert interruption.signal is None
        os.kill(os.getpid(), number)
        assert interruption.signal is signal.Signals(number)
    assert signal.getsignal(number) is ignore


def test_the_first_handlers_come_back_after_an_error():
    with pytest.raises(ZeroDivisionError), Interruption():
        raise ZeroDivisionError
    assert {signal.getsignal(getattr(signal, name)) for name in WATCHED} == {ignore}


def test_ctrl_c_after_another_signal_does_not_end_the_process():
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.signal is signal.SIGINT
        os.kill(os.getpid(), signal.SIGUSR1)
        assert interruption.signal is signal.SIGUSR1


PATIENT = """
import time
from tenfold.interruption import Interruption

with Interruption() as interruption:
    print("ready", flush=True)
    try:
        while True:
            time.sleep(0.01)
            if interruption.signal is not None:
                print(interruption.signal.name, flush=True)
                time.sleep(30)
    finally:
        print("tidied up", flush=True)
"""


def test_row_04_ctrl_c_twice_ends_the_process_at_once():
    with subprocess.Popen(
        [sys.executable, "-c", PATIENT], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "SIGINT\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "tidied up\n"
        assert process.wait(timeout=5) in (-signal.SIGINT, 128 + signal.SIGINT)


def test_in_another_thread_nothing_is_noted_and_nothing_fails():
    seen = []

    def work():
        with Interruption() as interruption:
            seen.append(interruption.signal)
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, ignore]


# -- around training -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_row_05_around_training_a_signal_ends_the_work_at_once(name):
    def work():
        with contextlib.suppress(Exception):  # as code does that goes on without what failed
            os.kill(os.getpid(), getattr(signal, name))
            return "not heard"
        return "taken for a failure"

    with pytest.raises(InterruptedRunError, match=f"Interrupted by {name}"), leaving_at_once():
        work()
    assert signal.getsignal(getattr(signal, name)) is ignore


def test_ctrl_c_and_errors_pass_through():
    with leaving_at_once():
        assert signal.getsignal(signal.SIGINT) is ignore
    with pytest.raises(ZeroDivisionError), leaving_at_once():
        raise ZeroDivisionError
    assert {signal.getsignal(getattr(signal, name)) for name in WATCHED} == {ignore}


def test_training_within_notes_and_afterwards_leaving_goes_on():
    noted = []

    def work():
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGTERM)
            noted.append(interruption.signal)
        os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(InterruptedRunError, match="SIGUSR1"), leaving_at_once():
        work()
    assert noted == [signal.SIGTERM]


FORKED = """
import os, signal, time
from tenfold.interruption import leaving_at_once

with leaving_at_once():
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(tell, b"!")  # Python forgets signals that come before a fork is complete
        for _ in range(3_000):
            time.sleep(0.01)
        os._exit(0)
    os.read(ready, 1)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_worker_ends_by_the_signal_itself(run_python):
    done = run_python(FORKED)
    assert done.stdout == f"{-signal.SIGTERM}\n", done.stderr
