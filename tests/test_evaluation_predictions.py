"""Predictions on disk: whole, checked, never executed; classes are matched by name."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from tenfold.errors import TenfoldError
from tenfold.evaluation.predictions import (
    Predictions,
    load_predictions,
    map_labels,
    save_predictions,
)

NAMES = ("Ameise", "蜂", "cat")


@pytest.fixture
def predictions():
    generator = np.random.default_rng(0)
    return Predictions(
        generator.normal(size=(30, 3)).astype(np.float32),
        generator.integers(0, 3, 30),
        np.array([f"test/Bild {i}.png" for i in range(30)]),
        NAMES,
        images_per_second=123.0,
    )


def test_probabilities_are_the_softmax(predictions):
    expected = np.exp(predictions.logits.astype(float))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predictions.probabilities, expected, rtol=1e-12)
    assert predictions.probabilities.dtype == np.float64


@pytest.mark.parametrize("name", ["predictions-test.npz", "with some spaces", "猫" * 60])
def test_predictions_survive_the_disk(tmp_path, predictions, name):
    path = tmp_path / name
    save_predictions(path, predictions)
    found = load_predictions(path)
    np.testing.assert_array_equal(found.logits, predictions.logits)
    np.testing.assert_array_equal(found.labels, predictions.labels)
    np.testing.assert_array_equal(found.ids, predictions.ids)
    assert found.class_names == NAMES
    assert found.logits.dtype == np.float32
    assert found.labels.dtype == np.int64
    assert found.ids.dtype.kind == "U"
    assert found.images_per_second is None
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(TenfoldError, match="tenfold evaluate"):
        load_predictions(tmp_path / "predictions-test.npz")


def test_a_file_cut_off_anywhere_is_named(tmp_path, predictions):
    path = tmp_path / "predictions.npz"
    save_predictions(path, predictions)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(TenfoldError, match=r"predictions\.npz can't be read"):
            load_predictions(path)


def test_a_flipped_byte_is_named_or_harmless(tmp_path, predictions):
    path = tmp_path / "predictions.npz"
    save_predictions(path, predictions)
    content = path.read_bytes()
    num_noticed = 0
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            found = load_predictions(path)
        except TenfoldError:
            num_noticed += 1
            continue
        np.testing.assert_array_equal(found.logits, predictions.logits)
        np.testing.assert_array_equal(found.labels, predictions.labels)
        np.testing.assert_array_equal(found.ids, predictions.ids)
        assert found.class_names == NAMES
    assert num_noticed > 0.75 * len(content)


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["plain", "object array"])
def test_row_11_a_pickle_is_never_executed(tmp_path, predictions, form):
    path, canary = tmp_path / "predictions.npz", tmp_path / "canary"
    if form == "plain":
        path.write_bytes(pickle.dumps(Canary(canary)))
    else:
        bait = np.empty(2, dtype=object)
        bait[:] = Canary(canary)
        with path.open("wb") as file:
            np.savez(file, **{**predictions._asdict(), "labels": bait, "images_per_second": 1})
    with pytest.raises(TenfoldError, match="can't be read"):
        load_predictions(path)
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists()  # so the bait was a real one


@pytest.mark.parametrize("save", [np.save, pickle.dump])
def test_a_file_of_another_kind_is_named(tmp_path, save):
    path = tmp_path / "predictions.npz"
    with path.open("wb") as file:
        save(*((file, np.ones(3)) if save is np.save else (np.ones(3), file)))
    with pytest.raises(TenfoldError, match="can't be read"):
        load_predictions(path)


@pytest.mark.parametrize("left_out", ["logits", "labels", "ids", "class_names"])
def test_a_file_that_lacks_an_array_is_named(tmp_path, predictions, left_out):
    arrays = {**predictions._asdict(), "class_names": np.array(NAMES)}
    del arrays["images_per_second"], arrays[left_out]
    path = tmp_path / "predictions.npz"
    np.savez(path, **arrays)
    with pytest.raises(TenfoldError, match=left_out):
        load_predictions(path)


def test_classes_are_matched_by_name(make_images):
    images = make_images(6, class_names=("cat", "ant", "bee"))
    mapped = map_labels(images, ("ant", "bee", "cat", "dog"))
    assert mapped.tolist() == [2, 0, 1, 2, 0, 1]
    assert mapped.dtype == np.int64


def test_a_class_that_the_model_lacks_is_named(make_images):
    images = make_images(6, class_names=("cat", "ant", "unicorn"))
    with pytest.raises(TenfoldError) as raised:
        map_labels(images, ("ant", "cat"))
    assert "'unicorn'" in str(raised.value)
    assert "ant, cat" in str(raised.value)


def test_a_class_without_pictures_need_not_be_known(make_images):
    images = make_images(2, class_names=("cat", "ant", "unicorn"))
    assert map_labels(images, ("ant", "cat")).tolist() == [1, 0]
    assert map_labels(images.take(np.array([], np.int64)), ("ant",)).tolist() == []
