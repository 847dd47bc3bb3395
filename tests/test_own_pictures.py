"""A folder of ordinary photographs: mixed sizes, formats and orientations."""

import json

import pytest

from photographs import CLASSES, make_folder, run_here


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What `tenfold train cnn --data FOLDER` leaves, and what it says."""
    folder = tmp_path_factory.mktemp("photographs")
    make_folder(folder / "my pictures")
    few = ["--set", "training.min_steps=40"]  # A fifth, for the sake of those who wait.
    command = run_here(["train", "cnn", "--data", "my pictures", *few], folder)
    assert command.wait() == 0, command.output
    return folder, command.output


@pytest.mark.slow
def test_it_trains_evaluates_and_reports(trained):
    folder, output = trained
    run = folder / "runs/cnn/1"
    result = json.loads((run / "result.json").read_text())
    assert result["splits"]["test"]["accuracy"] >= 0.8
    assert [entry["name"] for entry in result["splits"]["test"]["per_class"]] == list(CLASSES)
    provenance = json.loads((run / "provenance.json").read_text())
    assert sum(provenance["data"]["splits"].values()) == 90
    assert set(provenance["data"]["splits"]) == {"train", "validation", "test"}
    page = (run / "report.html").read_text()
    assert all(name in page for name in CLASSES)
    assert page.count("data:image/png") >= 10
    assert "Traceback" not in output


@pytest.mark.slow
def test_it_evaluates_again_and_resumes_nothing(trained):
    folder, _ = trained
    command = run_here(["evaluate", "runs/cnn/1", "--json"], folder)
    assert command.wait() == 0, command.output
    again = next(json.loads(line) for line in command.output.splitlines() if '"metrics"' in line)
    first = json.loads((folder / "runs/cnn/1/result.json").read_text())["splits"]["test"]
    assert again["confusion"] == first["confusion"]


@pytest.mark.slow
def test_the_pictures_can_be_explored(trained):
    folder, _ = trained
    command = run_here(["data", "eda", "my pictures", "--out", "eda"], folder)
    assert command.wait() == 0, command.output
    assert "gardens" in (folder / "eda/eda.html").read_text()
    assert json.loads((folder / "eda/eda.json").read_text())
