import errno
import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import commands
from study_driver import (
    GRID,
    NAMES,
    NUM_SEEDS,
    Instead,
    Within,
    calls_of,
    drive,
    records_of,
    study_of,
    train_at_once,
)
from tenfold.cli.options import chosen_part
from tenfold.errors import InterruptedRunError, TenfoldError
from tenfold.files import read_json
from tenfold.locks import hold
from tenfold.recipe import Recipe, load_recipe
from tenfold.studies.definition import combine, grid_study, load_trials, trial_of
from tenfold.studies.running import run_study


def test_a_grid_is_the_product_of_its_values_and_seeds() -> None:
    study = study_of("cnn", ["optimizer.lr=0.1,0.2", " model.dropout = 0 , 0.5 "], 2)
    assert [(t.variant, t.overrides, t.seed) for t in load_trials(study)] == [
        (
            f"lr {lr}, dropout {dropout}",
            (f"optimizer.lr={lr}", f"model.dropout={dropout}"),
            seed,
        )
        for lr in ("0.1", "0.2")
        for dropout in ("0", "0.5")
        for seed in (0, 1)
    ]
    assert study.baseline == "lr 0.1, dropout 0"
    assert (study.name, study.title) == ("cnn", "cnn by lr and dropout")


def test_a_study_without_a_grid_is_its_seeds() -> None:
    study = study_of("cnn", [], 3)
    assert [trial.trial for trial in load_trials(study)] == [
        "cnn,seed=0",
        "cnn,seed=1",
        "cnn,seed=2",
    ]
    assert (study.baseline, study.title) == ("", "cnn")


@pytest.mark.parametrize(
    ("grid", "labels"),
    [
        (["model.name=ann,cnn"], ["model ann", "model cnn"]),
        (["augmentation.flip=true,false"], ["flip on", "flip off"]),
        (["model.activation='relu','leaky_relu'"], ["activation relu", "activation leaky_relu"]),
        (["model.widths=[32,64],[64,128]"], ["widths [32,64]", "widths [64,128]"]),
        (["optimizer.weight_decay=0"], ["weight decay 0"]),
        (["model.a=1", "data.a=2,3"], ["model a 1, data a 2", "model a 1, data a 3"]),
    ],
)
def test_labels_of_a_grid_are_short_and_readable(grid: list[str], labels: list[str]) -> None:
    assert [*combine(grid).values()] == labels


@pytest.mark.parametrize(
    ("item", "values"),
    [
        ("model.widths=[32,64],[64,128]", ["[32,64]", "[64,128]"]),
        ('description="one, two",three', ['"one, two"', "three"]),
        ("data.name='a,b','c'", ["'a,b'", "'c'"]),
        ("data.name=bob's,ann's", ["bob's", "ann's"]),
        ('data.name=["a]",["b,"]', None),
        ('data.name=["a]"],["b,"]', ['["a]"]', '["b,"]']),
        ("optimizer.betas=[[0.9,0.99],[1,2]]", ["[[0.9,0.99],[1,2]]"]),
        ("data.name=a=b", ["a=b"]),
    ],
)
def test_commas_in_brackets_and_quotes_separate_nothing(
    item: str, values: list[str] | None
) -> None:
    if values is None:
        with pytest.raises(TenfoldError, match="must have the form"):
            combine([item])
        return
    key = item.partition("=")[0]
    assert [*combine([item])] == [(f"{key}={v}",) for v in values]


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        (["optimizer.lr"], "'optimizer.lr' must have the form key=value,value"),
        (["=1,2"], "must have the form"),
        (["optimizer..lr=1"], "must have the form"),
        (["optimizer.lr="], "must have the form"),
        (["optimizer.lr=1,,2"], "must have the form"),
        (["model.widths=[1,2"], "must have the form"),
        (["model.widths=1],2"], "must have the form"),
        (["model.widths=[1},2"], "must have the form"),
        (['description="a,b'], "must have the form"),
        (["seed=1,2"], "--seeds"),
        (["model.activation='relu',\"relu\""], "tables with different labels .'activation relu'"),
        (["optimizer.lr=1,2,1"], "has 1 twice"),
        (["optimizer.lr=1", "model.dropout=0", "optimizer.lr=2"], "optimizer.lr twice"),
    ],
)
def test_row_e_a_grid_in_another_form_is_named(grid: list[str], sentence: str) -> None:
    with pytest.raises(TenfoldError, match=sentence.replace("[", r"\[")):
        grid_study("cnn", grid)


