"""Curves, their areas and thresholds, against scikit-learn, simulations and cases by hand."""

import csv
import io
import json

import numpy as np
import pytest
from sklearn import metrics as reference

import commands
import served
from fabricated_runs import Recipe, make_run
from pages import Page, in_all_sizes, opened
from tenfold.deployment.export import export_run
from tenfold.deployment.options import ExportOptions
from tenfold.deployment.predictor import Predictor
from tenfold.errors import TenfoldError
from tenfold.evaluation import roc
from tenfold.evaluation.calibration import operating_points_of
from tenfold.evaluation.metrics import compute_metrics
from tenfold.evaluation.operating_points import choose_operating_point
from tenfold.evaluation.predictions import Predictions, load_predictions
from tenfold.evaluation.roc import (
    auc_interval,
    auc_of,
    average_precision,
    curve_of,
    levels_of,
    threshold_for,
)
from tenfold.reporting.page import write_report
from tenfold.results.runs import read_result
from tenfold.run import RunFolder


def drawn(generator, m, n, *, apart, digits=9):
    scores = np.append(generator.normal(apart, 1, m), generator.normal(0, 1, n))
    return levels_of(scores.round(digits), np.arange(m + n) < m)


def test_every_class_has_the_areas_of_scikit_learn():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 400)
    logits = generator.normal(size=(400, 6)).round(1) + np.eye(6)[labels]  # With ties.
    logits[:, 5] = -9  # A class without images.
    logits = logits.astype(np.float32)
    names = tuple("abcdef")
    found = compute_metrics(Predictions(logits, labels, np.arange(400).astype(str), names))
    shares = np.exp(logits.astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)
    for number, row in enumerate(found.per_class[:5]):
        own = labels == number
        assert row.auc == pytest.approx(reference.roc_auc_score(own, shares[:, number]))
        expected = reference.average_precision_score(own, shares[:, number])
        assert row.average_precision == pytest.approx(expected)
        predicted = logits.argmax(axis=1) == number
        assert row.specificity == pytest.approx(reference.recall_score(~own, ~predicted))
        assert row.recall_interval[0] < row.recall < row.recall_interval[1]
        assert row.auc_interval[0] < row.auc < row.auc_interval[1]
    assert (found.per_class[5].auc, found.per_class[5].recall_interval) == (None, None)
    predicted = logits.argmax(axis=1)
    assert found.macro_f1 == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    expected = reference.balanced_accuracy_score(labels, predicted)
    assert found.balanced_accuracy == pytest.approx(expected)


def test_the_curve_is_that_of_scikit_learn():
    levels = drawn(np.random.default_rng(1), 60, 90, apart=1, digits=1)
    truth = np.repeat([1, 0] * len(levels.scores), np.stack(levels[1:], axis=1).ravel())
    scores = np.repeat(levels.scores, levels.positive + levels.negative)
    false, true, thresholds = reference.roc_curve(truth, scores, drop_intermediate=False)
    curve = curve_of(levels)
    np.testing.assert_allclose(1 - curve.specificity, false)
    np.testing.assert_allclose(curve.sensitivity, true)
    np.testing.assert_allclose(curve.thresholds, thresholds)
    with pytest.raises(ValueError, match="images of the class and others"):
        curve_of(levels_of(np.ones(3), np.ones(3, dtype=bool)))


@pytest.mark.parametrize(("m", "n", "apart"), [(20, 40, 1.0), (40, 40, 1.8), (30, 400, 2.6)])
def test_the_interval_holds_the_area_as_often_as_it_says(m, n, apart):
    from scipy.stats import norm

    generator, true = np.random.default_rng(2), norm.cdf(apart / np.sqrt(2))
    ends = [auc_interval(drawn(generator, m, n, apart=apart)) for _ in range(400)]
    assert 0.93 < np.mean([low <= true <= high for low, high in ends]) < 0.995


def test_delongs_variance_is_that_of_its_definition(monkeypatch):
    monkeypatch.setattr(roc, "_score_interval", lambda *_: (1.0, 0.0))  # The wider one counts.
    levels = drawn(np.random.default_rng(3), 12, 17, apart=1, digits=1)
    positive, negative = (np.repeat(levels.scores, counts) for counts in levels[1:])
    over = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    auc = over.mean()
    variance = over.mean(1).var(ddof=1) / 12 + over.mean(0).var(ddof=1) / 17
    low, high = auc_interval(levels)
    logit = np.log(auc / (1 - auc))
    half = 1.959963984540054 * np.sqrt(variance) / auc / (1 - auc)
    expected = 1 / (1 + np.exp(-np.array([logit - half, logit + half])))
    np.testing.assert_allclose([low, high], expected)
    assert auc_of(levels) == pytest.approx(auc)


def test_a_perfect_ranking_of_few_images_is_no_proof():
    low, high = auc_interval(levels_of(np.arange(30.0), np.arange(30) >= 20))
    assert high == 1
    assert 0.8 < low < 0.95
    spread = 1 + 14 * ((1 - low) / (2 - low) + low / (1 + low))  # Newcombe's equation at its root.
    assert 1 - low == pytest.approx(1.959963984540054**2 * low * spread / 200)
    low, high = auc_interval(levels_of(np.arange(30.0), np.arange(30) < 10))
    assert low == 0
    assert average_precision(levels_of(np.ones(8), np.arange(8) < 2)) == 0.25


def test_a_threshold_promises_the_sensitivity():
    generator, kept = np.random.default_rng(4), []
    assert threshold_for(levels_of(generator.random(58), np.ones(58, dtype=bool)), 0.95) is None
    for number in (59, 200, 999):
        for _ in range(200):  # Of uniform scores the sensitivity is 1 - threshold.
            levels = levels_of(generator.random(number), np.ones(number, dtype=bool))
            kept.append(1 - threshold_for(levels, 0.95) >= 0.95)
    assert 0.93 < np.mean(kept) < 0.985


