"""Rows 1 to 6, 13, 14 and 31 of the fault list: whatever stops a run, it goes on as if nothing had
happened, with the same weights, optimiser state and log, bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import commands

TRAIN = ["train", "tiny.toml", "--data", "tiny.npz", "--threads", "1", "--no-report"]
RUN = Path("runs/tiny/1")


@dataclass(frozen=True)
class Reference:
    """What an uninterrupted run leaves."""

    weights: bytes
    optimizer: dict[str, bytes]
    log: str


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with a tiny recipe and tiny data."""
    folder = tmp_path_factory.mktemp("template")
    commands.write_tiny_recipe(folder)
    commands.write_tiny_data(folder / "tiny.npz")
    return folder


@pytest.fixture
def folder(template, tmp_path):
    """A copy of the template, for one test."""
    shutil.copytree(template, tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(scope="module")
def reference(template, tmp_path_factory):
    """The result of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("reference") / "work"
    shutil.copytree(template, folder)
    command = commands.start(TRAIN, folder=folder)
    assert command.wait() == 0, command.output
    return outcome(folder)


def outcome(folder: Path) -> Reference:
    """The bits that must not depend on interruptions."""
    from safetensors import safe_open

    run = folder / RUN
    newest = max((run / "checkpoint").glob("*.safetensors"))
    with safe_open(newest, framework="np") as file:
        optimizer = {
            name: file.get_tensor(name).tobytes()
            for name in file.keys()  # noqa: SIM118, it is not a mapping
            if name.startswith(("optimizer.", "model."))
        }
    with safe_open(run / "model.safetensors", framework="np") as file:
        weights = b"".join(file.get_tensor(name).tobytes() for name in sorted(file.keys()))
    return Reference(weights, optimizer, (run / "metrics.jsonl").read_text())


def finish(folder: Path) -> None:
    command = commands.start(TRAIN, folder=folder)
    assert command.wait() == 0, command.output


def num_checkpoints_made(folder: Path) -> int:
    """The number of the newest finished checkpoint."""
    names = [p.stem for p in (folder / RUN / "checkpoint").glob("*.json") if p.stem.isdecimal()]
    return max(map(int, names), default=0)


@pytest.mark.slow
@pytest.mark.parametrize("number", [4, pytest.param(30, marks=pytest.mark.long)])
def test_row_01_killed_at_random_moments(folder, reference, number):
    moments = random.Random(1)
    kills = 0
    while kills < number:
        shutil.rmtree(folder / "runs", ignore_errors=True)
        for _ in range(6):
            command = commands.start(TRAIN, folder=folder)
            command.process.join(moments.uniform(0.05, 1.2))
            if command.process.exitcode is not None:
                break
            command.kill()
            kills += 1
            if (folder / RUN / "result.json").exists():  # It was just being reported.
                break
        if not (folder / RUN / "result.json").exists():
            finish(folder)
        assert outcome(folder) == reference
        assert not (folder / "runs/tiny/2").exists()


@dataclass
class DieIn:
    """Kill this process in the `call`-th write, os.fsync or os.replace of a checkpoint's file."""

    target: str
    call: int
    count: int = 0

    def __call__(self) -> None:
        """Arm it."""
        {"write": self._arm_write, "fsync": self._arm_fsync, "replace": self._arm_replace}[
            self.target
        ]()

    def _count(self, path: str) -> bool:
        """Whether this is the moment to die."""
        self.count += "checkpoint" in path
        return self.count == self.call

    def _arm_fsync(self) -> None:
        real = os.fsync

        def fsync(descriptor: int) -> None:
            if self._count(os.readlink(f"/proc/self/fd/{descriptor}")):
                os.kill(os.getpid(), signal.SIGKILL)
            real(descriptor)

        os.fsync = fsync

    def _arm_replace(self) -> None:
        real = os.replace

        def replace(source, destination, **keywords):
            if self._count(str(destination)):
                os.kill(os.getpid(), signal.SIGKILL)
            real(source, destination, **keywords)

        os.replace = replace

    def _arm_write(self) -> None:
        """Die when half of the content has been written."""
        import tenfold.files as files
        import tenfold.training.checkpoint as checkpoint

        def write_half(path: Path, content: bytes) -> None:
            with files.atomic_file(path) as file:
                file.write(content[: len(content) // 2])
                file.flush()
                if self._count(str(path)):
                    os.kill(os.getpid(), signal.SIGKILL)
                file.write(content[len(content) // 2 :])

        files.write_bytes = write_half
        checkpoint.write_bytes = write_half


@pytest.mark.parametrize(
    "call", [1, *(pytest.param(call, marks=pytest.mark.long) for call in (2, 3, 4))]
)
@pytest.mark.parametrize(
    "target", ["replace", *(pytest.param(t, marks=pytest.mark.long) for t in ("write", "fsync"))]
)
def test_row_02_killed_while_saving_a_checkpoint(folder, reference, target, call):
    command = commands.start(TRAIN, folder=folder, before=DieIn(target, call))
    assert command.wait() == -signal.SIGKILL
    finish(folder)
    assert outcome(folder) == reference


def test_row_03_two_kills_within_one_epoch(folder, reference):
    for _ in range(2):
        command = commands.start(TRAIN, folder=folder, before=DieIn("replace", 3))
        assert command.wait() == -signal.SIGKILL
        assert num_checkpoints_made(folder) <= 2
    finish(folder)
    assert outcome(folder) == reference


@dataclass(frozen=True)
class SlowSteps:
    """Make each step take a while, so that a signal surely comes in the middle of an epoch."""

    seconds: float = 0.05

    def __call__(self) -> None:
        """Wrap the step of the loop."""
        import time

        from tenfold.training.trainer import Trainer

        real = Trainer._step

        def slow(*arguments, **keywords):
            time.sleep(self.seconds)
            return real(*arguments, **keywords)

        Trainer._step = slow


def start_slow(folder: Path, *, epochs_done: int = 1) -> commands.Command:
    command = commands.start(TRAIN, folder=folder, before=SlowSteps())
    before = num_checkpoints_made(folder)
    command.wait_for(lambda: num_checkpoints_made(folder) >= before + epochs_done)
    command.process.join(0.2)  # Some steps into the next epoch.
    return command


def test_row_04_ctrl_c_once_saves_and_says_130(folder, reference):
    command = start_slow(folder)
    command.signal(signal.SIGINT)
    assert command.wait() == 130
    assert "error:" not in command.output
    assert "the same command resumes it" in command.output
    assert "Traceback" not in command.output
    finish(folder)
    assert outcome(folder) == reference


def test_row_04_ctrl_c_twice_stops_at_once(folder, reference):
    command = commands.start(TRAIN, folder=folder, before=SlowSteps(seconds=3.0))
    command.wait_for(lambda: "parameters" in command.output)
    command.signal(signal.SIGINT)
    command.process.join(0.3)
    command.signal(signal.SIGINT)
    assert command.wait() == 130
    assert "saved" not in command.output  # As it is where the step was waited for.
    finish(folder)
    assert outcome(folder) == reference


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.long)]
)
def test_row_05_signals_save_and_exit_75(folder, reference, number):
    command = start_slow(folder)
    command.signal(number)
    assert command.wait() == 75
    assert signal.Signals(number).name in command.output
    state = json.loads(max((folder / RUN / "checkpoint").glob("*.json")).read_text())["state"]
    assert state["history"]["step"] > 0, "the interruption should be in the middle of an epoch"
    finish(folder)
    assert outcome(folder) == reference


def can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="needs unshare for a small file system")
def test_row_06_a_full_disk_while_saving(folder, reference):
    # The run fills what is left of a small file system; then space is made and it goes on.
    runs = folder / "runs"
    runs.mkdir()
    keep = folder / "kept"
    script = f"""
set -u
mount -t tmpfs -o size=700k tmpfs {runs}
head -c 480k /dev/zero > {runs}/ballast
{sys.executable} -m tenfold {" ".join(TRAIN)}
echo "exit status $?"
ls {runs}/tiny/1/checkpoint
rm {runs}/ballast
mount -o remount,size=20m {runs}
{sys.executable} -m tenfold {" ".join(TRAIN)}
echo "exit status $?"
cp -r {runs} {keep}
"""
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert "exit status 2" in done.stdout, done.stdout + done.stderr
    assert "disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert "exit status 0" in done.stdout, done.stdout + done.stderr
    shutil.rmtree(runs)
    keep.rename(runs)
    assert outcome(folder) == reference


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--set", "optimizer.lr=0.01"], "optimizer.lr was 0.05 and is now 0.01"),
        pytest.param(["--threads", "2"], "threads was 1 and is now 2", marks=pytest.mark.long),
    ],
)
def test_row_13_resuming_with_a_change(folder, reference, change, named):
    command = start_slow(folder)
    command.signal(signal.SIGTERM)
    assert command.wait() == 75
    state = outcome_of_checkpoint(folder)
    changed = commands.start([*TRAIN, "--resume", *change], folder=folder)
    assert changed.wait() == 2
    assert named in changed.output
    assert "--allow-changes" in changed.output
    assert outcome_of_checkpoint(folder) == state
    allowed = commands.start([*TRAIN, "--resume", *change, "--allow-changes"], folder=folder)
    assert allowed.wait() == 0, allowed.output