def test_names_are_readable_safe_and_unique(tmp_path: Path) -> None:
    assert trial_of("Leaky ReLU", (), 2, Recipe()).trial == "Leaky-ReLU,seed=2"
    assert trial_of("widths [32,64], dropout 0", (), 0, Recipe()).trial == (
        "widths-[32,64]-dropout-0,seed=0"
    )
    nasty = ["../../etc", "a/b", "a\\b", "a:b", "a b", "a  b", "é", "e\u0301", "x" * 300, "\n", "*"]
    nasty += ["x" * 301, "🙂" * 80, '"', "'", ".", "..", "con"]
    trials = [trial_of(label, (), seed, Recipe()) for label in nasty for seed in (0, 10_000)]
    for trial in trials:
        assert trial.trial.endswith(f",seed={trial.seed}")
        assert len(trial.trial.encode()) <= 100
        (tmp_path / trial.trial).mkdir()
    assert len(list(tmp_path.iterdir())) == len(trials)
    assert len({trial.trial.casefold() for trial in trials}) == len(trials)


def test_a_study_leaves_its_plan_its_results_and_its_runs(tmp_path: Path) -> None:
    folder = tmp_path / "a study"
    outcome = drive(folder)
    assert (outcome.num_finished, outcome.num_failed, outcome.num_run) == (4, 0, 4)
    plan = read_json(folder / "study.json")
    assert {key: plan[key] for key in plan if key != "trials"} == {
        "name": "cnn",
        "title": "cnn by lr",
        "question": "How does the accuracy of cnn depend on its lr?",
        "limits": [],
        "baseline": "lr 0.1",
        "variants": [{"label": f"lr {lr}", "published": []} for lr in (0.1, 0.2)],
    }
    assert [trial["variant"] for trial in plan["trials"]] == ["lr 0.1"] * 2 + ["lr 0.2"] * 2
    assert [trial["recipe"]["seed"] for trial in plan["trials"]] == [0, 1, 0, 1]
    assert asdict(outcome.records[3]) == {
        "trial": "lr-0.2,seed=1",
        "overrides": ("optimizer.lr=0.2",),
        "seed": 1,
        "run": "runs/lr-0.2,seed=1",
        "status": "finished",
        "error": None,
        "splits": {
            "validation": {"accuracy": pytest.approx(0.71)},
            "test": {"accuracy": pytest.approx(0.70)},
        },
        "training_seconds": 1.5,
        "reused": None,
    }
    assert list(outcome.records) == records_of(folder)
    for record in outcome.records:
        recipe = load_recipe(folder / record.run / "recipe.json")
        assert recipe == load_recipe("cnn", [*record.overrides, f"seed={record.seed}"])

    again = drive(folder)
    assert again == replace(outcome, num_run=0)
    assert calls_of(folder) == dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize(
    ("recipe", "grid", "sentence"),
    [
        ("cnn", ["optimizer.lr=0.1,-1"], "optimizer.lr must be more than 0, not -1"),
        ("cnn", ["optimizer.lr=0.1,fast"], "optimizer.lr must be a number, not 'fast'"),
        ("cnn", ["optimizer.lrr=0.1"], r"optimizer.lrr' \(did you mean 'lr'"),
        ("ccnn", ["optimizer.lr=0.1"], r"recipe 'ccnn' \(did you mean 'cnn'"),
        ("cnn", ["optimizer.lr=0.1,0.10"], "lr-0.1,seed=0 and lr-0.10,seed=0 are the same"),
    ],
)
def test_row_e_a_bad_value_stops_the_study_before_it_starts(
    tmp_path: Path, recipe: str, grid: list[str], sentence: str
) -> None:
    folder = tmp_path / "study"
    with pytest.raises(TenfoldError, match=sentence):
        run_study(study_of(recipe, grid), folder=folder, place=Within(train_at_once))
    assert not folder.exists()


def test_row_32_a_second_driver_is_refused_and_a_dead_one_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    driver = commands.start([], folder=tmp_path, before=Instead(("wait", str(folder))))
    try:
        driver.wait_for(lambda: NAMES[1] in calls_of(folder))
        with pytest.raises(TenfoldError, match=f"is being written by process {driver.pid} on"):
            drive(folder)
        assert [record.trial for record in records_of(folder)] == NAMES[:1]
    finally:
        driver.kill()
    outcome = drive(folder)
    assert (outcome.num_finished, outcome.num_run) == (4, 3)
    assert calls_of(folder) == {**dict.fromkeys(NAMES, 1), NAMES[1]: 2}