# -- of a run --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(made_once):
    return RunFolder(made_once(served.make_run) / served.RUN)


def test_evaluate_chooses_on_validation_and_measures_on_test(run):
    command = commands.run(
        ["evaluate", str(run.path), "--sensitivity", "60", "--class", "red", "--json"],
        folder=run.path.parents[2],
    )
    assert command.wait() == 0, command.output
    lines = [json.loads(line) for line in command.output.splitlines() if line.startswith("{")]
    point = next(line for line in lines if line["event"] == "operating_point")
    scores = next(line for line in lines if line["event"] == "metrics")
    assert 0 < scores["per_class"][0]["auc"] <= 1
    assert scores["balanced_accuracy"] == scores["accuracy"]  # Of classes of the same size.
    result = read_result(run.result)
    [kept] = operating_points_of(result)
    validation = load_predictions(run.predictions("validation"))
    red = validation.logits / np.float32(kept.temperature)
    red = np.exp(red[:, 0] - np.logaddexp.reduce(red, axis=1))[validation.labels == 0]
    assert (red >= kept.threshold - 1e-6).mean() == pytest.approx(
        point["splits"]["validation"]["sensitivity"]
    )
    assert point["splits"]["validation"]["sensitivity"] > 0.6
    assert point["splits"]["test"]["num_positive"] == 32
    assert sum(use.purpose.startswith("tenfold evaluate") for use in result.test_uses) == 1


def test_too_few_images_and_unknown_classes_are_refused(run):
    with pytest.raises(TenfoldError, match=r"find 99\.9 % of blue from its \d+ validation images"):
        choose_operating_point(run, 0.999, class_name="blue")
    with pytest.raises(TenfoldError, match="no class 'pink' with --class; the run knows red, gre"):
        choose_operating_point(run, 0.6, class_name="pink")
    with pytest.raises(TenfoldError, match="Name the class that is to be found"):
        choose_operating_point(run, 0.6)


def test_the_exported_file_and_the_service_keep_the_threshold(run, tmp_path):
    from starlette.testclient import TestClient

    from tenfold.data.encoding import png_bytes
    from tenfold.deployment.application import Service, create_application
    from tenfold.deployment.options import Limits

    point = choose_operating_point(run, 0.6, class_name="blue")
    exported = export_run(run, tmp_path / "model.onnx", ExportOptions(samples=0))
    predictor = Predictor(exported.path)
    assert predictor.operating_points["blue"] == point.threshold
    assert predictor.facts["scores"]["test"]["per_class"][2]["auc"] > 0.5
    rows = np.full((2, 4), 0.1, dtype=np.float32)
    rows[:, 2] = point.threshold + 0.01, point.threshold - 0.01
    assert [predictor.prediction(row).positive["blue"] for row in rows] == [True, False]
    service = Service(predictor, limits=Limits())
    client = TestClient(create_application(service, name="model", max_bytes=10**6))
    pixels = np.random.default_rng(0).integers(0, 120, (16, 16, 3), dtype=np.uint8)
    reply = client.post("/predict", content=png_bytes(pixels)).json()
    assert reply["positive"]["blue"] == (reply["probabilities"]["blue"] >= point.threshold)
    (tmp_path / "a.png").write_bytes(png_bytes(pixels))
    command = commands.run(
        ["predict", str(run.path), str(tmp_path / "a.png")], folder=run.path.parents[2]
    )
    assert command.wait() == 0, command.output
    [row] = csv.DictReader(io.StringIO(command.output))
    assert set(filter(None, row["positive"].split("|"))) == {
        name for name, is_positive in reply["positive"].items() if is_positive
    }
    assert "blue" in {
        each["class_name"] for each in client.get("/model").json()["operating_points"]
    }


# -- in the page -----------------------------------------------------------------------------------


def test_the_page_of_two_classes_has_curves_and_threshold(tmp_path):
    folder = make_run(tmp_path / "run", Recipe(class_names=("benign", "malignant"), skill=1.4))
    run = RunFolder(folder)
    result = read_result(run.result)
    splits = {
        split: compute_metrics(load_predictions(run.predictions(split))) for split in result.splits
    }
    result.model_copy(update={"splits": splits}).write(run.result)
    point = choose_operating_point(run, 0.9)
    page = Page(write_report([folder]))
    row = splits["test"].per_class[1]
    for said in (
        "ROC curve",
        "Precision-recall curve",
        f"{row.auc:.3f}",
        "{:.3f} to {:.3f}".format(*row.auc_interval),
        f"malignant from a probability of {point.threshold:.4f} on",
    ):
        assert said in page.text, said


@pytest.mark.browser
def test_a_table_of_many_classes_is_sorted_by_a_click(tmp_path, browser):
    folder = make_run(tmp_path / "run", Recipe())
    run = RunFolder(folder)
    result = read_result(run.result)
    metrics = compute_metrics(load_predictions(run.predictions("test")))
    result.model_copy(update={"splits": {"test": metrics}}).write(run.result)
    with opened(browser, write_report([folder])) as page:
        head = page.locator("#against-the-rest th", has_text="AUC")
        for order in (-1, 1):  # Of a number the greatest is asked for first.
            head.locator("button").click()
            shown = page.locator("#against-the-rest tbody td:nth-child(6)")
            values = [float(each.get_attribute("data-value")) for each in shown.all()]
            assert values == sorted(values, reverse=order < 0)
        assert set(in_all_sizes(page)) == {"light", "dark"}
