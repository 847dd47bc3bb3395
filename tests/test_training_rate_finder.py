"""The rate finder: a rate below the one where the loss is lowest, and nothing else touched."""

import json

import numpy as np
import pytest

import commands
import tenfold
import tiny_training
from tenfold.cli.train import _find_rate
from tenfold.console.output import Output
from tenfold.data import Dataset
from tenfold.data.splits import training_data
from tenfold.errors import TenfoldError
from tenfold.evaluation.evaluate import splitting
from tenfold.recipe import load_recipe
from tenfold.training import rate_finder


def dataset(labels=None):
    images = tiny_training.pictures(192)
    if labels is not None:
        images = type(images)(images.pixels, labels, images.class_names, images.ids)
    return Dataset("tinted noise", images, tiny_training.pictures(60, seed=1), None, "for a test")


def test_the_rate_is_a_tenth_of_the_one_with_the_lowest_loss():
    found = tenfold.find_lr(tiny_training.tiny(), dataset())
    assert found.lr == pytest.approx(found.lowest / 10, rel=0.5)
    assert 1e-4 < found.lr < 1
    assert list(found.rates) == sorted(found.rates)
    assert np.allclose(np.diff(np.log(found.rates)), np.log(1e7) / 99)
    assert min(found.smoothed) < 0.9 * found.smoothed[0]
    assert found == tenfold.find_lr(tiny_training.tiny(), dataset())


def test_all_images_are_tried_where_an_epoch_selects_some(monkeypatch):
    seen = set()
    real = rate_finder._step

    def step(trainer, batch, *arguments, **options):
        seen.update(batch.tolist())
        return real(trainer, batch, *arguments, **options)

    monkeypatch.setattr(rate_finder, "_step", step)
    recipe = tiny_training.tiny("training.select=0.5")
    tenfold.find_lr(recipe, dataset())
    assert seen == set(range(len(training_data(dataset(), **splitting(recipe.data)).train)))


@pytest.mark.parametrize(
    ("name", "how"),
    [("cnn", "--lr 0.01."), ("transfer-lite0", "lr = 0.01 in the first of the stages, in a copy")],
)
def test_where_the_first_stage_has_a_rate_of_its_own_that_is_the_one_to_change(
    name, how, monkeypatch, tmp_path, capsys
):
    rates = (0.01, 0.1, 1.0)
    found = rate_finder.FoundRate(rates, (2.0, 1.0, 3.0), (2.0, 1.0, 3.0), 0.1, 0.01)
    monkeypatch.setattr(rate_finder, "find_lr", lambda *_, **options: found)
    monkeypatch.chdir(tmp_path)
    _find_rate(Output(as_json=False), load_recipe(name), None, threads=None)
    assert f"a good rate: {how}" in capsys.readouterr().out


def test_a_network_that_learns_at_no_rate_is_said(monkeypatch):
    monkeypatch.setattr("tenfold.training.rate_finder.LOWEST", 1e3)
    monkeypatch.setattr("tenfold.training.rate_finder.HIGHEST", 1e4)
    with pytest.raises(TenfoldError, match="lowers the loss of cnn"):
        tenfold.find_lr(tiny_training.tiny(), dataset())


def test_the_command_names_a_rate_and_trains_nothing(tmp_path):
    commands.write_tiny_recipe(tmp_path)
    commands.write_tiny_data(tmp_path / "tiny.npz")
    train = ["train", "tiny.toml", "--data", "tiny.npz", "--threads", "1", "--find-lr", "--json"]
    command = commands.run(train, folder=tmp_path)
    assert command.wait() == 0, command.output
    rate = json.loads(command.output.splitlines()[-1])
    assert rate["event"] == "rate"
    assert 0 < rate["lr"] < 1
    assert (tmp_path / "lr.svg").exists()
    assert not (tmp_path / "runs").exists()
