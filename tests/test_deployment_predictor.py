"""The predictor: the run's answers without torch."""

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


def noise(height=40, width=30, *, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Without torch, and with nothing but what the predictor needs."""
    place = tmp_path_factory.mktemp("bare")
    return bare_environment.make(place, ["numpy", "pillow", "onnxruntime"])


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


def test_an_environment_without_torch(folder, model, bare, tmp_path):
    pixels = load_data(str(folder / "tiny.npz")).test.pixels[:16]
    np.save(tmp_path / "pixels.npy", pixels)
    found = [
        bare_environment.run(bare, "-c", IN_A_BARE_ENVIRONMENT, model, tmp_path / "pixels.npy")
        for _ in range(3)
    ]
    assert not any(each.returncode for each in found), found[0].stderr
    answers = [json.loads(each.stdout) for each in found]
    expected = load(folder / "runs/tiny/1").predict_proba(pixels)
    assert np.allclose(answers[0]["probabilities"], expected, atol=1e-4)
    # Of the processor, for others may be at work too.
    assert min(each["took"] for each in answers) < 0.3


@pytest.mark.parametrize("arguments", [("predict",), ("serve", "--port", "0", "--json")])
def test_commands_with_what_the_container_has(model, tmp_path, tmp_path_factory, arguments):
    guide = (bare_environment.SOURCE.parent / "docs/deploy.md").read_text(encoding="utf-8")
    [packages] = re.findall(r"pip install --no-cache-dir (numpy [\w -]+)", guide)
    place = bare_environment.make(tmp_path_factory.mktemp("bare"), packages.split())
    (tmp_path / "one.png").write_bytes(png(noise()))
    name, *options = arguments
    if name == "predict":
        found = bare_environment.run(place, "-m", "tenfold", name, model, tmp_path / "one.png")
        assert found.returncode == 0, found.stderr
        assert Predictor(model).predict(tmp_path / "one.png").label in found.stdout
        return
    process = subprocess.Popen(
        bare_environment.command("-m", "tenfold", name, model, *options),
        env=bare_environment.variables(place),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            address = json.loads(process.stdout.readline())["address"]
            found = httpx.post(f"{address}predict", content=png(noise()), timeout=30).json()
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert found["label"] == Predictor(model).predict(png(noise())).label


def test_accuracy_is_that_of_the_run(folder, model):
    test = load_data(str(folder / "tiny.npz")).test
    guesses = Predictor(model).probabilities(test.pixels).argmax(axis=1)
    expected = read_json(folder / "runs/tiny/1/result.json")["splits"]["test"]["accuracy"]
    assert float((guesses == test.labels).mean()) == expected


@pytest.mark.parametrize("views", ["one", "mirror", "six"])
def test_views_are_those_of_the_run(folder, model, views):
    import dataclasses

    trained = load(folder / "runs/tiny/1")
    evaluation = trained.recipe.evaluation.but(views=views, views_below=0.6)
    recipe = trained.recipe.but(evaluation=evaluation)
    trained = dataclasses.replace(trained, recipe=recipe)
    predictor = Predictor(model)
    predictor._views, predictor._views_below = views, 0.6
    test = load_data(str(folder / "tiny.npz")).test
    assert np.allclose(predictor.logits(test.pixels), trained.logits(test.pixels), atol=1e-4)


def test_every_form_of_a_picture_gives_the_same_answer(model, tmp_path):
    predictor = Predictor(model)
    pixels = noise()
    path = tmp_path / "noise.png"
    path.write_bytes(png(pixels))
    forms = [path, str(path), png(pixels), Image.fromarray(pixels)]
    found = [predictor.predict(form) for form in forms]
    assert all(each == found[0] for each in found)
    assert sum(found[0].probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    assert found[0].label == next(iter(found[0].probabilities))
    assert found[0].confidence == max(found[0].probabilities.values())
    array = predictor.predict(pixels)
    assert array.confidence == pytest.approx(found[0].confidence, abs=0.05)


def test_broken_pictures_stand_among_the_others(model):
    predictor = Predictor(model)
    found = predictor.predict_many([png(noise()), b"nothing", png(noise(seed=1))])
    assert [bool(each.error) for each in found] == [False, True, False]
    assert found[1].label == ""
    assert found[0] == predictor.predict(png(noise()))
    wrong = predictor.predict(np.zeros((4, 4), dtype=np.uint8))
    assert "an array (H, W, 3) is expected" in wrong.error


def test_arrays_of_floats_between_0_and_1_are_the_pictures_that_they_are_of(model):
    predictor = Predictor(model)
    pixels = noise(16, 16)
    assert predictor.predict(pixels / 255) == predictor.predict(pixels)
    several = np.stack([pixels, noise(16, 16, seed=1)])
    np.testing.assert_array_equal(predictor.logits(several / 255), predictor.logits(several))


@pytest.mark.parametrize("kind", ["uint16", "int32", "bool", "float64"])
def test_arrays_whose_range_is_not_known_are_refused(model, kind):
    predictor = Predictor(model)
    wrong = noise(16, 16).astype(kind)
    found = predictor.predict_many([wrong, noise(16, 16)])
    assert f"is an array of {kind}" in found[0].error
    assert found[1].label
    with pytest.raises(TenfoldError, match=f"array of {kind}.* where uint8, or floats in"):
        predictor.probabilities(wrong[None])


def test_the_run_gives_the_same_answers_to_whatever_form(folder, model, tmp_path):
    (tmp_path / "one.png").write_bytes(png(noise()))
    forms = [tmp_path / "one.png", png(noise()), Image.fromarray(noise()), noise(), noise() / 255]
    found = load(folder / "runs/tiny/1").predict_proba(forms)
    expected = [each.confidence for each in Predictor(model).predict_many(forms)]
    np.testing.assert_allclose(found.max(axis=1), expected, atol=1e-4)


def kept_threshold(accuracy=0.95, confidence=0.6, num_images=400):
    return {"accuracy": accuracy, "confidence": confidence, "num_images": num_images}


def with_facts(model, place, **facts):
    """A copy of the exported file that says these of itself."""
    graph = onnx.load(str(model))
    for entry in graph.metadata_props:
        if entry.key == "tenfold":
            entry.value = json.dumps(json.loads(entry.value) | facts)
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
    with pytest.raises(TenfoldError, match=r"no threshold for 42 % .* 95 % and 99 %"):
        Predictor(file, accuracy=0.42)
    with pytest.raises(
        TenfoldError, match=r"promise 99 % .* from 64 validation images, where 299 "
    ):
        Predictor(file, accuracy=0.99)


def test_a_file_of_an_older_version_answers_but_promises_nothing(model, tmp_path):
    old = {"accuracy": 0.95, "confidence": 0.6}
    file = with_facts(model, tmp_path / "m.onnx", thresholds=[old])
    assert Predictor(file).threshold == 0
    with pytest.raises(TenfoldError, match=r"older tenfold, .* `tenfold audit RUN calibration`"):
        Predictor(file, accuracy=0.95)


def test_a_file_says_why_it_has_no_thresholds(model, tmp_path):
    file = with_facts(model, tmp_path / "m.onnx", thresholds=[], unfitted="Ten are too few.")
    with pytest.raises(TenfoldError, match="no threshold for 95 % right answers: Ten are too few"):
        Predictor(file, accuracy=0.95)


def test_a_threshold_that_can_not_be_had_is_no_silent_refusal():
    assert confidence_for([kept_threshold()], 0.95) == 0.6
    with pytest.raises(TenfoldError, match="held no validation pictures back; train with some"):
        confidence_for([], 0.95)
    with pytest.raises(TenfoldError, match="promises 95 % right answers with 95 % certainty"):
        confidence_for([kept_threshold(confidence=1.0000000000000002)], 0.95)


def test_sets_are_those_of_the_run(folder, model):
    trained, pixels = load(folder / "runs/tiny/1"), load_data(str(folder / "tiny.npz")).test.pixels
    predictor = Predictor(model, sets=0.9)
    found = [predictor.prediction(row).conformal_set for row in predictor.probabilities(pixels)]
    expected = trained.predict_sets(pixels, 0.9)
    assert sum(a == b for a, b in zip(found, expected, strict=True)) >= len(pixels) - 1
    assert max(map(len, found)) > 1
    assert all(len(set(each)) == len(each) >= 1 for each in found)
    assert Predictor(model).predict(noise()).conformal_set == ()


def test_sets_that_can_not_be_promised_are_refused(folder, model, tmp_path):
    with pytest.raises(TenfoldError, match="from 64 validation images, where 99 are the fewest"):
        Predictor(model, sets=0.99)
    with pytest.raises(TenfoldError, match="from 64 validation images"):
        load(folder / "runs/tiny/1").predict_sets(noise(16, 16), 0.99)
    with pytest.raises(TenfoldError, match="Weights alone have no sets"):
        load(folder / "runs/tiny/1/model.safetensors").predict_sets(noise(16, 16))
    written = onnx.load(str(model))
    [entry] = [entry for entry in written.metadata_props if entry.key == "tenfold"]
    facts = json.loads(entry.value)
    assert [(each["coverage"], each["num_images"]) for each in facts["sets"]] == [
        (0.9, 64), (0.95, 64), (0.99, 64),
    ]  # fmt: skip
    changed = {"views": {**facts["views"], "kind": "six"}}
    old = {key: value for key, value in facts.items() if key != "sets"}
    cases = [(facts | changed, True, "leave out --one-view"), (old, False, "older tenfold")]
    for number, (kept, one_view, said) in enumerate(cases):
        entry.value = json.dumps(kept)
        onnx.save(written, str(tmp_path / f"{number}.onnx"))
        with pytest.raises(TenfoldError, match=said):
            Predictor(tmp_path / f"{number}.onnx", sets=0.95, one_view=one_view)
