"""Recipes: defaults, files, overrides, and errors that name the place and the nearest match."""

import json
import math
import pickle
import re
from functools import reduce
from pathlib import Path

import pytest

from tenfold.errors import TenfoldError
from tenfold.recipe import Recipe, load_recipe, recipe_from_dict, shipped_recipes
from tenfold.recipe.models import KINDS
from tenfold.registry import SHIPPED, find_part

PARTS = [(table, name) for table, kind in KINDS.items() for name in SHIPPED[kind]]


def part(table, name, **options):
    return find_part(KINDS[table], name).options(**options)


def write(folder, text, *, name="mine.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def error_of(values):
    with pytest.raises(TenfoldError) as raised:
        recipe_from_dict(values, source="mine.toml")
    message = str(raised.value)
    assert message.startswith("mine.toml: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_loads_says_what_it_is_and_survives_json(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    header = [line for line in shipped_recipes()[name].splitlines() if line.startswith("#")]
    assert any("command" in line and f"tenfold train {name}" in line for line in header)


@pytest.mark.parametrize(("table", "name"), PARTS)
def test_a_tag_chooses_a_part_with_its_own_defaults(table, name):
    needed = {"model": {"data": {}}, "optimizer": {}}.get(table, {})
    chosen = getattr(recipe_from_dict({table: {"name": name}, **needed}), table)
    assert chosen == part(table, name)
    assert chosen.name == name
    assert "name" not in chosen.options()
    recipe = Recipe().but(**{table: chosen})
    assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_a_file_lists_only_what_differs(tmp_path):
    path = write(
        tmp_path,
        """
        seed = 7
        [model]
        name = "ann"
        widths = [64, 32]
        dropout = 0
        [optimizer]
        name = "adamw"
        betas = [0.95, 0.99]
        [data]
        name = "photos/猫"
        """,
    )
    recipe = load_recipe(path)
    assert recipe.name == "mine"
    assert recipe.seed == 7
    assert recipe.model == part("model", "ann", widths=(64, 32), dropout=0.0)
    assert isinstance(recipe.model.dropout, float)
    assert recipe.optimizer == part("optimizer", "adamw", betas=(0.95, 0.99))
    assert recipe.data.name == "photos/猫"
    assert recipe.schedule == Recipe().schedule
    assert load_recipe(str(path)) == recipe


def test_the_recipe_of_a_run_folder_is_loadable(tmp_path):
    recipe = load_recipe("cnn", ["seed=3", "data.name=digits", "training.precision=bf16"])
    path = write(tmp_path, json.dumps(recipe.to_dict()), name="recipe.json")
    assert load_recipe(path) == recipe
    assert load_recipe(path, ["training.epochs=1"]).training.epochs == 1


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("optimizer.lr=0.5", "optimizer.lr", 0.5),
        ("optimizer.lr=1", "optimizer.lr", 1.0),
        ("optimizer.lr = 1e-3 ", "optimizer.lr", 0.001),
        ("training.epochs=3", "training.epochs", 3),
        ("model.widths=[8, 16]", "model.widths", (8, 16)),
        ("model.activation=gelu", "model.activation", "gelu"),
        ('model.activation="gelu"', "model.activation", "gelu"),
        ("augmentation.flip=false", "augmentation.flip", False),
        ("data.name=/data/my pictures=1", "data.name", "/data/my pictures=1"),
        ("data.name=C:\\pictures", "data.name", "C:\\pictures"),
        ("description=two words", "description", "two words"),
        ("seed=12", "seed", 12),
    ],
)
def test_overrides_are_written_as_in_toml_or_as_bare_words(override, path, value):
    found = at(load_recipe("cnn", [override]), path)
    assert found == value
    assert type(found) is type(value)


def test_a_description_goes_where_the_recipe_is_changed():
    given = load_recipe("cnn").description
    assert load_recipe("cnn", ["seed=3", "name=again"]).description == given
    assert load_recipe("cnn", ["training.epochs=4"]).description == ""
    assert load_recipe("cnn", ["training.epochs=4", "description=mine"]).description == "mine"


def test_the_last_override_of_a_key_counts():
    assert load_recipe("cnn", ["seed=1", "seed=2"]).seed == 2
    assert load_recipe("cnn", ["model.name=ann", "model.name=cnn"]).model.name == "cnn"


@pytest.mark.parametrize("order", [1, -1])
def test_another_variant_drops_what_belonged_to_the_old_one(order):
    overrides = ["optimizer.name=adamw", "optimizer.lr=0.002"][::order]
    assert load_recipe("cnn", overrides).optimizer == part("optimizer", "adamw", lr=0.002)
    assert load_recipe("cnn", ["schedule.name=step"]).schedule == part("schedule", "step")


