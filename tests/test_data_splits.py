from dataclasses import fields

import numpy as np
import pytest

from tenfold.data.images import Dataset, Images
from tenfold.data.leaks import check_leaks, find_overlaps
from tenfold.data.splits import TrainingData, evaluation_split, training_data
from tenfold.errors import TenfoldError


def images_of(pixels, labels, ids=None):
    names = tuple(f"class {n}" for n in range(max(labels) + 1))
    ids = np.arange(len(labels)).astype(str) if ids is None else ids
    return Images(pixels.astype(np.uint8), labels, names, ids)


def noise(number, *, seed, split="train", num_classes=3):
    """Images of random patches, no two alike, a third of each class."""
    patches = np.random.default_rng(seed).integers(0, 256, (number, 16, 16, 3), dtype=np.uint8)
    ids = np.array([f"{split}/{n}" for n in range(number)])
    pixels = patches.repeat(2, axis=1).repeat(2, axis=2)
    return images_of(pixels, np.arange(number) % num_classes, ids)


def joined(*parts):
    return images_of(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.array([f"{n}/{name}" for n, part in enumerate(parts) for name in part.ids]),
    )


def dataset(train, *, validation=None, test=None):
    return Dataset("noise", train, validation, test, "made here", {"train": "abc"}, ("a note",))


def unalike(labels):
    """A data set of tiny images with these labels, no two alike, whose ids are their places."""
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 4, 3))
    images = images_of(pixels, labels)
    return dataset(images, test=images.take(np.arange(1)))


def hold_out(labels, *, size, seed):
    """Where the images for training and those for validation are."""
    found = training_data(unalike(labels), train_size=0, validation_size=size, seed=seed)
    return found.train.ids.astype(int), found.validation.ids.astype(int)


def draw(data, number):
    return training_data(data, train_size=number, validation_size=0, seed=1).train


@pytest.mark.parametrize("size", [10_000, 5_000, 0.2])
def test_cifar_splits_are_exact_and_even(size):
    labels = np.repeat(np.arange(10), 5_000)
    kept, held_out = hold_out(labels, size=size, seed=3)
    expected = size if size >= 1 else 10_000
    assert np.bincount(labels[held_out]).tolist() == [expected // 10] * 10
    assert np.array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(50_000))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held_out) > 0).all()


@pytest.mark.parametrize("size", [1, 2, 7, 13, 40, 0.01, 0.5])
def test_shares_go_by_largest_remainder_and_add_up(size):
    labels = np.repeat([0, 1, 2, 3], [61, 30, 7, 2])
    _, held_out = hold_out(labels, size=size, seed=0)
    total = size if size >= 1 else round(size * 100)
    assert len(held_out) == total
    shares = np.array([61, 30, 7, 2]) * total / 100
    assert (np.abs(np.bincount(labels[held_out], minlength=4) - shares) < 1).all()


def test_a_split_never_takes_the_last_image_of_a_class():
    labels = np.array([0] * 90 + [1] * 2 + [2])
    kept, held_out = hold_out(labels, size=90, seed=0)
    assert len(held_out) == 90
    assert np.bincount(labels[kept]).tolist() == [1, 1, 1]


def test_a_split_depends_on_the_seed_alone_and_stays_what_it_was_in_earlier_versions():
    labels = np.arange(1_000) % 10
    first, again = (hold_out(labels, size=100, seed=5)[1] for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, hold_out(labels, size=100, seed=6)[1])
    # A change here makes new runs see other images than old ones.
    assert hold_out(np.arange(12) % 2, size=4, seed=0)[1].tolist() == [4, 7, 10, 11]


def test_a_larger_draw_contains_the_smaller_one():
    data = unalike(np.arange(300) % 3)
    small, large = draw(data, 30), draw(data, 90)
    assert set(small.ids) < set(large.ids)
    assert np.bincount(small.labels).tolist() == [10, 10, 10]


