"""What version 0.1.0 wrote opens, resumes, evaluates and reports."""

import json
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

FIXTURE = Path(__file__).parent / "fixtures" / "version-0.1.0.tar.xz"


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A run, one that was stopped in its third epoch, a study and a search, all on digits."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path):
    return path.read_text(encoding="utf-8")


def invoke(*arguments):
    from tenfold.cli.app import app

    return CliRunner().invoke(app, list(arguments))


def tenfold(*arguments):
    found = invoke(*arguments)
    assert found.exit_code == 0, found.output
    return found.output


def test_a_run_is_evaluated_as_it_was_and_reported(old):
    kept = json.loads((old / "run/result.json").read_text())["splits"]["test"]["accuracy"]
    assert f"{100 * kept:.2f} %" in tenfold("evaluate", "run")
    tenfold("report", "run")
    assert f"{100 * kept:.1f}" in (old / "run/report.html").read_text()


def test_a_stopped_run_goes_on_where_it_was(old):
    before = (old / "stopped/metrics.jsonl").read_text()
    tenfold(
        "train", "small.toml", "--set", "training.epochs=100", "--set", "optimizer.lr=0.002",
        "--threads", "1", "--folder", "stopped",
    )  # fmt: skip
    after = (old / "stopped/metrics.jsonl").read_text()
    assert after.startswith("\n".join(before.splitlines()[:2]))
    assert len(after.splitlines()) == 100
    assert (old / "stopped/result.json").exists()


def test_a_study_is_reported_and_added_to(old):
    tenfold("study", "study.toml", "--seeds", "2", "--folder", "study")
    summary = json.loads((old / "study/summary.json").read_text())
    assert [variant["label"] for variant in summary["variants"]] == ["16 units", "4 units"]
    assert (old / "study/report.html").exists()


def test_a_search_is_read_and_its_best_recipe_trains(old):
    tenfold("train", "search/best.toml", "--set", "training.epochs=1", "--folder", "best")
    before = read(old / "search/trials.json")
    refused = invoke("tune", "small.toml", "--trials", "5", "--folder", "search")
    assert "in its own journal" in str(refused.exception)
    assert "give another --folder" in str(refused.exception)
    assert read(old / "search/trials.json") == before
    tenfold("report", "search")
    assert (old / "search/report.html").exists()
