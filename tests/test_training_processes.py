"""Training on several processes, through the launchers that people have."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import commands
from commands import Command, start_ranks

pytestmark = pytest.mark.slow

TRAIN = ["train", "tiny.toml", "--data", "tiny.npz", "--threads", "1", "--no-report"]
RUN = Path("runs/tiny/1")
GUIDE = Path(__file__).parents[1] / "docs/training.md"

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


@dataclass(frozen=True)
class Record:
    """Write down which pictures a process sees, and the weights after each of the first steps."""

    seconds_a_step: float = 0.0

    def __call__(self) -> None:
        """Wrap the making of a batch, and the step."""
        from tenfold.training.batches import TrainingImages
        from tenfold.training.trainer import Trainer

        real_part, real_step, seconds = TrainingImages.part, Trainer._step, self.seconds_a_step
        rank = os.environ.get("RANK", "alone")

        def part(self, indices, **keywords):
            line = {"epoch": self._epoch, "step": keywords["step"], "indices": indices.tolist()}
            with open(f"steps-{rank}.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")
            time.sleep(seconds)
            return real_part(self, indices, **keywords)

        def step(trainer, share, number, **keywords):
            loss = real_step(trainer, share, number, **keywords)
            if trainer.state.history.epoch == 0 and number < 4:
                weights = [p.detach().flatten() for p in trainer.state.model.parameters()]
                torch.save(torch.cat(weights), f"weights-{rank}-{number}.pt")
            return loss

        TrainingImages.part, Trainer._step = part, step


@dataclass(frozen=True)
class OwnCache:
    """Each process has a cache of its own, as on machines that share no disk."""

    def __call__(self) -> None:
        """Set it."""
        os.environ["TENFOLD_CACHE"] = str(Path(f"cache-{os.environ['RANK']}").resolve())


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with a tiny recipe and tiny data."""
    folder = tmp_path_factory.mktemp("template") / "work"
    commands.write_tiny_recipe(folder)
    commands.write_tiny_data(folder / "tiny.npz")
    return folder


@pytest.fixture
def folder(template, tmp_path):
    """A copy of the template."""
    shutil.copytree(template, tmp_path / "work")
    return tmp_path / "work"


def finish(*processes: Command) -> str:
    """The output of all, once they have ended well."""
    for process in processes:
        assert process.wait(600) == 0, process.output
    return "".join(process.output for process in processes)