def test_a_subset_has_every_class_where_there_is_room():
    data = unalike(np.array([0] * 100 + [1, 2, 4]))
    assert np.bincount(draw(data, 4).labels).tolist() == [1, 1, 1, 0, 1]
    assert len(draw(data, 2)) == 2
    assert draw(data, 103) is data.train


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        *(
            ((0, size), "share between 0 and 1 of the 10 that there are")
            for size in (-1, 1.5, float("nan"), float("inf"))
        ),
        ((0, 10), r"validation_size is 10 of 10 images.*9 can be held out"),
        ((9, 2), "train_size is 9, but there are only 8 images left"),
    ],
)
def test_a_size_that_is_not_possible_is_refused_with_the_number(sizes, said):
    data = unalike(np.zeros(10, dtype=np.int64))
    with pytest.raises(TenfoldError, match=said):
        training_data(data, train_size=sizes[0], validation_size=sizes[1], seed=0)


def test_row_23_a_class_missing_from_one_split_shifts_no_label():
    train = noise(60, seed=0, num_classes=4)
    only = np.flatnonzero(train.labels != 2)
    without = dataset(train.take(only), test=noise(20, seed=1, num_classes=4))
    options = {"train_size": 20, "validation_size": 0.2, "seed": 0}
    data = training_data(without, **options)
    assert data.train.class_names == train.class_names
    assert 2 not in data.train.labels
    labels = dict(zip(train.ids, train.labels, strict=True))
    for images in (data.train, data.validation):
        assert [labels[name] for name in images.ids] == images.labels.tolist()
    assert evaluation_split(without, "test", **options) is without.test


