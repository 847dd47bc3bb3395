"""A network of one's own, in a file of twelve lines, goes wherever a shipped one does."""

import json
import shutil

import httpx
import numpy as np
import pytest

import commands
import hub_stand_in
import served

NETWORK = """
from typing import Annotated
from pydantic import Field
from torch import nn

def net(*, num_classes, image_size, width: Annotated[int, Field(ge=4, le=8)] = 4, gelu=False):
    body = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.MaxPool2d(2))
    end = nn.GELU() if gelu else nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    return nn.Sequential(body, *end, nn.Linear(4 * width, num_classes))
""".strip()
OWN = ["--set", "model.name=my_net.py:net"]
QUICK = ["--data", "digits", "--epochs", "2", "--batch-size", "64", "--set", "data.image_size=8"]
RUN = "runs/net/1"


def make_own_run(folder):
    """RUN, by a network of one's own and without a recipe."""
    (folder / "my_net.py").write_text(NETWORK)
    assert len(NETWORK.splitlines()) <= 12
    output = tenfold(folder, "train", *OWN, *QUICK, "--set", "model.width=6")
    assert "my_net.py:net with" in output


def tenfold(folder, *arguments, status=0):
    """The output of a command that ends with `status`."""
    environment = {"XDG_STATE_HOME": str(folder / "state")}
    command = commands.run(arguments, folder=folder, environment=environment)
    assert command.wait() == status, command.output
    return command.output


@pytest.fixture(scope="module")
def folder(made_once):
    return made_once(make_own_run)


def test_without_a_recipe_it_trains_with_the_defaults(folder):
    recipe = json.loads((folder / RUN / "recipe.json").read_text())
    assert recipe["model"] == {"name": "my_net.py:net", "width": 6, "gelu": False}
    assert recipe["optimizer"]["name"] == "sgd"
    assert recipe["stages"] == []
    commands.write_class_folders(folder / "photos")
    output = tenfold(folder, "train", *OWN, *QUICK[2:], "--data", "photos", "--folder", "of-photos")
    assert "my_net.py:net with" in output
    assert (folder / "of-photos/result.json").exists()


def test_a_recipe_elsewhere_names_what_lies_beside_it(folder):
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere/other_net.py").write_text(NETWORK)
    text = '[model]\nname = "other_net.py:net"\n[data]\nname = "digits"\nimage_size = 8\n'
    (folder / "elsewhere/own.toml").write_text(text)
    tenfold(folder, "train", "elsewhere/own.toml", *QUICK[2:], "--folder", "beside")
    assert (folder / "beside/code/other_net.py").read_text() == NETWORK
    epochs = ["--set", "training.epochs=1", "--no-report"]
    grid = ["--grid", "model.width=4,5"]
    tenfold(folder, "study", "elsewhere/own.toml", *grid, *epochs, "--folder", "widths")
    assert len(list(folder.glob("widths/runs/*/result.json"))) == 2


def test_an_option_that_it_has_not_names_the_nearest(folder):
    output = tenfold(folder, "train", *OWN, *QUICK, "--set", "model.widht=6", status=2)
    assert "unknown key 'model.widht' (did you mean 'width'?)" in output


def test_it_is_evaluated_audited_explained_and_examined(folder):
    assert "images right" in tenfold(folder, "evaluate", RUN)
    output = tenfold(folder, "audit", RUN, "calibration", "explanation", "errors")
    assert "grad-cam" in output
    assert "shows" in tenfold(folder, "explain", RUN, "test/1")
    assert "Conv2d" in tenfold(folder, "doctor", RUN)


def test_it_is_exported_and_serves(folder):
    tenfold(folder, "export", RUN, "--maps", "--samples", "4")
    with served.serving(f"{RUN}/export/model.onnx", folder=folder) as server:
        tensor = {"name": "pixels", "shape": [1, 8, 8, 3], "datatype": "UINT8", "data": [0] * 192}
        ask = {"inputs": [tensor]}
        answer = httpx.post(f"{server.address}v2/models/{served.NAME}/infer", json=ask)
        assert len(answer.json()["outputs"][0]["data"]) == 10, answer.text


def test_its_signature_gives_the_ranges_of_a_search(folder):
    changes = [*OWN, "--set", "training.min_steps=0", *QUICK]
    tenfold(folder, "tune", "cnn", *changes, "--trials", "2", "--folder", "search", "--no-report")
    ranges = (folder / "search/space.toml").read_text()
    assert '"model.width" = {low = 4, high = 8}' in ranges
    assert '"model.gelu" = {choices = [false, true]}' in ranges
    trials = json.loads((folder / "search/trials.json").read_text())["trials"]
    assert {"model.width", "model.gelu"} <= trials[1]["params"].keys()


def test_changed_code_is_said_before_it_is_resumed(folder):
    shutil.copytree(folder / RUN, folder / "again")
    (folder / "again/result.json").unlink()
    (folder / "my_net.py").write_text(NETWORK.replace("nn.ReLU", "nn.Tanh"))
    again = [*OWN, *QUICK, "--set", "model.width=6", "--folder", "again"]
    output = tenfold(folder, "train", *again, status=2)
    (folder / "my_net.py").write_text(NETWORK)
    assert "code of my_net.py was" in output
    tenfold(folder, "train", *again)


@pytest.mark.usefixtures("hub")
def test_row_61_a_pulled_run_imports_nothing_unless_trusted(folder):
    def apart(*arguments, state="state", status=0):
        # In a process of its own: the hub's library reads its address when it is imported.
        environment = {**hub_stand_in.environment(), "XDG_STATE_HOME": str(folder / state)}
        done = commands.run(arguments, folder=folder, environment=environment)
        assert done.wait() == status, done.output
        return done.output

    apart("push", RUN, "somebody/net")
    apart("pull", "somebody/net", "--runs", "pulled")
    pulled = "pulled/net/1"
    output = apart("evaluate", pulled, state="of-another", status=2)
    assert "my_net.py:net can't be used: its code came with pulled/net/1 and would be run" in output
    assert "--trust-code" in output
    apart("evaluate", pulled, "--trust-code", state="of-another")
    ours, theirs = (np.load(folder / at / "predictions-test.npz") for at in (RUN, pulled))
    np.testing.assert_array_equal(ours["logits"], theirs["logits"])
