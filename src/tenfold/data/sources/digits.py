"""The data set that needs no network: scikit-learn's handwritten digits, as small RGB images."""

import importlib.util
from pathlib import Path

import numpy as np

from tenfold.data.checksums import with_checksums
from tenfold.data.images import Dataset, Images, numbered_ids

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEST_EVERY = 5


def load_digits() -> Dataset:
    """1,442 train and 355 test images of 32x32, from the UCI digits that come with scikit-learn.

    The originals are 8x8 with 17 levels of grey. Each of their pixels becomes a block of 4x4, and
    its level v the value round(255 v / 16) in all three channels: nothing is interpolated, so the
    result is the same everywhere. Of each class every fifth image, in scikit-learn's order, is a
    test image; there is no random number in the split.
    """
    table = np.loadtxt(_file(), delimiter=",")
    labels = table[:, -1].astype(np.int64)
    grey = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    blocks = grey.repeat(4, axis=1).repeat(4, axis=2)
    pixels = np.repeat(blocks[..., None], 3, axis=3)

    place_in_class = np.zeros(len(labels), dtype=np.int64)
    for label in range(len(CLASS_NAMES)):
        members = labels == label
        place_in_class[members] = np.arange(members.sum())
    is_test = place_in_class % _TEST_EVERY == _TEST_EVERY - 1

    splits = {
        split: Images(
            np.ascontiguousarray(pixels[chosen]),
            labels[chosen],
            CLASS_NAMES,
            numbered_ids(split, int(chosen.sum())),
        )
        for split, chosen in (("train", ~is_test), ("test", is_test))
    }
    return with_checksums(Dataset.of("digits", splits, "scikit-learn"))


def _file() -> Path:
    """The file in scikit-learn, which is not imported for it: that takes two seconds."""
    found = importlib.util.find_spec("sklearn")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
