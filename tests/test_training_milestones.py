"""Milestones: a long run at a constant rate passes through the ends of shorter ones."""

import json
import signal

import pytest
import torch

import commands
from tenfold.errors import TenfoldError
from tenfold.evaluation.evaluate import evaluate_run
from tenfold.evaluation.trained import load_model
from tenfold.files import write_json
from tenfold.recipe import load_recipe
from tenfold.run import RunFolder

CHANGES = [
    *("schedule.name=constant", "training.epochs=4", "training.milestones=[1,3]"),
    "evaluation.training_mode=true",
]


def arguments(*changes, folder):
    sets = [word for change in changes for word in ("--set", change)]
    return [
        *("train", "tiny.toml", "--data", "tiny.npz", "--no-report", "--folder", folder),
        *("--threads", "1", *sets),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of four epochs with milestones after one and three."""
    folder = tmp_path_factory.mktemp("milestones")
    commands.write_tiny_recipe(folder)
    commands.write_tiny_data(folder / "tiny.npz")
    command = commands.start(arguments(*CHANGES, folder="long"), folder=folder)
    assert command.wait() == 0, command.output
    return folder


def weights_of(path):
    return load_model(path).module.state_dict()


def read_result(folder):
    return json.loads((folder / "result.json").read_text())


def test_a_milestone_is_a_run_of_its_own_bit_for_bit(folder):
    command = commands.start(
        arguments("schedule.name=constant", "training.epochs=3", folder="short"), folder=folder
    )
    assert command.wait() == 0, command.output
    short = weights_of(folder / "short/model.safetensors")
    milestone = weights_of(RunFolder(folder / "long").milestone(3))
    assert all(torch.equal(short[name], milestone[name]) for name in short)
    scores = {m["epoch"]: m["splits"] for m in read_result(folder / "long")["milestones"]}
    assert list(scores) == [1, 3]
    for split, own in read_result(folder / "short")["splits"].items():
        in_training_mode = scores[3][split].pop("accuracy_in_training_mode")
        assert 0 < in_training_mode <= 1
        assert scores[3][split] == {"accuracy": own["accuracy"], "loss": own["loss"]}
        assert "accuracy_in_training_mode" not in own
        assert 0 < read_result(folder / "long")["splits"][split]["accuracy_in_training_mode"] <= 1


def test_every_use_of_the_test_pictures_is_written_down(folder):
    result = read_result(folder / "long")
    assert [use["purpose"] for use in result["test_uses"]] == [
        "after training",
        "after epoch 1",
        "after epoch 3",
    ]
    assert (
        evaluate_run(RunFolder(folder / "long")).accuracy == (result["splits"]["test"]["accuracy"])
    )


def test_without_the_test_pictures_milestones_have_their_validation(folder):
    command = commands.start([*arguments(*CHANGES, folder="blind"), "--no-test"], folder=folder)
    assert command.wait() == 0, command.output
    result = read_result(folder / "blind")
    assert [list(m["splits"]) for m in result["milestones"]] == [["validation"], ["validation"]]
    assert result["test_uses"] == []


def test_a_killed_run_has_its_milestones_after_all(folder):
    path = folder / "killed"
    command = commands.start(arguments(*CHANGES, folder="killed"), folder=folder)
    command.wait_for(RunFolder(path).milestone(1).exists)
    command.signal(signal.SIGKILL)
    command.process.join(30)
    assert commands.run(arguments(*CHANGES, folder="killed"), folder=folder).wait() == 0
    assert read_result(path)["milestones"] == read_result(folder / "long")["milestones"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["training.milestones=[5]"], r"milestones.*from 1 to training.epochs, which is 4"),
        (["training.milestones=[0, 2]"], "rising numbers from 1"),
        (["training.milestones=[3, 1]"], "rising numbers"),
        (["schedule.name=cosine"], "milestones.*schedule.name is 'constant'"),
        (["schedule.warmup_epochs=2"], "milestones.*no warm-up after the first milestone"),
        (["training.early_stopping=2"], "milestones.*early_stopping and the time limit are 0"),
        (["training.time_limit_seconds=60"], "milestones.*the time limit are 0"),
    ],
)
def test_milestones_that_say_nothing_are_refused(changes, message):
    with pytest.raises(TenfoldError, match=message):
        load_recipe("cnn", [*CHANGES, *changes])


@pytest.mark.parametrize(
    ("name", "epochs", "left"),
    [("lenet", 2, ()), ("lenet", 25, (10, 20)), ("cnn-dropout", 1, ()), ("lenet", 10, (10,))],
)
def test_milestones_beyond_fewer_epochs_fall_away(name, epochs, left):
    assert load_recipe(name, [f"training.epochs={epochs}"]).training.milestones == left


def test_those_of_a_run_that_is_trained_again_for_fewer_epochs_too(tmp_path):
    write_json(tmp_path / "recipe.json", load_recipe("cnn", CHANGES).to_dict())
    shorter = load_recipe(tmp_path / "recipe.json", ["training.epochs=2"])
    assert shorter.training.milestones == (1,)
