"""Rows 50, 52 and 53 of the fault list: two processes decide alike, and end together."""

import errno
import itertools
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import commands

TRAIN = ["train", "tiny.toml", "--data", "tiny.npz", "--threads", "1", "--no-report"]
RUN = Path("runs/tiny/1")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with a tiny recipe and tiny data."""
    folder = tmp_path_factory.mktemp("template")
    commands.write_tiny_recipe(folder)
    commands.write_tiny_data(folder / "tiny.npz")
    return folder


@pytest.fixture
def folder(template, tmp_path):
    """Where two processes train on the template's data."""
    for path in template.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def in_rank(rank: int) -> bool:
    return os.environ["RANK"] == str(rank)


@dataclass(frozen=True)
class SlowRank:
    """Every step takes some time, and half as much again on the second process."""

    seconds: float = 0.02

    def __call__(self) -> None:
        """Wrap the making of a batch."""
        from tenfold.training.batches import TrainingImages

        real = TrainingImages.part
        seconds = self.seconds * (1.5 if in_rank(1) else 1.0)
        place, steps = Path(f"steps-{os.environ['RANK']}"), itertools.count(1)

        def part(self, indices, **keywords):
            time.sleep(seconds)
            place.write_text(str(next(steps)))
            return real(self, indices, **keywords)

        TrainingImages.part = part


def result_of(folder: Path) -> dict:
    return json.loads((folder / RUN / "result.json").read_text())


def ended_alike(ranks: list[commands.Command], status: int) -> str:
    """What both said, once both have ended with `status` and no traceback."""
    while all(rank.process.exitcode is None for rank in ranks):
        ranks[0].process.join(0.1)
    # Where one has failed, the others know soon. The first may have to evaluate after all.
    for rank in ranks:
        rank.wait(30 if status else 600)
    output = "".join(rank.output for rank in ranks)
    assert [rank.process.exitcode for rank in ranks] == [status, status], output
    assert "Traceback" not in output
    return output


# -- row 52 --------------------------------------------------------------------------------------


def train_within_a_time(folder: Path, *, seconds: int = 1) -> None:
    limit = ["--set", f"training.time_limit_seconds={seconds}", "--set", "training.epochs=1000"]
    ranks = commands.start_ranks([*TRAIN, *limit, "--new"], folder=folder, before=SlowRank())
    ended_alike(ranks, 0)
    first, second = ((folder / f"steps-{rank}").read_text() for rank in (0, 1))
    assert first == second


@pytest.mark.long
def test_row_52_processes_of_different_speed_end_at_the_same_step(folder):
    train_within_a_time(folder)
    assert result_of(folder)["training"]["ended"] == "time limit"


@pytest.mark.long
def test_row_52_twenty_of_twenty(folder):
    for _ in range(20):
        train_within_a_time(folder, seconds=8)
    assert len(list((folder / "runs/tiny").glob("*/result.json"))) == 20


@dataclass(frozen=True)
class Spoil:
    """In its third step one process computes with values that are no numbers."""

    rank: int

    def __call__(self) -> None:
        """Wrap the making of a batch."""
        from tenfold.training.batches import TrainingImages

        real = TrainingImages.part

        def part(self, indices, **keywords):
            made = real(self, indices, **keywords)
            factor = float("nan") if keywords["step"] == 2 else 1.0
            return made._replace(inputs=made.inputs * factor)

        if in_rank(self.rank):
            TrainingImages.part = part


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.long)])
def test_row_28_both_see_what_is_not_finite_on_one_before_its_step(folder, rank):
    output = ended_alike(commands.start_ranks(TRAIN, folder=folder, before=Spoil(rank)), 3)
    assert output.count("The norm of the gradient is nan in epoch 1, step 3") == 2
    assert not (folder / RUN / "checkpoint").exists()


def test_row_52_a_signal_to_one_ends_both_and_then_they_stop_early(folder):
    early = ["--set", "training.early_stopping=1", "--set", "training.epochs=100"]
    ranks = commands.start_ranks([*TRAIN, *early], folder=folder, before=SlowRank())
    ranks[0].wait_for(lambda: (folder / RUN / "metrics.jsonl").exists(), seconds=600)
    ranks[1].signal(signal.SIGTERM)
    assert "everything is saved" in ended_alike(ranks, 75)
    ended_alike(commands.start_ranks([*TRAIN, *early], folder=folder, before=SlowRank()), 0)
    assert result_of(folder)["training"]["ended"] == "early stopping"
    assert not (folder / "runs/tiny/2").exists()


# -- rows 50 and 53 ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fail:
    """On one process a step or the validation fails, once there is a checkpoint."""

    rank: int
    place: str
    error: Exception | int

    def __call__(self) -> None:
        """Wrap the making of a batch, or the prediction of the validation's pictures."""
        if not in_rank(self.rank):
            return
        from tenfold.training import validation
        from tenfold.training.batches import TrainingImages

        owner, name = {
            "step": (TrainingImages, "part"),
            "validation": (validation, "predict_images"),
        }[self.place]
        real = getattr(owner, name)

        def failing(*arguments, **keywords):
            if (RUN / "checkpoint/000001.json").exists():
                if isinstance(self.error, int):
                    os.kill(os.getpid(), self.error)
                    time.sleep(10)
                raise self.error
            return real(*arguments, **keywords)

        setattr(owner, name, failing)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere/shared")
NO_SPACE = "/somewhere/shared: No space left on device"
NO_MEMORY = "Memory ran out with training.batch_size = 32"
LONG, named = pytest.mark.long, pytest.param
MEMORY = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        named(Fail(0, "validation", FULL), NO_SPACE, id="full disk, rank 0", marks=LONG),
        named(Fail(1, "step", FULL), NO_SPACE, id="full disk, rank 1"),
        named(Fail(0, "step", MEMORY), NO_MEMORY, id="memory, rank 0", marks=LONG),
        named(Fail(1, "step", MEMORY), NO_MEMORY, id="memory, rank 1", marks=LONG),
    ],
)
def test_row_53_what_fails_on_one_is_said_by_all_and_the_run_goes_on(folder, fault, sentence):
    ranks = commands.start_ranks(TRAIN, folder=folder, before=fault)
    ended_alike(ranks, 2)
    for rank in ranks:
        assert f"error: {sentence}" in rank.output, rank.output
    ended_alike(commands.start_ranks(TRAIN, folder=folder), 0)
    assert len(json.loads((folder / RUN / "provenance.json").read_text())["sessions"]) == 2


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=LONG)])
def test_row_50_where_one_is_killed_the_other_ends_too(folder, rank):
    ranks = commands.start_ranks(TRAIN, folder=folder, before=Fail(rank, "step", signal.SIGKILL))
    ranks[rank].process.join(600)
    assert ranks[1 - rank].wait(30) == 2
    assert "ended without a word" in ranks[1 - rank].output
    assert "Traceback" not in ranks[1 - rank].output
    ended_alike(commands.start_ranks(TRAIN, folder=folder), 0)