@pytest.mark.parametrize("left", [[".0123.tmp"], ["lock", "writer.json", ".0123.tmp"], []])
def test_row_32_a_run_folder_without_a_recipe_is_begun_afresh(
    tmp_path: Path, left: list[str]
) -> None:
    path = tmp_path / "study" / "runs" / NAMES[0]

    def kill(recipe: Recipe, path: Path, **others: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(tmp_path / "study", kill)
    (path / "recipe.json").unlink()
    for name in left:
        (path / name).touch()
    assert drive(tmp_path / "study").num_finished == 4
    assert calls_of(tmp_path / "study") == dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize("torn", [b"", b'{"splits": {"te', b"\0" * 50, b"null", b"{}"])
def test_row_33_a_torn_result_is_dropped_reported_and_run_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, torn: bytes
) -> None:
    folder = tmp_path / "study"
    drive(folder)
    path = folder / "runs" / NAMES[3] / "result.json"
    whole = path.read_bytes()
    path.write_bytes(torn)
    assert [record.status for record in records_of(folder)] == ["finished"] * 3 + ["failed"]
    with caplog.at_level(logging.WARNING, logger="tenfold"):
        outcome = drive(folder)
    assert f"{path}" in caplog.text
    assert "it is dropped, and its trial is run again" in caplog.text
    assert (outcome.num_finished, outcome.num_run) == (4, 1)
    assert calls_of(folder) == {**dict.fromkeys(NAMES, 1), NAMES[3]: 2}
    assert path.read_bytes() == whole


def test_a_torn_record_of_a_failure_says_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "study"

    def fail(recipe: Recipe, path: Path) -> None:
        raise TenfoldError("No.")

    assert drive(folder, fail).num_failed == 4
    (folder / "runs" / NAMES[1] / "failure.json").write_text('{"err')
    outcome = drive(folder)
    assert (outcome.num_finished, outcome.num_failed, outcome.num_run) == (1, 3, 1)


def test_a_run_that_failed_after_its_end_counts(tmp_path: Path) -> None:
    def train_trial(recipe: Recipe, path: Path, **others: object) -> None:
        train_at_once(recipe, path)
        raise OSError("the network went away after the last byte")

    outcome = drive(tmp_path / "study", train_trial)
    assert (outcome.num_finished, outcome.num_run) == (4, 4)


@pytest.mark.parametrize("kind", [InterruptedRunError, KeyboardInterrupt])
def test_an_interruption_ends_the_study_and_is_no_failure(
    tmp_path: Path, kind: type[BaseException]
) -> None:
    folder = tmp_path / "study"

    def train_trial(recipe: Recipe, path: Path, **others: object) -> None:
        if path.name == NAMES[1]:
            raise kind("everything is saved")
        train_at_once(recipe, path)

    with pytest.raises(kind, match="everything is saved"):
        drive(folder, train_trial)
    done = [record.trial for record in records_of(folder)]
    # What somebody stops, the others outlast.
    assert done == NAMES[:1] + (NAMES[2:] if kind is InterruptedRunError else [])
    outcome = drive(folder)
    assert (outcome.num_finished, outcome.num_run) == (4, 4 - len(done))


@pytest.mark.parametrize(
    ("recipe", "grid", "seeds", "sentence"),
    [
        ("ann", GRID, 2, "in its trial lr-0.1,seed=., name was 'cnn' and is 'ann' now"),
        ("cnn", GRID, 1, "the trial lr-0.1,seed=1, which was not asked for now"),
        ("cnn", ["optimizer.lr=0.1"], 3, "the trial lr-0.2,seed=0, which was not"),
        ("cnn", [], 1, "the trial lr-0.1,seed=0, which was not"),
    ],
)
def test_row_e_another_study_is_kept_out_of_the_folder(
    tmp_path: Path, recipe: str, grid: list[str], seeds: int, sentence: str
) -> None:
    folder = tmp_path / "study"
    drive(folder)
    plan = (folder / "study.json").read_bytes()
    with pytest.raises(TenfoldError, match=sentence):
        run_study(study_of(recipe, grid, seeds), folder=folder, place=Within(train_at_once))
    assert (folder / "study.json").read_bytes() == plan
    assert calls_of(folder) == dict.fromkeys(NAMES, 1)


