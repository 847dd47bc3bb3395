"""Labels that were flipped on purpose are found, and those that were not are left alone."""

import numpy as np
import pytest

import tenfold
from tenfold.audit import AuditOptions, audit
from tenfold.audit.labels import count_judged, measure, rank_labels
from tenfold.errors import TenfoldError
from tenfold.evaluation.predictions import Predictions
from tenfold.run import RunFolder


def predictions(*, flipped, number=1000, num_classes=5, seed=0):
    """A model that is right on most pictures, and labels of which some are wrong."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, num_classes, number)
    logits = generator.normal(size=(number, num_classes))
    logits[np.arange(number), truth] += 5
    labels = truth.copy()
    wrong = generator.choice(number, flipped, replace=False)
    labels[wrong] = (labels[wrong] + 1) % num_classes
    names = tuple(f"class {i}" for i in range(num_classes))
    ids = np.array([f"train/{i}" for i in range(number)])
    found = Predictions(logits.astype(np.float32), labels, ids, names)
    return found, {int(index) for index in wrong}, truth


def test_flipped_labels_are_found():
    found, wrong, truth = predictions(flipped=20)
    ranked = rank_labels(found)
    assert len(ranked) == 1000
    result = measure(ranked, wrong, share=0.03)
    assert result.num_known == 20
    assert result.found_in > 0.9
    assert result.precision > 0.7
    assert result.recall >= 0.9
    first = ranked[0]
    assert first.id == f"train/{first.position}"
    assert first.given == f"class {found.labels[first.position]}"
    assert first.suggested == f"class {truth[first.position]}"
    qualities = [issue.quality for issue in ranked]
    assert qualities == sorted(qualities)


@pytest.mark.parametrize(
    ("labels", "guesses", "expected"),
    [
        (range(24), range(24), 0),  # Each the only one of its class.
        ([0, 1, 2] * 8, [0] * 24, 0),  # A model that has learned nothing.
        ([0] * 20 + [1] * 4, [0] * 24, 0),  # Right of 83 %, as by calling all the same.
        ([0, 1, 2] * 8, [1, 2, 0] * 8, 0),
        ([0, 1, 2] * 8, [0, 1, 2] * 8, 24),
        ([0, 1] * 11 + [2, 3], [0, 1] * 12, 22),
    ],
)
def test_it_is_counted_which_labels_can_be_judged(labels, guesses, expected):
    logits = np.eye(24, dtype=np.float32)[list(guesses)]
    names = tuple(f"class {i}" for i in range(24))
    found = Predictions(logits, np.array(labels), np.array(names), names)
    assert count_judged(found) == expected


def test_the_first_are_those_of_cleanlab():
    from cleanlab.filter import find_label_issues

    found, _, _ = predictions(flipped=20)
    expected = find_label_issues(
        found.labels,
        found.probabilities,
        return_indices_ranked_by="normalized_margin",
        n_jobs=1,
    )
    ours = [issue.position for issue in rank_labels(found) if issue.is_likely]
    assert ours == list(expected)


def test_where_nothing_is_wrong_little_is_suspected():
    found, _, _ = predictions(flipped=0)
    assert sum(issue.is_likely for issue in rank_labels(found)) < 10
    assert measure(rank_labels(found), set()).recall == 0.0


def test_one_class_says_nothing():
    found, _, _ = predictions(flipped=0, num_classes=3)
    with pytest.raises(TenfoldError, match="the same one"):
        rank_labels(found._replace(labels=np.zeros_like(found.labels)))


def test_labels_of_training_images_are_judged_by_folds(tmp_path):
    digits = tenfold.load_data("digits")
    train = digits.train
    flipped = np.random.default_rng(0).choice(len(train), 40, replace=False)
    names = train.class_names
    rows = [
        f"{train.ids[index]},{names[(train.labels[index] + 1) % 10]},correct" for index in flipped
    ]
    corrections = tmp_path / "flipped.csv"
    corrections.write_text("\n".join(["id,label,action", *rows]) + "\n")
    options = tenfold.TrainOptions(runs=tmp_path / "runs")
    run = tenfold.train(
        "ann", data="digits", options=options, epochs=4, training__min_steps=0,
        data__corrections=str(corrections), progress=False,
    )  # fmt: skip
    folder = RunFolder(run.path)
    found = audit(folder, ["labels"], options=AuditOptions(folds=2))["labels"]
    assert found.split == "training"
    assert "training labels are doubtful" in found.summary()
    wrong = {str(train.ids[index]) for index in flipped}
    first = [issue.id for issue in found.first]
    assert len(wrong.intersection(first)) >= 0.9 * len(first)
    kept = sorted(path.name for path in (run.path / "audit").glob("fold-*"))
    assert len(kept) == 2
    again = audit(folder, ["labels"])["labels"]
    assert again.folds == 2, "what is kept is taken whatever it was computed with"
    with pytest.raises(TenfoldError, match="choose fewer with --folds"):
        audit(folder, ["labels"], options=AuditOptions(folds=1000))
