"""Metrics against published values, scikit-learn, and cases worked out by hand."""

import json
import math

import numpy as np
import pytest
from sklearn import metrics as reference

from tenfold.evaluation.metrics import (
    compute_metrics,
    cross_entropy,
    top_k_accuracy,
    wilson_interval,
)
from tenfold.evaluation.predictions import Predictions


def predictions(logits, labels, *, class_names=None):
    logits = np.asarray(logits, dtype=np.float32)
    names = class_names or tuple(f"class {i}" for i in range(logits.shape[1]))
    ids = np.array([f"test/{i + 1}" for i in range(len(logits))])
    return Predictions(logits, np.asarray(labels, dtype=np.int64), ids, names)


def from_confusion(confusion):
    """Predictions that give this confusion matrix."""
    pairs = [
        (t, p)
        for t, row in enumerate(confusion)
        for p, count in enumerate(row)
        for _ in range(count)
    ]
    logits = np.full((len(pairs), len(confusion)), -1.0)
    for index, (_, guess) in enumerate(pairs):
        logits[index, guess] = 2.0
    return predictions(logits, [true for true, _ in pairs])


def random_predictions(number=500, num_classes=10, *, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, number)
    logits = generator.normal(size=(number, num_classes)) * 2
    logits[np.arange(number), labels] += 1.5
    return predictions(logits, labels)


# -- the interval --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_has_the_published_values(successes, trials, low, high):
    interval = wilson_interval(successes, trials)
    assert interval.low == pytest.approx(low, abs=5.1e-5)
    assert interval.high == pytest.approx(high, abs=5.1e-5)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (9_000, 10_000), (7, 9), (0, 7)])
def test_the_interval_is_where_the_score_test_has_its_limits(successes, trials):
    share = successes / trials
    interval = wilson_interval(successes, trials)
    assert 0 <= interval.low <= share <= interval.high <= 1
    for end in interval:
        if 0 < end < 1:
            assert abs(share - end) / math.sqrt(end * (1 - end) / trials) == pytest.approx(1.959964)


