import json
import logging
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import commands
import study_driver
from study_driver import GRID, NAMES, NUM_SEEDS, calls_of, drive, train_at_once
from tenfold.errors import InterruptedRunError, StoppedByUserError, TenfoldError
from tenfold.files import read_json
from tenfold.recipe import Recipe, load_recipe
from tenfold.run import RunFolder
from tenfold.studies.grid import Trial, expand, load_study, run_study

DRIVER = [sys.executable, study_driver.__file__]


def test_a_grid_is_the_product_of_its_values_and_seeds() -> None:
    trials = expand(["optimizer.lr=0.1,0.2", " model.dropout = 0 , 0.5 "], 2, first_seed=3)
    assert trials == [
        Trial((f"optimizer.lr={lr}", f"model.dropout={dropout}"), seed)
        for lr in ("0.1", "0.2")
        for dropout in ("0", "0.5")
        for seed in (3, 4)
    ]


def test_a_study_without_a_grid_is_its_seeds() -> None:
    assert [trial.name for trial in expand([], 3)] == ["seed=0", "seed=1", "seed=2"]


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
            expand([item], 1)
        return
    key = item.partition("=")[0]
    assert [trial.overrides for trial in expand([item], 1)] == [(f"{key}={v}",) for v in values]


@pytest.mark.parametrize(
    ("grid", "seeds", "sentence"),
    [
        (["optimizer.lr"], 1, "'optimizer.lr' must have the form key=value,value"),
        (["=1,2"], 1, "must have the form"),
        (["optimizer..lr=1"], 1, "must have the form"),
        (["optimizer.lr="], 1, "must have the form"),
        (["optimizer.lr=1,,2"], 1, "must have the form"),
        (["model.widths=[1,2"], 1, "must have the form"),
        (["model.widths=1],2"], 1, "must have the form"),
        (["model.widths=[1},2"], 1, "must have the form"),
        (['description="a,b'], 1, "must have the form"),
        (["seed=1,2"], 1, "--seeds"),
        (["optimizer.lr=1,2,1"], 1, "has 1 2 times"),
        (["optimizer.lr=1", "model.dropout=0", "optimizer.lr=2"], 1, "optimizer.lr 2 times"),
        ([], 0, "1 seed or more"),
    ],
)
def test_row_e_a_grid_in_another_form_is_named(grid: list[str], seeds: int, sentence: str) -> None:
    with pytest.raises(TenfoldError, match=sentence.replace("[", r"\[")):
        expand(grid, seeds)


def test_names_are_readable_safe_and_unique(tmp_path: Path) -> None:
    assert Trial(("optimizer.lr=0.1",), 2).name == "optimizer.lr=0.1,seed=2"
    assert Trial(("model.widths=[32,64]", "model.dropout=0"), 0).name == (
        "model.widths=[32,64],model.dropout=0,seed=0"
    )
    nasty = ["../../etc", "a/b", "a\\b", "a:b", "a b", "a  b", "é", "e\u0301", "x" * 300, "\n", "*"]
    nasty += ["x" * 301, "a-b", "🙂" * 80, '"', "'"]
    trials = [Trial((f"data.name={value}",), seed) for value in nasty for seed in (0, 10_000)]
    for trial in trials:
        assert trial.name.endswith(f",seed={trial.seed}")
        assert len(trial.name.encode()) <= 100
        (tmp_path / trial.name).mkdir()
    assert len(list(tmp_path.iterdir())) == len(trials)
    assert len({trial.name.casefold() for trial in trials}) == len(trials)


