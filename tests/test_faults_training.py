"""Rows 7, 10, 15, 16, 17, 24, 25, 28, 29 and 30 of the fault list: what a run is given is wrong."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import commands
from test_faults_resuming import SlowSteps, can_unshare, num_checkpoints_made, outcome

TRAIN = ["train", "tiny.toml", "--data", "tiny.npz", "--threads", "1", "--no-report"]
RUN = Path("runs/tiny/1")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with a tiny recipe, tiny data and a finished run."""
    folder = tmp_path_factory.mktemp("template") / "work"
    commands.write_tiny_recipe(folder)
    commands.write_tiny_data(folder / "tiny.npz")
    assert commands.run(TRAIN, folder=folder).wait() == 0
    return folder


@pytest.fixture
def folder(template, tmp_path):
    """A copy of the template."""
    shutil.copytree(template, tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def interrupted(folder):
    """A copy of the template whose run is unfinished."""
    shutil.rmtree(folder / "runs")
    command = commands.start(TRAIN, folder=folder, before=SlowSteps())
    command.wait_for(lambda: num_checkpoints_made(folder) >= 1)
    command.signal(signal.SIGTERM)
    assert command.wait() == 75
    return folder


def error_of(command: commands.Command) -> str:
    """The one sentence of a command that failed with status 2 and no traceback."""
    assert command.wait() == 2, command.output
    assert "Traceback" not in command.output
    errors = [line for line in command.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, command.output
    return errors[0]


@pytest.mark.skipif(not can_unshare(), reason="needs unshare for a read-only file system")
def test_row_07_a_read_only_run_folder_is_found_before_training(folder):
    script = f"""
mount -t tmpfs tmpfs runs && mount -o remount,ro runs
{sys.executable} -m tenfold {" ".join(TRAIN)}
echo "exit status $?"
"""
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "exit status 2" in done.stdout
    assert "can't be written" in done.stderr
    assert "epoch" not in done.stdout
    assert "Traceback" not in done.stderr


def rewrite_checkpoint(folder: Path, **changes) -> None:
    """Change fields of the newest checkpoint's state or format, with a matching checksum."""
    from tenfold.training.checkpoint import _checksum_of

    for path in (folder / RUN / "checkpoint").glob("*.json"):
        document = json.loads(path.read_text())
        del document["sha256"]
        document["format"] = changes.get("format", document["format"])
        document["state"]["identity"].update(changes.get("identity", {}))
        path.write_text(json.dumps({**document, "sha256": _checksum_of(document)}))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": "tenfold-checkpoint-99"}, "tenfold-checkpoint-99"),
        ({"identity": {"class names": ["cat", "dog"]}}, "class names was ['cat', 'dog']"),
        pytest.param({"identity": {"torch": "1.0"}}, "torch was 1.0", marks=pytest.mark.long),
    ],
)
def test_row_10_checkpoint_of_another_version_or_class_list(interrupted, changes, named):
    rewrite_checkpoint(interrupted, **changes)
    assert named in error_of(commands.start([*TRAIN, "--resume"], folder=interrupted))


def test_row_10_checkpoint_of_another_architecture(interrupted):
    change = ["--set", "model.widths=[8,8]", "--resume", "--allow-changes"]
    message = error_of(commands.start([*TRAIN, *change], folder=interrupted))
    assert "0.weight" in message
    assert "(16, 3, 3, 3)" in message
    assert "(8, 3, 3, 3)" in message


def test_row_15_the_second_writer_is_refused_and_told_who_writes(folder):
    shutil.rmtree(folder / "runs")
    arguments = [*TRAIN, "--folder", "runs/mine"]
    first = commands.start(arguments, folder=folder, before=SlowSteps(0.2))
    first.wait_for(lambda: "parameters" in first.output)
    message = error_of(commands.start(arguments, folder=folder))
    assert f"process {first.pid}" in message
    first.kill()


def test_row_16_a_dead_writer_is_no_hindrance(folder):
    shutil.rmtree(folder / "runs")
    arguments = [*TRAIN, "--folder", "runs/mine"]
    first = commands.start(arguments, folder=folder, before=SlowSteps(0.2))
    first.wait_for(lambda: "parameters" in first.output)
    first.kill()
    assert (folder / "runs/mine/writer.json").exists()
    assert commands.run(arguments, folder=folder).wait() == 0


@pytest.mark.parametrize(
    "name", ["Bilder für Ωμέγα 猫", pytest.param("long-" + "x" * 195, marks=pytest.mark.long)]
)
def test_row_17_strange_paths(template, tmp_path, name):
    folder = tmp_path / name
    shutil.copytree(template, folder)
    shutil.rmtree(folder / "runs")
    command = commands.start([*TRAIN[:-1], "--runs", f"runs {name}"], folder=folder)
    assert command.wait() == 0, command.output
    run = folder / f"runs {name}" / "tiny" / "1"
    assert (run / "report.html").exists()
    assert commands.run(["evaluate", str(run)], folder=folder).wait() == 0


def reorder_classes(folder: Path) -> None:
    """Write `other.npz`: the same pictures, with the classes in another order."""
    from dataclasses import replace

    from tenfold.data import load
    from tenfold.data.writing import write_npz

    def reordered(images):
        order = [2, 0, 3, 1]
        labels = np.array([order.index(label) for label in images.labels], dtype=np.int64)
        names = tuple(images.class_names[index] for index in order)
        return replace(images, labels=labels, class_names=names)

    dataset = load(str(folder / "tiny.npz"))
    write_npz(
        replace(dataset, train=reordered(dataset.train), test=reordered(dataset.test)),
        folder / "other.npz",
    )


