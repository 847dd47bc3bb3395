"""What a search by one process leaves, says and refuses."""

import json
import re
import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import commands
from commands import TINY_RECIPE
from searches import LR, SPACE, arguments, prepare, states, summary, tune
from tenfold.errors import OutOfMemoryError, TenfoldError, UnwritableError
from tenfold.recipe import Recipe, load_recipe, recipe_from_dict
from tenfold.recipe.dotted import flatten
from tenfold.results.searches import OBJECTIVE, SearchFile
from tenfold.studies.search import store
from tenfold.studies.search.plan import describe_difference
from tenfold.studies.search.running import SearchOptions, _with_data
from tenfold.studies.search.space import read_space

NUM_TRIALS = 8


def trained_recipe(folder: Path, trial: dict[str, Any]) -> Recipe:
    """What was really trained, as its run folder has it."""
    path = folder / "tunes/tiny" / trial["run"] / "recipe.json"
    return recipe_from_dict(json.loads(path.read_text()))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a search is done."""
    folder = prepare(tmp_path_factory.mktemp("searched"))
    command = tune(folder, "--json", "--report", trials=NUM_TRIALS)
    assert command.wait() == 0, command.output
    (folder / "lines.jsonl").write_text(command.output)
    return folder


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
        values = [line["validation_accuracy"] for line in lines]
        # One that is pruned may have gone on until it was told so.
        assert values[: len(trial["values"])] == trial["values"]
        recipe = flatten(json.loads((run / "recipe.json").read_text()))
        assert {key: recipe[key] for key in trial["params"]} == trial["params"]
        assert recipe["seed"] == 0
        if trial["state"] == "complete":
            assert trial["accuracy"] == trial["values"][-1]
            assert len(lines) == len(trial["values"]) == 4


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
        assert len(trial["values"]) == 3
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
    said = "tiny with the values of a search"
    assert load_recipe(path) == trained.but(name="tiny-best", description=said)
    text = path.read_text()
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert f"The best of {NUM_TRIALS} trials" in header[0]
    assert f"{100 * best['accuracy']:.2f} %" in text
    assert "#   tenfold train tunes/tiny/best.toml --seed 1" in header
    assert "optimistic" in text
    assert "momentum" not in text  # as every field that is at its default
    assert "widths = [16, 32]" in text


def test_json_has_a_line_for_each_trial_and_one_for_the_end(searched: Path) -> None:
    lines = [json.loads(line) for line in (searched / "lines.jsonl").read_text().splitlines()]
    events = [line["event"] for line in lines]
    assert events.count("trial_started") == events.count("trial") == NUM_TRIALS
    end = next(line for line in lines if line["event"] == "search")
    assert end["counts"] == states(searched)
    assert end["best_accuracy"] == max(t["accuracy"] or 0 for t in summary(searched)["trials"])
    page = next(line for line in lines if line["event"] == "page")
    assert (searched / page["path"]).is_file()


def test_the_same_command_goes_on_and_then_has_nothing_to_do(copied: Path) -> None:
    before = summary(copied)["trials"]
    assert tune(copied, trials=NUM_TRIALS + 1).wait() == 0
    after = summary(copied)["trials"]
    assert after[:NUM_TRIALS] == before
    assert len(after) == NUM_TRIALS + 1
    again = tune(copied, trials=NUM_TRIALS + 1)
    assert again.wait() == 0
    assert summary(copied)["trials"] == after
    assert f"trial {NUM_TRIALS + 1}" not in again.output


def test_a_search_by_one_process_is_the_same_each_time(searched: Path, tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    assert tune(folder, trials=2).wait() == 0
    before = [(t["params"], t["values"]) for t in summary(searched)["trials"][:2]]
    assert [(t["params"], t["values"]) for t in summary(folder)["trials"]] == before


def test_another_search_in_the_same_folder_is_refused(copied: Path) -> None:
    before = summary(copied)
    for more, sentence in (
        (["--set", "training.epochs=5"], "training.epochs was 4 and is 5 now"),
        (["--storage", "other.db"], "keeps its trials in a data base in its folder"),
    ):
        command = tune(copied, *more, trials=20)
        assert command.wait() == 2
        assert sentence in command.output
        assert "Traceback" not in command.output
        assert summary(copied) == before


@pytest.mark.parametrize(
    ("overrides", "space", "sentence"),
    [
        (["seed=1"], SPACE, "seed was 0 and is 1 now"),
        (["description='other words'"], SPACE, None),
        ([], LR, "the range of training.batch_size is not what it was, or is new"),
        (
            [],
            SPACE.replace("0.3", "0.2"),
            "the range of optimizer.lr is not what it was, or is new",
        ),
        (
            [],
            SPACE + "model.activation = {choices = ['relu', 'elu']}\n",
            "the range of model.activation is not what it was, or is new",
        ),
    ],
)
def test_what_tells_two_searches_apart(
    tmp_path: Path, overrides: list[str], space: str, sentence: str | None
) -> None:
    prepare(tmp_path)

    def plan(overrides: list[str], text: str) -> SearchFile:
        (tmp_path / "space.toml").write_text(text)
        recipe = load_recipe(tmp_path / "tiny.toml", overrides)
        space = read_space(tmp_path / "space.toml", recipe)
        return SearchFile(
            objective=OBJECTIVE, recipe=recipe.to_dict(), space=space, source="tiny.toml"
        )

    assert describe_difference(plan([], SPACE), plan(overrides, space)) == sentence


def test_a_search_of_ones_own_part_goes_on_with_the_same_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    code = "def small(logits, labels):\n    return logits.logsumexp(dim=1)\n"
    (tmp_path / "space.toml").write_text(SPACE)

    def plan() -> SearchFile:
        own = ["loss.name=my.py:small", "training.label_smoothing=0", "data.name=data.npz"]
        recipe = load_recipe("tiny.toml", own)
        space = read_space(Path("space.toml"), recipe)
        values = recipe.to_dict()
        found = SearchFile(objective=OBJECTIVE, recipe=values, space=space, source="tiny.toml")
        return _with_data(found, SearchOptions(folder=tmp_path / "search"), None)

    (tmp_path / "my.py").write_text(code)
    before = plan()
    assert describe_difference(before, plan()) is None
    (tmp_path / "my.py").write_text(f"{code}# Changed.\n")
    assert describe_difference(before, plan()) == "my.py is not what it was"
    older = before.model_copy(update={"code": {}})
    assert describe_difference(older, plan()) is None


OWN_NETWORK = """
from torch import nn

