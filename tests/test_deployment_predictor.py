"""The predictor: the run's predictions without torch."""

import dataclasses
import io
import json
import re
import subprocess

import httpx
import numpy as np
import onnx
import pytest
from PIL import Image

import bare_environment
import served
from tenfold.data import load as load_data
from tenfold.deployment.predictor import Predictor
from tenfold.errors import TenfoldError
from tenfold.evaluation.thresholds import confidence_for
from tenfold.evaluation.trained import load
from tenfold.files import read_json


@pytest.fixture(scope="module")
def folder(made_once):
    return made_once(served.make_run, served.make_model)


@pytest.fixture(scope="module")
def model(folder):
    return folder / served.MODEL


@pytest.fixture(scope="module")
def trained(folder):
    return load(folder / served.RUN)


@pytest.fixture(scope="module")
def images(folder):
    return load_data(str(folder / "tiny.npz")).test


NOISE = served.noise(0, 40, 30)
PNG = served.encoded(NOISE)

IN_A_BARE_ENVIRONMENT = """
import json, sys, time
started = time.process_time()
from tenfold.deployment.predictor import Predictor
took = time.process_time() - started
import numpy as np
found = Predictor(sys.argv[1], threads=1).probabilities(np.load(sys.argv[2]))
try:
    import torch
except ImportError:
    print(json.dumps({"took": took, "probabilities": found.tolist()}))
"""


def test_an_environment_without_torch(model, trained, images, tmp_path_factory, tmp_path):
    packages = ["numpy", "pillow", "onnxruntime"]
    bare = bare_environment.make(tmp_path_factory.mktemp("bare"), packages)
    np.save(tmp_path / "pixels.npy", images.pixels[:16])
    arguments = ("-c", IN_A_BARE_ENVIRONMENT, model, tmp_path / "pixels.npy")
    found = [bare_environment.run(bare, *arguments) for _ in range(3)]
    assert not any(each.returncode for each in found), found[0].stderr
    known = [json.loads(each.stdout) for each in found]
    expected = trained.predict_proba(images.pixels[:16])
    assert np.allclose(known[0]["probabilities"], expected, atol=1e-4)
    # Of the processor, for others may be at work too.
    assert min(each["took"] for each in known) < 0.3