def test_a_study_leaves_its_plan_its_results_and_its_runs(tmp_path: Path) -> None:
    folder = tmp_path / "a study"
    announced = []
    outcome = run_study(
        "cnn",
        expand(GRID, NUM_SEEDS),
        folder=folder,
        train_trial=train_at_once,
        on_trial=lambda trial, number, total: announced.append((trial.name, number, total)),
    )
    assert (outcome.num_finished, outcome.num_failed, outcome.num_run) == (4, 0, 4)
    assert announced == [(name, number, 4) for number, name in enumerate(NAMES, start=1)]
    plan = read_json(folder / "study.json")
    assert plan["recipe"] == "cnn"
    assert [trial["recipe"]["seed"] for trial in plan["trials"]] == [0, 1, 0, 1]
    lines = (folder / "results.jsonl").read_text().splitlines()
    assert json.loads(lines[3]) == {
        "trial": "optimizer.lr=0.2,seed=1",
        "overrides": ["optimizer.lr=0.2"],
        "seed": 1,
        "run": "runs/optimizer.lr=0.2,seed=1",
        "status": "finished",
        "error": None,
        "splits": {
            "validation": {"accuracy": pytest.approx(0.71)},
            "test": {"accuracy": pytest.approx(0.70)},
        },
        "training_seconds": 1.5,
    }
    assert [json.loads(line) for line in lines] == list(outcome.records) == load_study(folder)
    for record in outcome.records:
        recipe = load_recipe(folder / record["run"] / "recipe.json")
        assert recipe == load_recipe("cnn", [*record["overrides"], f"seed={record['seed']}"])

    again = drive(folder, train_at_once)
    assert again == replace(outcome, num_run=0)
    assert calls_of(folder) == dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize(
    ("recipe", "grid", "sentence"),
    [
        ("cnn", ["optimizer.lr=0.1,-1"], "optimizer.lr must be more than 0, not -1"),
        ("cnn", ["optimizer.lr=0.1,fast"], "optimizer.lr must be a number, not 'fast'"),
        ("cnn", ["optimizer.lrr=0.1"], r"optimizer.lrr' \(did you mean 'lr'"),
        ("ccnn", ["optimizer.lr=0.1"], r"recipe 'ccnn' \(did you mean 'cnn'"),
        ("cnn", ["optimizer.lr=0.1,0.10"], "lr=0.1,seed=0 and optimizer.lr=0.10,seed=0 are the"),
    ],
)
def test_row_e_a_bad_value_stops_the_study_before_it_starts(
    tmp_path: Path, recipe: str, grid: list[str], sentence: str
) -> None:
    folder = tmp_path / "study"
    with pytest.raises(TenfoldError, match=sentence):
        run_study(recipe, expand(grid, 1), folder=folder, train_trial=train_at_once)
    assert not folder.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="forks and kills as POSIX does")
