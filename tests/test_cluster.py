"""Studies and searches on Ray clusters, of one node in make test and of two that lose one."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import commands
from searches import LR, prepare, summary
from tenfold.cluster import pack, unpack
from tenfold.recipe import load_recipe

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
RECIPE = """
[data]
name = "digits"

[model]
name = "ann"
widths = [16]

[training]
epochs = 60
"""
STUDY = ["study", "digits.toml", "--grid", "optimizer.lr=0.05,0.02,0.01", "--seeds", "2"]


@contextlib.contextmanager
def nodes(number: int) -> Iterator["Nodes"]:
    """A cluster of so many nodes."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("ray_nodes.py")), str(number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **ENVIRONMENT},
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            yield Nodes(process)
        finally:
            process.stdin.close()
            process.wait(60)


class Nodes:
    """A cluster in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.address = self._line()

    def lose_one(self) -> None:
        """Kill a node that is not the head."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._line() == "killed"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def start(folder: Path, *arguments: str, report: str = "--no-report") -> "subprocess.Popen[str]":
    last = filter(None, ["--json", report])
    return subprocess.Popen(
        [sys.executable, "-m", "tenfold", *arguments, *last],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(command: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    """What it printed."""
    output, errors = command.communicate(timeout=600)
    assert command.returncode == 0, output[-2000:] + errors[-2000:]
    return [json.loads(line) for line in output.splitlines()]


def wait_until(condition: Callable[[], bool], *, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def bits_of(study: Path) -> dict[str, tuple[Any, ...]]:
    """Weights, logs and accuracies of all runs."""
    from safetensors.numpy import load_file

    bits = {}
    for run in sorted((study / "runs").iterdir()):
        weights = load_file(run / "model.safetensors")
        splits = json.loads((run / "result.json").read_text())["splits"]
        for metrics in splits.values():
            del metrics["images_per_second"]
        bits[run.name] = (
            {name: array.tobytes() for name, array in weights.items()},
            (run / "metrics.jsonl").read_bytes(),
            splits,
        )
    return bits


def test_files_travel_without_locks_and_the_result_comes_last(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "checkpoint").mkdir(parents=True)
    for name in ("lock", "writer.json", ".1.tmp", "result.json", "checkpoint/1.json", "z.txt"):
        (source / name).write_text(name)
    unpack(pack(source), target)
    kept = {str(p.relative_to(target)): p.read_text() for p in target.rglob("*") if p.is_file()}
    assert kept == {name: name for name in ("result.json", "checkpoint/1.json", "z.txt")}


def _without_ray() -> None:
    sys.modules["ray"] = None  # type: ignore[assignment]


def test_without_ray_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "digits.toml").write_text(RECIPE)
    command = commands.run([*STUDY, "--cluster", "auto"], folder=tmp_path, before=_without_ray)
    assert command.wait() == 2
    assert "`--cluster` needs Ray" in command.output
    assert "pip install '.[cluster]'" in command.output
    assert "Traceback" not in command.output
    assert not (tmp_path / "studies").exists()


APART = """
import sys
from pathlib import Path
from tenfold.cluster import Cluster
from tenfold.studies.definition import grid_study
from tenfold.studies.running import StudyOptions, run_study
place = Cluster(sys.argv[1], shared=False)
study = grid_study("digits.toml", ["optimizer.lr=0.05,1e30"])
outcome = run_study(
    study, folder=Path("apart"), options=StudyOptions(num_jobs=2, threads=1), place=place
)
print(outcome.num_finished, outcome.num_failed, outcome.records[1].error)
"""


@needs_ray
@pytest.mark.slow
def test_a_study_on_a_node_that_does_not_see_our_files(tmp_path: Path) -> None:
    (tmp_path / "digits.toml").write_text(RECIPE)
    alone = ["train", "digits.toml", "--set", "optimizer.lr=0.05", "--threads", "1"]
    assert commands.run(alone, folder=tmp_path).wait() == 0
    with nodes(1) as cluster:
        done = subprocess.run(
            [sys.executable, "-c", APART, cluster.address],
            cwd=tmp_path,
            env={**os.environ, **ENVIRONMENT},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.stdout.startswith("1 1 The loss is nan in epoch 1"), done.stdout + done.stderr
    run = tmp_path / "apart/runs/lr-0.05,seed=0"
    metrics = (tmp_path / "runs/digits/1/metrics.jsonl").read_bytes()
    assert (run / "metrics.jsonl").read_bytes() == metrics
    assert not (run / ".driver.tmp").exists()


@needs_ray
@pytest.mark.long
def test_row_62_a_study_outlasts_the_loss_of_a_node_with_the_same_bits(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "digits.toml").write_text(RECIPE.replace("60", "120"))
    finish(start(tmp_path / "here", *STUDY, "--threads", "1"))
    runs = tmp_path / "there/studies/digits/runs"
    with nodes(2) as cluster:
        driver = start(tmp_path / "there", *STUDY, "--cluster", cluster.address)
        wait_until(lambda: len(list(runs.glob("*/checkpoint/*.json"))) > 1)
        cluster.lose_one()
        finish(driver)
    assert len(list(runs.iterdir())) == 6
    assert bits_of(runs.parent) == bits_of(tmp_path / "here/studies/digits")
    sessions = [json.loads((run / "provenance.json").read_text()) for run in runs.iterdir()]
    assert max(len(each["sessions"]) for each in sessions) > 1


@needs_ray
@pytest.mark.long
def test_a_search_on_two_nodes_loses_and_doubles_no_trial(tmp_path: Path) -> None:
    folder = prepare(tmp_path, LR)
    with nodes(2) as cluster:
        tune = ["tune", "tiny.toml", "--data", "data.npz", "--space", "space.toml"]
        finish(start(folder, *tune, "--trials", "8", "--cluster", cluster.address))
    trials = summary(folder)["trials"]
    assert [trial["number"] for trial in trials] == list(range(8))
    assert {trial["state"] for trial in trials} <= {"complete", "pruned"}
    complete = [trial for trial in trials if trial["state"] == "complete"]
    assert len(complete) >= 5
    for trial in complete:
        path = folder / "tunes/tiny" / trial["run"] / "recipe.json"
        assert load_recipe(path).optimizer.lr == trial["params"]["optimizer.lr"]
        alone = ["train", str(path), "--folder", f"alone-{trial['number']}", "--threads", "1"]
        finish(start(folder, *alone))
        lines = (folder / f"alone-{trial['number']}/metrics.jsonl").read_text().splitlines()
        values = [json.loads(line)["validation_accuracy"] for line in lines]
        assert values == trial["values"]
        assert values[-1] == trial["accuracy"]


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (["--cluster", "auto"], "--cluster goes with --out"),
        (["--out", "there", "--jobs", "2"], "--jobs goes with --cluster"),
    ],
)
def test_what_a_cluster_is_for_is_said(tmp_path: Path, options: list[str], remedy: str) -> None:
    assert remedy in commands.refuse(["predict", "model.onnx", "images", *options], tmp_path)


def write_images(folder: Path, number: int) -> None:
    """So many PNG files of 8 pixels of which no two are alike, the fourth broken."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (number, 8, 8, 3), dtype=np.uint8)
    for position, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{position:05}.png", compress_level=0)
    (folder / "00003.png").write_bytes(b"no image")


def parts_of(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.glob("part-*")}


def predictions(folder: Path, out: str, *more: str) -> "subprocess.Popen[str]":
    predict = ["predict", "runs/digits/1", "images", "--out", out, "--threads", "1"]
    return start(folder, *predict, *more, report="")


@needs_ray
@pytest.mark.long
@pytest.mark.parametrize("loss", ["actor", "node"])
def test_row_62_predictions_outlast_a_loss_with_each_image_once(tmp_path: Path, loss: str) -> None:
    (tmp_path / "digits.toml").write_text(RECIPE.replace("60", "1"))
    finish(start(tmp_path, "train", "digits.toml", "--threads", "1"))
    write_images(tmp_path / "images", 20_000)
    finish(predictions(tmp_path, "here"))
    with nodes(2) as cluster:
        driver = predictions(tmp_path, "there", "--cluster", cluster.address)
        wait_until(lambda: len(actors()) == 2 or driver.poll() is not None)
        if loss == "node":
            cluster.lose_one()
        else:
            os.kill(actors()[0], signal.SIGKILL)
        [written] = [event for event in finish(driver) if event["event"] == "written"]
    counts = {name: written[name] for name in ("num_parts", "num_images", "num_broken")}
    assert counts == {"num_parts": 2, "num_images": 20_000, "num_broken": 1}
    assert parts_of(tmp_path / "there") == parts_of(tmp_path / "here")


def actors() -> list[int]:
    """The processes in which Ray's actors predict a part."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"MapWorker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found
