"""Whether a model notices that a picture is of nothing that it knows (out of distribution).

N pictures, C classes, D features. A score is higher for what looks familiar.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.evaluation.probabilities import log_sum_exp, softmax
from tenfold.results.facts import Fact

Floats = NDArray[np.float32]

MOST_KNOWN = 10_000
"""Training pictures that a new one is compared with."""

PICTURES_A_NEIGHBOUR = 200
"""Every so many training pictures, the distance of one neighbour further away counts."""


class Seen(NamedTuple):
    """What a model makes of pictures: logits (N, C) and features before the head (N, D)."""

    logits: Floats
    features: Floats


class NoveltyResult(Fact):
    """How well a score tells known pictures from others.

    auroc: how often a known picture has the higher score of two. fpr95: share of other pictures
    that pass where 95 % of the known ones do.
    """

    score: str
    auroc: float
    fpr95: float


def maximum_softmax(seen: Seen) -> NDArray[np.float64]:
    """The confidence (Hendrycks and Gimpel 2017, arXiv 1610.02136)."""
    return np.asarray(softmax(seen.logits.astype(np.float64)).max(axis=1))


def energy(seen: Seen) -> NDArray[np.float64]:
    """log sum exp of the logits (Liu et al. 2020, arXiv 2010.03759)."""
    return log_sum_exp(seen.logits.astype(np.float64))


class Neighbourhood:
    """Scores by the distance to the k-th nearest training picture (Sun et al. 2022, arXiv
    2204.06507): features of length 1."""

    def __init__(self, known: Floats) -> None:
        self._known = unit(known[:MOST_KNOWN])
        self._rank = max(len(self._known) // PICTURES_A_NEIGHBOUR, 1) - 1

    def __call__(self, seen: Seen) -> NDArray[np.float64]:
        found = np.empty(len(seen.features))
        features = unit(seen.features)
        for start in range(0, len(features), 500):
            cosines = features[start : start + 500] @ self._known.T
            nearest = np.partition(-cosines, self._rank, axis=1)[:, self._rank]
            found[start : start + 500] = -nearest
        return found


class Ellipsoids:
    """Scores by the Mahalanobis distance to the nearest class's mean, with one covariance for all
    (Lee et al. 2018, arXiv 1807.03888), of features of length 1 (Mueller and Hein 2025, arXiv
    2505.18032): else a picture with little in it lies near to all means."""

    def __init__(self, known: Floats, labels: NDArray[np.int64]) -> None:
        features = unit(known).astype(np.float64)
        present = np.unique(labels)
        self._means = np.stack([features[labels == label].mean(axis=0) for label in present])
        centred = features - self._means[np.searchsorted(present, labels)]
        covariance = centred.T @ centred / len(features)
        # A little of the mean variance everywhere, for features that never vary.
        covariance += np.eye(len(covariance)) * (
            1e-6 + 1e-4 * np.trace(covariance) / len(covariance)
        )
        self._precision = np.linalg.inv(covariance)

    def __call__(self, seen: Seen) -> NDArray[np.float64]:
        distances = []
        features = unit(seen.features).astype(np.float64)
        for mean in self._means:
            away = features - mean
            distances.append(np.einsum("nd,de,ne->n", away, self._precision, away, optimize=True))
        return np.asarray(-np.min(distances, axis=0))


Score = Callable[[Seen], NDArray[np.float64]]


def scores_of(known: Floats, labels: NDArray[np.int64]) -> dict[str, Score]:
    """All scores, fitted where they must be on `known` (N, D) training features of `labels`."""
    return {
        "confidence": maximum_softmax,
        "energy": energy,
        "nearest neighbours": Neighbourhood(known),
        "Mahalanobis": Ellipsoids(known, labels),
    }


def compare(score: str, familiar: NDArray[np.float64], novel: NDArray[np.float64]) -> NoveltyResult:
    """How well scores of `familiar` pictures stand apart from those of `novel` ones."""
    from sklearn.metrics import roc_auc_score

    values = np.concatenate([familiar, novel])
    is_known = np.concatenate([np.ones(len(familiar)), np.zeros(len(novel))])
    threshold = np.quantile(familiar, 0.05, method="lower")
    return NoveltyResult(
        score=score,
        auroc=float(roc_auc_score(is_known, values)),
        fpr95=float((novel >= threshold).mean()),
    )


# -- pictures of nothing -------------------------------------------------------------------------


def noise(number: int, size: tuple[int, int], *, seed: int = 0) -> NDArray[np.uint8]:
    """(N, H, W, 3) uint8 of even noise."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (number, *size, 3), dtype=np.uint8)


def textures(number: int, size: tuple[int, int], *, seed: int = 0) -> NDArray[np.uint8]:
    """(N, H, W, 3) uint8 of stripes, checks and dots of random colours, widths and angles."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    found = np.empty((number, *size, 3), dtype=np.uint8)
    for index in range(number):
        angle, period = generator.uniform(0, np.pi), generator.uniform(3, max(size) / 2)
        along = 2 * np.pi * (rows * np.cos(angle) + columns * np.sin(angle)) / period
        across = 2 * np.pi * (columns * np.cos(angle) - rows * np.sin(angle)) / period
        kind = index % 3
        wave = (
            np.sin(along)
            if kind == 0
            else np.sign(np.sin(along) * np.sin(across))
            if kind == 1
            else np.sin(along) + np.sin(across) - 1
        )
        share = np.clip(wave / 2 + 0.5, 0, 1)[..., None]
        first, second = generator.uniform(0, 255, (2, 3))
        found[index] = (share * first + (1 - share) * second).astype(np.uint8)
    return found


def unit(features: Floats) -> Floats:
    """Features (N, D) with length 1."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-12), dtype=np.float32)
