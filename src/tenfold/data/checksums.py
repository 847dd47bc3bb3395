"""SHA-256 of a data set's arrays, for the provenance of a run."""

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tenfold.data.images import Dataset


def with_checksums(dataset: Dataset) -> Dataset:
    """The data set with `train-images`, `train-labels` and so on in its checksums.

    Those that its reader has filled in already are kept. Labels are hashed as uint8 where there
    are at most 256 classes, as little-endian int64 otherwise.
    """
    sums = dict(dataset.checksums)
    for split, images in dataset.splits().items():
        if f"{split}-images" not in sums:
            sums[f"{split}-images"] = sum_of(images.pixels)
        if f"{split}-labels" not in sums:
            kind = np.dtype(np.uint8 if images.num_classes <= 256 else "<i8")
            sums[f"{split}-labels"] = sum_of(images.labels.astype(kind))
    return dataclasses.replace(dataset, checksums=sums)


def changed_array(dataset: Dataset, known: Mapping[str, str]) -> str | None:
    """The first of the `known` arrays that has another checksum in `dataset`; None where all are
    the same."""
    return next((name for name in known if dataset.checksums.get(name) != known[name]), None)


def sum_of(array: NDArray[np.generic]) -> str:
    """SHA-256 of the bytes of `array`."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
