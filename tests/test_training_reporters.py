"""Reporters: each is told everything, and trackers get curves that they can read."""

import importlib
import json
import subprocess
import sys

import pytest
from accelerate import PartialState

import bare_environment
from tenfold.errors import TenfoldError
from tenfold.recipe import load_recipe
from tenfold.training.reporters import Plan, Reporters
from tenfold.training.trackers import TRACKERS, TrackerReporter, require_trackers

PLAN = Plan(
    recipe="cnn",
    model="cnn",
    trains="all",
    num_parameters=357_162,
    num_train=45_000,
    num_validation=5_000,
    epochs=2,
    steps_per_epoch=10,
    device="cpu",
    threads=2,
    processes=1,
    first_step=0,
    is_last=True,
    resumed_step=0,
    seconds_left=None,
)
EPOCHS = [
    (
        {"epoch": 1, "step": 10, "learning_rate": 0.1, "train_loss": 1.5, "validation_loss": None},
        {"epoch": 1, "training_seconds": 2.0, "images_per_second": 1000.0},
    ),
    (
        {"epoch": 2, "step": 20, "learning_rate": 0.0, "train_loss": 1.25, "validation_loss": 1.5},
        {"epoch": 2, "training_seconds": 4.0, "images_per_second": 1200.0},
    ),
]


class Notebook:
    """Writes down what it is told."""

    def __init__(self):
        self.entries = []

    def started(self, plan):
        self.entries.append(("started", plan))

    def stepped(self, *, epoch, step, loss, images_per_second):
        self.entries.append(("stepped", epoch, step, loss, images_per_second))

    def epoch_ended(self, metrics, timings):
        self.entries.append(("epoch ended", metrics, timings))

    def ended(self, reason):
        self.entries.append(("ended", reason))


def tell(reporter):
    """A short run."""
    reporter.started(PLAN)
    for metrics, timings in EPOCHS:
        reporter.stepped(epoch=metrics["epoch"], step=1, loss=2.0, images_per_second=900.0)
        reporter.epoch_ended(metrics, timings)
    reporter.ended("finished")


def test_each_of_several_reporters_is_told_everything():
    alone, first, second = Notebook(), Notebook(), Notebook()
    tell(alone)
    tell(Reporters([first, second]))
    tell(Reporters([]))
    assert len(alone.entries) == 6
    assert first.entries == second.entries == alone.entries


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_the_curves(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    PartialState()
    reporter = TrackerReporter("tensorboard", tmp_path, load_recipe("cnn"))
    tell(reporter)
    reporter.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    curves = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
    assert curves["train/loss"] == [(10, 1.5), (20, 1.25)]
    assert curves["validation/loss"] == [(20, 1.5)]
    assert curves["images/per_second"] == [(10, 1000.0), (20, 1200.0)]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("tensorboard", r"pip install '\.\[track\]'"), ("mlflow", "pip install mlflow")],
)
def test_a_tracker_that_is_not_installed_is_named_with_the_remedy(monkeypatch, name, remedy):
    real = importlib.import_module

    def without(wanted):
        if wanted in TRACKERS:
            raise ImportError(wanted)
        return real(wanted)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(TenfoldError, match=remedy):
        require_trackers((name,))


def test_a_tracker_of_another_name_is_refused():
    with pytest.raises(TenfoldError, match="did you mean 'tensorboard'"):
        require_trackers(("tensorbord",))


def test_a_tracker_that_fails_is_said_once_and_ends_nothing(tmp_path, caplog):
    (tmp_path / "tensorboard").write_text("a file where a folder should be")
    reporter = TrackerReporter("tensorboard", tmp_path, load_recipe("cnn"))
    tell(reporter)
    reporter.close()
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == [
        "tensorboard failed, and training goes on without it"
    ]


READ_BACK = {
    "mlflow": """
import mlflow
mlflow.set_tracking_uri("sqlite:///runs/fast/1/mlflow.db")
(run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "validation/accuracy")
print([m.value for m in history], run.data.params["model.name"])
""",
    "wandb": """
import glob
print(glob.glob("runs/fast/1/wandb/offline-run-*/run-*.wandb"))
""",
    "trackio": """
import os, pathlib
print([str(path) for path in pathlib.Path(os.environ["TRACKIO_DIR"]).rglob("fast*")])
""",
}
RECIPE = """
[model]
name = "cnn"
widths = [8, 8]
dense = [8]

[training]
epochs = 2
"""


@pytest.mark.network
@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("mlflow", ["mlflow-skinny", "sqlalchemy", "alembic"]),
        ("wandb", ["wandb"]),
        ("trackio", ["trackio"]),
    ],
)
def test_each_tracker_in_an_environment_of_its_own(tmp_path, name, packages):
    """Their pins conflict with ours and with each other, so ours come after theirs on the path."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "own"], check=True)
    python = tmp_path / "own/bin/python"
    install = [python, "-m", "pip", "install", "-q", *packages]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"it can't be had here: {done.stderr.strip().splitlines()[-1]}")
    (place,) = (tmp_path / "own").glob("lib/python*/site-packages")
    ours = [str(bare_environment.SOURCE), *(p for p in sys.path if p.endswith("site-packages"))]
    (place / "ours.pth").write_text("\n".join(ours))
    work = tmp_path / "work"
    work.mkdir()
    (work / "fast.toml").write_text(RECIPE)
    own = {"TRACKIO_DIR": str(work / "trackio"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    train = ["-m", "tenfold", "train", "fast.toml", "--data", "digits", "--track", name, "--json"]
    done = subprocess.run(
        [python, *train], cwd=work, env=own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]  # And nothing else.
    assert not [event for event in events if event["event"] == "warning"]
    found = subprocess.run(
        [python, "-c", READ_BACK[name]], cwd=work, env=own, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() != "[]"
    if name == "mlflow":
        curve = [e["validation_accuracy"] for e in events if e["event"] == "epoch"]
        assert found.stdout.strip() == f"{curve} cnn"
