"""kill -9 of the driver at ten random moments costs only the runs under way."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from searches import LR, prepare, summary
from tenfold.files import read_json
from tenfold.locks import wait_until_free

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform == "win32", reason="kills")]
NUM_KILLS = 10
RECIPE = """
[data]
name = "digits"

[model]
name = "ann"
widths = [16]

[training]
epochs = 150
"""
STUDY = ["study", "digits.toml", "--grid", "optimizer.lr=0.05,0.02,0.01", "--seeds", "2"]


def start(folder: Path, arguments: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tenfold", *arguments, "--threads", "1", "--no-report"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def children_of(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def results_of(runs: Path) -> dict[str, tuple[bytes, int]]:
    """The finished runs, with what shows that one was trained again."""
    return {
        path.parent.name: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in runs.glob("*/result.json")
    }


def kill_again_and_again(folder: Path, arguments: list[str], runs: Path) -> None:
    """Kill the command at random moments, and see each time that what was finished stays."""
    moments = random.Random(0)
    for _ in range(NUM_KILLS):
        before = results_of(runs)
        driver = start(folder, arguments)
        with driver:
            time.sleep(moments.uniform(1.0, 20.0))
            children = children_of(driver.pid) if driver.poll() is None else []
            driver.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 60
        while any(map(is_alive, children)):
            assert time.monotonic() < deadline, "a child was left behind"
            time.sleep(0.1)
        wait_until_free([*runs.glob("*")])
        assert {name: results_of(runs)[name] for name in before} == before
    with start(folder, arguments) as driver:
        output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output


def sessions_of(runs: Path) -> dict[str, list[int]]:
    """The steps at which each session of each run began."""
    return {
        path.parent.name: [each["resumed_at_step"] for each in read_json(path)["sessions"]]
        for path in runs.glob("*/provenance.json")
    }


def test_row_63_a_study_outlasts_ten_kills_of_its_driver(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("undisturbed", "killed")]
    for folder in folders:
        folder.mkdir()
        (folder / "digits.toml").write_text(RECIPE)
    arguments = [*STUDY, "--jobs", "2"]
    with start(folders[0], arguments) as driver:
        output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    runs = folders[1] / "studies/digits/runs"
    kill_again_and_again(folders[1], arguments, runs)
    for run in runs.iterdir():
        expected = folders[0] / "studies/digits/runs" / run.name
        for name in ("metrics.jsonl", "model.safetensors"):
            same = (run / name).read_bytes() == (expected / name).read_bytes()
            assert same or name == "model.safetensors", f"{run.name}: {name}"
    sessions = sessions_of(runs)
    assert len(sessions) == 6
    for steps in sessions.values():
        assert steps == sorted(steps)
    # At most two were under way at each kill.
    assert sum(len(steps) - 1 for steps in sessions.values()) <= 2 * NUM_KILLS


def test_row_63_a_search_outlasts_ten_kills_of_its_driver(tmp_path: Path) -> None:
    folder = prepare(tmp_path, LR.replace("1e-6", "1e-2"))
    arguments = ["tune", "tiny.toml", "--data", "data.npz", "--space", "space.toml"]
    arguments += ["--set", "training.epochs=300", "--pruner", "none", "--trials", "5"]
    runs = folder / "tunes/tiny/runs"
    kill_again_and_again(folder, [*arguments, "--jobs", "2"], runs)
    trials = summary(folder)["trials"]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    assert len(complete) == 5
    assert {trial["state"] for trial in trials} <= {"complete", "interrupted"}
    assert sum(trial["is_baseline"] for trial in complete) == 1
    assert len({trial["run"] for trial in complete}) == 5
    assert len({str(trial["params"]) for trial in complete}) == 5
    for steps in sessions_of(runs).values():
        assert steps == sorted(steps)