def test_commands_with_what_the_container_has(model, tmp_path, tmp_path_factory):
    guide = (bare_environment.SOURCE.parent / "docs/deploy.md").read_text(encoding="utf-8")
    [packages] = re.findall(r"pip install --no-cache-dir (numpy [\w -]+)", guide)
    place = bare_environment.make(tmp_path_factory.mktemp("bare"), packages.split())
    (tmp_path / "one.png").write_bytes(PNG)
    expected = Predictor(model).predict(PNG).label
    found = bare_environment.run(place, "-m", "tenfold", "predict", model, tmp_path / "one.png")
    assert found.returncode == 0, found.stderr
    assert expected in found.stdout
    process = subprocess.Popen(
        bare_environment.command("-m", "tenfold", "serve", model, "--port", "0", "--json"),
        env=bare_environment.variables(place),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            address = json.loads(process.stdout.readline())["address"]
            reply = httpx.post(f"{address}predict", content=PNG, timeout=30).json()
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert reply["label"] == expected


def test_accuracy_is_that_of_the_run(folder, model, images):
    predicted = Predictor(model).probabilities(images.pixels).argmax(axis=1)
    expected = read_json(folder / served.RUN / "result.json")["splits"]["test"]["accuracy"]
    assert float((predicted == images.labels).mean()) == expected


@pytest.mark.parametrize("views", ["one", "mirror", "six"])
def test_views_are_those_of_the_run(model, trained, images, tmp_path, views):
    evaluation = trained.recipe.evaluation.but(views=views, views_below=0.6)
    trained = dataclasses.replace(trained, recipe=trained.recipe.but(evaluation=evaluation))
    file = with_facts(model, tmp_path / "m.onnx", views={"kind": views, "below": 0.6})
    found = Predictor(file).logits(images.pixels)
    assert np.allclose(found, trained.logits(images.pixels), atol=1e-4)


def test_an_accuracy_comes_with_the_views_that_it_was_measured_with(model, images, tmp_path):
    own = Predictor(model).facts["one_view"]
    right = Predictor(model).probabilities(images.pixels).argmax(axis=1) == images.labels
    assert own["accuracy"] == right.mean()
    low, high = own["accuracy_interval"]
    assert low < own["accuracy"] < high
    assert (own["split"], own["num_images"]) == ("test", len(images))
    views, several = {"kind": "six", "below": 0.6}, {"test": 0.9}
    file = with_facts(model, tmp_path / "m.onnx", views=views, accuracy=several)
    found = Predictor(file).known_to_page("m")
    assert (found["accuracy"], found["measured_views"]) == (several, "six")
    found = Predictor(file, one_view=True).known_to_page("m")
    assert (found["accuracy"], found["measured_views"]) == ({"test": own["accuracy"]}, "one")
    assert found["scores"]["test"]["num_images"] == len(images)
    assert found["views"]["kind"] == "one"
    # A file of an older version says nothing of one view.
    old = with_facts(file, tmp_path / "old.onnx", without=["one_view"])
    found = Predictor(old, one_view=True).known_to_page("m")
    assert (found["accuracy"], found["measured_views"]) == (several, "six")


def test_every_form_of_an_image_gives_the_same_prediction(model, trained, tmp_path):
    predictor, path = Predictor(model), tmp_path / "noise.png"
    path.write_bytes(PNG)
    forms = [path, PNG, Image.open(io.BytesIO(PNG)), NOISE, NOISE / 255]
    found = [predictor.predict(form) for form in (str(path), *forms)]
    assert found[0] == found[1] == found[2] == found[3]
    assert found[4] == found[5]  # Arrays are resized from eight bits, files as they are decoded.
    assert found[4].confidence == pytest.approx(found[0].confidence, abs=0.05)
    assert sum(found[0].probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    assert found[0].label == next(iter(found[0].probabilities))
    assert found[0].confidence == max(found[0].probabilities.values())
    of_the_run = trained.predict_proba(forms).max(axis=1)
    np.testing.assert_allclose(of_the_run, [each.confidence for each in found[1:]], atol=1e-4)


def test_broken_images_stand_among_the_others(model):
    predictor = Predictor(model)
    other = served.encoded(served.noise(1, 40, 30))
    found = predictor.predict_many([PNG, b"nothing", np.zeros((4, 4), np.uint8), other])
    assert [bool(each.error) for each in found] == [False, True, True, False]
    assert found[1].label == ""
    assert "an array (H, W, 3) is expected" in found[2].error
    assert (found[0], found[3]) == (predictor.predict(PNG), predictor.predict(other))


@pytest.mark.parametrize("kind", ["uint16", "int32", "bool", "float64"])
def test_arrays_whose_range_is_not_known_are_refused(model, kind):
    predictor, wrong = Predictor(model), served.noise().astype(kind)
    found = predictor.predict_many([wrong, served.noise()])
    assert f"is an array of {kind}" in found[0].error
    assert found[1].label
    with pytest.raises(TenfoldError, match=f"array of {kind}.* where uint8, or floats in"):
        predictor.probabilities(wrong[None])
    several = served.noise()[None]
    np.testing.assert_array_equal(predictor.logits(several / 255), predictor.logits(several))


def kept_threshold(accuracy=0.95, confidence=0.6, num_images=400):
    return {"accuracy": accuracy, "confidence": confidence, "num_images": num_images}


def with_facts(model, place, *, without=(), **facts):
    """A copy of the exported file that says these of itself."""
    graph = onnx.load(str(model))
    [entry] = [entry for entry in graph.metadata_props if entry.key == "tenfold"]
    known = {k: v for k, v in json.loads(entry.value).items() if k not in without}
    entry.value = json.dumps(known | facts)
    onnx.save(graph, str(place))
    return place


def test_it_declines_where_it_should(model, tmp_path):
    thresholds = [kept_threshold(), kept_threshold(0.99, 1.0000000000000002, 64)]
    file = with_facts(model, tmp_path / "m.onnx", thresholds=thresholds)
    predictor = Predictor(file, accuracy=0.95)
    assert predictor.threshold == 0.6
    row = np.array([0.3, 0.3, 0.2, 0.2], dtype=np.float32)
    assert predictor.prediction(row).is_unsure
    assert not Predictor(file).prediction(row).is_unsure
    with pytest.raises(TenfoldError, match=r"no threshold for 42 % .* 95, 99"):
        Predictor(file, accuracy=0.42)


@pytest.mark.parametrize(
    ("facts", "asked", "said"),
    [
        (
            {"thresholds": [kept_threshold(0.99, 1.0000000000000002, 64)]},
            {"accuracy": 0.99},
            r"promise 99 % .* from 64 validation images, where 299 ",
        ),
        (
            {"thresholds": [{"accuracy": 0.95, "confidence": 0.6}]},
            {"accuracy": 0.95},
            r"older tenfold, .* `tenfold audit RUN calibration`",
        ),
        (
            {"thresholds": [], "unfitted": "Ten are too few."},
            {"accuracy": 0.95},
            "no threshold for 95 % accuracy: Ten are too few",
        ),
        ({}, {"sets": 0.99}, "from 64 validation images, where 99 are the fewest"),
        (
            {"views": {"kind": "six", "below": 0.6}},
            {"sets": 0.95, "one_view": True},
            "leave out --one-view",
        ),
        (
            {"views": {"kind": "mirror", "below": 0.6}, "thresholds": [kept_threshold()]},
            {"accuracy": 0.95, "one_view": True},
            "leave out --one-view",
        ),
        ({"without": ["sets"]}, {"sets": 0.95}, "older tenfold"),
    ],
)
def test_what_a_file_can_not_promise_it_refuses_and_says_why(model, tmp_path, facts, asked, said):
    file = with_facts(model, tmp_path / "m.onnx", **facts)
    assert Predictor(file).threshold == 0
    with pytest.raises(TenfoldError, match=said):
        Predictor(file, **asked)


def test_a_threshold_that_can_not_be_had_is_no_silent_refusal():
    assert confidence_for([kept_threshold()], 0.95) == 0.6
    with pytest.raises(TenfoldError, match="train with some"):
        confidence_for([], 0.95)
    with pytest.raises(TenfoldError, match="promises 95 % accuracy with 95 % certainty"):
        confidence_for([kept_threshold(confidence=1.0000000000000002)], 0.95)


def test_sets_are_those_of_the_run(folder, model, trained, images):
    predictor = Predictor(model, sets=0.9)
    rows = predictor.probabilities(images.pixels)
    found = [predictor.prediction(row).conformal_set for row in rows]
    expected = trained.predict_sets(images.pixels, 0.9)
    assert sum(a == b for a, b in zip(found, expected, strict=True)) >= len(found) - 1
    assert max(map(len, found)) > 1
    assert all(len(set(each)) == len(each) >= 1 for each in found)
    assert Predictor(model).predict(PNG).conformal_set == ()
    kept = [(each["coverage"], each["num_images"]) for each in predictor.facts["sets"]]
    assert kept == [(0.9, 64), (0.95, 64), (0.99, 64)]
    with pytest.raises(TenfoldError, match="from 64 validation images"):
        trained.predict_sets(served.noise(), 0.99)
    with pytest.raises(TenfoldError, match="Weights alone have no sets"):
        load(folder / served.RUN / "model.safetensors").predict_sets(served.noise())


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(TenfoldError, match="There is no model"):
        Predictor(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(TenfoldError, match="no ONNX model"):
        Predictor(tmp_path / "model.onnx")
