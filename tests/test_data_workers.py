"""Sharing work among threads and processes: order, errors, and no trouble for the caller."""

import os
import signal
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tenfold.data import workers
from tenfold.data.workers import map_chunks, map_on_cores
from tenfold.errors import TenfoldError

MODES = {"threads": 1, "processes": workers.MIN_ITEMS_FOR_PROCESSES}


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(workers, "num_cores", lambda: 2)


def double(number):
    time.sleep(0.002 * (number % 3))
    return 2 * number


def process_id(_):
    return os.getpid()


def fail(number):
    if number == 5:
        raise ValueError("five is too much")
    return number


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def speak(number):
    sys.stdout.write("a library that prints")
    os.write(1, b"even past Python")
    return number


@pytest.mark.parametrize("num_items", MODES.values(), ids=MODES.keys())
def test_results_come_in_order(num_items):
    assert list(map_on_cores(double, range(50), num_items=num_items)) == list(range(0, 100, 2))


def test_many_images_go_to_two_other_processes_and_few_to_none():
    many = set(map_on_cores(process_id, range(200), num_items=MODES["processes"]))
    assert os.getpid() not in many
    assert 1 <= len(many) <= 2
    assert set(map_on_cores(process_id, range(20), num_items=20)) == {os.getpid()}
    for process in many:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.parametrize("num_items", MODES.values(), ids=MODES.keys())
def test_errors_reach_the_caller(num_items):
    with pytest.raises(ValueError, match="five is too much"):
        list(map_on_cores(fail, range(9), num_items=num_items))


def test_a_process_that_dies_is_told():
    with pytest.raises(TenfoldError, match="A process that works on images died"):
        list(map_on_cores(die, range(9), num_items=MODES["processes"]))


def test_what_a_library_prints_does_not_get_among_the_answers():
    assert list(map_on_cores(speak, range(9), num_items=MODES["processes"])) == list(range(9))


def test_breaking_off_ends_the_processes():
    results = map_on_cores(process_id, range(1000), num_items=MODES["processes"])
    process = next(results)
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.parametrize("number", [0, 1, 63, 64, 65, 1000, 3000])
def test_chunks_cover_everything_once_and_in_order(number):
    told = []
    chunks = map_chunks(list, range(number), "Listing", lambda *call: told.append(call))
    found = list(chunks)
    assert [start for start, some in found if some[0] != start] == []
    assert [each for _, some in found for each in some] == list(range(number))
    assert told[-1:] == ([("Listing", number, number)] if number else [])


SCRIPT = """
import sys, threading
from tenfold.data import workers; from tenfold.data.formats import read
workers.num_cores = lambda: 2
workers.MIN_ITEMS_FOR_PROCESSES = 10
threading.Thread(target=threading.Event().wait, daemon=True).start()
print("main module runs")
dataset = read(sys.argv[1])
print(len(dataset.train), int(dataset.train.pixels.sum()))
"""


def test_row_31_a_script_without_a_main_guard_works(tmp_path, monkeypatch, run_python):
    """multiprocessing would import such a script again, in every process, and fail."""
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    total = 0
    for index in range(40):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        total += int(pixels.sum())
        folder = tmp_path / "data" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    code = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    result = run_python(code, script, tmp_path / "data")
    assert result.stdout.splitlines() == ["main module runs", f"40 {total}"], result.stderr
