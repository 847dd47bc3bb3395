"""Evaluating a run: the right pictures, the right classes, and every use of the test on record."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from bare_results import BARE_RESULT
from tenfold.data import load
from tenfold.data.images import Dataset, Images
from tenfold.data.normalisation import normalisation_of
from tenfold.data.splits import training_data
from tenfold.data.writing import write_npz
from tenfold.errors import TenfoldError
from tenfold.evaluation.evaluate import evaluate_run, split_of, splitting, use_of
from tenfold.evaluation.predictions import load_predictions
from tenfold.evaluation.trained import TrainedModel, build_network, load_model, save_model
from tenfold.recipe import DataOptions, load_recipe
from tenfold.results.runs import Metrics, Result
from tenfold.run import RunFolder

NAMES = ("ant", "bee", "cat")


def dataset_of(train, *, test=None, name="made up"):
    return Dataset(name, train, None, test, "made for a test")


def ids(images):
    return set(images.ids.tolist())


# -- which pictures ------------------------------------------------------------------------------


def test_options_are_passed_on_under_the_names_of_the_splits():
    options = DataOptions(
        train_size=5, validation_size=0.3, test_size=0.4, split_seed=9, corrections="c.csv"
    )
    assert splitting(options) == {
        "train_size": 5,
        "validation_size": 0.3,
        "test_size": 0.4,
        "seed": 9,
        "corrections": os.path.abspath("c.csv"),
    }


@pytest.mark.parametrize("split_seed", [0, 3])
def test_a_run_is_evaluated_on_what_training_left_out(make_images, split_seed):
    dataset = dataset_of(make_images(90))
    options = DataOptions(validation_size=0.2, test_size=0.5, split_seed=split_seed)
    trained = training_data(dataset, **splitting(options))
    parts = {name: split_of(dataset, name, options) for name in ("train", "validation", "test")}
    assert len(parts["test"]) == 45
    assert parts["train"].same_as(trained.train)
    assert parts["validation"].same_as(trained.validation)
    assert not ids(parts["test"]) & (ids(trained.train) | ids(trained.validation))
    assert set.union(*map(ids, parts.values())) == ids(dataset.train)


def test_another_split_seed_gives_another_test(make_images):
    dataset = dataset_of(make_images(90))
    first, second = (split_of(dataset, "test", DataOptions(split_seed=seed)) for seed in (0, 1))
    assert len(first) == len(second) == 18
    assert ids(first) != ids(second)


def test_other_data_keeps_the_splits_it_has(make_images):
    test = make_images(6, seed=1)
    dataset = dataset_of(make_images(90), test=test)
    assert split_of(dataset, "test", DataOptions(), own=False) is test
    assert split_of(dataset, "train", DataOptions(), own=False) is dataset.train
    with pytest.raises(TenfoldError, match=r"no validation split; it has train, test"):
        split_of(dataset, "validation", DataOptions(), own=False)


def test_other_data_without_splits_is_taken_whole(make_images):
    dataset = dataset_of(make_images(90))
    assert split_of(dataset, "test", DataOptions(), own=False) is dataset.train


@pytest.mark.parametrize("own", [True, False])
def test_an_unknown_split_is_named_with_those_there_are(make_images, own):
    with pytest.raises(TenfoldError, match=r"no split 'tests'; choose one of validation, test"):
        split_of(dataset_of(make_images(90)), "tests", DataOptions(), own=own)


# -- what is written down ------------------------------------------------------------------------


def test_each_use_of_a_test_split_is_listed():
    result = Result.model_validate(BARE_RESULT)
    for split, accuracy, purpose in (
        ("validation", 0.5, "after training"),
        ("test", 0.4, "after training"),
        ("test", 0.45, "tenfold evaluate"),
        ("test of others", 0.3, "tenfold evaluate"),
    ):
        metrics = Metrics.model_construct(accuracy=accuracy)
        result = result.with_metrics(metrics, use_of(split, accuracy, purpose=purpose))
    assert result.splits["test"].accuracy == 0.45
    assert [(use.split, use.purpose, use.accuracy) for use in result.test_uses] == [
        ("test", "after training", 0.4),
        ("test", "tenfold evaluate", 0.45),
        ("test of others", "tenfold evaluate", 0.3),
    ]
    assert all(use.time.endswith("+00:00") for use in result.test_uses)


@pytest.fixture
def run(tmp_path, make_images):
    """A run folder with a model that was never trained, and its data beside it."""
    data = dataset_of(
        make_images(60, size=(16, 16)), test=make_images(30, size=(16, 16), seed=1), name="insects"
    )
    write_npz(data, tmp_path / "insects.npz")
    recipe = load_recipe("ann", [f"data.name={tmp_path / 'insects.npz'}", "model.widths=[8]"])
    torch.manual_seed(0)
    module = build_network(recipe, num_classes=3, image_size=(16, 16)).eval()
    constants = normalisation_of(data.train, "standardise")
    folder = RunFolder(tmp_path / "run")
    save_model(folder.model, TrainedModel(module, recipe, NAMES, constants, (16, 16)))
    checksums = dict(load(tmp_path / "insects.npz").checksums)
    assert checksums
    folder.provenance.write_text(json.dumps({"data": {"checksums": checksums}}))
    folder.result.write_text(json.dumps(BARE_RESULT))  # its presence: it is finished
    return folder


def test_evaluation_writes_predictions_and_result(run):
    metrics = evaluate_run(run, split="test")
    result = json.loads(run.result.read_text())
    assert result["splits"]["test"] == metrics.to_dict()
    assert [use["purpose"] for use in result["test_uses"]] == ["tenfold evaluate"]
    predictions = load_predictions(run.predictions("test"))
    assert len(predictions.ids) == metrics.num_images == 30
    guesses = predictions.logits.argmax(axis=1)
    assert metrics.accuracy == pytest.approx((guesses == predictions.labels).mean())
    evaluate_run(run, split="validation")
    result = json.loads(run.result.read_text())
    assert set(result["splits"]) == {"test", "validation"}
    assert len(result["test_uses"]) == 1
    assert not run.is_held()


def test_row_24_other_data_is_matched_by_class_name(run, tmp_path, make_images):
    first = evaluate_run(run, split="test")
    test = make_images(30, size=(16, 16), seed=1)
    order = ("cat", "ant", "bee")
    labels = np.array([order.index(NAMES[label]) for label in test.labels])
    turned = Images(test.pixels, labels, order, test.ids)
    write_npz(dataset_of(turned, name="turned"), tmp_path / "turned.npz")
    second = evaluate_run(run, split="test", data=str(tmp_path / "turned.npz"))
    assert second.accuracy == first.accuracy
    assert second.confusion == first.confusion
    result = json.loads(run.result.read_text())
    assert len(result["splits"]) == 2  # the run's own result is still there
    assert len(result["test_uses"]) == 2


def test_data_that_changed_since_the_training_is_refused(run, tmp_path, make_images):
    images, test = (make_images(n, size=(16, 16), seed=9) for n in (60, 30))
    (tmp_path / "insects.npz").unlink()
    write_npz(dataset_of(images, test=test, name="insects"), tmp_path / "insects.npz")
    with pytest.raises(TenfoldError, match="insects has changed since"):
        evaluate_run(run)
    assert not run.predictions("test").exists()


@pytest.mark.parametrize("where", ["moved.npz", "a/b/insects.npz", "größe 1.npz"])
def test_images_that_have_moved_are_named_with_data(run, tmp_path, where):
    before = evaluate_run(run).confusion
    (tmp_path / where).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "insects.npz").rename(tmp_path / where)
    shutil.copytree(run.path, tmp_path / "elsewhere/1")
    for folder in (run, RunFolder(tmp_path / "elsewhere/1")):
        with pytest.raises(TenfoldError, match=r"insects.npz, where nothing is now; .* --data"):
            evaluate_run(folder)
        assert evaluate_run(folder, data=str(tmp_path / where)).confusion == before
        assert set(json.loads(folder.result.read_text())["splits"]) == {"test"}


def test_a_run_of_a_relative_path_finds_its_images_from_another_folder(run, tmp_path, monkeypatch):
    known = json.loads(run.provenance.read_text())
    known["data"]["location"] = str(tmp_path / "insects.npz")
    run.provenance.write_text(json.dumps(known))
    model = load_model(run.model)
    data = model.recipe.data.but(name="insects.npz")
    save_model(run.model, replace(model, recipe=model.recipe.but(data=data)))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert evaluate_run(run).num_images == 30


def test_what_it_was_trained_on_is_not_taken_for_other_data(run, tmp_path):
    named = evaluate_run(run, split="validation", data=str(tmp_path / "insects.npz"))
    assert named.num_images == evaluate_run(run, split="validation").num_images < 60
    assert set(json.loads(run.result.read_text())["splits"]) == {"validation"}


def test_other_pictures_in_its_place_may_be_those_it_learnt_from(
    run, tmp_path, make_images, caplog
):
    path = tmp_path / "insects.npz"
    known = json.loads(run.provenance.read_text())
    known["data"]["location"] = str(path)
    run.provenance.write_text(json.dumps(known))
    path.unlink()
    write_npz(dataset_of(make_images(61, size=(16, 16)), name="insects"), path)
    evaluate_run(run, data=str(path))
    assert "may have learnt from some of these very images" in caplog.text


def test_an_unfinished_run_says_what_to_do(run):
    run.result.unlink()
    with pytest.raises(TenfoldError, match="is not finished; run its `tenfold train` command"):
        evaluate_run(run)
    assert not run.predictions("test").exists()


def test_a_run_without_weights_says_what_to_do(run):
    run.model.unlink()
    with pytest.raises(TenfoldError, match="finish its training first"):
        evaluate_run(run)
