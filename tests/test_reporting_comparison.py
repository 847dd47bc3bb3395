"""What several runs show together, against figures worked out by hand."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fabricated_runs import Recipe, make_dataset, make_run
from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.runs import Run, read_runs
from tenfold.reporting.comparison import different_settings, disagreement
from tenfold.reporting.page import render_runs
from tenfold.studies.analysis import summarise_runs
from tenfold.studies.finished import as_study
from tenfold.studies.statistics import welch_difference


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Run, Run]:
    """A dense and a convolutional run on the same pictures."""
    dense = Recipe(name="ann", skill=1.2, num_parameters=1_707_274, seconds=38.2)
    ann, cnn = read_runs(
        [make_run(tmp_path / "ann" / "1", dense), make_run(tmp_path / "cnn" / "1", Recipe())]
    )
    return ann, cnn


def with_answers(run: Run, right: list[bool], *, ids: list[str], names: tuple[str, ...]) -> Run:
    labels = np.zeros(len(right), dtype=np.int64) + names.index("cat")
    probabilities = np.full((len(right), 2), 0.1, dtype=np.float32)
    answers = np.where(right, names.index("cat"), names.index("dog"))
    probabilities[np.arange(len(right)), answers] = 0.9
    return replace(
        run, answers={"test": Predictions(np.log(probabilities), labels, np.array(ids), names)}
    )


def test_disagreement_is_matched_by_id_and_by_class_name(pair: tuple[Run, Run]) -> None:
    first = with_answers(
        pair[0], [True, True, False, False, True], ids=list("abcde"), names=("cat", "dog")
    )
    second = with_answers(
        pair[1], [True, False, True, False, False], ids=list("edcba"), names=("dog", "cat")
    )
    # By picture: first has a, b, e right; second has e, c right.
    found = disagreement(first, second)
    assert found is not None
    assert found.num_images == 5
    assert list(found.only_first) == ["a", "b"]
    assert list(found.only_second) == ["c"]
    assert found.both_right == 1
    assert found.both_wrong == 1
    assert found.share == pytest.approx(3 / 5)


def said_of(*runs: Run) -> str:
    """The text of the page that compares `runs`, without images."""
    source = render_runs(runs, loader=lambda _: make_dataset())
    text = re.sub(r"<style.*?</style>|<svg class=.chart.*?</svg>", "", source, flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", text)))


def test_a_comparison_has_the_statistics_of_a_study(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / name / str(seed), Recipe(name=name, seed=seed, skill=skill + seed / 10))
        for name, skill in (("ann", 1.0), ("cnn", 2.2))
        for seed in range(3)
    ]
    runs = read_runs(folders)
    summary = summarise_runs(as_study(runs))
    assert [(v.label, v.seeds) for v in summary.variants] == [
        ("ann", (0, 1, 2)),
        ("cnn", (0, 1, 2)),
    ]
    accuracies = np.array([run.shown_scores.accuracy for run in runs[:3] if run.shown_scores])
    assert summary.variants[0].result is not None
    assert summary.variants[0].result.mean == pytest.approx(accuracies.mean())
    assert summary.variants[0].result.sd == pytest.approx(accuracies.std(ddof=1))
    right = np.stack([run.answers["test"].right for run in runs])
    expected = welch_difference(right[3:], right[:3])
    (comparison,) = summary.comparisons
    assert (comparison.variant, comparison.baseline) == ("cnn", "ann"), "the first is the baseline"
    assert (comparison.low, comparison.high) == pytest.approx((expected.low, expected.high))
    assert comparison.num_seeds == (3, 3)
    page = said_of(*runs)
    assert comparison.sentence.split(" (")[0] in page
    assert "cnn is better than ann: +" in page


def test_the_same_seed_twice_does_not_count_as_two(tmp_path: Path) -> None:
    runs = read_runs([make_run(tmp_path / name) for name in "ab"])
    assert [len(variant.runs) for variant in as_study(runs).variants] == [1, 1]
    assert len({variant.label for variant in as_study(runs).variants}) == 2


def test_runs_on_other_pictures_are_not_set_against_each_other(
    tmp_path: Path, pair: tuple[Run, Run]
) -> None:
    folder = make_run(tmp_path / "other" / "1", Recipe(name="other"))
    provenance = json.loads((folder / "provenance.json").read_text())
    provenance["data"]["name"] = "digits"
    (folder / "provenance.json").write_text(json.dumps(provenance))
    other = read_runs([folder])[0]
    assert disagreement(pair[0], other) is None
    assert summarise_runs(as_study([pair[0], other])).comparisons == ()
    assert "other can't be compared with ann" in said_of(pair[0], other)
    provenance["data"] |= {"name": "cifar10", "checksums": {"train images": "changed"}}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    assert disagreement(pair[0], read_runs([folder])[0]) is None, "the data were changed since"


def test_one_recipe_with_several_seeds(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(s), Recipe(seed=s, skill=2 + s / 5)) for s in range(4)]
    page = said_of(*read_runs(runs))
    assert "Each variant was trained with 4 seeds: 0, 1, 2 and 3." in page
    assert "Settings that differ" not in page


def test_recipes_of_one_name_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / rate, Recipe()) for rate in ("0.1", "0.2")]
    for folder in folders:
        recipe = json.loads((folder / "recipe.json").read_text())
        recipe["optimizer"]["lr"] = float(folder.name)
        (folder / "recipe.json").write_text(json.dumps(recipe))
    study = as_study(read_runs(folders))
    assert [variant.label for variant in study.variants] == ["cnn, lr 0.1", "cnn, lr 0.2"]
    assert different_settings(study) == {"optimizer.lr": ["0.1", "0.2"]}


def test_the_dense_and_the_convolutional_network_are_explained(pair: tuple[Run, Run]) -> None:
    page = said_of(*pair)
    for said in (
        "Why a convolutional network beats a dense one",
        "cnn is better than ann on these images: +",
        "With one seed each, interval and p leave out what another seed would change",
        "3,072 numbers",
        "1,572,864 weights",  # 3072 inputs to 512 units.
        "takes 864",  # 3 by 3 by 3 colours to 32 channels.
        "In epoch 8 ann has a training accuracy of",
        "Accuracy against parameters",
        "Only cnn is right",
        "Only ann is right",
        "augmentation.flip",
    ):
        assert said in page


def test_a_dense_network_that_wins_is_not_talked_down(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / "cnn", Recipe(skill=1.0)),
        make_run(tmp_path / "ann", Recipe(name="ann", skill=3.0)),
    ]
    assert "Here the dense network beats the convolutional one" in said_of(*read_runs(folders))


def test_a_difference_within_chance_is_called_that(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / "ann", Recipe(name="ann", skill=2.6, num_test=60)),
        make_run(tmp_path / "cnn", Recipe(skill=2.6, num_test=60)),
    ]
    page = said_of(*read_runs(folders))
    assert "No difference between cnn and ann is shown" in page
    assert "A convolutional network and a dense one, compared" in page
