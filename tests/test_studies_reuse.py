"""Finished runs of equal recipes are taken over, and only those."""

import os
from pathlib import Path
from typing import Any

import pytest

import commands
from study_driver import Within, calls_of, records_of, study_of, train_at_once
from tenfold.data import load
from tenfold.errors import TenfoldError
from tenfold.files import read_json, write_json
from tenfold.locks import hold
from tenfold.own_parts import sum_of
from tenfold.recipe import Recipe
from tenfold.recipe.own_code import write_recipe
from tenfold.run import RunFolder, describe_environment
from tenfold.studies.definition import load_trials
from tenfold.studies.running import StudyOptions, StudyOutcome, run_study
from tenfold.studies.takeover import take_over

GRID = ["optimizer.lr=0.1,0.2"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe for data of its own."""
    data = commands.write_tiny_data(tmp_path / "tiny.npz")
    path = tmp_path / "mine.toml"
    path.write_text(f'description = "old"\n[data]\nname = "{data}"\n')
    return path


def train_with_provenance(recipe: Recipe, path: Path, **others: object) -> None:
    """As training does it, with weights in a folder of their own."""
    (path / "milestones").mkdir(parents=True)
    (path / "milestones" / "epoch-1.safetensors").write_bytes(b"weights")
    write_json(
        path / "provenance.json",
        {
            **describe_environment(),
            "data": {"checksums": dict(load(recipe.data.name).checksums)},
            "threads": 1,
        },
    )
    train_at_once(recipe, path)


def study(folder: Path, recipe: Path, *, seeds: int = 1, **options: Any) -> StudyOutcome:
    chosen = study_of(str(recipe), GRID, seeds)
    settings = StudyOptions(**options)
    return run_study(chosen, folder=folder, options=settings, place=Within(train_with_provenance))


@pytest.fixture
def source(tmp_path: Path, recipe: Path) -> Path:
    """A finished study of two runs."""
    study(tmp_path / "first", recipe)
    return tmp_path / "first"


def test_runs_on_data_without_test_pictures_are_taken_over(tmp_path: Path) -> None:
    commands.write_class_folders(tmp_path / "photos")
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f'[data]\nname = "{tmp_path / "photos"}"\nimage_size = 8\n')

    def train(recipe: Recipe, path: Path, **others: object) -> None:
        train_with_provenance(recipe, path)
        values = read_json(path / "result.json")
        del values["splits"]["test"]
        write_json(path / "result.json", values)

    chosen = study_of(str(recipe), GRID)
    run_study(chosen, folder=tmp_path / "first", place=Within(train))
    options = StudyOptions(reuse=(tmp_path / "first",))
    outcome = run_study(chosen, folder=tmp_path / "second", place=Within(train), options=options)
    assert (outcome.num_reused, outcome.num_run) == (2, 0)


def test_equal_runs_of_another_study_are_taken_over(
    tmp_path: Path, recipe: Path, source: Path
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(recipe.read_text().replace("old", "new"))
    outcome = study(tmp_path / "second", other, seeds=2, reuse=(source,))
    assert (outcome.num_finished, outcome.num_reused, outcome.num_run) == (4, 2, 2)
    origins = {record.trial: record.reused for record in outcome.records}
    assert origins == {
        "lr-0.1,seed=0": f"{source}/runs/lr-0.1,seed=0",
        "lr-0.1,seed=1": None,
        "lr-0.2,seed=0": f"{source}/runs/lr-0.2,seed=0",
        "lr-0.2,seed=1": None,
    }
    assert outcome.records[0].splits == records_of(source)[0].splits
    taken = tmp_path / "second" / outcome.records[0].run
    weights = "milestones/epoch-1.safetensors"
    assert os.path.samefile(taken / weights, source / "runs/lr-0.1,seed=0" / weights)
    assert not (taken / "lock").exists()
    assert not list((tmp_path / "second" / "runs").glob(".*"))

    # What is written later in one of them does not show in the other.
    result = read_json(taken / "result.json")
    write_json(taken / "result.json", {**result, "splits": {}})
    assert read_json(source / "runs/lr-0.1,seed=0/result.json") == result
    assert study(tmp_path / "second", other, seeds=2).num_run == 0


def test_parts_that_were_trained_apart_are_gathered(tmp_path: Path, recipe: Path) -> None:
    for number in (1, 2):
        study(tmp_path / f"part-{number}", recipe, seeds=2, part=(number, 2))
    parts = (tmp_path / "part-1", tmp_path / "part-2")
    outcome = study(tmp_path / "whole", recipe, seeds=2, reuse=parts)
    assert (outcome.num_finished, outcome.num_reused, outcome.num_run) == (4, 4, 0)


def test_a_run_folder_will_do_and_an_unfinished_run_gives_way(
    tmp_path: Path, recipe: Path, source: Path
) -> None:
    def stop(recipe: Recipe, path: Path, **others: object) -> None:
        write_json(path / "recipe.json", recipe.to_dict())
        raise KeyboardInterrupt

    chosen, folder = study_of(str(recipe), GRID), tmp_path / "second"
    with pytest.raises(KeyboardInterrupt):
        run_study(chosen, folder=folder, place=Within(stop))
    run = source / "runs/lr-0.1,seed=0"
    outcome = study(folder, recipe, reuse=(run,))
    assert (outcome.num_reused, outcome.num_run) == (1, 1)
    assert outcome.records[0].reused == str(run)


def test_a_driver_killed_in_a_copy_or_after_it_loses_nothing(
    tmp_path: Path, recipe: Path, source: Path
) -> None:
    folder = tmp_path / "second"
    study(folder, recipe, reuse=(source,))
    whole = records_of(folder)
    (folder / "runs/.0123.tmp").mkdir()
    assert study(folder, recipe).num_run == 0
    assert records_of(folder) == whole
    assert not (folder / "runs/.0123.tmp").exists()


@pytest.mark.parametrize(
    "spoil",
    ["seed", "data", "code", "unfinished", "no test", "torn", "untold", "limit", "held"],
)
def test_what_is_not_equal_is_trained(
    tmp_path: Path, recipe: Path, source: Path, spoil: str
) -> None:
    run = RunFolder(source / "runs/lr-0.1,seed=0")
    values = read_json(run.recipe)
    if spoil == "seed":
        write_json(run.recipe, {**values, "seed": 5})
    elif spoil == "data":
        (tmp_path / "tiny.npz").unlink()
        commands.write_tiny_data(tmp_path / "tiny.npz", num_train=480)
    elif spoil == "code":
        write_json(run.provenance, {**read_json(run.provenance), "code": {"my.py": "0ld"}})
    elif spoil == "unfinished":
        run.result.unlink()
    elif spoil == "no test":
        write_json(run.result, {**read_json(run.result), "splits": {}})
    elif spoil == "torn":
        run.recipe.write_text("{")
    elif spoil == "untold":
        run.provenance.unlink()
    elif spoil == "limit":
        values["training"]["time_limit_seconds"] = 60.0
        write_json(run.recipe, values)
        recipe.write_text(recipe.read_text() + "[training]\ntime_limit_seconds = 60\n")
    folder = tmp_path / "second"
    if spoil == "held":
        trials = load_trials(study_of(str(recipe), GRID))
        with hold(folder / "runs/lr-0.1,seed=0"):
            assert take_over([source], trials, runs=folder / "runs") == 1
        assert not (folder / "runs/lr-0.1,seed=0/result.json").exists()
        return
    outcome = study(folder, recipe, reuse=(source,))
    assert outcome.records[0].reused is None
    assert calls_of(folder)["lr-0.1,seed=0"] == 1


@pytest.mark.parametrize("changed", ["my.py", "labels.csv", "teacher.safetensors"])
def test_a_run_is_taken_over_until_a_file_that_its_recipe_names_changes(
    tmp_path: Path, recipe: Path, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    code = "def small(logits, labels):\n    return logits.logsumexp(dim=1)\n"
    (tmp_path / "my.py").write_text(code)
    for name in ("labels.csv", "teacher.safetensors"):
        (tmp_path / name).write_text("as it was")
    text = recipe.read_text().replace("[data]", f'[data]\ncorrections = "{tmp_path}/labels.csv"')
    teacher = f'[distillation]\nteacher = "{tmp_path}/teacher.safetensors"'
    recipe.write_text(f'{text}[loss]\nname = "my.py:small"\n{teacher}\n')

    def train(recipe: Recipe, path: Path, **others: object) -> None:
        train_with_provenance(recipe, path)
        made = read_json(path / "provenance.json")
        made["data"]["corrections"] = sum_of(tmp_path / "labels.csv")
        made["teacher"] = sum_of(tmp_path / "teacher.safetensors")
        made["code"] = {"my.py": sum_of(tmp_path / "my.py")}
        write_json(path / "provenance.json", made)
        write_recipe(recipe, path / "recipe.json")

    monkeypatch.chdir(tmp_path)
    chosen = study_of(str(recipe), GRID)
    run_study(chosen, folder=tmp_path / "first", place=Within(train))
    options, found = StudyOptions(reuse=(tmp_path / "first",)), []
    for folder in ("second", "third"):
        # The file of the part is named as seen from the recipe's, wherever the command is given.
        monkeypatch.chdir(tmp_path if found else tmp_path / "first")
        outcome = run_study(chosen, folder=tmp_path / folder, place=Within(train), options=options)
        found.append(outcome.num_reused)
        (tmp_path / changed).write_text(f"{code}# Changed.\n")
    assert found == [2, 0]


def test_row_e_a_place_without_runs_is_named(tmp_path: Path, recipe: Path) -> None:
    with pytest.raises(TenfoldError, match=r"--reuse .*nowhere is neither the folder of a study"):
        study(tmp_path / "second", recipe, reuse=(tmp_path / "nowhere",))
