"""Scores of the unfamiliar against scikit-learn, scipy and cases by hand."""

import numpy as np
import pytest

from tenfold.audit import novelty
from tenfold.audit.novelty import Seen


def seen(features, logits=None):
    features = np.asarray(features, dtype=np.float32)
    if logits is None:
        logits = np.zeros((len(features), 3))
    return Seen(np.asarray(logits, dtype=np.float32), features)


def random_features(number=400, *, seed=0, shift=0.0):
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(number, 5)) @ np.random.default_rng(9).normal(size=(5, 8))
    return (mixed + 0.1 * generator.normal(size=(number, 8)) + shift).astype(np.float32)


def test_confidence_and_energy_by_hand():
    logits = np.log([[0.7, 0.2, 0.1], [1.0, 1.0, 2.0]])
    x = seen(np.zeros((2, 4)), logits)
    scores = novelty.scores_of(random_features(), np.repeat([0, 1], 200))
    assert np.allclose(scores["confidence"](x), [0.7, 0.5], atol=1e-6)
    assert np.allclose(scores["energy"](x), np.log([1.0, 4.0]), atol=1e-6)


def test_the_neighbour_that_counts_is_that_of_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    known, asked = random_features(2000), random_features(700, seed=1)
    found = novelty.by_neighbours(known)(seen(asked))
    neighbours = NearestNeighbors(n_neighbors=10, metric="cosine").fit(known)
    distances, _ = neighbours.kneighbors(asked)
    # One further away for every 200 that are known; of unit vectors, cosine goes with distance.
    assert np.allclose(found**2 / 2, distances[:, -1], atol=1e-5)
    few = novelty.by_neighbours(known[:10])
    assert np.isfinite(few(seen(asked))).all()


def test_distances_are_those_of_scipy():
    from scipy.spatial.distance import mahalanobis

    known, labels = random_features(), np.repeat([0, 2], 200)
    asked = random_features(5, seed=2)
    found = novelty.by_class_means(known, labels)(seen(asked))
    known = known / np.linalg.norm(known, axis=1, keepdims=True)
    asked = asked / np.linalg.norm(asked, axis=1, keepdims=True)
    within = np.mean([np.cov(known[labels == k].T, bias=True) for k in (0, 2)], axis=0)
    within += np.eye(8) * (1e-6 + 1e-4 * np.trace(within) / 8)
    for row, value in zip(asked, found, strict=True):
        expected = min(
            mahalanobis(row, known[labels == label].mean(axis=0), np.linalg.inv(within))
            for label in (0, 2)
        )
        assert -value == pytest.approx(expected, rel=1e-4)


def test_a_feature_that_never_varies_does_no_harm():
    known = random_features()
    known[:, 3] = 0
    score = novelty.by_class_means(known, np.repeat([0, 1], 200))
    assert np.isfinite(score(seen(known))).all()


def test_all_scores_tell_what_is_far_away():
    known = random_features()
    labels = np.repeat([0, 1], 200)
    for name, score in novelty.scores_of(known, labels).items():
        if name in ("confidence", "energy"):
            continue
        near, far = (
            score(seen(random_features(seed=3))),
            score(seen(random_features(seed=4, shift=9))),
        )
        assert novelty.compare(name, near, far).auroc > 0.9


def test_a_comparison_by_hand():
    familiar = np.arange(1, 101) / 100
    result = novelty.compare("x", familiar, np.array([0.001, 0.002, 0.5005, 0.99]))
    # 95 % of the familiar are at 0.05 and above: two of the four others pass.
    assert result.fpr95 == 0.5
    wins = (0 + 0 + 50 + 98.5) / 400
    assert result.auroc == pytest.approx(1 - wins)


@pytest.mark.parametrize("make", [novelty.noise, novelty.textures])
def test_pictures_of_nothing(make):
    found = make(9, (32, 24), seed=1)
    assert found.shape == (9, 32, 24, 3)
    assert found.dtype == np.uint8
    assert np.array_equal(found, make(9, (32, 24), seed=1))
    assert len({picture.tobytes() for picture in found}) == 9
