"""Which pictures are chosen, and that they are the ones they are said to be."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fabricated_runs import Recipe, make_dataset, make_run
from tenfold.data.images import Dataset, Images
from tenfold.errors import TenfoldError
from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.runs import Run, read_run
from tenfold.reporting.galleries import (
    SplitImages,
    cards,
    disputed_cards,
    galleries,
    right,
    unsure,
    wrong,
)

NAMES = ("cat", "dog", "ship")


def make_answers(probabilities: list[list[float]], labels: list[int]) -> Predictions:
    ids = np.array([f"test/{index}" for index in range(len(labels))])
    return Predictions(np.log(np.array(probabilities, np.float32)), np.array(labels), ids, NAMES)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return read_run(make_run(tmp_path / "1"))


def decode(uri: str) -> np.ndarray:
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)))


def test_pixels_come_back_by_id(run: Run) -> None:
    dataset = make_dataset()
    assert dataset.test is not None
    uris = SplitImages(run, lambda _: dataset).uris(["test/7", "train/3", "gone/1"])
    assert set(uris) == {"test/7"}
    assert np.array_equal(decode(uris["test/7"]), dataset.test.pixels[7])


@pytest.mark.parametrize("shown", ["test", "validation", "held out"])
def test_row_55_only_images_of_the_shown_split_are_shown(run: Run, shown: str) -> None:
    """`held out`: validation images that the data set has in its training split."""
    parts = {
        split: Images(
            np.full((1, 8, 8, 3), colour, np.uint8), np.array([0]), ("a",), np.array(["x"])
        )
        for colour, split in enumerate(("train", "validation", "test"))
    }
    validation = None if shown == "held out" else parts["validation"]
    dataset = Dataset("own", parts["train"], validation, parts["test"], "made up")
    score = run.scores["test"]
    assert run.result is not None
    splits = {"test" if shown == "test" else "validation": score}
    run = replace(run, result=run.result.model_copy(update={"splits": splits}))
    uri = SplitImages(run, lambda _: dataset).uris(["x"])["x"]
    assert (decode(uri) == {"test": 2, "validation": 1, "held out": 0}[shown]).all()


def test_large_pictures_are_shown_small(run: Run) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 600, 300, 3)).astype(np.uint8)
    images = Images(pixels, np.array([0]), ("a",), np.array(["train/0"]))
    dataset = Dataset("photographs", images, None, None, "made up")  # of which test is held out
    uris = SplitImages(run, lambda _: dataset).uris(["train/0"])
    assert decode(uris["train/0"]).shape == (96, 48, 3)


@pytest.mark.parametrize("error", [TenfoldError("No such folder."), OSError(5, "disk"), KeyError()])
def test_a_loader_that_fails_leaves_answers_without_pictures(run: Run, error: Exception) -> None:
    def fail(_: Run) -> Dataset:
        raise error

    pictures = SplitImages(run, fail)
    shown = galleries(run, pictures)["wrong"]
    assert shown
    assert all(card.uri is None for card in shown)
    assert pictures.problem
    assert pictures.problem.startswith("The data set could not be opened again: ")


def test_wrong_answers_come_surest_first_with_three_guesses(run: Run) -> None:
    answers = make_answers(
        [[0.9, 0.06, 0.04], [0.2, 0.7, 0.1], [0.05, 0.15, 0.8], [0.3, 0.3, 0.4]], [0, 0, 1, 0]
    )
    ids = answers.ids[wrong(answers)]
    assert ids.tolist() == ["test/2", "test/1", "test/3"]
    card = cards(ids, {"cnn": answers}, SplitImages(run, lambda _: make_dataset()))[0]
    names, probabilities, are_right = zip(*card.predictions["cnn"], strict=True)
    assert (names, are_right) == (("ship", "dog", "cat"), (False, True, False))
    assert probabilities[0] == pytest.approx(0.8)
    assert (card.id, card.true) == ("test/2", "dog")


def test_no_class_fills_a_gallery_while_others_have_pictures() -> None:
    number = 30
    labels = [0] * 20 + [1] * 10
    answers = make_answers([[0.05, 0.05, 0.9]] * number, labels)
    chosen = wrong(answers)
    assert len(chosen) == 12
    assert answers.labels[chosen[:4]].tolist() == [0, 0, 1, 1]


def test_unsure_answers_are_those_whose_two_best_are_closest() -> None:
    answers = make_answers([[0.9, 0.05, 0.05], [0.5, 0.49, 0.01], [0.6, 0.3, 0.1]], [0, 0, 0])
    assert unsure(answers).tolist() == [1, 2, 0]


def test_right_answers_are_spread_over_the_split() -> None:
    answers = make_answers([[0.9, 0.05, 0.05]] * 100, [0] * 100)
    numbers = right(answers).tolist()
    assert (len(numbers), numbers[0], numbers[-1]) == (12, 0, 99)


def test_disputed_pictures_show_what_both_say(tmp_path: Path) -> None:
    dense = read_run(make_run(tmp_path / "ann", Recipe(name="ann", skill=1.0)))
    convolutional = read_run(make_run(tmp_path / "cnn"))
    a, b = dense.shown_answers, convolutional.shown_answers
    assert a is not None
    assert b is not None
    ids = b.ids[b.right & ~a.right]
    shown = disputed_cards(ids, convolutional, dense, SplitImages(dense, lambda _: make_dataset()))
    assert len(shown) == 12
    for card in shown:
        assert card.predictions["cnn"][0][2]
        assert not card.predictions["ann"][0][2]
        assert card.uri is not None