def test_naming_the_variant_that_is_there_drops_nothing(tmp_path):
    named = write(tmp_path, '[model]\nname = "cnn"\nwidths = [8]', name="named.toml")
    assert load_recipe(named, ["model.name=cnn"]).model.widths == (8,)
    unnamed = write(tmp_path, "[model]\nwidths = [8]", name="unnamed.toml")
    assert load_recipe(unnamed, ["model.name=cnn"]).model.widths == (8,)


def test_another_normalisation_drops_the_mean_and_deviation_that_were_given():
    assert load_recipe("lenet").data.std == (0.2023, 0.1994, 0.2010)
    assert load_recipe("lenet", ["data.normalisation=unit"]).data.mean == ()
    given = ["data.std=[1, 1, 1]", "data.mean=[0, 0, 0]", "data.normalisation=given"]
    assert load_recipe("cnn", given).data.std == (1.0, 1.0, 1.0)
    assert load_recipe("lenet", given).data.mean == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("values", "named", "nearest"),
    [
        ({"sed": 1}, "'sed'", "'seed'"),
        ({"training": {"epoch": 1}}, "'training.epoch'", "'epochs'"),
        ({"training": {"label_smooting": 0.1}}, "training.label_smooting", "'label_smoothing'"),
        ({"optimizer": {"name": "adam", "momentum": 0.9}}, "'optimizer.momentum'", "lr, betas"),
        ({"model": {"name": "ann", "kernel_size": 3}}, "'model.kernel_size'", "widths"),
        ({"optimizer": {"name": "adamm"}}, "optimizer.name", "'adam'"),
        ({"optimizer": {"name": "sdg"}}, "optimizer.name", "'sgd'"),
        ({"schedule": {"name": "cosinus"}}, "schedule.name", "'cosine'"),
        ({"model": {"activation": "rellu"}}, "model.activation", "'relu'"),
        ({"data": {"normalisation": "standardize"}}, "data.normalisation", "'standardise'"),
        ({"training": {"precision": "float16"}}, "training.precision", "fp16"),
    ],
)
def test_a_misspelling_is_named_with_the_nearest_match(values, named, nearest):
    message = error_of(values)
    assert named in message
    assert nearest in message


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"seed": "one"}, "seed must be a whole number, not 'one'"),
        ({"seed": 1.5}, "seed must be a whole number, not 1.5"),
        ({"seed": True}, "seed must be a whole number, not True"),
        ({"description": 3}, "description must be a string, not 3"),
        ({"optimizer": {"lr": "fast"}}, "optimizer.lr must be a number, not 'fast'"),
        ({"optimizer": {"lr": True}}, "optimizer.lr must be a number, not True"),
        ({"optimizer": {"lr": {"x": 1}}}, "optimizer.lr must be a number"),
        ({"augmentation": {"flip": 1}}, "augmentation.flip must be true or false, not 1"),
        ({"model": {"widths": 8}}, "model.widths must be a list, not 8"),
        ({"model": {"widths": "8"}}, "model.widths must be a list"),
        ({"model": {"widths": [8, 16.0]}}, "model.widths[1] must be a whole number, not 16.0"),
        ({"model": "cnn"}, "model must be a table, not 'cnn'"),
        ({"model": ["cnn"]}, "model must be a table"),
        ({"training": 3}, "training must be a table, not 3"),
        ({"model": {"name": 3}}, "model.name must be one of ann, cnn"),
        ({"model": {"name": ["cnn"]}}, "model.name must be one of ann, cnn"),
        ({"model": {"name": {"a": 1}}}, "model.name must be one of ann, cnn"),
        ({"model": {"activation": ["relu"]}}, "model.activation must be one of relu"),
        ({"seed": None}, "seed must be a whole number, not None"),
    ],
)
def test_a_wrong_type_is_named_with_what_was_expected(values, said):
    assert said in error_of(values)


def nested(path, value):
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def at(recipe, path):
    return reduce(getattr, path.split("."), recipe)


