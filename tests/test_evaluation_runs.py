"""Run folders are read as they are, and damage is named."""

import json
from pathlib import Path

import numpy as np
import pytest

from fabricated_runs import Recipe, make_run
from tenfold import formatting
from tenfold.errors import TenfoldError
from tenfold.evaluation.runs import read_run, read_runs


def test_a_finished_run_is_read_whole(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "cnn" / "1", Recipe(epochs=4)))
    assert run.label == "cnn"
    assert run.finished
    assert [epoch.number for epoch in run.epochs] == [1, 2, 3, 4]
    assert run.epochs[-1].training_seconds == pytest.approx(78.4)
    assert run.shown_split == "test"
    answers = run.shown_answers
    assert answers is not None
    assert run.shown_scores is not None
    assert np.allclose(answers.probabilities.sum(axis=1), 1)
    assert answers.right.mean() == pytest.approx(run.shown_scores.accuracy)


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "1", Recipe(finished=False, epochs=6))
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 4, "train_lo')
    run = read_run(folder)
    assert [epoch.number for epoch in run.epochs] == [1, 2, 3]
    assert not run.finished
    assert run.shown_scores is None


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "1")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[2] = "{"
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.raises(TenfoldError, match=r"metrics\.jsonl, line 3"):
        read_run(folder)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(TenfoldError, match="not a run folder"):
        read_run(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "pickle", "shapes"])
def test_damaged_predictions_are_named(tmp_path: Path, damage: str) -> None:
    folder = make_run(tmp_path / "1")
    path = folder / "predictions-test.npz"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:500])
    else:
        labels = np.array([object()]) if damage == "pickle" else np.zeros(3, dtype=np.int64)
        names = np.array(["a"])
        np.savez(path, logits=np.zeros((2, 1)), labels=labels, ids=names, class_names=names)
    with pytest.raises(TenfoldError, match=r"predictions-test\.npz"):
        read_run(folder)


def test_a_result_of_another_form_is_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "1")
    result = json.loads((folder / "result.json").read_text())
    del result["splits"]["test"]["confusion"]
    (folder / "result.json").write_text(json.dumps(result))
    said = r"result\.json: splits\.test\.confusion is missing; .* evaluate the run again"
    with pytest.raises(TenfoldError, match=said):
        read_run(folder)


def test_runs_of_one_recipe_are_told_apart_by_number(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / "cnn" / str(number)) for number in (1, 2)]
    folders.append(make_run(tmp_path / "ann" / "1", Recipe(name="ann")))
    assert [run.label for run in read_runs(folders)] == ["cnn/1", "cnn/2", "ann"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.4 s"),
        (61.2, "1 min 1 s"),
        (119.7, "2 min"),
        (725, "12 min 5 s"),
        (3599.6, "1 h"),
        (12_000, "3 h 20 min"),
        (None, "–"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float | None, text: str) -> None:
    assert formatting.duration(seconds) == text


def test_numbers_read_as_people_write_them() -> None:
    plain = [
        formatting.percent(0.78134),
        formatting.points(-0.25812),
        formatting.points(0.01),
        formatting.interval(0.773, 0.7891),
        formatting.memory(1_130_000_000),
        formatting.moment("2026-11-21T04:28:04+00:00"),
        formatting.listed(["a", "b", "c"]),
        formatting.signed_points(-0.0314),
    ]
    assert plain == [
        "78.1 %",
        "25.8 points",
        "1.0 point",
        "77.3 to 78.9 %",
        "1.1 GB",
        "2026-11-21 04:28 UTC",
        "a, b and c",
        "−3.1",
    ]


@pytest.mark.parametrize("share", [0.6385, 0.6385000000000001])
def test_a_mean_reads_the_same_before_and_after_it_is_written(share: float) -> None:
    # 63.849999999999994 and 63.85000000000001 where they are computed.
    assert formatting.percent(share) == "63.9 %"
    assert formatting.signed_points(-share) == "−63.9"
