"""A window of the recipe: the same pixels in training, `predict`, the bundle and the service."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from starlette.testclient import TestClient

import commands
from tenfold.deployment.application import Service, create_application
from tenfold.deployment.options import Limits
from tenfold.deployment.predictor import Predictor
from tenfold.errors import TenfoldError
from tenfold.evaluation.evaluate import open_data
from tenfold.evaluation.trained import load, load_model
from tenfold.recipe import load_recipe
from tenfold.run import RunFolder

WINDOW = (1000.0, 3000.0)


def values(number):
    """Sixteen bits, of which only those from 1,000 to 3,000 tell the classes apart."""
    pixels = np.random.default_rng(number).integers(0, 2000, (16, 16), dtype=np.uint16)
    pixels[:, : 8 + 4 * (number % 2)] += 1500
    pixels[0, :2] = 60_000, 40_000
    return pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on PNG and TIFF files of sixteen bits."""
    place = tmp_path_factory.mktemp("window")
    for number in range(48):
        (place / "data" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        name = f"{number}.{('png', 'tif')[number // 2 % 2]}"
        Image.fromarray(values(number)).save(place / "data" / "ab"[number % 2] / name)
    commands.write_tiny_recipe(place)
    changes = ["--set", "data.window=[1000, 3000]", "--set", "data.validation_size=0.2"]
    options = ["--data", "data", "--no-report", "--set", "training.epochs=1", *changes]
    command = commands.run(["train", "tiny.toml", *options], folder=place)
    assert command.wait() == 0, command.output
    command = commands.run(["export", "runs/tiny/1", "--bundle", "bundle"], folder=place)
    assert command.wait() == 0, command.output
    return place


def test_the_same_answer_everywhere(folder):
    place = folder / "runs/tiny/1"
    model = load(place)
    assert model.window == WINDOW
    dataset = open_data(RunFolder(place), model, str(folder / "data")).dataset
    predictor = Predictor(folder / "bundle/model.onnx")
    service = Service(predictor, limits=Limits())
    client = TestClient(create_application(service, name="model", max_bytes=10**6))
    by_id = dict(zip(dataset.train.ids.tolist(), dataset.train.pixels, strict=True))
    for name, number in (("a/0.png", 0), ("a/2.tif", 2)):
        path = folder / "data" / name
        expected = np.floor((values(number).clip(1000, 3000) - 1000.0) * 255 / 2000 + 0.5)
        for pixels in (by_id[name], model.pixels(path)[0], predictor.pixels(path)):
            np.testing.assert_array_equal(pixels, np.repeat(expected[..., None], 3, axis=2))
        probability = float(model.predict_proba(path).max())
        reply = client.post("/predict", content=path.read_bytes()).json()
        assert reply["confidence"] == pytest.approx(probability, abs=1e-4)
        found = subprocess.run(
            [sys.executable, "-Es", str(folder / "bundle/predict.py"), str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.endswith(f"{reply['label']} ({reply['confidence']:.1%})\n")


def test_predict_sees_it_too(folder):
    command = commands.run(["predict", "runs/tiny/1", "data/a/2.tif"], folder=folder)
    assert command.wait() == 0, command.output
    [row] = csv.DictReader(io.StringIO(command.output))
    probability = load(folder / "runs/tiny/1").predict_proba(folder / "data/a/2.tif").max()
    assert float(row["probability"]) == pytest.approx(float(probability), abs=1e-5)


def test_weights_of_a_version_that_knew_white_alone_are_read(folder, tmp_path):
    source = folder / "runs/tiny/1/model.safetensors"
    with safe_open(source, "np") as file:
        header = json.loads(file.metadata()["tenfold"])
    del header["window"]
    del header["recipe"]["data"]["window"]
    metadata = {"tenfold": json.dumps(header | {"white_level": 4095})}
    save_file(load_file(source), tmp_path / "old.safetensors", metadata=metadata)
    assert load_model(tmp_path / "old.safetensors").window == (0, 4095)


@pytest.mark.parametrize("wrong", ["[3000, 1000]", "[5]", "[0, nan]", "[7, 7]", "white"])
def test_what_is_no_window_is_refused(wrong):
    with pytest.raises(TenfoldError, match=r"data\.window.* must be .*, not "):
        load_recipe("ann", [f"data.window={wrong}"])