def test_row_24_classes_are_matched_by_name(folder):
    reorder_classes(folder)
    command = commands.start(["evaluate", str(RUN), "--data", "other.npz", "--json"], folder=folder)
    assert command.wait() == 0, command.output
    own = json.loads((folder / RUN / "result.json").read_text())["splits"]["test"]
    other = next(json.loads(line) for line in command.output.splitlines() if '"metrics"' in line)
    assert other["accuracy"] == own["accuracy"]
    assert other["confusion"] == own["confusion"]


def test_row_25_the_same_picture_in_train_and_test(folder):
    from dataclasses import replace

    from tenfold.data import load
    from tenfold.data.writing import write_npz

    dataset = load(str(folder / "tiny.npz"))
    pixels = np.array(dataset.test.pixels)
    pixels[:3] = dataset.train.pixels[:3]
    leaky = replace(dataset, test=replace(dataset.test, pixels=pixels))
    write_npz(leaky, folder / "leaky.npz")
    shutil.rmtree(folder / "runs")
    arguments = ["train", "tiny.toml", "--data", "leaky.npz", "--threads", "1"]
    message = error_of(commands.start([*arguments, "--strict"], folder=folder))
    assert "3" in message
    command = commands.start(arguments, folder=folder)
    assert command.wait() == 0, command.output
    newest = max((folder / "runs/tiny").iterdir(), key=lambda path: int(path.name))
    notes = json.loads((newest / "provenance.json").read_text())["data"]["notes"]
    assert any("3" in note and "test" in note for note in notes), notes
    assert (
        "both" in (newest / "report.html").read_text()
        or notes[0] in (newest / "report.html").read_text()
    )


@pytest.mark.parametrize(
    "overrides",
    [["optimizer.lr=1e30"], ["optimizer.lr=1e30", "training.clip_norm=1.0", "model.norm=none"]],
)
def test_row_28_a_loss_that_is_not_finite(folder, overrides):
    shutil.rmtree(folder / "runs")
    changes = [word for override in overrides for word in ("--set", override)]
    command = commands.start([*TRAIN, *changes], folder=folder)
    assert command.wait() == 3, command.output
    assert "optimizer.lr" in command.output
    assert "Traceback" not in command.output
    assert not (folder / RUN / "result.json").exists()
    assert not (folder / RUN / "model.safetensors").exists()


@dataclass(frozen=True)
class SpoilGradient:
    """Make the gradient of a later step infinite, while its loss is still fine."""

    step: int

    def __call__(self) -> None:
        """Wrap the accumulation of gradients."""
        from tenfold.training.trainer import Trainer

        real = Trainer._accumulate
        count = 0

        def spoiled(*arguments):
            nonlocal count
            count += 1
            trainer, *_ = arguments
            loss = real(*arguments)
            if count == self.step:
                next(iter(trainer.network.parameters())).grad.fill_(float("inf"))
            return loss

        Trainer._accumulate = spoiled


def test_row_28_a_gradient_that_is_not_finite_keeps_the_last_good_state(folder):
    undisturbed = outcome(folder)
    shutil.rmtree(folder / "runs")
    command = commands.start(TRAIN, folder=folder, before=SpoilGradient(step=20))
    assert command.wait() == 3, command.output
    assert "gradient" in command.output
    assert num_checkpoints_made(folder) == 1
    # Resumed without the fault, it ends as if there had been none.
    assert commands.run(TRAIN, folder=folder).wait() == 0
    assert outcome(folder) == undisturbed


@pytest.mark.parametrize(
    ("overrides", "status"),
    [
        (["data.train_size=65"], 0),  # The last batch would be one picture.
        (["data.train_size=20"], 0),  # Fewer pictures than a batch.
        (["data.train_size=65", "training.accumulate=16"], 0),
        (["data.train_size=66", "training.accumulate=16"], 0),  # The last batch would be two.
        (["data.train_size=20", "training.accumulate=16"], 2),
    ],
)
def test_row_29_odd_last_batches(folder, overrides, status):
    shutil.rmtree(folder / "runs")
    changes = [word for override in overrides for word in ("--set", override)]
    command = commands.start([*TRAIN, *changes], folder=folder)
    assert command.wait() == status, command.output
    assert "Traceback" not in command.output


@dataclass(frozen=True)
class LimitMemory:
    """Leave the process only so much more address space than it has."""

    extra_bytes: int

    def __call__(self) -> None:
        """Set the limit."""
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + self.extra_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_row_30_out_of_memory_names_the_batch_size(folder):
    shutil.rmtree(folder / "runs")
    huge = ["--set", "model.widths=[512,512]", "--set", "training.batch_size=448"]
    command = commands.start(
        [*TRAIN, *huge], folder=folder, before=LimitMemory(extra_bytes=300_000_000)
    )
    message = error_of(command)
    assert "training.batch_size = 448" in message
    assert "training.accumulate=2" in message
    assert not (folder / RUN / "result.json").exists()


def test_a_run_of_a_version_with_fewer_options_goes_on(interrupted):
    from tenfold.training.checkpoint import _checksum_of

    for path in (interrupted / RUN / "checkpoint").glob("*.json"):
        document = json.loads(path.read_text())
        del document["sha256"]
        for name in ("data.mean", "data.std", "model.dropout_layers", "GPU"):
            del document["state"]["identity"][name]
        path.write_text(json.dumps({**document, "sha256": _checksum_of(document)}))
    recipe = interrupted / RUN / "recipe.json"
    values = json.loads(recipe.read_text())
    del values["data"]["mean"], values["model"]["dropout_layers"]
    recipe.write_text(json.dumps(values))
    command = commands.run(TRAIN, folder=interrupted)
    assert command.wait() == 0, command.output
    assert (interrupted / RUN / "result.json").exists()
