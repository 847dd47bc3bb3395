"""Data sets as arrays in one npz file.

tenfold writes, for each split, `train_images`, `train_labels`, `train_ids` and, where pictures were
resized, `train_original_sizes`; and `class_names`. It also reads the names that others use: `val`
for the validation split, `x_train` and `y_train`, and for a single split `images` or `x`, `labels`
or `y`; and grey pictures, `(N, H, W)` or `(N, H, W, 1)`. Without `class_names` each number that
occurs among the labels is a class.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.images import Dataset, Images, numbered_ids
from tenfold.data.tables import as_text, names_declared, number_labels
from tenfold.errors import TenfoldError
from tenfold.files import DAMAGED
from tenfold.progress import Progress

_KEYS = {
    split: [
        pair
        for word in words
        for pair in ((f"{word}_images", f"{word}_labels"), (f"x_{word}", f"y_{word}"))
    ]
    for split, words in {
        "train": ("train",),
        "validation": ("validation", "val", "valid"),
        "test": ("test",),
    }.items()
}
_KEYS["train"] += [("images", "labels"), ("x", "y")]


def read_npz(path: Path, *, progress: Progress | None = None) -> Dataset:
    """The data set in an npz file; nothing pickled in it is touched.

    Raises TenfoldError where the file is damaged, where an array is missing or has another shape
    or type than pictures and labels have, and where a label has no class name.
    """
    arrays = _load(path, progress=progress)
    keys = {
        split: pair
        for split, pairs in _KEYS.items()
        for pair in pairs[::-1]
        if pair[0] in arrays and pair[1] in arrays
    }
    if "train" not in keys:
        raise TenfoldError(
            f"{path} holds {', '.join(arrays) or 'nothing'}, where train_images and train_labels "
            "(or x_train and y_train, or images and labels) were expected."
        )
    names = arrays.get("class_names")
    class_names, labels, notes = number_labels(
        {split: _labels(arrays, pair[1], path).tolist() for split, pair in keys.items()},
        declared=None if names is None else names_declared(names.ravel().tolist(), path),
        place=path,
        where=lambda split, position: f"{path}: {keys[split][1]}[{position}]",
    )
    splits = {}
    for split, own in labels.items():
        pixels = _pixels(arrays, keys[split][0], path)
        ids = arrays.get(f"{split}_ids", numbered_ids(split, len(pixels)))
        if not len(pixels) == len(own) == len(ids) or ids.ndim != 1:
            raise TenfoldError(
                f"{path}: the {split} split has {len(pixels)} pictures, {len(own)} "
                f"labels and {len(ids)} ids; they must be as many."
            )
        splits[split] = Images(
            pixels,
            own,
            class_names,
            np.array([as_text(name, path) for name in ids.tolist()], dtype=np.str_),
            arrays.get(f"{split}_original_sizes"),
        )
    if "train" not in splits:
        raise TenfoldError(f"{path} holds no training pictures with labels; label them.")
    return Dataset(
        path.stem,
        splits["train"],
        splits.get("validation"),
        splits.get("test"),
        f"{path} (npz)",
        notes=tuple(notes),
    )


def _load(path: Path, *, progress: Progress | None) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as opened:
            arrays = {}
            for done, name in enumerate(opened.files, start=1):
                arrays[name] = opened[name]
                if progress is not None:
                    progress("Reading arrays", done, len(opened.files))
            return arrays
    except DAMAGED as error:
        raise TenfoldError(
            f"{path} can't be read as npz ({str(error) or type(error).__name__}); it may be "
            "damaged, or hold objects where arrays of numbers were expected."
        ) from error


def _pixels(arrays: Mapping[str, NDArray[Any]], key: str, path: Path) -> NDArray[np.uint8]:
    pixels = arrays[key]
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or pixels.dtype != np.uint8:
        raise TenfoldError(
            f"{path}: {key} is {arrays[key].shape} {pixels.dtype}, where (N, H, W, 3) or (N, H, W) "
            "uint8 was expected; convert it."
        )
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))


def _labels(arrays: Mapping[str, NDArray[Any]], key: str, path: Path) -> NDArray[Any]:
    labels = arrays[key]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise TenfoldError(
            f"{path}: {key} is {labels.shape} {labels.dtype}, where (N,) whole numbers were "
            "expected; convert it."
        )
    return labels
