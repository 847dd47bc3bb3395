"""Searches by real processes on small data: shared, killed, resumed, diverging, in any storage."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import commands
import search_driver
from commands import TINY_RECIPE, Command, write_tiny_data, write_tiny_recipe
from tenfold.errors import TenfoldError
from tenfold.recipe import Recipe, load_recipe, recipe_from_dict, shipped_recipes
from tenfold.studies import search_queue
from tenfold.studies.search_queue import Queue, working_in
from tenfold.studies.search_space import Range, default_space, flatten, read_space, with_values
from tenfold.studies.search_storage import open_storage

LR = '"optimizer.lr" = {low = 1e-6, high = 0.3, log = true}\n'
SPACE = f"""{LR}
"training.batch_size" = {{times = [0.5, 1, 2]}}
model.dropout = {{low = 0.0, high = 0.5}}
"""
LONG_EPOCHS = 30
LONG = ["--set", f"training.epochs={LONG_EPOCHS}"]


def arguments(*more: str, trials: int | None = None, space: str = "space.toml") -> list[str]:
    """`tenfold tune` of the tiny recipe on the tiny data."""
    limit = [] if trials is None else ["--trials", str(trials)]
    if "--report" not in more:
        limit.append("--no-report")
    return [
        "tune",
        "tiny.toml",
        "--data",
        "data.npz",
        "--space",
        space,
        "--threads",
        "1",
        *limit,
        *more,
    ]


def tune(folder: Path, *more: str, **options: Any) -> Command:
    return commands.run(arguments(*more, **options), folder=folder)


def start(folder: Path, *more: str, **options: Any) -> Command:
    return commands.start(arguments(*more, **options), folder=folder)


def prepare(folder: Path, space: str = SPACE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_tiny_data(folder / "data.npz", num_train=256, num_test=32)
    write_tiny_recipe(folder)
    (folder / "space.toml").write_text(space)
    return folder


def summary(folder: Path, search: str = "tunes/tiny") -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / search / "trials.json").read_text())
    return values


def states(folder: Path, search: str = "tunes/tiny") -> dict[str, int]:
    counts: dict[str, int] = summary(folder, search)["counts"]
    return counts


def trained_recipe(folder: Path, trial: dict[str, Any]) -> Recipe:
    """What was really trained, as its run folder has it."""
    path = folder / "tunes/tiny" / trial["run"] / "recipe.json"
    return recipe_from_dict(json.loads(path.read_text()))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a search of ten trials is done."""
    folder = prepare(tmp_path_factory.mktemp("searched"))
    command = tune(folder, "--json", "--report", trials=10)
    assert command.wait() == 0, command.output
    (folder / "lines.jsonl").write_text(command.output)
    return folder


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """What is held until the test ends."""
    with contextlib.ExitStack() as held:
        yield held


