"""Training on several processes, through the launchers that people have."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import commands

pytestmark = pytest.mark.slow

TRAIN = ["train", "tiny.toml", "--data", "tiny.npz", "--threads", "1", "--no-report", "--cpu"]
RUN = Path("runs/tiny/1")
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]

HEAD = """
[data]
validation_size = 64
normalisation = "pretrained"

[model]
name = "pretrained"
backbone = "test_efficientnet"
weights = "none"
input_size = 32

[training]
epochs = 2
batch_size = 32

[[stages]]
trains = "head"
views = 2

[[stages]]
trains = "all"
epochs = 1
"""

RECORDING = """
import json, os, sys, time
from tenfold.training.batches import TrainingPictures

real = TrainingPictures.part

def part(self, indices, **keywords):
    made = real(self, indices, **keywords)
    line = {"epoch": self._epoch, "step": keywords["step"], "indices": indices.tolist()}
    with open(f"steps-{os.environ['RANK']}.jsonl", "a") as file:
        file.write(json.dumps(line) + "\\n")
    time.sleep(float(os.environ.get("SECONDS_A_STEP", "0")))
    return made

TrainingPictures.part = part

from tenfold.cli import main
main()
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with a tiny recipe, tiny data and a script that records what each process sees."""
    folder = tmp_path_factory.mktemp("template") / "work"
    commands.write_tiny_recipe(folder)
    commands.write_tiny_data(folder / "tiny.npz")
    (folder / "recording.py").write_text(RECORDING)
    return folder


@pytest.fixture
def folder(template, tmp_path):
    """A copy of the template."""
    shutil.copytree(template, tmp_path / "work")
    return tmp_path / "work"


def launch(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def accuracy(folder: Path, run: Path = RUN) -> float:
    return float(
        json.loads((folder / run / "result.json").read_text())["splits"]["test"]["accuracy"]
    )


def test_two_processes_see_each_picture_once_an_epoch(folder):
    output = launch([*LAUNCH, "recording.py", *TRAIN], folder)
    assert output.count("2 processes") == 1, "only one process reports"
    steps = [
        [json.loads(line) for line in (folder / f"steps-{rank}.jsonl").read_text().splitlines()]
        for rank in (0, 1)
    ]
    for epoch in range(4):
        seen = [i for part in steps for s in part if s["epoch"] == epoch for i in s["indices"]]
        assert sorted(seen) == list(range(448))
    assert json.loads((folder / RUN / "provenance.json").read_text())["processes"] == 2
    assert not (folder / "runs/tiny/2").exists()


def test_two_processes_end_where_one_does(folder):
    # Without batch norm and dropout, which look at each process's share of a batch alone, two
    # processes compute the same gradient as one, up to rounding.
    digits = ["train", "ann", "--data", "digits", "--threads", "1", "--no-report", "--cpu"]
    changes = ["--set", "model.norm=none", "--set", "model.dropout=0.0"]
    launch([*LAUNCH, "-m", "tenfold", *digits, *changes, "--runs", "two"], folder)
    launch([sys.executable, "-m", "tenfold", *digits, *changes, "--runs", "one"], folder)
    two, one = (accuracy(folder, Path(runs) / "ann/1") for runs in ("two", "one"))
    assert one > 0.9
    assert abs(two - one) <= 0.005


def test_two_processes_train_a_head_on_features_that_nobody_has_yet(folder):
    (folder / "head.toml").write_text(HEAD)
    train = ["train", "head.toml", "--data", "tiny.npz", "--threads", "1", "--no-report", "--cpu"]
    launch([*LAUNCH, "-m", "tenfold", *train], folder, TENFOLD_CACHE=str(folder / "cache"))
    result = json.loads((folder / "runs/head/1/result.json").read_text())
    assert result["splits"]["test"]["num_images"] > 0
    assert list((folder / "cache/features").rglob("*.npy"))


def test_accelerate_launch(folder):
    # Accelerate starts several processes for GPUs alone (or through MPI); --cpu then keeps each
    # of them off the GPU.
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    port = ["--main_process_port", str(free_port()), "--num_cpu_threads_per_process=1"]
    launch([*launcher, "--num_processes=2", *port, "-m", "tenfold", *TRAIN], folder)
    assert json.loads((folder / RUN / "provenance.json").read_text())["processes"] == 2
    assert accuracy(folder) > 0.9


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_srun(folder):
    # What srun sets for two tasks on one machine.
    slurm = {
        "SLURM_NTASKS": "2",
        "SLURM_JOB_ID": str(free_port() - 20000),
        "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1",
    }
    tasks = [
        subprocess.Popen(
            [sys.executable, "-m", "tenfold", *TRAIN],
            cwd=folder,
            env={**os.environ, **slurm, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    outputs = [task.communicate(timeout=150)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], outputs
    assert json.loads((folder / RUN / "provenance.json").read_text())["processes"] == 2


def test_two_processes_resume_exactly(folder, tmp_path):
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    launch([*LAUNCH, "recording.py", *TRAIN], whole)
    process = subprocess.Popen(
        [*LAUNCH, "recording.py", *TRAIN],
        cwd=folder,
        env={**os.environ, "SECONDS_A_STEP": "0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = folder / "steps-0.jsonl"
    deadline = time.monotonic() + 60
    while not log.exists() or len(log.read_text().splitlines()) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert "everything is saved" in output
    assert not (folder / RUN / "result.json").exists()
    launch([*LAUNCH, "recording.py", *TRAIN], folder)
    assert (folder / RUN / "metrics.jsonl").read_text() == (
        whole / RUN / "metrics.jsonl"
    ).read_text()
    from safetensors.numpy import load_file

    weights = [load_file(place / RUN / "model.safetensors") for place in (folder, whole)]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[1])