def test_the_interval_is_symmetric_and_narrows():
    for trials in (10, 1_000):
        for successes in range(0, trials + 1, trials // 10):
            one, other = (
                wilson_interval(successes, trials),
                wilson_interval(trials - successes, trials),
            )
            assert one.low == pytest.approx(1 - other.high)
    widths = [high - low for low, high in (wilson_interval(n // 2, n) for n in (10, 100, 10_000))]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("trials", [0, -1])
def test_an_interval_of_nothing_is_refused(trials):
    with pytest.raises(ValueError, match="at least one trial"):
        wilson_interval(0, trials)


# -- loss and top k ------------------------------------------------------------------------------


def test_the_loss_is_the_log_loss():
    found = random_predictions()
    expected = reference.log_loss(found.labels, found.probabilities, labels=range(10))
    assert cross_entropy(found) == pytest.approx(expected, rel=1e-9)
    assert cross_entropy(predictions(np.zeros((4, 10)), [0, 1, 2, 3])) == pytest.approx(
        math.log(10)
    )
    assert cross_entropy(predictions([[0, 0], [math.log(3), 0]], [1, 0])) == pytest.approx(
        (math.log(2) + math.log(4 / 3)) / 2
    )


def test_huge_logits_do_not_overflow():
    found = predictions([[1e30, 0.0], [0.0, 1e4]], [0, 0])
    assert cross_entropy(found) == pytest.approx(5e3)
    np.testing.assert_array_equal(found.probabilities, [[1, 0], [0, 1]])


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_top_k_is_that_of_scikit_learn(k):
    found = random_predictions()
    expected = reference.top_k_accuracy_score(found.labels, found.logits, k=k, labels=range(10))
    assert top_k_accuracy(found, k) == pytest.approx(expected)


def test_ties_count_against_the_top_k():
    found = predictions([[1, 1, 1, 0], [3, 2, 2, 1], [0, 0, 0, 0]], [0, 1, 3])
    assert top_k_accuracy(found, 1) == 0
    assert top_k_accuracy(found, 2) == 0
    assert top_k_accuracy(found, 3) == pytest.approx(2 / 3)
    assert top_k_accuracy(found, 4) == 1


# -- everything ----------------------------------------------------------------------------------


def test_shares_by_class_are_those_of_scikit_learn():
    found = random_predictions()
    values = compute_metrics(found).to_dict()
    guesses = found.logits.argmax(axis=1)
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        found.labels, guesses, zero_division=0
    )
    assert [c["name"] for c in values["per_class"]] == list(found.class_names)
    for key, expected in (
        ("precision", precision),
        ("recall", recall),
        ("f1", f1),
        ("num_images", support),
    ):
        assert [c[key] for c in values["per_class"]] == pytest.approx(expected.tolist())
    assert values["accuracy"] == pytest.approx(reference.accuracy_score(found.labels, guesses))
    assert values["loss"] == pytest.approx(cross_entropy(found))
    assert values["top5_accuracy"] == top_k_accuracy(found, 5)
    right = int((guesses == found.labels).sum())
    assert values["accuracy_interval"] == list(wilson_interval(right, 500))
    assert values["num_images"] == 500
    assert values["images_per_second"] is None


HAND_MADE = [[4, 1, 0], [2, 3, 0], [0, 0, 10]]


def test_a_case_by_hand():
    values = compute_metrics(from_confusion(HAND_MADE)).to_dict()
    assert values["confusion"] == HAND_MADE
    assert values["accuracy"] == pytest.approx(17 / 20)
    assert [c["precision"] for c in values["per_class"]] == pytest.approx([4 / 6, 3 / 4, 1])
    assert [c["recall"] for c in values["per_class"]] == pytest.approx([4 / 5, 3 / 5, 1])
    assert [c["f1"] for c in values["per_class"]] == pytest.approx([8 / 11, 6 / 9, 1])
    assert [c["num_images"] for c in values["per_class"]] == [5, 5, 10]
    assert values["most_confused"] == [
        {"true": "class 1", "predicted": "class 0", "count": 2, "share": 2 / 5},
        {"true": "class 0", "predicted": "class 1", "count": 1, "share": 1 / 5},
    ]
    # Gorodkin (2004): (c s - sum p t) / sqrt((s^2 - sum p^2) (s^2 - sum t^2)).
    s, c, t, p = 20, 17, (5, 5, 10), (6, 4, 10)
    numerator = c * s - sum(a * b for a, b in zip(t, p, strict=True))
    denominator = math.sqrt((s**2 - sum(a * a for a in p)) * (s**2 - sum(a * a for a in t)))
    assert values["matthews_correlation"] == pytest.approx(numerator / denominator)
    assert values["top5_accuracy"] is None


@pytest.mark.parametrize(
    ("confusion", "accuracy", "correlation"),
    [
        ([[5, 0], [0, 5]], 1.0, 1.0),
        ([[0, 5], [5, 0]], 0.0, -1.0),
        ([[5, 0], [5, 0]], 0.5, 0.0),
        ([[6, 0], [0, 0]], 1.0, 0.0),
        ([[0, 0], [0, 1]], 1.0, 0.0),
        ([[0, 3], [0, 0]], 0.0, 0.0),
    ],
)
def test_perfect_useless_and_lopsided_predictions(confusion, accuracy, correlation):
    values = compute_metrics(from_confusion(confusion)).to_dict()
    assert values["accuracy"] == accuracy
    assert values["matthews_correlation"] == pytest.approx(correlation)
    assert values["confusion"] == confusion


def test_a_class_that_never_appears_still_has_its_row():
    values = compute_metrics(from_confusion([[3, 1, 0], [0, 4, 0], [0, 0, 0]])).to_dict()
    assert len(values["confusion"]) == len(values["per_class"]) == 3
    missing = values["per_class"][2]
    assert missing == {
        "name": "class 2",
        "precision": 0,
        "recall": None,
        "f1": None,
        "num_images": 0,
        "recall_interval": None,
        "specificity": 1,
        "specificity_interval": pytest.approx([0.6756, 1], abs=1e-4),
    }


def test_a_single_picture_and_a_single_class():
    one = compute_metrics(predictions([[0.1, 0.7, 0.2]], [1])).to_dict()
    assert (one["accuracy"], one["num_images"]) == (1.0, 1)
    assert one["accuracy_interval"] == pytest.approx([0.2065, 1.0], abs=1e-4)
    assert compute_metrics(predictions([[0.3], [0.1]], [0, 0])).to_dict()["loss"] == 0


def test_no_pictures_are_refused():
    with pytest.raises(ValueError, match="at least one image"):
        compute_metrics(predictions(np.zeros((0, 3)), []))


def test_only_the_ten_largest_confusions_are_listed_and_no_empty_one():
    generator = np.random.default_rng(3)
    confusion = generator.permutation(36).reshape(6, 6).tolist()
    pairs = compute_metrics(from_confusion(confusion)).to_dict()["most_confused"]
    errors = sorted((confusion[t][p] for t in range(6) for p in range(6) if t != p), reverse=True)
    assert [pair["count"] for pair in pairs] == errors[:10]
    for pair in pairs:
        row = confusion[int(pair["true"][-1])]
        assert row[int(pair["predicted"][-1])] == pair["count"]
        assert pair["share"] == pytest.approx(pair["count"] / sum(row))
    assert compute_metrics(from_confusion([[2, 0], [0, 2]])).to_dict()["most_confused"] == []


def test_every_picture_is_in_one_bin_of_confidence():
    found = random_predictions()
    bins = compute_metrics(found).to_dict()["confidence"]
    assert bins["bin_edges"] == pytest.approx([i / 20 for i in range(21)])
    confidence = found.probabilities.max(axis=1)
    right = found.logits.argmax(axis=1) == found.labels
    for kind, chosen in (("right", right), ("wrong", ~right)):
        assert sum(bins[kind]) == chosen.sum()
        expected = [0] * 20
        for value in confidence[chosen]:
            expected[min(int(value * 20), 19)] += 1
        assert bins[kind] == expected


def test_certainty_is_in_the_last_bin():
    bins = compute_metrics(predictions([[1e3, 0], [0, 1e3], [1e3, 0]], [0, 1, 1])).to_dict()[
        "confidence"
    ]
    assert bins["right"][-1] == 2
    assert bins["wrong"][-1] == 1


def test_top_five_is_left_out_where_it_says_nothing():
    assert compute_metrics(random_predictions(20, 5)).to_dict()["top5_accuracy"] is None
    assert compute_metrics(random_predictions(20, 6)).to_dict()["top5_accuracy"] is not None


def test_metrics_are_plain_json():
    values = compute_metrics(random_predictions()).to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