IMPOSSIBLE = {
    "seed": [-1],
    "name": ["", "  ", "a/b", "..", ".", "a\\b", "a\nb", "nul\x00", "a:b"],
    "data.name": [""],
    "data.train_size": [-1],
    "data.validation_size": [-0.1],
    "data.test_size": [0, -1],
    "data.split_seed": [-1],
    "data.image_size": [7, -1, 1025],
    "data.mean": [[0.5], [0.5, 0.5, 0.5]],
    "data.std": [[0.5, 0.5, 0.5]],
    "model.widths": [[], [0], [8, -8]],
    "model.dense": [[0]],
    "model.kernel_size": [0, 2, -3],
    "model.dropout": [-0.1, 1.0],
    "model.dropout_layers": [-1, 2],
    "augmentation.translate": [-1],
    "augmentation.cutout": [-1],
    "augmentation.brightness": [-0.1, 1.1],
    "augmentation.contrast": [-0.1, 1.1],
    "augmentation.saturation": [-0.1, 1.1],
    "augmentation.hue": [-0.1, 0.6],
    "augmentation.randaugment_ops": [-1, 11],
    "augmentation.randaugment_magnitude": [-1, 31],
    "augmentation.random_erasing": [-0.1, 1.1],
    "augmentation.mixup": [-1, math.inf],
    "augmentation.cutmix": [-1, math.inf],
    "optimizer.lr": [0, -0.1, math.nan, math.inf, 10**400],
    "optimizer.momentum": [1, -0.1, math.nan],
    "optimizer.weight_decay": [-1, math.nan, math.inf],
    "schedule.warmup_epochs": [-1, math.nan],
    "schedule.final": [-0.1, 1.1],
    "training.epochs": [0, -1],
    "training.batch_size": [0, 1],
    "training.accumulate": [0, 129],
    "training.sizes": [[7], [2000]],
    "training.sizes_until": [[0.5]],
    "training.select": [0, -0.5, 1.5],
    "training.freeze_from": [[0.5, 0.2], [-0.1], [1.5]],
    "training.clip_norm": [-1, math.nan],
    "training.label_smoothing": [-0.1, 1.0],
    "training.ema_decay": [-0.1, 1.0],
    "training.early_stopping": [-1],
    "training.time_limit_seconds": [-1, math.nan],
    "augmentation.alternate": [True],
    "evaluation.views_below": [0, 1.1],
}


@pytest.mark.parametrize(
    ("values", "path"),
    [
        *((nested(path, value), path) for path, each in IMPOSSIBLE.items() for value in each),
        ({"optimizer": {"name": "adam", "betas": [0.9]}}, "optimizer.betas"),
        ({"optimizer": {"name": "adamw", "betas": [0.9, 1.0]}}, "optimizer.betas"),
        ({"optimizer": {"momentum": 0, "nesterov": True}}, "optimizer.nesterov"),
        ({"schedule": {"name": "step", "every_epochs": 0}}, "schedule.every_epochs"),
        ({"schedule": {"name": "step", "cuts": [0]}}, "schedule.cuts"),
        ({"schedule": {"name": "step", "cuts": [9, 5]}}, "schedule.cuts"),
        ({"schedule": {"name": "step", "factor": 1.5}}, "schedule.factor"),
        ({"schedule": {"name": "plateau", "patience": -1}}, "schedule.patience"),
        ({"schedule": {"name": "one_cycle", "peak": 1.1}}, "schedule.peak"),
        ({"schedule": {"name": "one_cycle", "initial": -0.1}}, "schedule.initial"),
        ({"data": {"normalisation": "given"}}, "data.mean"),
        ({"data": {"normalisation": "given", "mean": [0.5, 0.5, 1.1]}}, "data.mean"),
        ({"data": {"normalisation": "given", "mean": [0.5] * 3, "std": [0.2] * 2}}, "data.std"),
        ({"data": {"normalisation": "given", "mean": [0.5] * 3, "std": [0, 1, 1]}}, "data.std"),
        (
            {"augmentation": {"trivialaugment": True, "randaugment_ops": 2}},
            "augmentation.trivialaugment",
        ),
        ({"evaluation": {"views": "six", "training_mode": True}}, "evaluation.training_mode"),
        ({"model": {"name": "ann", "widths": [0]}}, "model.widths"),
        ({"model": {"name": "speedrun", "widths": []}}, "model.widths"),
        ({"model": {"name": "speedrun", "depth": 0}}, "model.depth"),
        ({"model": {"name": "speedrun", "whitening_size": 9}}, "model.whitening_size"),
        ({"optimizer": {"name": "muon", "head_lr": 0}}, "optimizer.head_lr"),
        ({"optimizer": {"name": "muon", "bias_lr": -1}}, "optimizer.bias_lr"),
        ({"optimizer": {"name": "muon", "momentum": 1}}, "optimizer.momentum"),
        ({"optimizer": {"name": "muon", "sgd_momentum": 1}}, "optimizer.sgd_momentum"),
        ({"optimizer": {"name": "muon", "iterations": 0}}, "optimizer.iterations"),
        ({"optimizer": {"name": "muon"}, "model": {"name": "lenet"}}, "optimizer.name"),
        ({"optimizer": {"name": "muon"}, "model": {"norm": "none"}}, "optimizer.name"),
        ({"training": {"sizes": [16], "sizes_until": [0.5]}}, "training.sizes"),
        (
            {
                "model": {"name": "speedrun"},
                "training": {"sizes": [16, 20], "sizes_until": [0.7, 0.5]},
            },
            "training.sizes_until",
        ),
    ],
)
def test_an_impossible_value_is_named_with_what_was_expected(values, path):
    assert re.search(rf"{re.escape(path)}(\[\d+\])? must be ", error_of(values))


