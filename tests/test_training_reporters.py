"""Reporters: each is told everything, and TensorBoard gets curves that it can read."""

import builtins

import pytest

from tenfold.errors import TenfoldError
from tenfold.training.reporters import Plan, Reporters, TensorBoardReporter

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

    tell(TensorBoardReporter(tmp_path / "tensorboard"))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    curves = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
    assert curves["train/loss"] == [(10, 1.5), (20, 1.25)]
    assert curves["validation/loss"] == [(20, 1.5)]
    assert curves["images/per_second"] == [(10, 1000.0), (20, 1200.0)]


def test_without_tensorboard_the_remedy_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.startswith(("tensorboard", "torch.utils.tensorboard")):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TenfoldError, match=r"pip install '\.\[tensorboard\]'"):
        TensorBoardReporter(tmp_path)