def launch(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def num_processes(folder: Path) -> int:
    """How many trained the only run of the recipe."""
    assert not (folder / RUN).with_name("2").exists()
    return json.loads((folder / RUN / "provenance.json").read_text())["processes"]


def accuracy(folder: Path, run: Path = RUN) -> float:
    return float(
        json.loads((folder / run / "result.json").read_text())["splits"]["test"]["accuracy"]
    )


def test_two_processes_see_each_picture_once_an_epoch(folder):
    output = finish(*start_ranks(TRAIN, folder=folder, before=Record()))
    assert output.count("2 processes") == 1, "only one process reports"
    steps = [
        [json.loads(line) for line in (folder / f"steps-{rank}.jsonl").read_text().splitlines()]
        for rank in (0, 1)
    ]
    for epoch in range(4):
        seen = [i for part in steps for s in part if s["epoch"] == epoch for i in s["indices"]]
        assert sorted(seen) == list(range(448))
    assert num_processes(folder) == 2


@pytest.mark.parametrize(
    "norm",
    [pytest.param("model.norm=none", marks=pytest.mark.long), "training.sync_batch_norm=true"],
)
def test_two_processes_take_the_steps_that_one_does(folder, norm):
    # Without dropout, and batch norms that look at each process's share of a batch alone, two
    # processes compute the same gradient as one, up to rounding. Rounding grows from step to step,
    # differently on each processor, so that in the end only accuracies within chance agree.
    options = (norm, "model.dropout=0.0", "training.precision=float32")
    same = [*TRAIN, *(word for option in options for word in ("--set", option))]
    finish(*start_ranks([*same, "--runs", "two"], folder=folder, before=Record()))
    finish(commands.start([*same, "--runs", "one"], folder=folder, before=Record()))
    for step in range(4):
        alone, *ranks = (torch.load(folder / f"weights-{r}-{step}.pt") for r in ("alone", 0, 1))
        for weights in ranks:
            torch.testing.assert_close(weights, alone, rtol=1e-3, atol=1e-5)
    two, one = (accuracy(folder, Path(runs) / "tiny/1") for runs in ("two", "one"))
    share = (one + two) / 2
    assert one > 0.7
    # Of 128 pictures each, at 99.9 %; a picture more, since nearly all may be right.
    assert abs(two - one) <= 3.3 * (2 * share * (1 - share) / 128) ** 0.5 + 1 / 128


def test_two_processes_train_a_head_on_features_that_nobody_has_yet(folder):
    (folder / "head.toml").write_text(HEAD)
    train = ["train", "head.toml", *TRAIN[2:]]
    finish(*start_ranks(train, folder=folder, before=OwnCache()))
    result = json.loads((folder / "runs/head/1/result.json").read_text())
    assert result["splits"]["test"]["num_images"] > 0
    assert all(list((folder / f"cache-{rank}/features").rglob("*.npy")) for rank in (0, 1))


def test_a_launchers_command_in_the_guide_as_it_stands(folder):
    lines = [line for line in GUIDE.read_text().splitlines() if line.startswith("torchrun ")]
    assert lines
    for line in lines:
        command = shlex.split(line, comments=True)
        command[0] = str(Path(sys.executable).parent / command[0])
        recipe = Path("runs") / command[-1] / "1"
        small = ["model.widths=[8]", "model.dense=[8]", "training.epochs=1", "training.min_steps=0"]
        changes = [word for change in small for word in ("--set", change)]
        launch([*command, "--data", "tiny.npz", "--no-report", *changes], folder)
        assert json.loads((folder / recipe / "provenance.json").read_text())["processes"] == 2
        assert not (folder / recipe).with_name("2").exists()


@pytest.mark.long
def test_accelerate_launch(folder):
    # Without a GPU Accelerate starts one process, unless it is told that there are several.
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    port = ["--main_process_port", str(free_port()), "--num_cpu_threads_per_process=1"]
    launch([*launcher, "--num_processes=2", *port, "-m", "tenfold", *TRAIN], folder)
    assert num_processes(folder) == 2


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


LAUNCHERS = {
    "srun": ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    "Open MPI": (
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_LOCAL_RANK",
    ),
    "MPICH": ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"),
}


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(names, id=name, marks=[] if name == "srun" else pytest.mark.long)
        for name, names in LAUNCHERS.items()
    ],
)
def test_what_other_launchers_set_for_two_tasks_on_one_machine(folder, names):
    # The number of the job is for srun; for the others it is that of the launcher, their parent.
    job = {"SLURM_JOB_ID": str(free_port() - 20000)} if "SLURM_PROCID" in names else {}
    tasks = [
        commands.start(
            [*TRAIN, "--set", "training.epochs=1"],
            folder=folder,
            environment={**dict(zip(names, ("2", rank, rank), strict=True)), **job},
        )
        for rank in "01"
    ]
    finish(*tasks)
    assert num_processes(folder) == 2


def test_two_processes_resume_exactly(folder, tmp_path):
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    finish(*start_ranks(TRAIN, folder=whole))
    ranks = start_ranks(TRAIN, folder=folder, before=Record(seconds_a_step=0.05))
    log = folder / "steps-0.jsonl"
    ranks[0].wait_for(lambda: log.exists() and len(log.read_text().splitlines()) >= 20, seconds=600)
    for rank in ranks:
        rank.signal(signal.SIGTERM)
    assert [rank.wait(600) for rank in ranks] == [75, 75]
    assert all("everything is saved" in rank.output for rank in ranks)
    assert not (folder / RUN / "result.json").exists()
    finish(*start_ranks(TRAIN, folder=folder))
    assert (folder / RUN / "metrics.jsonl").read_text() == (
        whole / RUN / "metrics.jsonl"
    ).read_text()
    from safetensors.numpy import load_file

    weights = [load_file(place / RUN / "model.safetensors") for place in (folder, whole)]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[1])