def test_row_32_a_driver_killed_at_any_operation_runs_only_what_is_missing(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [*DRIVER, "sweep", str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    *killed, whole = json.loads(done.stdout)
    assert len(killed) > 25
    assert all(finding["killed"] for finding in killed)
    assert not whole["killed"]
    assert whole["calls_after"] == dict.fromkeys(NAMES, 1)
    num_again = []
    for finding in killed:
        assert finding["resumed"] == 0, done.stderr
        assert finding["results"] == whole["results"]
        assert finding["plan"] == whole["plan"]
        calls = finding["calls_after"]
        assert all(calls[name] == 1 for name in finding["recorded"])
        num_again.append(sum(calls.values()) - len(NAMES))
    # At most the run that was under way is begun again, and not if it only lacked its record.
    assert set(num_again) == {0, 1}
    assert any(
        len(finding["calls_before"]) > len(finding["recorded"]) and not again
        for finding, again in zip(killed, num_again, strict=True)
    )


def test_row_32_a_second_driver_is_refused_and_a_dead_one_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    driver = subprocess.Popen([*DRIVER, "wait", str(folder)])
    try:
        deadline = time.monotonic() + 30
        while NAMES[1] not in calls_of(folder) and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(TenfoldError, match=f"is being written by process {driver.pid} on"):
            drive(folder, train_at_once)
        assert [record["trial"] for record in load_study(folder)] == NAMES[:1]
    finally:
        driver.kill()
        driver.wait()
    outcome = drive(folder, train_at_once)
    assert (outcome.num_finished, outcome.num_run) == (4, 3)
    assert calls_of(folder) == dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize("left", [[".0123.tmp"], ["lock", "writer.json", ".0123.tmp"], []])
def test_row_32_a_run_folder_without_a_recipe_is_begun_afresh(
    tmp_path: Path, left: list[str]
) -> None:
    path = tmp_path / "study" / "runs" / NAMES[0]
    seen = []

    def train_trial(recipe: Recipe, path: Path) -> RunFolder:
        seen.append(path.exists())
        return train_at_once(recipe, path)

    def kill(recipe: Recipe, path: Path) -> RunFolder:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(tmp_path / "study", kill)
    path.mkdir(parents=True)
    for name in left:
        (path / name).touch()
    assert drive(tmp_path / "study", train_trial).num_finished == 4
    assert seen == [False] * 4


def test_row_33_a_last_line_torn_anywhere_is_dropped_reported_and_run_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "study"
    drive(folder, train_at_once)
    path = folder / "results.jsonl"
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    start = len(whole) - len(last)
    tails = [last[:cut] for cut in (*range(1, len(last) - 2, 23), len(last) - 2, len(last) - 1)]
    tails += [b'{"trial": 3}\n', b"\0" * 50, b"\xff\xfe\r\xff\n", b"null\n", b"{}"]
    for count, tail in enumerate(tails, start=2):
        path.write_bytes(whole[:start] + tail)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="tenfold"):
            assert len(load_study(folder)) == 3
            outcome = drive(folder, train_at_once)
        assert f"The last line of {path} is torn" in caplog.text
        assert (outcome.num_finished, outcome.num_run) == (4, 1)
        assert calls_of(folder) == {**dict.fromkeys(NAMES, 1), NAMES[3]: count}
        assert path.read_bytes() == whole


def test_row_33_another_broken_line_is_named_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    drive(folder, train_at_once)
    path = folder / "results.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    broken = b"".join([lines[0], b"{oops\n", *lines[2:]])
    path.write_bytes(broken)
    with pytest.raises(TenfoldError, match=r"results.jsonl, line 2, is not the record"):
        drive(folder, train_at_once)
    assert path.read_bytes() == broken


def test_row_34_failed_trials_are_recorded_and_the_others_finish(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "study"
    failures: dict[str, Exception] = {
        NAMES[0]: TenfoldError("The loss is nan in epoch 1; lower optimizer.lr."),
        NAMES[2]: ZeroDivisionError("division by zero"),
    }

    def train_trial(recipe: Recipe, path: Path) -> RunFolder:
        if path.name in failures:
            raise failures[path.name]
        return train_at_once(recipe, path)

    outcome = drive(folder, train_trial)
    assert (outcome.num_finished, outcome.num_failed, outcome.num_run) == (2, 2, 4)
    assert [record["error"] for record in load_study(folder)] == [
        "The loss is nan in epoch 1; lower optimizer.lr.",
        None,
        "ZeroDivisionError: division by zero",
        None,
    ]
    failed = outcome.records[0]
    assert (failed["status"], failed["splits"], failed["training_seconds"]) == ("failed", {}, None)
    assert f"{NAMES[0]} failed: The loss is nan" in caplog.text
    assert "2 of 4 trials failed; the same command with --retry-failed" in caplog.text

    assert drive(folder, train_at_once) == replace(outcome, num_run=0)
    del failures[NAMES[0]]
    retried = run_study(
        "cnn",
        expand(GRID, NUM_SEEDS),
        folder=folder,
        train_trial=train_trial,
        retry_failed=True,
    )
    assert (retried.num_finished, retried.num_failed, retried.num_run) == (3, 1, 2)
    assert list(retried.records) == load_study(folder)
    assert len((folder / "results.jsonl").read_text().splitlines()) == 6


def test_a_run_that_finished_after_its_failure_was_recorded_counts(tmp_path: Path) -> None:
    def train_trial(recipe: Recipe, path: Path) -> RunFolder:
        train_at_once(recipe, path)
        raise OSError("the network went away after the last byte")

    assert drive(tmp_path / "study", train_trial).num_failed == 4
    outcome = drive(tmp_path / "study", train_trial)
    assert (outcome.num_finished, outcome.num_run) == (4, 0)


@pytest.mark.parametrize("kind", [InterruptedRunError, StoppedByUserError, KeyboardInterrupt])
def test_an_interruption_ends_the_study_and_is_no_failure(
    tmp_path: Path, kind: type[BaseException]
) -> None:
    folder = tmp_path / "study"

    def train_trial(recipe: Recipe, path: Path) -> RunFolder:
        if path.name == NAMES[1]:
            raise kind("everything is saved")
        return train_at_once(recipe, path)

    with pytest.raises(kind, match="everything is saved"):
        drive(folder, train_trial)
    assert [record["trial"] for record in load_study(folder)] == NAMES[:1]
    outcome = drive(folder, train_at_once)
    assert (outcome.num_finished, outcome.num_run) == (4, 3)


@pytest.mark.parametrize(
    ("recipe", "grid", "seeds", "sentence"),
    [
        ("ann", GRID, 2, "in optimizer.lr=0.1,seed=0, name was 'cnn' and is 'ann' now"),
        ("cnn", GRID, 4, "it lacks the trial optimizer.lr=0.1,seed=2 and 3 more"),
        ("cnn", ["optimizer.lr=0.1"], 2, "it has the trial optimizer.lr=0.2,seed=0 and 1 more"),
    ],
)
def test_row_e_another_study_is_kept_out_of_the_folder(
    tmp_path: Path, recipe: str, grid: list[str], seeds: int, sentence: str
) -> None:
    folder = tmp_path / "study"
    drive(folder, train_at_once)
    plan = (folder / "study.json").read_bytes()
    with pytest.raises(TenfoldError, match=sentence):
        run_study(recipe, expand(grid, seeds), folder=folder, train_trial=train_at_once)
    assert (folder / "study.json").read_bytes() == plan
    assert calls_of(folder) == dict.fromkeys(NAMES, 1)


def test_row_e_a_changed_recipe_file_is_another_study(tmp_path: Path) -> None:
    path, folder = tmp_path / "mine.toml", tmp_path / "study"
    path.write_text("[training]\nepochs = 3\n")
    run_study(str(path), expand([], 1), folder=folder, train_trial=train_at_once)
    path.write_text("[training]\nepochs = 4\n")
    with pytest.raises(TenfoldError, match=r"in seed=0, training.epochs was 3 and is 4 now"):
        run_study(str(path), expand([], 1), folder=folder, train_trial=train_at_once)


def test_row_e_a_folder_of_something_else_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(TenfoldError, match=r"holds other things than a study, such as thesis.txt"):
        drive(tmp_path, train_at_once)
    with pytest.raises(TenfoldError, match=r"thesis.txt is not a folder"):
        drive(tmp_path / "thesis.txt", train_at_once)
    with pytest.raises(TenfoldError, match="There is no study in"):
        load_study(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"trials": [1]}', '{"trials": 3}', "{"])
def test_row_e_a_spoilt_plan_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(TenfoldError, match=r"study.json"):
        drive(tmp_path, train_at_once)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_row_e_a_full_disk_stops_the_study_which_then_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "study"

    def train_trial(recipe: Recipe, path: Path) -> RunFolder:
        if path.name == NAMES[0]:
            (folder / "results.jsonl").symlink_to("/dev/full")
        return train_at_once(recipe, path)

    with pytest.raises(TenfoldError, match=r"results.jsonl can't be written \(No space left"):
        drive(folder, train_trial)
    (folder / "results.jsonl").unlink()
    outcome = drive(folder, train_at_once)
    assert (outcome.num_finished, outcome.num_run) == (4, 3)


def test_the_command_line_needs_no_torch_to_know_studies() -> None:
    code = "import sys, tenfold.studies.grid; print(*{'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


REAL_RECIPE = """
[data]
name = "digits"

[model]
name = "ann"
widths = [16]

[training]
epochs = 12
"""
REAL_STUDY = ["study", "digits.toml", "--seeds", "2", "--folder", "study"]


def begin_real_study(folder: Path) -> commands.Command:
    folder.mkdir(exist_ok=True)
    (folder / "digits.toml").write_text(REAL_RECIPE)
    return commands.start([*REAL_STUDY, "--grid", "optimizer.lr=0.05,1e30"], folder=folder)


def bits_of(study: Path) -> dict[str, tuple[dict[str, bytes], bytes]]:
    """Weights and logs of the finished runs."""
    from safetensors.numpy import load_file

    bits = {}
    for record in load_study(study):
        if record["status"] == "finished":
            run = RunFolder(study / record["run"])
            weights = {name: array.tobytes() for name, array in load_file(run.model).items()}
            bits[record["trial"]] = weights, run.metrics.read_bytes()
    return bits


@pytest.mark.slow
def test_rows_32_33_34_with_real_training(tmp_path: Path) -> None:
    undisturbed = begin_real_study(tmp_path / "undisturbed")
    assert undisturbed.wait() == 1, undisturbed.output
    expected = bits_of(tmp_path / "undisturbed" / "study")
    finished = ["optimizer.lr=0.05,seed=0", "optimizer.lr=0.05,seed=1"]
    assert list(expected) == finished

    folder, study = tmp_path / "disturbed", tmp_path / "disturbed" / "study"
    killed = begin_real_study(folder)
    checkpoints = study / "runs" / finished[1] / "checkpoint"
    killed.wait_for(lambda: any(checkpoints.glob("*.json")))
    killed.kill()
    assert [record["trial"] for record in load_study(study)] == finished[:1]
    resumed = begin_real_study(folder)
    assert resumed.wait() == 1, resumed.output
    assert bits_of(study) == expected
    sessions = [
        len(read_json(study / "runs" / name / "provenance.json")["sessions"]) for name in finished
    ]
    assert sessions == [1, 2]
    records = load_study(study)
    assert [record["status"] for record in records] == ["finished"] * 2 + ["failed"] * 2
    assert "lower optimizer.lr" in str(records[3]["error"])
    assert records[1]["splits"]["test"]["accuracy"] > 0.7

    results = study / "results.jsonl"
    lines = results.read_text().splitlines(keepends=True)
    results.write_text("".join([lines[0], lines[1][:-20]]))
    again = begin_real_study(folder)
    assert again.wait() == 1, again.output
    assert "is torn" in " ".join(again.output.split())
    assert bits_of(study) == expected
    # The clock apart, every line is what it was.
    assert [{**r, "training_seconds": 0} for r in load_study(study)] == [
        {**r, "training_seconds": 0} for r in records
    ]