@pytest.fixture
def copied(searched: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to go on in."""
    shutil.copytree(searched, tmp_path / "copy")
    (tmp_path / "copy/data.npz").unlink()
    (tmp_path / "copy/data.npz").symlink_to(searched / "data.npz")
    return tmp_path / "copy"


def test_the_first_trial_is_the_recipe_as_it_is(searched: Path) -> None:
    trials = summary(searched)["trials"]
    assert [t["number"] for t in trials if t["is_baseline"]] == [0]
    own = load_recipe(searched / "tiny.toml", [f"data.name={searched / 'data.npz'}"])
    assert trained_recipe(searched, trials[0]) == own
    assert trials[0]["params"] == {
        "optimizer.lr": 0.05,
        "training.batch_size": 32,
        "model.dropout": 0.2,
    }
    assert trials[0]["state"] == "complete"
    assert summary(searched)["baseline"] == 0


def test_each_trial_is_judged_by_its_last_epoch_in_a_run_of_its_own(searched: Path) -> None:
    for trial in summary(searched)["trials"]:
        run = searched / "tunes/tiny" / trial["run"]
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [line["validation_accuracy"] for line in lines] == trial["values"]
        recipe = flatten(json.loads((run / "recipe.json").read_text()))
        assert {key: recipe[key] for key in trial["params"]} == trial["params"]
        assert recipe["seed"] == 0
        if trial["state"] == "complete":
            assert trial["accuracy"] == trial["values"][-1]
            assert len(lines) == 4


def test_no_trial_touches_the_test_pictures(searched: Path) -> None:
    results = list(searched.glob("tunes/tiny/runs/*/result.json"))
    assert results
    for path in results:
        result = json.loads(path.read_text())
        assert list(result["splits"]) == ["validation"]
        assert result["test_uses"] == []
    assert not list(searched.glob("tunes/tiny/runs/*/predictions-test.npz"))


def test_a_trial_below_the_median_is_pruned_and_leaves_only_what_is_small(searched: Path) -> None:
    trials = summary(searched)["trials"]
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert pruned
    for trial in pruned:
        before = [t for t in trials if t["state"] == "complete" and t["number"] < trial["number"]]
        assert len(before) >= 5
        epoch = len(trial["values"]) - 1
        at_that_epoch = sorted(t["values"][epoch] for t in before)
        assert max(trial["values"]) < at_that_epoch[len(before) // 2]
        assert 2 <= len(trial["values"]) < 4
        run = searched / "tunes/tiny" / trial["run"]
        left = {path.name for path in run.iterdir()}
        assert {"metrics.jsonl", "recipe.json", "provenance.json"} <= left
        assert not {"checkpoint", "model.safetensors"} & left


def test_best_toml_is_the_recipe_of_the_best_trial(searched: Path) -> None:
    found = summary(searched)
    complete = [t for t in found["trials"] if t["state"] == "complete"]
    best = next(t for t in complete if t["number"] == found["best"])
    assert best["accuracy"] == max(t["accuracy"] for t in complete)
    trained = trained_recipe(searched, best)
    path = searched / "tunes/tiny/best.toml"
    assert load_recipe(path) == replace(trained, name="tiny-tuned")
    text = path.read_text()
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert "The best of 10 trials" in header[0]
    assert f"{100 * best['accuracy']:.2f} %" in text
    assert "#   tenfold train tunes/tiny/best.toml --seed 1" in header
    assert "optimistic" in text
    assert "momentum" not in text  # as every field that is at its default
    assert "widths = [16, 32]" in text


def test_json_has_a_line_for_each_trial_and_one_for_the_end(searched: Path) -> None:
    lines = [json.loads(line) for line in (searched / "lines.jsonl").read_text().splitlines()]
    events = [line["event"] for line in lines]
    assert events.count("trial_started") == events.count("trial") == 10
    end = next(line for line in lines if line["event"] == "search")
    assert end["counts"] == states(searched)
    assert end["best_accuracy"] == max(t["accuracy"] or 0 for t in summary(searched)["trials"])
    page = next(line for line in lines if line["event"] == "page")
    assert (searched / page["path"]).is_file()


def test_the_same_command_goes_on_and_then_has_nothing_to_do(copied: Path) -> None:
    before = summary(copied)["trials"]
    assert tune(copied, trials=11).wait() == 0
    after = summary(copied)["trials"]
    assert after[:10] == before
    assert len(after) == 11
    again = tune(copied, trials=11)
    assert again.wait() == 0
    assert summary(copied)["trials"] == after
    assert "trial 11" not in again.output


def test_a_search_by_one_process_is_the_same_each_time(searched: Path, tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    assert tune(folder, trials=4).wait() == 0
    before = [(t["params"], t["values"]) for t in summary(searched)["trials"][:4]]
    assert [(t["params"], t["values"]) for t in summary(folder)["trials"]] == before


@pytest.mark.parametrize(
    ("more", "space", "sentence"),
    [
        (["--set", "training.epochs=5"], SPACE, "training.epochs was 4 and is 5 now"),
        (["--seed", "1"], SPACE, "seed was 0 and is 1 now"),
        ([], LR, "it searches training.batch_size, which was not asked for now"),
        ([], SPACE.replace("0.3", "0.2"), "the range of optimizer.lr is another one"),
        (["--storage", "other.journal"], SPACE, "keeps its trials in its own journal"),
    ],
)
def test_another_search_in_the_same_folder_is_refused(
    copied: Path, more: list[str], space: str, sentence: str
) -> None:
    (copied / "space.toml").write_text(space)
    before = summary(copied)
    command = tune(copied, *more, trials=20)
    assert command.wait() == 2
    assert sentence in command.output
    assert "Traceback" not in command.output
    assert summary(copied) == before


def test_a_torn_last_line_of_the_journal_is_dropped(copied: Path) -> None:
    journal = copied / "tunes/tiny/trials.journal"
    with open(journal, "ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x')
    command = tune(copied, trials=11)
    assert command.wait() == 0, command.output
    assert len(summary(copied)["trials"]) == 11
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_two_processes_share_the_trials_of_one_journal(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    both = [start(folder, "--json", trials=5) for _ in range(2)]
    assert [command.wait() for command in both] == [0, 0], both[0].output + both[1].output
    trials = summary(folder)["trials"]
    assert len(trials) == 5
    assert sum(trial["is_baseline"] for trial in trials) == 1
    trained = [_trained_by(command) for command in both]
    assert sorted(trained[0] + trained[1]) == list(range(5))
    assert trained[0]
    assert trained[1]
    assert not list((folder / "tunes/tiny/workers").iterdir())


def _trained_by(command: Command) -> list[int]:
    lines = [json.loads(line) for line in command.output.splitlines()]
    return [line["number"] for line in lines if line["event"] == "trial"]


def test_a_killed_process_loses_nothing_while_another_goes_on(tmp_path: Path) -> None:
    folder = prepare(tmp_path, LR.replace("1e-6", "1e-2"))
    victim = start(folder, *LONG, "--json", trials=2)
    log = folder / "tunes/tiny/runs/trial-0/metrics.jsonl"
    victim.wait_for(lambda: log.exists() and log.read_text().count("\n") > 1)
    other = start(folder, *LONG, "--json", trials=2)
    other.wait_for(lambda: "trial_started" in other.output)
    victim.kill()
    assert other.wait() == 0, other.output
    trials = summary(folder)["trials"]
    killed = [trial for trial in trials if trial["state"] == "interrupted"]
    assert [trial["number"] for trial in killed] == [0]
    again = next(t for t in trials if t["number"] == killed[0]["resumed_as"])
    assert (again["resumes"], again["is_baseline"]) == (0, True)
    assert (again["state"], again["params"]) == ("complete", killed[0]["params"])
    assert again["run"] == killed[0]["run"]
    assert len(again["values"]) == LONG_EPOCHS
    assert again["values"][: len(killed[0]["values"])] == killed[0]["values"]
    provenance = json.loads((folder / "tunes/tiny/runs/trial-0/provenance.json").read_text())
    assert len(provenance["sessions"]) == 2
    assert provenance["sessions"][1]["resumed_at_step"] > 0
    assert sum(t["state"] in ("complete", "pruned") for t in trials) == 2


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGKILL, -9)]
)
def test_a_stopped_search_goes_on_where_it_was(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    folder = prepare(tmp_path, LR)
    first = start(folder, *LONG, trials=1)
    metrics = folder / "tunes/tiny/runs/trial-0/metrics.jsonl"
    first.wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") > 2)
    first.signal(number)
    assert first.wait() == status
    assert "Traceback" not in first.output
    if number != signal.SIGKILL:
        assert states(folder) == {"interrupted": 1, "waiting": 1}
    num_epochs = metrics.read_text().count("\n")
    second = tune(folder, *LONG, trials=1)
    assert second.wait() == 0, second.output
    assert "goes on with trial 0" in second.output
    trials = summary(folder)["trials"]
    assert [t["state"] for t in trials] == ["interrupted", "complete"]
    sessions = json.loads((metrics.parent / "provenance.json").read_text())["sessions"]
    assert sessions[1]["resumed_at_step"] >= 6 * num_epochs
    assert len(trials[1]["values"]) == LONG_EPOCHS


def _die_when_a_trial_is_told() -> None:
    optuna.Study.tell = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore


def test_a_run_that_ended_just_before_a_kill_is_not_trained_again(tmp_path: Path) -> None:
    folder = prepare(tmp_path, LR)
    first = commands.run(arguments(trials=1), folder=folder, before=_die_when_a_trial_is_told)
    assert first.wait() == -signal.SIGKILL
    run = folder / "tunes/tiny/runs/trial-0"
    result = (run / "result.json").read_bytes()
    assert tune(folder, trials=1).wait() == 0
    assert (run / "result.json").read_bytes() == result
    assert len(json.loads((run / "provenance.json").read_text())["sessions"]) == 1
    assert [t["state"] for t in summary(folder)["trials"]] == ["interrupted", "complete"]
    assert len(summary(folder)["trials"][1]["values"]) == 4


def test_the_time_is_kept_and_the_trial_in_training_put_back(tmp_path: Path) -> None:
    folder = prepare(tmp_path, LR)
    command = tune(folder, "--set", "training.epochs=4000", "--time", "3s")
    assert command.wait() == 0, command.output
    assert "The time is up" in command.output
    assert states(folder) == {"interrupted": 1, "waiting": 1}
    assert not (folder / "tunes/tiny/best.toml").exists()


def test_row_34_a_trial_that_diverges_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    folder = prepare(tmp_path, '"optimizer.lr" = {choices = [0.05, 1e30]}')
    command = tune(folder, trials=6)
    assert command.wait() == 0, command.output
    trials = summary(folder)["trials"]
    failed = [trial for trial in trials if trial["state"] == "failed"]
    assert failed
    assert len(trials) == 6
    for trial in failed:
        assert trial["params"] == {"optimizer.lr": 1e30}
        assert re.search("loss is|gradient is|no longer finite", trial["error"])
        assert not (folder / "tunes/tiny" / trial["run"] / "checkpoint").exists()
    assert all(t["state"] != "failed" for t in trials if t["params"]["optimizer.lr"] == 0.05)


def test_a_recipe_that_diverges_itself_is_searched_all_the_same(tmp_path: Path) -> None:
    folder = prepare(tmp_path, '"optimizer.lr" = {low = 0.01, high = 0.1}')
    command = tune(folder, "--set", "optimizer.lr=1e30", trials=2)
    assert command.wait() == 0, command.output
    found = summary(folder)
    assert [t["state"] for t in found["trials"]] == ["failed", "complete"]
    assert (found["baseline"], found["best"]) == (None, 1)
    assert "the recipe itself has no result" in command.output


def test_row_32_a_kill_ahead_of_any_write_loses_no_trial_and_adds_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, search_driver.__file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    findings = json.loads(done.stdout)
    assert len(findings) > 20
    assert [found["killed"] for found in findings].count(False) == 1
    for found in findings:
        assert found["resumed"] == 0
        assert found["num_counted"] == found["num_complete"] == found["num_values"] == 3
        assert found["baselines"] == [{"x": 0.5}]


def test_a_machine_that_gives_no_sign_of_life_loses_its_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: contextlib.ExitStack
) -> None:
    queues = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        worker = stack.enter_context(working_in(tmp_path / name))
        storage = open_storage(str(tmp_path / "shared.journal"))
        study = optuna.create_study(storage=storage, study_name="one", load_if_exists=True)
        queues.append(Queue(study, tmp_path / name, identity=name, worker=worker, seed=0))
    here, there = queues
    there.begin({"x": 1.0})
    here.begin({"x": 1.0})
    lost = there.take(3)
    assert lost is not None
    lost.suggest_float("x", 0, 2)
    second = here.take(3)
    assert second is not None
    assert (lost.number, second.number) == (0, 1)
    monkeypatch.setattr(search_queue, "SILENCE_SECONDS", 0.2)
    time.sleep(0.3)
    lost.set_user_attr("beat", 1)
    third = here.take(3)  # It has just been heard of, so it lives.
    assert third is not None
    assert third.number == 2
    time.sleep(0.3)
    again = here.take(3)
    assert again is not None
    assert again.user_attrs["resumes"] == 0
    assert again.user_attrs["baseline"] is True
    assert again.suggest_float("x", 0, 2) == 1.0
    assert here.take(3) is None
    assert [t.state for t in here.study.get_trials()].count(TrialState.FAIL) == 1


def test_two_folders_share_a_data_base_as_two_machines_do(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    url = f"sqlite:///{tmp_path / 'trials.db'}"
    both = [
        start(folder, "--storage", url, "--folder", name, "--json", trials=4)
        for name in ("one", "two")
    ]
    assert [command.wait() for command in both] == [0, 0], both[0].output + both[1].output
    trained = [_trained_by(command) for command in both]
    counted = summary(folder, "one")["trials"]
    assert len(counted) == 4
    assert sum(trial["is_baseline"] for trial in counted) == 1
    assert len(trained[0] + trained[1]) == len(set(trained[0] + trained[1])) == 4
    assert trained[0]
    assert trained[1]
    for name, numbers in zip(("one", "two"), trained, strict=True):
        runs = {path.name for path in (folder / name / "runs").iterdir()}
        assert runs == {f"trial-{number}" for number in numbers}
    other = tune(folder, "--storage", url, "--folder", "three", "--seed", "1", trials=6)
    assert other.wait() == 2
    assert "seed was 0 and is 1 now; give another --storage" in other.output


@pytest.mark.parametrize(
    ("storage", "sentence"),
    [
        ("sqlite:////no/such/folder/trials.db", "can't be opened"),
        ("oracle99://name:secret@host/db", "can't be opened"),
        ("tiny.toml", "is not a journal of trials"),
        (".", "is a folder"),
    ],
)
def test_row_e_a_storage_that_is_none_is_named(tmp_path: Path, storage: str, sentence: str) -> None:
    folder = prepare(tmp_path)
    command = tune(folder, "--storage", storage, trials=2)
    assert command.wait() == 2, command.output
    assert sentence in command.output
    assert "secret" not in command.output
    assert "Traceback" not in command.output
    assert (folder / "tiny.toml").read_text() == TINY_RECIPE
    assert not list(folder.glob("tunes/tiny/runs/*"))


def test_row_e_what_makes_no_search_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    (folder / "notes").mkdir()
    (folder / "notes/diary.txt").write_text("dear diary")
    for more, sentence in (
        (["--set", "data.validation_size=0"], "needs validation pictures"),
        (["--set", "training.early_stopping=3"], "training.early_stopping"),
        (["--folder", "notes"], "holds other things than a search, such as diary.txt"),
        (["--time", "soon"], "--time 'soon'"),
        (["--data", "nowhere"], "nowhere"),
    ):
        command = tune(folder, *more, trials=2)
        assert command.wait() == 2, command.output
        assert sentence in command.output
        assert "Traceback" not in command.output
        assert not list(folder.glob("tunes/*/runs/*"))


def _without_optuna() -> None:
    sys.modules["optuna"] = None  # type: ignore[assignment]


def test_without_the_extra_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    command = commands.run(arguments(trials=2), folder=folder, before=_without_optuna)
    assert command.wait() == 2
    assert 'pip install "tenfold[search]"' in command.output
    assert "Traceback" not in command.output
    assert not (folder / "tunes").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no ranges"),
        ("x = ", "is not valid TOML"),
        ('"optimizer.lrr" = {low = 1, high = 2}', "optimizer.lrr.*did you mean 'optimizer.lr'"),
        ('"optimizer.lr" = 0.1', "optimizer.lr must be a range"),
        ("[optimizer]\nlr = 0.1", "optimizer.lr must be a range"),
        ('"optimizer.lr" = {lo = 1, high = 2}', "optimizer.lr has an unknown word 'lo'"),
        ('"optimizer.lr" = {low = 0.1}', "optimizer.lr must be a range"),
        ('"optimizer.lr" = {low = 0.1, high = 0.01}', "optimizer.lr: low must be below high"),
        ('"optimizer.lr" = {low = 0.0, high = 0.1, log = true}', "log needs a low above 0"),
        ('"optimizer.lr" = {low = "a", high = 0.1}', "low must be a number, not 'a'"),
        ('"optimizer.lr" = {low = -1.0, high = 0.1}', "optimizer.lr must be more than 0"),
        ('"model.dropout" = {low = 0.0, high = 1.0}', "model.dropout must be from 0 to below 1"),
        ('"model.dropout" = {low = 0.0, high = 0.5, step = 0.7}', "step must be above 0"),
        ('"training.batch_size" = {low = 16.5, high = 64}', "a whole number, so low must be"),
        ('"training.batch_size" = {choices = [32]}', "two or more different values"),
        ('"training.batch_size" = {choices = [32, 32]}', "two or more different values"),
        ('"augmentation.cutout" = {factor = 2.0}', "no multiples"),
        ('"optimizer.lr" = {factor = 0.5}', "factor must be a number above 1"),
        ('"model.widths" = {low = 1, high = 2}', "give its choices"),
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
        "optimizer.lr": Range("optimizer.lr", "float", low=0.005, high=0.5, log=True),
        "training.batch_size": Range("training.batch_size", "choice", choices=(16, 64)),
        "training.epochs": Range("training.epochs", "int", low=2, high=8, step=3),
        "model.widths": Range("model.widths", "choice", choices=([8, 16], [16, 32])),
        "model.dropout": Range("model.dropout", "float", low=0.0, high=0.5),
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
        "betas": (0.9, 0.999),
        "weight_decay": 0.01,
    }
