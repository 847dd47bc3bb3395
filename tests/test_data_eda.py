import json

import numpy as np
import pytest

from tenfold.data import sources
from tenfold.data.explore import explore, find_flags
from tenfold.data.images import Dataset, Images


def images_of(pixels, labels=None, *, split="train", names=("cat", "dog"), sizes=None):
    number = len(pixels)
    labels = np.arange(number) % len(names) if labels is None else np.asarray(labels)
    ids = np.array([f"{split}/{n}" for n in range(1, number + 1)])
    return Images(pixels, labels, tuple(names), ids, sizes)


def photographs(number, *, seed=0, side=16):
    """Noise in patches: neither dark, bright, blurred nor empty."""
    patches = np.random.default_rng(seed).integers(0, 256, (number, side // 2, side // 2, 3))
    return patches.astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)


def explored(train, test=None, **more):
    return explore(Dataset("made", train, None, test, "made here", **more))


def test_counts_by_split_and_class():
    train = images_of(photographs(9), [0] * 6 + [1] * 3, names=("cat", "dog", "owl"))
    test = images_of(photographs(2, seed=1), [0, 1], split="test", names=("cat", "dog", "owl"))
    found = explored(train, test, notes=("a note",))
    assert [(part.name, part.num_images, part.class_counts) for part in found.splits] == [
        ("train", 9, (6, 3, 0)),
        ("test", 2, (1, 1, 0)),
    ]
    assert found.splits[0].imbalance == 2
    assert found.splits[1].imbalance == 1
    assert found.splits[0].missing == ("owl",)
    assert np.isnan(found.classes[2].mean_rgb).all()
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written["splits"][0]["class_counts"] == [6, 3, 0]
    assert written["classes"][2]["mean_rgb"] is None
    assert written["normalisation"]["mean"] == list(found.normalisation.mean)
    assert [flag["name"] for flag in written["quality"]] == list(FLAWS)
    assert (found.name, found.source, found.notes) == ("made", "made here", ("a note",))


def test_mean_image_colours_and_histograms_of_a_class():
    pixels = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    pixels[0], pixels[2] = (200, 100, 0), (100, 50, 255)  # cats; the dogs stay black
    cat, dog = explored(images_of(pixels)).classes
    assert cat.mean_image[3, 3].tolist() == [150, 75, 128]
    assert cat.mean_rgb == (150, 75, 127.5)
    assert cat.std_rgb == (50, 25, 127.5)
    assert np.flatnonzero(cat.histograms[0]).tolist() == [100 // 8, 200 // 8]
    assert cat.histograms.sum(axis=1).tolist() == [1, 1, 1]
    assert dog.histograms[:, 0].tolist() == [1, 1, 1]
    assert cat.num_images == 2


def test_samples_are_of_the_class_and_the_same_each_time():
    train = images_of(photographs(60))
    first, again = explored(train).classes, explored(train).classes
    for label, look in enumerate(first):
        assert look.sample_ids == again[label].sample_ids
        assert len(set(look.sample_ids)) == 12
        assert (train.labels[list(look.sample_indices)] == label).all()
        assert look.sample_ids == tuple(train.ids[list(look.sample_indices)])


def test_original_sizes():
    sizes = np.array([[100, 50], [20, 30], [100, 50], [8, 400]], dtype=np.int32)
    found = explored(images_of(photographs(4), sizes=sizes)).original_sizes
    assert found is not None
    assert found.num_distinct == 3
    assert found.smallest == (20, 30)
    assert found.largest == (100, 50)
    assert found.most_common[0] == (100, 50, 2)
    assert found.num_enlarged == 1  # 8 pixels high, now 16
    assert explored(images_of(photographs(4))).original_sizes is None


def flawed(side=32):
    """300 ordinary images, and one of each flaw at the end."""
    pixels = photographs(304, side=side).astype(float)
    pixels[300] = pixels[300] * 0.1
    pixels[301] = 255 - pixels[301] * 0.1
    slope = np.linspace(0, 255, side)
    pixels[302] = ((slope[:, None] + slope) / 2)[..., None]
    pixels[303] = 120
    return images_of(pixels.astype(np.uint8))


FLAWS = {
    "dark": ["train/301"],
    "bright": ["train/302"],
    "blurred": ["train/303", "train/304"],
    "low information": ["train/304"],
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_each_flaw_is_flagged_and_nothing_else_is(flaw):
    train = flawed()
    flags = {flag.name: flag for flag in find_flags({"train": train})}
    found = [example.id for example in flags[flaw].examples]
    allowed = {"train/301", "train/302"} if flaw == "low information" else set()
    assert set(FLAWS[flaw]) <= set(found) <= {*FLAWS[flaw], *allowed}
    assert flags[flaw].counts == {"train": len(found)}


def test_thresholds_come_from_training_images_alone():
    train, test = images_of(photographs(200)), flawed()
    splits = {"train": train, "test": test}
    flags = find_flags(splits)
    alone = find_flags({"train": train})
    assert [flag.threshold for flag in flags] == [flag.threshold for flag in alone]
    dark = flags[0]
    assert dark.counts == {"train": 0, "test": 1}
    assert dark.examples[0].id == test.ids[dark.examples[0].index]


def test_a_data_set_of_night_scenes_is_not_flagged_whole():
    night = images_of((photographs(200) * 0.15).astype(np.uint8))
    dark = find_flags({"train": night})[0]
    assert dark.counts["train"] < 5


def test_examples_are_the_most_extreme_first():
    pixels = photographs(300).astype(float)
    for n in range(20):
        pixels[n] *= 0.01 * n
    train = images_of(pixels.astype(np.uint8))
    dark = find_flags({"train": train})[0]
    assert [example.index for example in dark.examples] == list(range(12))
    assert dark.counts["train"] == 20


def test_duplicates_are_counted_across_splits():
    train = images_of(photographs(30, side=32))
    test = images_of(train.pixels[[4, 9]], [0, 1], split="test")
    (across,) = (each for each in explored(train, test).duplicates if each.is_across)
    assert across.exact == 2
    assert across.pairs[0].second == "test/1"


def test_progress_reaches_its_totals():
    seen = {}
    explore(
        Dataset("made", flawed(), None, None, "made here"),
        progress=lambda label, done, total: seen.update({label: (done, total)}),
    )
    assert set(seen) == {"image quality", "classes and colours", "near duplicates"}
    assert all(done == total for done, total in seen.values())


@pytest.mark.long
@pytest.mark.network
def test_cifar_10_is_what_everybody_knows_it_is():
    """Constants: widely published. Duplicates: Barz and Denzler (2020) found 3.3 %, by eye."""
    found = explore(sources.get("cifar10"))
    assert found.normalisation.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=5e-5)
    assert found.normalisation.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=5e-5)
    assert [part.class_counts for part in found.splits] == [(5_000,) * 10, (1_000,) * 10]
    overlaps = {(part.first, part.second): part for part in found.duplicates}
    assert [part.exact for part in overlaps.values()] == [0, 0, 0]
    near = overlaps["train", "test"].near
    assert near is not None
    assert 0.015 < near / 10_000 < 0.033
