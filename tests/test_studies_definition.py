"""Studies from TOML files: what they say, and what is said about those that don't fit."""

import logging
from pathlib import Path

import pytest

from study_driver import Within, drive, train_at_once
from tenfold.errors import TenfoldError
from tenfold.files import read_json
from tenfold.recipe import load_recipe
from tenfold.studies.definition import (
    Published,
    Variant,
    adjust,
    choose_study,
    command_of,
    load_trials,
    shipped_studies,
)
from tenfold.studies.running import agree_on_plan, run_study

STUDY = """
title = "Which activation function?"
question = "Does the activation function matter?"
seeds = 3
baseline = "ReLU"
overrides = ["training.epochs=20", "training.milestones=[10]", "schedule.name=constant"]
limits = ["One network, one data set."]

[[variants]]
label = "ReLU"
recipe = "cnn"

[[variants]]
label = "Leaky ReLU"
recipe = "own/leaky.toml"
overrides = ["training.batch_size=64"]
seeds = 1

[[variants.published]]
accuracy = 0.61
epoch = 10
source = "a thesis"
training_mode = true

[[variants.published]]
accuracy = 0.75
source = "a thesis"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A study's file beside a recipe of its own."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "leaky.toml").write_text(
        '[model]\nactivation = "leaky_relu"\n[evaluation]\ntraining_mode = true\n'
    )
    (tmp_path / "activations.toml").write_text(STUDY)
    return tmp_path / "activations.toml"


def test_a_file_is_read_whole(path: Path) -> None:
    study = choose_study(str(path))
    assert (study.name, study.seeds, study.baseline) == ("activations", 3, "ReLU")
    assert study.variants[1] == Variant(
        label="Leaky ReLU",
        recipe=str(path.parent / "own/leaky.toml"),
        overrides=("training.batch_size=64",),
        seeds=1,
        published=(
            Published(accuracy=0.61, source="a thesis", epoch=10, training_mode=True),
            Published(accuracy=0.75, source="a thesis"),
        ),
    )
    recipes = {trial.trial: trial.loaded for trial in load_trials(study)}
    assert list(recipes) == ["ReLU,seed=0", "ReLU,seed=1", "ReLU,seed=2", "Leaky-ReLU,seed=0"]
    assert [recipe.seed for recipe in recipes.values()] == [0, 1, 2, 0]
    leaky = recipes["Leaky-ReLU,seed=0"]
    assert (leaky.model.activation, leaky.training.batch_size) == ("leaky_relu", 64)
    assert {recipe.training.epochs for recipe in recipes.values()} == {20}


def test_settings_may_have_their_older_name(path: Path) -> None:
    path.write_text(STUDY.replace('source = "a thesis"', 'source = "x"\nsettings = "guessed"'))
    assert choose_study(str(path)).variants[1].published[0].settings == "assumed"


def test_the_plan_has_what_reports_need(path: Path) -> None:
    folder = path.parent / "study"
    run_study(choose_study(str(path)), folder=folder, place=Within(train_at_once))
    plan = read_json(folder / "study.json")
    claim = {"source": "a thesis", "settings": "assumed", "training_mode": False}
    assert {key: plan[key] for key in plan if key != "trials"} == {
        "name": "activations",
        "title": "Which activation function?",
        "question": "Does the activation function matter?",
        "limits": ["One network, one data set."],
        "baseline": "ReLU",
        "variants": [
            {"label": "ReLU", "published": []},
            {
                "label": "Leaky ReLU",
                "published": [
                    {"accuracy": 0.61, "epoch": 10, **claim, "training_mode": True},
                    {"accuracy": 0.75, "epoch": None, **claim},
                ],
            },
        ],
    }
    last = plan["trials"][-1]
    assert (last["trial"], last["variant"], last["seed"]) == ("Leaky-ReLU,seed=0", "Leaky ReLU", 0)
    assert last["overrides"][-1] == "training.batch_size=64"
    assert last["recipe"]["model"]["activation"] == "leaky_relu"


@pytest.mark.parametrize("name", list(shipped_studies()))
def test_every_shipped_study_is_sound(name: str) -> None:
    study = choose_study(name)
    assert study.name == name
    assert load_trials(study)
    assert shipped_studies()[name].startswith("# ")


def change(path: Path, old: str, new: str) -> str:
    assert old in STUDY
    path.write_text(STUDY.replace(old, new, 1))
    return str(path)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("title =", "titel =", r"unknown key 'titel' \(did you mean 'title'\?\)"),
        ("label =", "lable =", r"unknown key 'variants\[0\].lable' \(did you mean 'label'"),
        ("epoch = 10", "epochs = 10", r"published\[0\].epochs' \(did you mean 'epoch'"),
        ('title = "Which activation function?"', "", "title is missing"),
        ('recipe = "cnn"', "", r"variants\[0\].recipe is missing"),
        ("[[variants]]", "[[variant]]", "unknown key 'variant'"),
        ("seeds = 3", "seeds = 0", "seeds must be 1 or more, not 0"),
        ("seeds = 3", 'seeds = "3"', "seeds must be a whole number, not '3'"),
        ("seeds = 1", "seeds = -1", r"variants\[1\].seeds must be 0 or more"),
        ('"ReLU"\nover', '"RelU"\nover', r"baseline must be the label .*\(did you mean 'ReLU'"),
        (
            'label = "Leaky ReLU"',
            'label = "ReLU"',
            "tables with different labels .'ReLU'",
        ),
        ('label = "Leaky ReLU"', 'label = "relu"', "'relu' has the same folder as 'ReLU'"),
        ('label = "Leaky ReLU"', 'label = " "', r"variants\[1\].label must be printable text"),
        (
            "accuracy = 0.61",
            "accuracy = 61",
            "accuracy must be above 0 and at most 1, not 61",
        ),
        ('source = "a thesis"', 'source = ""', "published.0..source must be text that says who"),
        ("epoch = 10", "", "published must be results of different epochs"),
        ('["training.batch', '["seed=3", "training.batch', "overrides must be without the seed"),
        ("title", "title [", "is not valid TOML"),
    ],
)
def test_row_e_what_does_not_fit_is_named_with_the_file(
    path: Path, old: str, new: str, sentence: str
) -> None:
    with pytest.raises(TenfoldError, match=sentence) as caught:
        choose_study(change(path, old, new))
    assert "activations.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('recipe = "cnn"', 'recipe = "ccn"', r"ReLU: There is no recipe 'ccn' \(did you mean"),
        ("own/leaky.toml", "own/leak.toml", "Leaky ReLU: There is no recipe '.*own/leak.toml'"),
        ("batch_size=64", "batch_sise=64", "Leaky ReLU: .*batch_sise"),
        ("epoch = 10", "epoch = 15", "Leaky ReLU: a published result is of .* epoch 15; add it"),
        (
            "training.batch_size=64",
            "evaluation.training_mode=false",
            "Leaky ReLU: a published result is of .*_mode = true",
        ),
    ],
)
def test_row_e_every_recipe_is_loaded_before_anything_is_written(
    path: Path, old: str, new: str, sentence: str
) -> None:
    study = choose_study(change(path, old, new))
    with pytest.raises(TenfoldError, match=sentence):
        run_study(study, folder=path.parent / "study", place=Within(train_at_once))
    assert not (path.parent / "study").exists()


def test_a_study_goes_before_a_recipe_of_its_name_unless_there_is_a_grid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = STUDY.replace("own/leaky.toml", "ann")
    monkeypatch.setattr("tenfold.studies.definition.shipped_studies", lambda: {"cnn": text})
    assert choose_study("cnn").title == "Which activation function?"
    assert choose_study("cnn", ["optimizer.lr=0.1,0.2"]).title == "cnn by lr"
    assert choose_study("ann").title == "ann"
    monkeypatch.setattr("tenfold.studies.definition.shipped_studies", lambda: {"own": text})
    with pytest.raises(TenfoldError, match="own is a study with variants of its own; leave out"):
        choose_study("own", ["optimizer.lr=0.1,0.2"])


@pytest.mark.parametrize(
    ("name", "match"), [("activation", "activations"), ("tutorial-cn", "tutorial-cnn")]
)
def test_row_e_an_unknown_name_gets_the_nearest_of_studies_and_recipes(
    name: str, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = {"activations": STUDY}
    monkeypatch.setattr("tenfold.studies.definition.shipped_studies", lambda: shipped)
    with pytest.raises(TenfoldError, match=rf"'{name}' \(did you mean '{match}'\?\)"):
        choose_study(name)


def test_more_seeds_are_for_all_variants(path: Path) -> None:
    study = adjust(choose_study(str(path)), seeds=4)
    assert [trial.seed for trial in load_trials(study)] == [*range(4), *range(4)]
    assert adjust(study) == study


def test_published_results_are_left_out_where_the_recipe_is_another(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = choose_study(str(path))
    same = adjust(study, overrides=["training.batch_size=64"])
    assert [len(variant.published) for variant in same.variants] == [0, 2]
    assert not caplog.records
    with caplog.at_level(logging.WARNING, logger="tenfold"):
        other = adjust(study, overrides=["data.name='digits'"])
    assert [len(variant.published) for variant in other.variants] == [0, 0]
    assert "the published results of Leaky ReLU are left out" in caplog.text
    assert {trial.loaded.data.name for trial in load_trials(other)} == {"digits"}


def test_row_e_the_seed_is_not_for_set(path: Path) -> None:
    with pytest.raises(TenfoldError, match="--set can't choose the seed"):
        adjust(choose_study(str(path)), overrides=["seed=1"])


def test_a_run_that_others_can_repeat(path: Path) -> None:
    """The overrides in the records make the recipe, with nothing that only the study knew."""
    study = choose_study(str(path))
    outcome = run_study(study, folder=path.parent / "study", place=Within(train_at_once))
    sources = {variant.label: variant.recipe for variant in study.variants}
    for trial, record in zip(load_trials(study), outcome.records, strict=True):
        recipe = load_recipe(sources[trial.variant], [*record.overrides, f"seed={record.seed}"])
        assert recipe == load_recipe(path.parent / "study" / record.run / "recipe.json")


def test_a_study_of_a_grid_and_one_of_a_file_do_not_share_a_folder(path: Path) -> None:
    folder = path.parent / "study"
    drive(folder)
    with pytest.raises(TenfoldError, match="is another one"):
        run_study(choose_study(str(path)), folder=folder, place=Within(train_at_once))


@pytest.mark.parametrize(
    ("seeds", "overrides", "command"),
    [
        (None, [], "tenfold study epochs"),
        (2, [], "tenfold study epochs --seeds 2"),
        (None, ["training.epochs=3", "training.milestones=[]"], None),
    ],
)
def test_the_command_that_repeats_a_shipped_study(
    tmp_path: Path, seeds: int | None, overrides: list[str], command: str | None
) -> None:
    study = adjust(choose_study("epochs"), seeds=seeds, overrides=overrides)
    agree_on_plan(tmp_path, study, load_trials(study))
    assert command_of(tmp_path) == command


def test_no_short_command_repeats_a_study_of_ones_own(path: Path) -> None:
    study = choose_study(str(path))
    agree_on_plan(path.parent, study, load_trials(study))
    assert command_of(path.parent) is None
