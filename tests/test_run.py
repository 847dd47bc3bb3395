"""The run folder: numbers, one writer, and what is written down about the machine."""

import json
import os
import platform
import signal
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from tenfold import __version__
from tenfold.errors import TenfoldError
from tenfold.run import (
    RunFolder,
    command_line,
    create_run,
    describe_environment,
    open_run,
    peak_memory_bytes,
    runs_of,
    write_lines,
)

HOLDER = """
import sys
from pathlib import Path
from tenfold.run import RunFolder

with RunFolder(Path(sys.argv[1])).writer():
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(folder):
    """A process that holds `folder`, until its input is closed or it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def holder(tmp_path):
    """A process that holds `tmp_path / "run"`."""
    with start_holder(tmp_path / "run") as process:
        yield process
        process.kill()


def test_paths_are_those_of_the_design_and_a_result_finishes_a_run(tmp_path):
    run = RunFolder(tmp_path / "runs" / "cnn" / "3")
    names = ["recipe.json", "metrics.jsonl", "checkpoint", "predictions-test.npz", "result.json"]
    paths = [run.recipe, run.metrics, run.checkpoints, run.predictions("test"), run.result]
    assert paths == [run.path / name for name in names]
    assert not run.path.exists()
    assert not run.is_finished()
    run.path.mkdir(parents=True)
    run.result.write_text("{}")
    assert run.is_finished()


def test_numbers_go_on_from_the_highest(tmp_path):
    assert runs_of(tmp_path, "cnn") == []
    assert create_run(tmp_path, "cnn").path == tmp_path / "cnn" / "1"
    assert create_run(tmp_path, "cnn").path == tmp_path / "cnn" / "2"
    assert create_run(tmp_path, "ann").path == tmp_path / "ann" / "1"
    for name in ("10", "notes", "3 (copy)", "-4"):
        (tmp_path / "cnn" / name).mkdir()
    (tmp_path / "cnn" / "7").touch()
    runs = [tmp_path / "cnn" / number for number in ("10", "2", "1")]
    assert runs_of(tmp_path, "cnn") == [RunFolder(path) for path in runs]
    assert create_run(tmp_path, "cnn").path == tmp_path / "cnn" / "11"
    (tmp_path / "cnn" / "5").mkdir()  # a gap that is filled later changes nothing
    assert create_run(tmp_path, "cnn").path.name == "12"


CREATOR = """
import sys
from pathlib import Path
from tenfold.run import create_run

sys.stdin.readline()
for _ in range(25):
    print(create_run(Path(sys.argv[1]), "cnn").path.name)
"""


def test_processes_that_create_runs_at_once_get_different_ones(tmp_path):
    creators = [
        subprocess.Popen(
            [sys.executable, "-c", CREATOR, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for creator in creators:
        creator.stdin.write("go\n")
        creator.stdin.flush()
    numbers = [int(line) for creator in creators for line in creator.communicate()[0].split()]
    assert all(creator.returncode == 0 for creator in creators)
    assert sorted(numbers) == list(range(1, 76))


def test_opening_what_is_no_run_folder_says_what_to_give(tmp_path):
    with pytest.raises(TenfoldError, match=r"no run folder .*absent"):
        open_run(tmp_path / "absent")
    with pytest.raises(TenfoldError, match=r"no recipe\.json"):
        open_run(tmp_path)
    (tmp_path / "recipe.json").write_text("{}")
    assert open_run(tmp_path) == RunFolder(tmp_path)
    with pytest.raises(TenfoldError, match="is a file; name the run folder"):
        open_run(tmp_path / "recipe.json")


def test_row_15_the_second_writer_is_refused_and_told_who_writes(tmp_path, holder):
    run = RunFolder(tmp_path / "run")
    assert run.is_held()
    with pytest.raises(TenfoldError) as raised, run.writer():
        pass
    message = str(raised.value)
    assert f"process {holder.pid} on {platform.node()} since {datetime.now(UTC):%Y-%m-}" in message
    assert str(run.path) in message
    assert "choose another folder" in message
    assert run.is_held()
    holder.communicate("")
    assert holder.returncode == 0
    assert not run.is_held()
    with run.writer():
        assert run.is_held()


def test_row_15_one_process_is_no_exception(tmp_path):
    run = RunFolder(tmp_path / "run")
    with run.writer(), pytest.raises(TenfoldError, match=f"process {os.getpid()} "), run.writer():
        pass
    with run.writer():
        pass


@pytest.mark.parametrize("note", ["", "[]", '{"process": 1}'])
def test_row_15_a_note_that_says_nothing_is_no_hindrance(tmp_path, holder, note):
    run = RunFolder(tmp_path / "run")
    (run.path / "writer.json").write_text(note)
    with pytest.raises(TenfoldError, match="written by another process"), run.writer():
        pass


def test_row_16_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    run = RunFolder(tmp_path / "run")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    left_behind = {path.name for path in run.path.iterdir()}
    assert "writer.json" in left_behind  # it really died without tidying up
    assert not run.is_held()
    with run.writer():
        note = json.loads((run.path / "writer.json").read_text())
        assert note["process"] == os.getpid()
    assert not (run.path / "writer.json").exists()


def test_lines_are_one_json_value_each(tmp_path):
    records = [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": None, "text": "two\nlines"}]
    write_lines(tmp_path / "log", records)
    lines = (tmp_path / "log").read_text().splitlines()
    assert [json.loads(line) for line in lines] == records
    write_lines(tmp_path / "log", [])
    assert (tmp_path / "log").read_bytes() == b""


def test_the_environment_says_what_a_reader_needs():
    facts = json.loads(json.dumps(describe_environment()))
    assert facts["tenfold"] == __version__
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "accelerate", "numpy", "scikit-learn", "safetensors"} <= set(
        facts["libraries"]
    )
    assert 1 <= facts["hardware"]["cores"] <= os.cpu_count()
    assert facts["hardware"]["memory_bytes"] > 2**28
    assert facts["hardware"]["cpu"]
    assert facts["git"] is None or len(facts["git"]["commit"]) == 40


def test_the_command_line_is_that_of_the_user(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/opt/venv/bin/tenfold", "train", "cnn", "--seed", "3"])
    assert command_line() == "tenfold train cnn --seed 3"
    monkeypatch.setattr(sys, "argv", ["/opt/venv/site-packages/tenfold/__main__.py", "demo"])
    assert command_line() == "tenfold demo"
    monkeypatch.setattr(sys, "argv", ["/home/me/experiment.py"])
    assert command_line() == "experiment.py"


def test_peak_memory_counts_what_this_process_touched_and_freed(run_python):
    code = "from tenfold.run import peak_memory_bytes as p; x = b'x' * {}; del x; print(p())"
    ballast = b"x" * 300_000_000  # the parent's memory is none of the child's
    small, large = (int(run_python(code.format(n)).stdout) for n in (1, 200_000_000))
    del ballast
    assert small < 100e6
    assert 190e6 < large - small < 230e6
    assert peak_memory_bytes() > 300e6
