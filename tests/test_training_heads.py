"""Heads side by side on the features of one network."""

import pytest
import torch

from tenfold.errors import TenfoldError
from tenfold.recipe import load_recipe
from tenfold.training.devices import make_accelerator
from tenfold.training.heads import NEIGHBOURS, compare_heads
from test_training_stages import HEAD, recipe
from tiny_training import data, pictures

pytest.importorskip("timm")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def compared(wanted, some, test):
    accelerator = make_accelerator(wanted, cpu=True)
    return {h.head: h for h in compare_heads(wanted, some, test, accelerator=accelerator)}


def test_four_heads_know_what_the_features_say():
    found = compared(recipe({**HEAD, "epochs": 25}), data(), pictures(90, seed=5))
    assert list(found) == ["linear", "MLP", "nearest neighbours", "logistic regression"]
    for head in found.values():
        assert head.seconds > 0
        assert head.validation > 0.4, head  # A third would be chance.
        assert abs(head.validation - head.test) < 0.35
    number = int(found["nearest neighbours"].chosen.removeprefix("k = "))
    assert number in NEIGHBOURS


def test_without_validation_and_test_the_defaults_are_taken():
    found = compared(recipe(HEAD), data(validation=0), None)
    assert found["nearest neighbours"].chosen == "k = 10"
    assert found["logistic regression"].chosen == "C = 0.01"
    assert all(head.validation is None and head.test is None for head in found.values())


def test_a_recipe_without_a_pretrained_network_is_refused():
    wanted = load_recipe("cnn")
    with pytest.raises(TenfoldError, match=r"cnn has no pretrained network.*transfer-lite0"):
        compared(wanted, data(), None)
