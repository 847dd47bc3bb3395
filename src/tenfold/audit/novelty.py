"""Does it notice what it does not know? Scores of out-of-distribution images beside known ones.

N images, C classes, D features. A score is higher for what looks familiar.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.audit.answer import Answer
from tenfold.audit.robustness import Pictures
from tenfold.audit.subject import Subject
from tenfold.data import Images, load
from tenfold.data.sources.named import DIGIT_NAMES
from tenfold.errors import TenfoldError
from tenfold.evaluation.probabilities import log_sum_exp, softmax, unit
from tenfold.formatting import percent
from tenfold.results.facts import Fact

Floats = NDArray[np.float32]

NUMERALS = {str(number) for number in range(10)} | set(DIGIT_NAMES)
"""Names of classes that say that a model knows digits."""

NUM_SHOWN = 6

MOST_KNOWN = 10_000
"""Training images that a new one is compared with."""

IMAGES_A_NEIGHBOUR = 200
"""Every so many training images, the distance of one neighbour further away counts."""


class Seen(NamedTuple):
    """What a model makes of images: logits (N, C) and features before the head (N, D)."""

    logits: Floats
    features: Floats


class NoveltyResult(Fact):
    """How well a score tells known images from others.

    auroc: how often a known image has the higher score of two. fpr95: share of other images
    that pass where 95 % of the known ones do.
    """

    score: str
    auroc: float
    fpr95: float


class Novelty(Answer):
    """results: what each score tells, confidence first, by kind of out-of-distribution images."""

    question = "Out of distribution: does it notice what it does not know?"
    template = "novelty"

    num_images: int
    split: str
    results: dict[str, tuple[NoveltyResult, ...]]

    def summary(self) -> str:
        return "; ".join(
            f"{kind}: {percent(rows[0].auroc, 0)} by confidence"
            for kind, rows in self.results.items()
        )

    @property
    def scores(self) -> list[str]:
        """The names of the scores."""
        return [entry.score for entry in next(iter(self.results.values()))]

    @property
    def best(self) -> tuple[str, float]:
        """The score that tells images apart best, and its mean AUROC over their kinds."""
        means = np.mean([[each.auroc for each in rows] for rows in self.results.values()], axis=0)
        return self.scores[int(means.argmax())], float(means.max())

    @property
    def hardest(self) -> str:
        """The kind of images that confidence tells from known ones the worst."""
        return min(self.results, key=lambda kind: self.results[kind][0].auroc)

    def mean_auroc(self, kinds: Sequence[str]) -> float | None:
        """How well confidence tells images of these kinds from known ones."""
        found = [self.results[kind][0].auroc for kind in kinds]
        return sum(found) / len(found) if found else None


def novelty(subject: Subject, *, pictures: Pictures = 1000, strange: str | None = None) -> Novelty:
    """Whether it notices images of nothing that it knows."""
    size, number = subject.model.image_size, pictures
    others = {
        "noise": noise(number, size, seed=subject.seed),
        "textures": textures(number, size, seed=subject.seed),
        **_other_images(subject, number, strange),
    }
    scores = scores_of(subject.known_features, subject.known_labels)
    indices = subject.drawn(len(subject.measured), number)
    familiar = Seen(subject.measured_predictions().logits[indices], subject.features[indices])
    known = {label: score(familiar) for label, score in scores.items()}
    results = {}
    for name, pixels in others.items():
        seen = Seen(subject.model.logits(pixels), subject.features_of(pixels))
        results[name] = tuple(
            compare(label, known[label], score(seen)) for label, score in scores.items()
        )
    found = Novelty(num_images=len(indices), split=subject.split, results=results)
    return found.having({k.replace(" ", "_"): pixels[:NUM_SHOWN] for k, pixels in others.items()})


def _other_images(subject: Subject, number: int, named: str | None) -> dict[str, NDArray[np.uint8]]:
    """Data sets that can be had here without waiting, and one that was named, at the model's size.

    Images of classes that the model knows are left out.
    """
    from tenfold.data.sources import get

    height, width = subject.model.image_size
    found = {}
    if named is not None:
        if height != width:
            raise TenfoldError(
                f"{named} can't be brought to the oblong {height}x{width} pixels of this model; "
                "leave --strange away."
            )
        strange = load(named, image_size=height, progress=subject.progress)
        found[strange.name] = _of_other_classes(subject, strange.test or strange.train, number)
    if height == width and not NUMERALS & set(subject.model.class_names):
        found["digits"] = subject.sample(load("digits", image_size=height).train, number).pixels
    if (height, width) == (32, 32):
        # It may not be at hand, and the model may know all of its classes.
        with contextlib.suppress(TenfoldError):
            others = get("cifar100", offline=True).test
            if others is not None:
                found["CIFAR-100"] = _of_other_classes(subject, others, number)
    return found


def _of_other_classes(subject: Subject, images: Images, number: int) -> NDArray[np.uint8]:
    """Up to `number` of the images whose class the model does not know by its name."""
    known = set(subject.model.class_names)
    strange = np.array([name not in known for name in images.class_names])
    keep = np.flatnonzero(strange[images.labels]).astype(np.int64)
    if not len(keep):
        raise TenfoldError(
            "All classes of the strange images are known to the model; name others with --strange."
        )
    return subject.sample(images.take(keep), number).pixels


Score = Callable[[Seen], NDArray[np.float64]]


def scores_of(known: Floats, labels: NDArray[np.int64]) -> dict[str, Score]:
    """All scores, fitted where they must be on `known` (N, D) training features of `labels`.

    The confidence (Hendrycks and Gimpel 2017, arXiv 1610.02136), and log sum exp of the logits (Liu
    et al. 2020, arXiv 2010.03759), beside those by distance.
    """
    return {
        "confidence": lambda seen: softmax(seen.logits.astype(np.float64)).max(axis=1),
        "energy": lambda seen: log_sum_exp(seen.logits.astype(np.float64)),
        "nearest neighbours": by_neighbours(known),
        "Mahalanobis": by_class_means(known, labels),
    }


def by_neighbours(known: Floats) -> Score:
    """Scores by the distance to the k-th nearest training image (Sun et al. 2022, arXiv
    2204.06507): features of length 1."""
    from sklearn.neighbors import NearestNeighbors

    known = unit(known[:MOST_KNOWN])
    rank = max(len(known) // IMAGES_A_NEIGHBOUR, 1)
    index = NearestNeighbors(n_neighbors=rank, algorithm="brute").fit(known)
    return lambda seen: -index.kneighbors(unit(seen.features))[0][:, -1]


def by_class_means(known: Floats, labels: NDArray[np.int64]) -> Score:
    """Scores by the Mahalanobis distance to the nearest class's mean, with one covariance for all
    (Lee et al. 2018, arXiv 1807.03888), of features of length 1 (Mueller and Hein 2025, arXiv
    2505.18032): else an image with little in it lies near to all means."""
    from scipy.spatial.distance import cdist

    features = unit(known).astype(np.float64)
    present = np.unique(labels)
    means = np.stack([features[labels == label].mean(axis=0) for label in present])
    centred = features - means[np.searchsorted(present, labels)]
    covariance = centred.T @ centred / len(features)
    # A little of the mean variance everywhere, for features that never vary.
    ridge = 1e-6 + 1e-4 * np.trace(covariance) / len(covariance)
    covariance += ridge * np.eye(len(covariance))
    # In whitened space, the distance is the usual one.
    whiten = np.linalg.cholesky(np.linalg.inv(covariance))
    return lambda seen: -cdist(unit(seen.features) @ whiten, means @ whiten).min(axis=1)


def compare(score: str, familiar: NDArray[np.float64], novel: NDArray[np.float64]) -> NoveltyResult:
    """How well scores of `familiar` images stand apart from those of `novel` ones."""
    from sklearn.metrics import roc_auc_score

    values = np.concatenate([familiar, novel])
    is_known = np.concatenate([np.ones(len(familiar)), np.zeros(len(novel))])
    threshold = np.quantile(familiar, 0.05, method="lower")
    return NoveltyResult(
        score=score,
        auroc=float(roc_auc_score(is_known, values)),
        fpr95=float((novel >= threshold).mean()),
    )


# -- images of nothing -------------------------------------------------------------------------


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
        stripes, crossing = np.sin(along), np.sin(across)
        kinds = (stripes, np.sign(stripes * crossing), stripes + crossing - 1)
        wave = kinds[index % 3]
        share = np.clip(wave / 2 + 0.5, 0, 1)[..., None]
        first, second = generator.uniform(0, 255, (2, 3))
        found[index] = (share * first + (1 - share) * second).astype(np.uint8)
    return found
