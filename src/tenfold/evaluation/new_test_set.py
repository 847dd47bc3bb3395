"""CIFAR-10.1: two thousand new pictures, chosen as CIFAR-10's were (Recht et al. 2018, arXiv
1806.00451), on which all models of their time lost between 4 and 10 points."""

from pathlib import Path

import numpy as np

from tenfold.data import Images
from tenfold.data.cifar import CIFAR10_CLASS_NAMES
from tenfold.data.images import numbered_ids
from tenfold.data.sources.published import PublishedFile, obtain
from tenfold.progress import Progress

_PLACE = "https://github.com/modestyachts/CIFAR-10.1/raw/master/datasets"

PICTURES = PublishedFile(
    f"{_PLACE}/cifar10.1_v6_data.npy",
    "2997188e5816f5bd545dc77771b6227828c28146049fcecf3fa10775474cacc6",
)
LABELS = PublishedFile(
    f"{_PLACE}/cifar10.1_v6_labels.npy",
    "ae40beda001693674edc94d925ee8268cfe68905f8f9aff800c8dcdfcd6c9448",
)


def load_new_test_set(folder: Path | None = None, *, progress: Progress | None = None) -> Images:
    """Version 6 of it: 2,000 pictures of 32x32.

    folder: where its two files are; None takes the cache or fetches them. Raises TenfoldError where
    they can't be had or are others than published.
    """
    places = [
        obtain(file, folder / file.name if folder is not None else None, progress=progress)
        for file in (PICTURES, LABELS)
    ]
    pixels, labels = (np.load(place, allow_pickle=False) for place in places)
    return Images(
        np.ascontiguousarray(pixels),
        labels.astype(np.int64),
        CIFAR10_CLASS_NAMES,
        numbered_ids("cifar10.1", len(labels)),
    )
