"""Signals during training are noted, twice Ctrl-C ends at once, and old handlers come back."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from tenfold.training.interruption import WATCHED, Interruption


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
from tenfold.training.interruption import Interruption

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
        assert process.wait(timeout=5) == 130
        assert process.stdout.read() == ""


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