def outcome_of_checkpoint(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / RUN / "checkpoint").iterdir()}


@dataclass(frozen=True)
class RecordSteps:
    """Append the indices, inputs and learning rate of every step to a file."""

    path: str

    def __call__(self) -> None:
        """Wrap the making of a batch."""
        import hashlib

        import torch

        from tenfold.training.batches import TrainingImages

        real = TrainingImages.part

        def part(self, indices, **keywords):
            made = real(self, indices, **keywords)
            line = {
                "epoch": self._epoch,
                "step": keywords["step"],
                "indices": indices.tolist(),
                "inputs": hashlib.sha256(made.inputs.contiguous().numpy().tobytes()).hexdigest(),
                "random": torch.rand(1, generator=torch.default_generator.clone_state()).item(),
            }
            with open(path, "a") as file:
                file.write(json.dumps(line) + "\n")
            return made

        path = self.path
        TrainingImages.part = part


def test_row_14_order_augmentation_and_random_numbers_across_a_resume(folder, template, tmp_path):
    whole = tmp_path / "whole"
    shutil.copytree(template, whole)
    recorded, expected = tmp_path / "recorded", tmp_path / "expected"
    assert commands.run(TRAIN, folder=whole, before=RecordSteps(str(expected))).wait() == 0
    command = commands.start(TRAIN, folder=folder, before=Both(str(recorded)))
    command.wait_for(lambda: num_checkpoints_made(folder) >= 2)
    command.signal(signal.SIGTERM)
    assert command.wait() == 75
    assert commands.run(TRAIN, folder=folder, before=RecordSteps(str(recorded))).wait() == 0
    steps = [json.loads(line) for line in recorded.read_text().splitlines()]
    assert steps == [json.loads(line) for line in expected.read_text().splitlines()]
    first, second = ([i for s in steps if s["epoch"] == e for i in s["indices"]] for e in (0, 1))
    assert sorted(first) == sorted(second) == list(range(448))
    assert first != second


@dataclass(frozen=True)
class Both:
    """Record steps and take them slowly."""

    path: str

    def __call__(self) -> None:
        """Arm both."""
        RecordSteps(self.path)()
        SlowSteps()()


START_METHODS = """
import multiprocessing, os, sys

def train(folder):
    os.chdir(folder)
    sys.argv = ["tenfold", *{arguments!r}]
    from tenfold.cli import main
    main()

if __name__ == "__main__":
    process = multiprocessing.get_context(sys.argv[1]).Process(target=train, args=(sys.argv[2],))
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    ["spawn", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("fork", "forkserver"))],
)
def test_row_31_every_start_method_gives_the_same_bits(folder, reference, method):
    script = folder / "start.py"
    script.write_text(START_METHODS.format(arguments=TRAIN))
    done = subprocess.run(
        [sys.executable, str(script), method, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcome(folder) == reference