VALIDATION, TEST = noise(9, seed=1, split="v"), noise(9, seed=2, split="t")
CASES = {
    "all splits": {"validation": VALIDATION, "test": TEST},
    "no validation": {"test": TEST},
    "no test": {"validation": VALIDATION},
    "train alone": {},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("train_size", [0, 12])
@pytest.mark.parametrize("validation_size", [0, 6, 0.25])
def test_training_and_evaluation_agree_and_share_nothing(case, train_size, validation_size):
    data, again = (dataset(noise(60, seed=0), **CASES[case]) for _ in range(2))
    options = {"train_size": train_size, "validation_size": validation_size, "seed": 4}
    trained = training_data(again, **options)
    parts = {"train": trained.train, "test": evaluation_split(data, "test", **options)}
    assert evaluation_split(data, "train", **options).same_as(trained.train)
    if validation_size:
        parts["validation"] = evaluation_split(data, "validation", **options)
        assert trained.validation.same_as(parts["validation"])
    else:
        assert trained.validation is None
        with pytest.raises(TenfoldError, match="no validation split of noise"):
            evaluation_split(data, "validation", **options)
    ids = [name for images in parts.values() for name in images.ids.tolist()]
    assert len(ids) == len(set(ids))
    if train_size:
        assert len(trained.train) == train_size
    elif case == "train alone" and validation_size == 0.25:
        assert [len(images) for images in parts.values()] == [36, 12, 12]
    elif case == "train alone" and not validation_size:
        assert len(trained.train) == 48


def test_training_data_knows_where_it_is_from_and_has_no_test():
    data = training_data(dataset(noise(60, seed=0)), train_size=0, validation_size=6, seed=0)
    assert (data.dataset_name, data.source) == ("noise", "made here")
    assert data.checksums == {"train": "abc"}
    assert data.notes[0] == "a note"
    assert "12 of its 60 images were held out" in data.notes[1]
    assert not any("test" in field.name for field in fields(TrainingData))


def test_a_split_that_is_not_there_is_said():
    data = dataset(noise(60, seed=0))
    options = {"train_size": 0, "validation_size": 6, "seed": 0, "test_size": 0}
    with pytest.raises(TenfoldError, match="no test split of noise, because test_size is 0"):
        evaluation_split(data, "test", **options)
    with pytest.raises(TenfoldError, match="no split 'tset'; choose one of train"):
        evaluation_split(data, "tset", **options)


def copies_of(images, seed=0):
    """The same photographs in other files: mirrored, lightened and a little noisy."""
    pixels = images.pixels[:, :, ::-1].astype(np.float64) * 0.9 + 12
    pixels += np.random.default_rng(seed).normal(0, 2, pixels.shape)
    return images_of(np.clip(pixels, 0, 255), images.labels, images.ids)


@pytest.mark.parametrize("seed", range(3))
def test_near_duplicates_stay_on_one_side_of_a_made_test_split(seed):
    photographs = noise(90, seed=7)
    few = photographs.take(np.arange(30))
    data = dataset(joined(photographs, copies_of(few), few))
    options = {"train_size": 0, "validation_size": 0.2, "seed": seed}
    trained = training_data(data, **options)
    test = evaluation_split(data, "test", **options)
    assert len(test) == pytest.approx(30, abs=4)
    side = {
        name: number
        for number, images in enumerate((trained.train, trained.validation, test))
        for name in images.ids.tolist()
    }
    for n in range(30):
        assert side[f"0/train/{n}"] == side[f"1/train/{n}"] == side[f"2/train/{n}"]
    across = find_overlaps({"train": trained.train, "test": test})[1]
    assert (across.exact, across.near) == (0, 0)


def test_pairs_of_nearly_the_same_photograph_in_a_small_folder():
    """Two classes of ten images, every motif taken twice: validation can't keep pairs together,
    for it is to have one image of each class."""
    motifs = noise(10, seed=3, num_classes=2)
    data = dataset(joined(motifs, copies_of(motifs, 1)))
    options = {"train_size": 0, "validation_size": 0.1, "seed": 0}
    trained = training_data(data, **options)
    assert sorted(trained.validation.labels.tolist()) == [0, 1]
    assert any("chosen too hopefully" in note for note in trained.notes)
    names = {name[2:] for name in evaluation_split(data, "test", **options).ids.tolist()}
    others = [*trained.train.ids.tolist(), *trained.validation.ids.tolist()]
    assert not names & {name[2:] for name in others}


def test_where_all_images_are_alike_the_test_is_called_too_easy_or_cannot_be_made():
    films = noise(2, seed=0, num_classes=2).take(np.arange(40) % 2)
    options = {"train_size": 0, "validation_size": 0, "seed": 0}
    with pytest.raises(TenfoldError, match=r"equal each other.* supply that split yourself"):
        training_data(dataset(films), **options)
    pixels = films.pixels + np.random.default_rng(0).normal(0, 3, films.pixels.shape)
    frames = dataset(images_of(np.clip(pixels, 0, 255), films.labels))
    assert "the test is too easy" in training_data(frames, **options).notes[-1]
    assert len(evaluation_split(frames, "test", **options)) == 8


def test_row_25_the_same_image_in_train_and_test_is_counted_reported_and_refused():
    train, test = noise(60, seed=0), noise(30, seed=1, split="test")
    leaking = {"train": train, "test": joined(test, train.take(np.array([5, 17, 5])))}
    said = "3 images of the test split are in the train split too (1/train/5 equals train/5)"
    assert check_leaks(leaking) == [f"{said}."]
    within_train, across, within_test = find_overlaps(leaking)
    assert (across.first, across.second, across.exact, across.near) == ("train", "test", 3, 0)
    assert [(pair.first, pair.second, pair.similarity) for pair in across.pairs] == [
        ("train/5", "1/train/5", 1),
        ("train/17", "1/train/17", 1),
        ("train/5", "1/train/5", 1),
    ]
    assert (within_train.exact, within_test.exact) == (0, 2)
    assert check_leaks({"train": train, "test": test}, strict=True) == []
    with pytest.raises(TenfoldError, match=r"3 images of the test split.*equals train/5"):
        check_leaks(leaking, strict=True)


def test_row_25_near_duplicates_across_splits_are_counted_apart():
    train = noise(60, seed=0)
    splits = {
        "train": train,
        "test": joined(noise(30, seed=1), copies_of(train.take(np.array([8])))),
    }
    _, across, _ = find_overlaps(splits)
    assert (across.exact, across.near, across.num_pairs) == (0, 1, 1)
    (pair,) = across.pairs
    assert (pair.first, pair.second) == ("train/8", "1/train/8")
    assert 0.85 <= pair.similarity < 1
    assert find_overlaps(splits, near=False)[1].near is None
