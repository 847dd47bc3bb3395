"""What several runs show together, against figures worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fabricated_runs import Recipe, make_run
from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.runs import Run, read_runs
from tenfold.reporting import explanation, story
from tenfold.reporting.comparison import compare, disagreement


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
    assert found.difference == pytest.approx(1 / 5)


def test_interval_of_the_difference_is_that_of_the_textbook(pair: tuple[Run, Run]) -> None:
    # Agresti's approval ratings: 150 changed one way and 86 the other, of 1600:
    # a difference of 0.04 with the interval 0.021 to 0.059.
    right = [True] * 150 + [False] * 86 + [True] * 794 + [False] * 570
    other = [False] * 150 + [True] * 86 + [True] * 794 + [False] * 570
    ids = [str(index) for index in range(1600)]
    found = disagreement(
        with_answers(pair[0], right, ids=ids, names=("cat", "dog")),
        with_answers(pair[1], other, ids=ids, names=("cat", "dog")),
    )
    assert found is not None
    assert found.interval == pytest.approx((0.021, 0.059), abs=5e-4)
    assert found.is_clear


def test_runs_on_other_pictures_are_not_set_against_each_other(
    tmp_path: Path, pair: tuple[Run, Run]
) -> None:
    folder = make_run(tmp_path / "other" / "1", Recipe(name="other"))
    provenance = json.loads((folder / "provenance.json").read_text())
    provenance["data"]["name"] = "digits"
    (folder / "provenance.json").write_text(json.dumps(provenance))
    comparison = compare([pair[0], *read_runs([folder])])
    assert not comparison.same_pictures
    assert comparison.pair is None
    assert "different pictures" in story.compare_in_words(comparison)


def test_seeds_are_grouped_with_mean_and_spread(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / "cnn" / str(seed), Recipe(seed=seed, skill=2.2 + seed / 10))
        for seed in range(3)
    ]
    folders.append(make_run(tmp_path / "ann" / "1", Recipe(name="ann", skill=1.0)))
    comparison = compare(read_runs(folders))
    assert [group.label for group in comparison.groups] == ["cnn", "ann"]
    seeds = comparison.groups[0]
    accuracies = np.array(seeds.accuracies)
    assert len(accuracies) == 3
    assert seeds.mean == pytest.approx(accuracies.mean())
    assert seeds.deviation == pytest.approx(accuracies.std(ddof=1))
    assert seeds.typical.shown_scores is not None
    assert seeds.typical.shown_scores.accuracy == pytest.approx(np.median(accuracies))
    assert "over 3 seeds" in story.compare_in_words(comparison)


def test_one_recipe_with_several_seeds(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(s), Recipe(seed=s, skill=2 + s / 5)) for s in range(4)]
    comparison = compare(read_runs(runs))
    assert len(comparison.groups) == 1
    assert "4 runs of cnn that differ in nothing but the seed" in story.compare_in_words(comparison)
    assert comparison.settings == ()


def test_recipes_of_one_name_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / rate, Recipe()) for rate in ("0.1", "0.2")]
    for folder in folders:
        recipe = json.loads((folder / "recipe.json").read_text())
        recipe["optimizer"]["lr"] = float(folder.name)
        (folder / "recipe.json").write_text(json.dumps(recipe))
    comparison = compare(read_runs(folders))
    assert {group.label for group in comparison.groups} == {"cnn, lr 0.1", "cnn, lr 0.2"}
    assert [setting.key for setting in comparison.settings] == ["optimizer.lr"]


def test_the_dense_and_the_convolutional_network_are_explained(pair: tuple[Run, Run]) -> None:
    ann, cnn = pair
    comparison = compare(pair)
    assert explanation.title(comparison) == "Why a convolutional network beats a dense one"
    said = story.compare_in_words(comparison).replace("\N{NO-BREAK SPACE}", " ")
    assert ann.shown_scores is not None
    assert cnn.shown_scores is not None
    gain = 100 * (cnn.shown_scores.accuracy - ann.shown_scores.accuracy)
    assert said.startswith(
        f"The convolutional network (cnn) is right on {100 * cnn.shown_scores.accuracy:.1f} % of "
        f"the 400 test pictures, the dense network (ann) on "
        f"{100 * ann.shown_scores.accuracy:.1f} %: {gain:.1f} points more, with 21 % of the "
        "parameters and after 2.1 times the training time."
    )
    text = " ".join(paragraph.text for paragraph in explanation.explain(comparison))
    assert "3,072 numbers" in text
    assert "1,572,864 weights" in text, "3072 inputs to 512 units"
    assert "takes 864" in text, "3 by 3 by 3 colours to 32 channels"
    assert "how pictures are altered while learning" in text


def test_a_dense_network_that_wins_is_not_talked_down(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / "ann", Recipe(name="ann", skill=3.0)),
        make_run(tmp_path / "cnn", Recipe(skill=1.0)),
    ]
    comparison = compare(read_runs(folders))
    assert explanation.title(comparison) == "Here the dense network beats the convolutional one"


def test_a_difference_within_chance_is_called_that(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / "ann", Recipe(name="ann", skill=2.6, num_test=60)),
        make_run(tmp_path / "cnn", Recipe(skill=2.6, num_test=60)),
    ]
    comparison = compare(read_runs(folders))
    assert "too close to call" in story.compare_in_words(comparison)
    assert explanation.title(comparison) == "A convolutional network and a dense one, compared"
