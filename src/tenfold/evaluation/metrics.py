"""Numbers from predictions: how often right, on what, and how surely."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.probabilities import log_sum_exp
from tenfold.evaluation.roc import auc_interval, auc_of, average_precision, levels_of
from tenfold.results.runs import ClassScore, ConfidenceHistogram, LabelMetrics, Metrics, Mistake

CONFIDENCE_BINS = 20
NUM_CONFUSED_PAIRS = 10

IN_TRAINING_MODE = "accuracy_in_training_mode"
"""The key of what `evaluation.training_mode` asks for, which stands beside `accuracy`."""


class Interval(NamedTuple):
    """The two ends of a confidence interval."""

    low: float
    high: float


def wilson_interval(successes: int, trials: int, *, z: float = 1.959963984540054) -> Interval:
    """The score interval of Wilson (1927) for a share; 95 % with the default `z`.

    Raises ValueError where `trials` is not positive.
    """
    if trials <= 0:
        raise ValueError("an interval needs at least one trial")
    share = successes / trials
    denominator = 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / denominator
    half = z / denominator * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    # Rounding would otherwise leave 0 of 20 just outside its own interval.
    return Interval(max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def interval_of(successes: int, trials: int) -> Interval | None:
    """`wilson_interval`, and None of no trials."""
    return wilson_interval(int(successes), int(trials)) if trials else None


def compute_metrics(predictions: Predictions) -> Metrics:
    """Everything that a run keeps of a split.

    Shares lie in [0, 1]; the loss is the mean cross-entropy in nats; `confusion` has a row for
    each true and a column for each predicted class. Raises ValueError where there are no images.

    >>> from tenfold.evaluation.predictions import Predictions
    >>> ids, logits = np.array(["a", "b"]), np.eye(2, dtype=np.float32)
    >>> metrics = compute_metrics(Predictions(logits, np.array([0, 0]), ids, ("cat", "dog")))
    >>> metrics.accuracy, metrics.confusion
    (0.5, ((1, 1), (0, 0)))
    """
    names, labels = predictions.class_names, predictions.labels
    compared = compare_labels(labels, predictions.predicted, class_names=names)
    by_class = zip(compared.per_class, predictions.probabilities.T, strict=True)
    ranked = [_ranked(score, own, labels == n) for n, (score, own) in enumerate(by_class)]
    return Metrics(
        **{**dict(compared), "per_class": tuple(ranked)},
        top5_accuracy=top_k_accuracy(predictions, 5) if len(names) > 5 else None,
        loss=cross_entropy(predictions),
        confidence=_confidence_histogram(predictions),
        images_per_second=predictions.images_per_second,
    )


def _ranked(
    score: ClassScore, probabilities: NDArray[np.float64], is_own: NDArray[np.bool_]
) -> ClassScore:
    """`score` with the areas under the curves of the class's probabilities."""
    levels = levels_of(probabilities, is_own)
    if not levels.num_positive or not levels.num_negative:
        return score
    areas = {
        "auc": auc_of(levels),
        "auc_interval": auc_interval(levels),
        "average_precision": average_precision(levels),
    }
    return score.model_copy(update=areas)


def compare_labels(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], *, class_names: Sequence[str]
) -> LabelMetrics:
    """The part of `compute_metrics` that needs no logits.

    labels: `(N,)` true classes, indices into `class_names`; predicted: `(N,)` likewise, or -1 where
    there is none, which is wrong and in no column of `confusion`. A class without images has
    neither recall nor F1: None. Raises ValueError for N = 0.
    """
    if len(labels) == 0:
        raise ValueError("metrics need at least one image")
    right = predicted == labels
    number = len(class_names)
    # Those without a prediction are in a column after the last class.
    cells = labels * (number + 1) + np.where(predicted < 0, number, predicted)
    table = np.bincount(cells, minlength=number * (number + 1)).reshape(number, number + 1)
    confusion, hits = table[:, :number], table.diagonal()
    support, num_predicted = table.sum(axis=1), confusion.sum(axis=0)
    others = len(labels) - support
    rejected = others - (num_predicted - hits)
    precision, recall = _shares(hits, num_predicted), _shares(hits, support)
    f1, is_there = _shares(2 * hits, support + num_predicted), support > 0
    return LabelMetrics(
        num_images=len(labels),
        accuracy=float(right.mean()),
        accuracy_interval=wilson_interval(int(right.sum()), len(labels)),
        matthews_correlation=_matthews_correlation(table),
        macro_f1=float(f1[is_there].mean()),
        balanced_accuracy=float(recall[is_there].mean()),
        per_class=tuple(
            ClassScore(
                name=name,
                precision=float(precision[i]),
                recall=float(recall[i]) if support[i] else None,
                f1=float(f1[i]) if support[i] else None,
                num_images=int(support[i]),
                recall_interval=interval_of(hits[i], support[i]),
                specificity=float(rejected[i] / others[i]) if others[i] else None,
                specificity_interval=interval_of(rejected[i], others[i]),
            )
            for i, name in enumerate(class_names)
        ),
        confusion=confusion.tolist(),
        most_confused=_most_confused(confusion, class_names, num_images=support),
    )


def _shares(parts: NDArray[np.int64], wholes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Parts of wholes; 0 of none."""
    return parts / np.maximum(wholes, 1)


def _matthews_correlation(table: NDArray[np.int64]) -> float:
    """Of true classes (rows) and predicted ones (columns), by Gorodkin (2004); 0 where one of them
    is the same for all."""
    rows, columns, total = table.sum(axis=1), table.sum(axis=0), int(table.sum())
    covariance = int(table.trace()) * total - int(rows @ columns[: len(rows)])
    spread = (total**2 - int(rows @ rows)) * (total**2 - int(columns @ columns))
    return covariance / math.sqrt(spread) if spread else 0.0


def cross_entropy(predictions: Predictions) -> float:
    """Mean negative log-likelihood of the true classes, in nats."""
    logits = predictions.logits.astype(np.float64)
    return float((log_sum_exp(logits) - logits[np.arange(len(logits)), predictions.labels]).mean())


def top_k_accuracy(predictions: Predictions, k: int) -> float:
    """Share of images whose true class is among the k likeliest; ties count against it."""
    logits, labels = predictions.logits, predictions.labels
    own = logits[np.arange(len(logits)), labels]
    at_least_as_likely = (logits >= own[:, None]).sum(axis=1)
    return float((at_least_as_likely <= k).mean())


def _most_confused(confusion: Any, names: Sequence[str], *, num_images: Any) -> tuple[Mistake, ...]:
    """The largest entries off the diagonal; `share` is of the images of the true class."""
    errors = confusion.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:NUM_CONFUSED_PAIRS]
    pairs = [divmod(int(flat), len(names)) for flat in order]
    return tuple(
        Mistake(
            true=names[true],
            predicted=names[wrong],
            count=int(errors[true, wrong]),
            share=float(errors[true, wrong] / num_images[true]),
        )
        for true, wrong in pairs
        if errors[true, wrong] > 0
    )


def _confidence_histogram(predictions: Predictions) -> ConfidenceHistogram:
    confidence, right = predictions.confidence, predictions.right
    edges = np.linspace(0, 1, CONFIDENCE_BINS + 1)
    return ConfidenceHistogram(
        bin_edges=edges.tolist(),
        right=np.histogram(confidence[right], bins=edges)[0].tolist(),
        wrong=np.histogram(confidence[~right], bins=edges)[0].tolist(),
    )
