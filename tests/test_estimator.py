"""`tenfold.Classifier` behind scikit-learn's interface."""

import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator

import tenfold
from tenfold.data.sources import fetch
from tenfold.data.sources.origins import FETCHABLE
from tenfold.errors import TenfoldError
from tenfold.estimator import Classifier
from tenfold.recipe import load_recipe

DIGITS = load_digits()
X, Y = DIGITS.images[:300] / 16, DIGITS.target[:300]
QUICK = {"training__epochs": 6, "training__min_steps": 0, "model__widths": (32,)}


def quick(**changes):
    return Classifier("ann", **{**QUICK, **changes})


@pytest.fixture(scope="module")
def fitted():
    return quick(training__epochs=20).fit(X, Y)


def test_it_is_a_public_name():
    assert tenfold.Classifier is Classifier


def test_it_learns_and_says_what_it_learnt(fitted):
    assert fitted.score(DIGITS.images[300:400] / 16, DIGITS.target[300:400]) > 0.75
    np.testing.assert_array_equal(fitted.classes_, np.arange(10))
    probabilities = fitted.predict_proba(X[:7])
    assert probabilities.shape == (7, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert fitted.history_.metrics[-1]["train_loss"] < fitted.history_.metrics[0]["train_loss"]


def test_grey_colour_flat_and_bytes_are_the_same_images(fitted):
    bytes_of = np.rint(X * 255).astype(np.uint8)
    wanted = fitted.predict_proba(X[:20])
    for same in (bytes_of, bytes_of.reshape(300, -1) / 255):
        found = quick(training__epochs=20).fit(same, Y).predict_proba(same[:20])
        np.testing.assert_array_equal(found, wanted)
    colours = np.repeat(bytes_of[..., None], 3, axis=3)
    found = quick(training__epochs=20).fit(colours, Y).predict_proba(colours[:20])
    np.testing.assert_array_equal(found, wanted)


def test_labels_may_be_words():
    words = np.array(["even", "odd"])[Y % 2]
    classifier = quick().fit(X, words)
    assert set(classifier.predict(X[:10])) <= {"even", "odd"}
    np.testing.assert_array_equal(classifier.classes_, ["even", "odd"])


def test_images_may_be_paths(tmp_path):
    paths = []
    for number, image in enumerate(X[:60]):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(paths[-1])
    classifier = quick().fit(paths, Y[:60])
    assert classifier.predict([str(path) for path in paths[:3]]).shape == (3,)


def test_params_clone_and_pickle(fitted):
    classifier = quick(optimizer__lr=0.02)
    assert clone(classifier).get_params() == classifier.get_params()
    classifier.set_params(optimizer__lr=0.1, recipe="cnn")
    assert classifier.get_params()["optimizer__lr"] == 0.1
    assert "optimizer__lr=0.1" in repr(classifier)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X[:9]), fitted.predict_proba(X[:9]))
    whole = Classifier(load_recipe("ann", ["training.epochs=1", "training.min_steps=0"]))
    assert clone(whole).fit(X[:60], Y[:60]).predict(X[:1]).shape == (1,)


def test_scikit_learns_tools_take_it():
    assert cross_val_score(quick(), X[:120], Y[:120] % 2, cv=2).shape == (2,)
    search = GridSearchCV(quick(), {"optimizer__lr": [1e-6, 0.05]}, cv=2)
    assert search.fit(X[:120], Y[:120] % 2).best_params_ == {"optimizer__lr": 0.05}
    scaled = make_pipeline(MinMaxScaler(), FunctionTransformer(_bounded), quick())
    scaled.fit(DIGITS.data[:120], Y[:120] % 2)
    assert scaled.predict(DIGITS.data[:5]).shape == (5,)


def _bounded(values):
    return np.clip(values, 0, 1)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (X[:4] * 16, r"goes from 0 to 1[56].*floats in \[0, 1\]"),
        (X[:4, :2, :2].reshape(4, -1), "4 columns, which make no square image"),
        (np.zeros((4, 8, 8, 2)), r"not \(4, 8, 8, 2\)"),
        (["absent.png"] * 4, "absent.png"),
    ],
)
def test_row_e_what_is_no_image_is_said(images, said):
    with pytest.raises((ValueError, TenfoldError), match=said):
        quick().fit(images, [0, 1, 0, 1])


def test_row_e_a_field_that_the_recipe_has_not_is_named_with_the_nearest():
    with pytest.raises(TenfoldError, match=r"did you mean 'lr'"):
        Classifier("ann", optimizer__lrr=1).fit(X, Y)


class OfRows(Classifier):
    """Takes rows of any length and range, as the checks have them: as strips of pixels."""

    @staticmethod
    def _of_rows(array):
        spread = 1 / (1 + np.exp(-np.asarray(array, dtype=float)))
        side = max(int(np.ceil(array.shape[1] ** 0.5)), 4)
        padded = np.zeros((len(array), side * side))
        padded[:, : array.shape[1]] = spread
        return padded.reshape(len(array), side, side)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = False
        return tags


def test_scikit_learns_own_checks_pass():
    results = check_estimator(
        OfRows("ann", **{**QUICK, "training__epochs": 25}), on_fail=None, on_skip=None
    )
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert failed == {}
    assert sum(r["status"] == "passed" for r in results) > 40


@pytest.mark.long
def test_fast_75_is_cross_validated_on_digits():
    found = cross_val_score(Classifier("fast-75"), DIGITS.images / 16, DIGITS.target, cv=2)
    assert found.min() > 0.25  # A tenth would be chance; its one epoch has five steps here.


@pytest.mark.long
def test_fast_75_is_cross_validated_on_cifar10():
    try:
        images = fetch(FETCHABLE["cifar10"], offline=True).train
    except TenfoldError as error:
        pytest.skip(str(error))
    found = cross_val_score(Classifier("fast-75"), images.pixels[:2000], images.labels[:2000], cv=2)
    assert found.min() > 0.15
