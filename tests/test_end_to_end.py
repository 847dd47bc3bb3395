"""The whole way on the real CIFAR-10: fetch, verify, train both networks, evaluate, compare."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

import commands
from tenfold.audit import AuditOptions, agreement, audit, new_images
from tenfold.data import load
from tenfold.data.sources import origins as published_files
from tenfold.evaluation.corruptions import FAMILIES
from tenfold.evaluation.predictions import load_predictions
from tenfold.reporting.page import write_report
from tenfold.run import RunFolder

SUMS = {
    "train-images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "train-labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test-images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "test-labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}

pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with short runs of `ann` and `cnn` on real pictures."""
    folder = tmp_path_factory.mktemp("cifar10")
    for recipe, epochs in (("ann", 2), ("cnn", 2)):
        changes = ["data.train_size=4000", f"training.epochs={epochs}", "training.min_steps=0"]
        changes.append("data.validation_size=1000")
        overrides = [word for change in changes for word in ("--set", change)]
        command = commands.start(["train", recipe, *overrides], folder=folder)
        assert command.wait(400) == 0, command.output
    return folder


def test_the_real_pictures_match_the_published_checksums(tmp_path):
    command = commands.run(["data", "get", "cifar10", "--json"], folder=tmp_path)
    described = json.loads(command.output.splitlines()[-1])
    assert described["checksums"] == SUMS
    assert described["splits"] == {"train": 50_000, "test": 10_000}


def test_the_convolutional_network_is_clearly_better(folder):
    accuracies = {
        name: json.loads((folder / f"runs/{name}/1/result.json").read_text())["splits"]["test"]
        for name in ("ann", "cnn")
    }
    assert accuracies["ann"]["num_images"] == 10_000
    assert accuracies["ann"]["accuracy"] > 0.3
    assert accuracies["cnn"]["accuracy"] > 0.42
    assert accuracies["cnn"]["accuracy_interval"][0] > accuracies["ann"]["accuracy_interval"][1]


def test_memory_stays_under_a_gigabyte_and_a_half(folder):
    result = json.loads((folder / "runs/cnn/1/result.json").read_text())
    assert result["training"]["peak_memory_bytes"] < 1.5e9


def test_the_comparison_page(folder):
    arguments = ["report", "runs/ann/1", "runs/cnn/1", "--out", "both.html"]
    assert commands.run(arguments, folder=folder).wait() == 0
    page = (folder / "both.html").read_text()
    assert "Why a convolutional network beats a dense one" in page
    assert len(page) < 5_000_000
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_people_and_new_pictures_stand_beside_the_test_set(folder, tmp_path, monkeypatch):
    """With files of the published form whose answers are known: people who are right nine times
    in ten, and new pictures that are the first ones of the test set."""
    run, test = RunFolder(folder / "runs/cnn/1"), load("cifar10").test
    eye = np.eye(10)[test.labels]
    monkeypatch.setattr(published_files, "cache_folder", lambda: tmp_path / "cache")
    for module, name, values in (
        (agreement, "ANSWERS", 0.9 * eye + 0.1 * np.roll(eye, 1, axis=1)),
        (new_images, "IMAGES", test.pixels[:2000]),
        (new_images, "LABELS", test.labels[:2000].astype(np.int32)),
    ):
        published = getattr(module, name)
        np.save(tmp_path / published.name, values)
        digest = hashlib.sha256((tmp_path / published.name).read_bytes()).hexdigest()
        monkeypatch.setattr(module, name, dataclasses.replace(published, sha256=digest))
    options = AuditOptions(human=tmp_path / agreement.ANSWERS.name, new_test_set=tmp_path)
    found = audit(run, ["agreement", "new-images", "labels"], options=options)
    predictions = load_predictions(run.path / "predictions-test.npz")
    right = predictions.logits.argmax(axis=1) == predictions.labels
    people = found["agreement"]
    assert people.human_accuracy == pytest.approx(0.9)
    assert people.majority_accuracy == 1
    assert people.floor == pytest.approx(-0.9 * np.log(0.9) - 0.1 * np.log(0.1))
    assert people.majority == pytest.approx(right.mean())
    new = found["new-images"]
    assert new.accuracy == pytest.approx(right[:2000].mean())
    assert new.test_accuracy == pytest.approx(right.mean())
    assert found["labels"].known is not None
    page = write_report([run.path], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "new images, chosen years later" in page
    assert "The model predicts what most people say" in page


@pytest.mark.long
def test_accuracy_falls_with_the_severity_of_each_family(folder):
    run = RunFolder(folder / "runs/cnn/1")
    found = audit(run, ["robustness"], options=AuditOptions(images=120))["robustness"]
    by_name = {result.corruption: result.accuracies for result in found.corruptions}
    for names in FAMILIES.values():
        mildest, *_, worst = np.mean([by_name[name] for name in names], axis=0)
        assert worst < mildest < found.clean + 0.02
