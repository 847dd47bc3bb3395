"""The model beside people, with cases by hand."""

import numpy as np
import pytest

from tenfold.audit import agreement
from tenfold.audit.agreement import CLASS_NAMES, compare_with_people
from tenfold.data.sources.origins import obtain
from tenfold.errors import TenfoldError
from tenfold.evaluation.predictions import Predictions


def from_probabilities(probabilities, labels, names=CLASS_NAMES):
    logits = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), 1e-30))
    ids = np.array([f"test/{i}" for i in range(len(logits))])
    return Predictions(logits.astype(np.float32), np.asarray(labels), ids, tuple(names))


def some(rows):
    """Shares with the rest spread over nothing: {0: {cat: 0.9, dog: 0.1}}."""
    found = np.zeros((len(rows), 10))
    for index, row in enumerate(rows):
        for name, share in row.items():
            found[index, CLASS_NAMES.index(name)] = share
    return found


PEOPLE = some([{"cat": 1.0}, {"cat": 0.6, "dog": 0.4}, {"ship": 0.7, "truck": 0.3}])
LABELS = [CLASS_NAMES.index(name) for name in ("cat", "cat", "truck")]


def test_a_case_by_hand():
    model = some([{"cat": 0.5, "dog": 0.5}, {"cat": 0.9, "dog": 0.1}, {"truck": 0.8, "bird": 0.2}])
    model[2, CLASS_NAMES.index("ship")] = 0.05
    model[2] /= model[2].sum()
    found = compare_with_people(from_probabilities(model, LABELS), PEOPLE)
    expected = -np.array(
        [
            np.log(0.5),
            0.6 * np.log(0.9) + 0.4 * np.log(0.1),
            0.7 * np.log(0.05 / 1.05) + 0.3 * np.log(0.8 / 1.05),
        ]
    ).mean()
    assert found.soft_cross_entropy == pytest.approx(expected, abs=1e-5)
    floor = -(0.6 * np.log(0.6) + 0.4 * np.log(0.4) + 0.7 * np.log(0.7) + 0.3 * np.log(0.3)) / 3
    assert found.floor == pytest.approx(floor, abs=1e-9)
    assert found.majority == pytest.approx(2 / 3)
    # Of the second and the third, people's second guess is dog and truck; the model's dog and bird.
    assert found.second_best == 0.5
    assert found.human_accuracy == pytest.approx((1 + 0.6 + 0.3) / 3)
    assert found.majority_accuracy == pytest.approx(2 / 3)
    assert found.model_alone[0].position == 0
    assert found.people_alone[0].position == 1


def test_people_agree_with_themselves_down_to_the_floor():
    found = compare_with_people(from_probabilities(PEOPLE, LABELS), PEOPLE)
    assert found.soft_cross_entropy == pytest.approx(found.floor, abs=1e-5)
    assert found.majority == 1.0
    assert found.second_best == 1.0


def test_people_who_are_all_of_one_mind_have_no_second_guess():
    sure = some([{"cat": 1.0}, {"dog": 1.0}, {"ship": 1.0}])
    found = compare_with_people(from_probabilities(PEOPLE, LABELS), sure)
    assert (found.floor, found.second_best, found.entropy_correlation) == (0, 1, 0)


def test_classes_are_matched_by_name():
    order = np.random.default_rng(0).permutation(10)
    names = [CLASS_NAMES[index] for index in order]
    labels = [names.index(CLASS_NAMES[label]) for label in LABELS]
    straight = compare_with_people(from_probabilities(PEOPLE * 0.9 + 0.01, LABELS), PEOPLE)
    mixed = compare_with_people(
        from_probabilities((PEOPLE * 0.9 + 0.01)[:, order], labels, names), PEOPLE
    )
    assert mixed.soft_cross_entropy == pytest.approx(straight.soft_cross_entropy)
    assert mixed.human_accuracy == pytest.approx(straight.human_accuracy)


def test_other_pictures_are_refused():
    with pytest.raises(TenfoldError, match="evaluate a run of CIFAR-10 on its test split"):
        compare_with_people(from_probabilities(PEOPLE[:2], LABELS[:2]), PEOPLE)
    with pytest.raises(TenfoldError, match="in 10 classes"):
        compare_with_people(from_probabilities(PEOPLE, LABELS, "abcdefghij"), PEOPLE)


def test_answers_of_another_file_are_refused(tmp_path):
    path = tmp_path / "answers.npy"
    with pytest.raises(TenfoldError, match="can't be used"):
        obtain(agreement.ANSWERS, path)
    np.save(path, PEOPLE)
    with pytest.raises(TenfoldError, match="checksum is another"):
        obtain(agreement.ANSWERS, path)
    assert path.exists()