@pytest.mark.parametrize(
    ("values", "path", "value"),
    [
        ({"model": {"name": "ann", "widths": []}}, "model.widths", ()),
        ({"model": {"dense": []}}, "model.dense", ()),
        ({"training": {"batch_size": 2}}, "training.batch_size", 2),
        ({"training": {"batch_size": 8, "accumulate": 4}}, "training.accumulate", 4),
        ({"data": {"image_size": 8}}, "data.image_size", 8),
        ({"augmentation": {"hue": 0.5}}, "augmentation.hue", 0.5),
        ({"schedule": {"name": "one_cycle", "peak": 0}}, "schedule.peak", 0.0),
        ({"schedule": {"name": "one_cycle", "peak": 1}}, "schedule.peak", 1.0),
        ({"name": "my-recipe 2.0"}, "name", "my-recipe 2.0"),
        ({"name": "レシピ"}, "name", "レシピ"),
    ],
)
def test_values_at_the_edge_are_allowed(values, path, value):
    assert at(recipe_from_dict(values), path) == value


@pytest.mark.parametrize("override", ["optimizer.lr", "=3", "optimizer.=3", ".lr=3", ""])
def test_an_override_of_another_form_is_named(override):
    with pytest.raises(TenfoldError, match="must have the form key=value"):
        load_recipe("cnn", [override])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.learning_rate=1", "unknown key 'optimizer.learning_rate'"),
        ("optimizer.lr.max=1", "optimizer.lr must be a number"),
        ("name.x=1", "name is a value, not a table"),
        ("model=ann", "model must be a table, not 'ann'"),
        ("seed=", "seed must be a whole number, not ''"),
        ("augmentation.name=all", "unknown key 'augmentation.name'"),
    ],
)
def test_an_override_that_does_not_fit_is_named(override, said):
    with pytest.raises(TenfoldError) as raised:
        load_recipe("cnn", [override])
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"seed = ", "not valid TOML"),
        (b"seed = 1\nseed = 2", "not valid TOML"),
        (b"\xff\xfes\x00", "mine.toml"),
        (b"[model]\nname = 'cnn'\n[model]\n", "not valid TOML"),
        (b"{}", "not valid TOML"),
    ],
)
def test_a_file_that_is_not_toml_is_named(tmp_path, text, said):
    path = tmp_path / "mine.toml"
    path.write_bytes(text)
    with pytest.raises(TenfoldError, match=said) as raised:
        load_recipe(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("text", ["[]", "3", '"cnn"', "null", "{", ""])
def test_a_json_file_that_holds_no_recipe_is_named(tmp_path, text):
    with pytest.raises(TenfoldError, match=r"recipe\.json"):
        load_recipe(write(tmp_path, text, name="recipe.json"))


def test_an_unknown_recipe_is_named_with_the_nearest_and_with_all():
    with pytest.raises(TenfoldError) as raised:
        load_recipe("cn")
    assert "'cn'" in str(raised.value)
    assert "did you mean 'cnn'?" in str(raised.value)
    assert "ann" in str(raised.value)


@pytest.mark.parametrize("name", ["absent.toml", "absent.json", "", ".", "folder.toml"])
def test_a_path_without_a_recipe_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("folder.toml").mkdir()
    with pytest.raises(TenfoldError, match="There is no recipe"):
        load_recipe(name)


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("training.lr=0.1", "optimizer.lr"),
        ("optimizer.epochs=3", "training.epochs"),
        ("augmentation.widths=[8]", "model.widths"),
        ("lr=0.1", "optimizer.lr"),
        ("training.momentun=0.9", "optimizer.momentum"),
        ("training.epoch=3", "epochs"),
    ],
)
def test_a_key_in_the_wrong_table_is_found_in_the_right_one(override, meant):
    with pytest.raises(TenfoldError, match=re.escape(f"(did you mean {meant!r}?)")):
        load_recipe("cnn", [override])


@pytest.mark.parametrize(
    "name", [r"C:\Users\me\photos", r"D:\data", r"\\server\share", r"C:\new\table"]
)
def test_a_windows_path_in_double_quotes_says_how_to_write_it(tmp_path, name):
    path = tmp_path / "own.toml"
    path.write_text(f'[data]\nname = "{name}"\n[model]\nname = "cnn"\n')
    with pytest.raises(TenfoldError, match=r"Windows path .*single quotes"):
        load_recipe(path)
    path.write_text(f"[data]\nname = '{name}'\n[model]\nname = \"cnn\"\n")
    assert load_recipe(path).data.name == name