def test_more_seeds_and_values_extend_a_study(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    before = drive(folder)
    bigger = study_of("cnn", ["optimizer.lr=0.05,0.1,0.2"], NUM_SEEDS + 1)
    outcome = run_study(bigger, folder=folder, place=Within(train_at_once))
    assert (outcome.num_finished, outcome.num_run) == (9, 5)
    assert set(calls_of(folder).values()) == {1}
    assert [record for record in outcome.records if record.trial in NAMES] == list(before.records)
    plan = read_json(folder / "study.json")
    assert [trial["trial"] for trial in plan["trials"]] == [
        f"lr-{lr},seed={seed}" for lr in (0.05, 0.1, 0.2) for seed in range(3)
    ]
    assert plan["baseline"] == "lr 0.05"


def test_parts_on_a_shared_folder_make_the_whole_study(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    first = drive(folder, part=(1, 3))
    assert [record.trial for record in first.records] == [NAMES[0], NAMES[3]]
    with hold(folder / "parts/2-of-3"):
        assert drive(folder, part=(3, 3)).num_run == 1
        with pytest.raises(TenfoldError, match=r"2-of-3 is being written by"):
            drive(folder, part=(1, 2))
        with pytest.raises(TenfoldError, match=r"2-of-3 is being written by"):
            drive(folder)
        with pytest.raises(TenfoldError, match=r"2-of-3 is being written by"):
            drive(folder, part=(2, 3))
    with hold(folder), pytest.raises(TenfoldError, match="study is being written by"):
        drive(folder, part=(2, 3))
    assert drive(folder).num_run == 1
    assert calls_of(folder) == dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize(
    ("text", "environment", "part"),
    [
        ("2/5", {}, (2, 5)),
        ("auto", {"_ID": "14", "_MIN": "10", "_COUNT": "3", "_STEP": "2"}, (3, 3)),
        ("auto", {"_ID": "0", "_MIN": "0", "_COUNT": "4"}, (1, 4)),
        ("auto/3", {"JOB_COMPLETION_INDEX": "2"}, (3, 3)),
        ("auto", {}, None),
        ("auto/3", {}, None),
        ("auto/2", {"JOB_COMPLETION_INDEX": "2"}, None),
        ("0/5", {}, None),
        ("6/5", {}, None),
        ("half", {}, None),
    ],
)
def test_a_part_is_a_number_from_1_or_what_a_scheduler_says(
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    environment: dict[str, str],
    part: tuple[int, int] | None,
) -> None:
    for name, value in environment.items():
        prefix = "SLURM_ARRAY_TASK" if name.startswith("_") else ""
        monkeypatch.setenv(prefix + name, value)
    if part is not None:
        assert chosen_part(text) == part
    else:
        with pytest.raises(TenfoldError, match="must be a part such as 2/5, from 1"):
            chosen_part(text)


def test_a_reworded_description_stops_nothing_and_changes_nothing(tmp_path: Path) -> None:
    path, folder = tmp_path / "mine.toml", tmp_path / "study"
    path.write_text('description = "good"\n')
    run_study(study_of(str(path)), folder=folder, place=Within(train_at_once))
    path.write_text('description = "better"\n')
    trained: list[Recipe] = []

    def train_trial(recipe: Recipe, folder: Path, **others: object) -> None:
        trained.append(recipe)
        train_at_once(recipe, folder)

    plan = (folder / "study.json").read_bytes()
    (folder / "runs/mine,seed=0/result.json").unlink()
    assert run_study(study_of(str(path)), folder=folder, place=Within(train_trial)).num_run == 1
    assert [recipe.description for recipe in trained] == ["good"]
    assert (folder / "study.json").read_bytes() == plan


def test_a_plan_from_before_a_field_of_recipes_came_is_the_same_study(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    drive(folder)
    plan = read_json(folder / "study.json")
    for trial in plan["trials"]:
        del trial["recipe"]["training"]["milestones"]
    (folder / "study.json").write_text(json.dumps(plan))
    assert drive(folder).num_run == 0


def test_row_e_a_folder_of_something_else_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(TenfoldError, match=r"holds other things than a study, such as thesis.txt"):
        drive(tmp_path)
    with pytest.raises(TenfoldError, match=r"thesis.txt is not a folder"):
        drive(tmp_path / "thesis.txt")
    with pytest.raises(TenfoldError, match="There is no study in"):
        records_of(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"trials": [1]}', '{"trials": 3}', "{"])
def test_row_e_a_spoilt_plan_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(TenfoldError, match=r"study.json"):
        drive(tmp_path)


def test_row_e_a_full_disk_stops_the_study_which_then_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"

    def fail(recipe: Recipe, path: Path) -> None:
        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        raise TenfoldError("The disk is full.")

    with pytest.raises(TenfoldError, match=r"The disk is full: .*failure.json could not be"):
        drive(folder, fail)
    monkeypatch.undo()
    assert drive(folder).num_finished == 4


def test_the_command_line_needs_no_torch_to_know_studies() -> None:
    code = (
        "import sys, tenfold.studies.running, tenfold.cli.studies; "
        "print(*{'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
