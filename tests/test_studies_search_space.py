"""The ranges of a search: what may be written, what is refused, what is shipped."""

from pathlib import Path

import pytest

from commands import write_tiny_recipe
from tenfold.errors import TenfoldError
from tenfold.recipe import load_recipe, shipped_recipes
from tenfold.results.searches import Setting
from tenfold.studies.search.space import default_space, read_space, with_values


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no ranges"),
        ("x = ", "is not valid TOML"),
        ('"optimizer.lrr" = {low = 1, high = 2}', "optimizer.lrr.*did you mean 'optimizer.lr'"),
        ('"optimizer.lr" = 0.1', "optimizer.lr must be a table"),
        ("[optimizer]\nlr = 0.1", "optimizer.lr must be a table"),
        (
            '"optimizer.lr" = {lo = 1, high = 2}',
            "unknown key 'optimizer.lr.lo' .did you mean 'low'",
        ),
        ('"optimizer.lr" = {low = 0.1}', "optimizer.lr must be a range"),
        (
            '"optimizer.lr" = {low = 0.1, high = 0.01}',
            "optimizer.lr.low must be below high, which is 0.01",
        ),
        (
            '"optimizer.lr" = {low = 0.0, high = 0.1, log = true}',
            "optimizer.lr.log must be false unless low is above 0",
        ),
        ('"optimizer.lr" = {low = "a", high = 0.1}', "low must be a number, not 'a'"),
        ('"optimizer.lr" = {low = -1.0, high = 0.1}', "optimizer.lr must be more than 0"),
        ('"model.dropout" = {low = 0.0, high = 1.0}', "model.dropout must be from 0 to below 1"),
        (
            '"model.dropout" = {low = 0.0, high = 0.5, step = 0.7}',
            "step must be at most high less low",
        ),
        ('"training.batch_size" = {low = 16.5, high = 64}', "low must be a whole number"),
        ('"training.batch_size" = {choices = [32]}', "two or more different values"),
        ('"training.batch_size" = {choices = [32, 32]}', "two or more different values"),
        (
            '"augmentation.cutout" = {factor = 2.0}',
            "given by low and high, or choices, since the recipe has 0",
        ),
        ('"optimizer.lr" = {factor = 0.5}', "factor must be more than 1"),
        ('"model.widths" = {low = 1, high = 2}', "given by choices, since the recipe has"),
        ('"optimizer.name" = {choices = ["sgd", "adan"]}', "optimizer.name must be one of"),
        ("seed = {low = 0, high = 9}", "seed is luck"),
        ('"data.validation_size" = {low = 0.1, high = 0.2}', "decides what is judged on"),
        (
            '"optimizer.momentum" = {low = 0.0, high = 0.9}\n'
            '"optimizer.nesterov" = {choices = [false, true]}',
            "momentum = 0.0 and optimizer.nesterov = true",
        ),
        (
            '"optimizer.name" = {choices = ["sgd", "adamw"]}\n'
            '"optimizer.momentum" = {low = 0.1, high = 0.9}',
            'name = "adamw" and optimizer.momentum = 0.1',
        ),
    ],
)
def test_row_e_a_space_that_does_not_fit_is_named_with_file_and_key(
    tmp_path: Path, text: str, sentence: str
) -> None:
    path = tmp_path / "ranges.toml"
    path.write_text(text)
    recipe = load_recipe(write_tiny_recipe(tmp_path))
    with pytest.raises(TenfoldError, match=sentence) as caught:
        read_space(path, recipe)
    assert str(path) in str(caught.value)


def test_ranges_say_what_a_field_may_be(tmp_path: Path) -> None:
    path = tmp_path / "ranges.toml"
    path.write_text(
        '"optimizer.lr" = {factor = 10.0}\n'
        "training = {batch_size = {times = [2, 0.5]}, epochs = {low = 2, high = 9, step = 3}}\n"
        "[model]\n"
        "widths = {choices = [[8, 16], [16, 32]]}\n"
        "dropout = {low = 0.0, high = 0.5}\n"
    )
    recipe = load_recipe(write_tiny_recipe(tmp_path))
    space = {chosen.key: chosen for chosen in read_space(path, recipe)}
    assert space == {
        "optimizer.lr": Setting(
            key="optimizer.lr", kind="float", low=0.005, high=0.5, log=True, step=None
        ),
        "training.batch_size": Setting(key="training.batch_size", kind="choice", choices=(16, 64)),
        "training.epochs": Setting(key="training.epochs", kind="int", low=2, high=8, step=3),
        "model.widths": Setting(key="model.widths", kind="choice", choices=([8, 16], [16, 32])),
        "model.dropout": Setting(key="model.dropout", kind="float", low=0.0, high=0.5),
    }
    assert with_values(recipe, {"model.widths": [8, 16]}).model.widths == (8, 16)
    assert space["optimizer.lr"].restored(0.0123456) == 0.0123
    assert space["model.dropout"].restored(0.0123456) == 0.012
    assert space["model.dropout"].restored(0.4999) == 0.5
    assert space["model.widths"].stored([16, 32]) == 1
    assert space["training.batch_size"].stored(32) is None
    assert space["training.epochs"].stored(4) is None
    assert space["training.epochs"].stored(5) == 5


def test_the_shipped_ranges_fit_every_shipped_recipe() -> None:
    for name in shipped_recipes():
        recipe = load_recipe(name)
        space = default_space(recipe)
        keys = {chosen.key for chosen in space}
        assert {"optimizer.lr", "optimizer.weight_decay", "training.batch_size"} <= keys
        assert ("optimizer.momentum" in keys) == hasattr(recipe.optimizer, "momentum")
        assert ("model.dropout" in keys) == hasattr(recipe.model, "dropout")
        assert ("schedule.warmup_epochs" in keys) == hasattr(recipe.schedule, "warmup_epochs")
        assert not any(key.startswith("data.") for key in keys)
        assert not {"training.epochs", "model.widths", "seed"} & keys
        lr = next(chosen for chosen in space if chosen.key == "optimizer.lr")
        assert lr.low < recipe.optimizer.lr < lr.high


def test_another_optimizer_brings_its_own_defaults() -> None:
    recipe = with_values(load_recipe("cnn"), {"optimizer.name": "adamw", "optimizer.lr": 0.002})
    assert recipe.to_dict()["optimizer"] == {
        "name": "adamw",
        "lr": 0.002,
        "betas": [0.9, 0.999],
        "weight_decay": 0.01,
    }