def net(*, num_classes: int, image_size: tuple[int, int], width: int = 8) -> nn.Module:
    features = 3 * image_size[0] * image_size[1]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(features, width), nn.ReLU(), nn.Linear(width, num_classes)
    )
"""


def test_a_part_of_ones_own_is_found_beside_its_recipe_in_another_folder(tmp_path: Path) -> None:
    prepare(tmp_path, '"model.width" = {choices = [8, 16]}\n')
    (tmp_path / "own").mkdir()
    (tmp_path / "own/my.py").write_text(OWN_NETWORK)
    tables = ["[data]", "validation_size = 64", "[model]", 'name = "my.py:net"']
    (tmp_path / "own/tiny.toml").write_text("\n".join([*tables, "[training]", "epochs = 1\n"]))
    command = ["own/tiny.toml" if a == "tiny.toml" else a for a in arguments(trials=2)]
    found = commands.run(command, folder=tmp_path)
    assert found.wait() == 0, found.output
    assert states(tmp_path) == {"complete": 2}
    best = tmp_path / "tunes/tiny/best.toml"
    assert load_recipe(best).model.name == "my.py:net"
    assert (best.parent / "my.py").read_text() == OWN_NETWORK


def test_the_time_is_kept_and_the_trial_in_training_put_back(tmp_path: Path) -> None:
    folder = prepare(tmp_path, LR)
    command = tune(folder, "--set", "training.epochs=9000", "--time", "6s")
    assert command.wait() == 0, command.output
    assert "The time is up" in command.output
    assert states(folder) == {"interrupted": 1, "waiting": 1}
    assert not (folder / "tunes/tiny/best.toml").exists()


def test_row_34_a_trial_that_diverges_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    folder = prepare(tmp_path, '"optimizer.lr" = {choices = [0.05, 1e30]}')
    command = tune(folder, "--jobs", "2", trials=4)
    assert command.wait() == 0, command.output
    trials = summary(folder)["trials"]
    failed = [trial for trial in trials if trial["state"] == "failed"]
    assert failed
    assert len(trials) == 4
    for trial in failed:
        assert trial["params"] == {"optimizer.lr": 1e30}
        assert re.search("loss is|gradient is|no longer finite", trial["error"])
        assert not (folder / "tunes/tiny" / trial["run"] / "checkpoint").exists()
    assert all(t["state"] != "failed" for t in trials if t["params"]["optimizer.lr"] == 0.05)


def test_changed_pictures_are_refused_and_other_words_are_not(tmp_path: Path) -> None:
    folder = prepare(tmp_path, LR)
    assert tune(folder, trials=1).wait() == 0
    recipe = folder / "tiny.toml"
    recipe.write_text(recipe.read_text().replace("for tests", "in other words"))
    assert tune(folder, trials=1).wait() == 0
    (folder / "data.npz").unlink()
    commands.write_tiny_data(folder / "data.npz", num_train=256, num_test=40)
    command = tune(folder, trials=2)
    assert command.wait() == 2
    assert "data.npz are no longer those that it began with" in command.output
    assert len(summary(folder)["trials"]) == 1


@pytest.mark.long
def test_the_record_of_trials_is_never_replaced_by_fewer(tmp_path: Path) -> None:
    folder, elsewhere = prepare(tmp_path / "begun", LR), prepare(tmp_path / "elsewhere", LR)
    data = ["--data", str(folder / "data.npz"), "--storage", "sqlite:///trials.db"]
    assert tune(folder, *data, trials=2).wait() == 0
    search = folder / "tunes/tiny"
    before = {name: (search / name).read_bytes() for name in ("trials.json", "best.toml")}
    # The relative path is that of another data base now: first of none, then of one with a trial.
    for command in (
        tune(elsewhere, *data, "--folder", str(search), trials=1),
        tune(elsewhere, *data, trials=1),
        tune(elsewhere, *data, "--folder", str(search), trials=1),
    ):
        is_refused = "can't be found in" in command.output
        assert command.wait() == (2 if is_refused else 0), command.output
        assert before == {name: (search / name).read_bytes() for name in before}
        assert is_refused or (elsewhere / "tunes/tiny/trials.json").exists()
    assert is_refused
    assert tune(folder, *data, trials=3).wait() == 0
    assert len(summary(folder)["trials"]) == 3


def test_a_data_base_that_has_gone_takes_no_record_with_it(copied: Path) -> None:
    before = summary(copied)
    (copied / "tunes/tiny/trials.db").unlink()
    command = tune(copied, trials=1)
    assert command.wait() == 2, command.output
    assert "trials that can't be found in" in command.output
    assert not (copied / "tunes/tiny/trials.db").exists()
    assert summary(copied) == before


@dataclass(frozen=True)
class FailAfterTheFirst:
    """Let every trial but the first fail, with a sentence that names its run."""

    kind: type[Exception]

    def __call__(self) -> None:
        """Put another command in the place of training."""
        from tenfold.engine import Child
        from tenfold.processes import spawn

        real = Child.__init__

        def begin(child: Child, item: Any, post: Any, **others: Any) -> None:
            if item.name != "trial 0":
                message = f"{item.folder}/checkpoint can't be read."
                ending = {"event": "error", "kind": self.kind.__name__, "message": message}
                code = f"print({json.dumps(ending)!r}); raise SystemExit(2)"
                others["spawn"] = partial(spawn, command=[sys.executable, "-S", "-c", code])
            real(child, item, post, **others)

        Child.__init__ = begin  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        (OSError, {"complete": 1, "failed": 3}),
        pytest.param(TenfoldError, {"complete": 1, "failed": 3}, marks=pytest.mark.long),
        (UnwritableError, {"complete": 1, "interrupted": 1, "waiting": 1}),
        pytest.param(OutOfMemoryError, {"complete": 1, "failed": 5}, marks=pytest.mark.long),
    ],
)
def test_row_34_a_machine_on_which_every_trial_fails_stops_the_search(
    tmp_path: Path, kind: type[Exception], counts: dict[str, int]
) -> None:
    folder = prepare(tmp_path, LR)
    command = commands.run(arguments(trials=6), folder=folder, before=FailAfterTheFirst(kind))
    assert command.wait() == (0 if kind is OutOfMemoryError else 2), command.output
    stopped = "The last 3 trials failed in the same way" in command.output
    assert stopped == (counts.get("failed") == 3)
    assert "checkpoint can't be read" in command.output
    assert states(folder) == counts
    if kind is OSError:  # Mended, it goes on.
        assert tune(folder, trials=5).wait() == 0
        assert states(folder) == {"complete": 2, "failed": 3}


def test_a_recipe_that_diverges_itself_is_searched_all_the_same(tmp_path: Path) -> None:
    folder = prepare(tmp_path, '"optimizer.lr" = {low = 0.01, high = 0.1}')
    command = tune(folder, "--set", "optimizer.lr=1e30", trials=2)
    assert command.wait() == 0, command.output
    found = summary(folder)
    assert [t["state"] for t in found["trials"]] == ["failed", "complete"]
    assert (found["baseline"], found["best"]) == (None, 1)
    assert "the recipe itself has no result" in command.output


@pytest.mark.parametrize(
    ("storage", "sentence"),
    [
        ("sqlite:////no/such/folder/trials.db", "can't be opened"),
        ("oracle99://name:secret@host/db", "can't be opened"),
        ("tiny.toml", "can't be opened"),
        (".", "is a folder"),
        ("postgres://name:secret@host/db", "write postgresql instead"),
        ("postgres+psycopg2://name:secret@host/db", "write postgresql instead"),
    ],
)
def test_row_e_a_storage_that_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, sentence: str
) -> None:
    monkeypatch.chdir(prepare(tmp_path))
    with (
        pytest.raises(TenfoldError, match=sentence) as caught,
        store.alone(tmp_path / "tunes", storage),
    ):
        store.open_storage(storage)
    assert "secret" not in str(caught.value)
    assert (tmp_path / "tiny.toml").read_text() == TINY_RECIPE


def test_row_e_what_makes_no_search_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    (folder / "notes").mkdir()
    (folder / "notes/diary.txt").write_text("dear diary")
    for more, sentence in (
        (["--set", "data.validation_size=0"], "needs validation images"),
        (["--set", "training.early_stopping=3"], "training.early_stopping"),
        (["--set", "training.min_steps=99"], "training.min_steps"),
        (["--folder", "notes"], "holds other things than a search, such as diary.txt"),
        (["--storage", "oracle99://name:secret@host/db"], "can't be opened"),
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
    assert "pip install '.[search]'" in command.output
    assert "Traceback" not in command.output
    assert not (folder / "tunes").exists()
