"""Data sets of arrays: in one npz file, or in memory.

tenfold writes, for each split, `train_images`, `train_labels`, `train_ids`, and where there are
some, `train_groups` and `train_original_sizes`; and `class_names`. It also reads the names that
others use: `val` for the validation split, `x_train` and `y_train`, and for a single split `images`
or `x`, `labels` or `y`; and grey images, `(N, H, W)` or `(N, H, W, 1)`. Without `class_names` each
number that occurs among the labels is a class.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.images import Dataset, Images, Settings, numbered_ids
from tenfold.data.tables import as_text, names_declared, number_labels, require_classes
from tenfold.errors import TenfoldError, counted, first_line
from tenfold.files import DAMAGED
from tenfold.progress import Progress

_WORDS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}

NOTES = "tenfold_notes"
"""An array of sentences about the data set, which `tenfold data relabel` writes."""


def read_npz(path: Path, settings: Settings) -> Dataset:
    """The data set in an npz file; nothing pickled in it is touched.

    Raises TenfoldError where the file is damaged or lacks an array, and as `from_arrays`.
    """
    arrays = open_npz(path, progress=settings.progress)
    keys = npz_keys(arrays)
    if "train" not in keys:
        raise TenfoldError(
            f"{path} holds {', '.join(arrays) or 'nothing'}, where train_images and train_labels "
            "(or x_train and y_train, or images and labels) were expected."
        )
    names = arrays.get("class_names")
    alone = [
        f"The {split} split of {path} has no labels and was left out."
        for split, words in _WORDS.items()
        if split not in keys and any({f"{w}_images", f"x_{w}"} & set(arrays) for w in words)
    ]
    dataset = from_arrays(
        {split: (arrays[images], arrays[labels]) for split, (images, labels) in keys.items()},
        class_names=None if names is None else names.ravel().tolist(),
        name=path.stem,
        source=f"{path} (npz)",
        place=path,
        keys=keys,
        more=arrays,
    )
    return replace(dataset, notes=(*dataset.notes, *alone))


def open_npz(path: Path, *, progress: Progress | None = None) -> dict[str, NDArray[Any]]:
    """Every array in an npz file by name. Raises TenfoldError where it is damaged."""
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as opened:
            for name in opened.files:
                arrays[name] = opened[name]
                if progress is not None:
                    progress("Reading arrays", len(arrays), len(opened.files))
    except DAMAGED as error:
        raise TenfoldError(
            f"{path} can't be read as npz ({str(error) or type(error).__name__}); it may be "
            "damaged, or hold objects where arrays of numbers were expected."
        ) from error
    return arrays


def npz_keys(arrays: Collection[str]) -> dict[str, tuple[str, str]]:
    """What the images and the labels of each split are called among `arrays`."""
    found = {}
    for split, words in _WORDS.items():
        pairs = [(f"{word}_images", f"{word}_labels") for word in words]
        pairs += [(f"x_{word}", f"y_{word}") for word in words]
        if split == "train":
            pairs += [("images", "labels"), ("x", "y")]
        if there := [pair for pair in pairs if pair[0] in arrays and pair[1] in arrays]:
            found[split] = there[0]
    return found


def from_arrays(
    parts: Mapping[str, tuple[Any, Any]],
    *,
    class_names: Iterable[object] | None,
    name: str,
    source: str,
    place: str | Path,
    keys: Mapping[str, tuple[str, str]] | None = None,
    more: Mapping[str, NDArray[Any]] | None = None,
) -> Dataset:
    """A data set of arrays by split: images `(N, H, W)`, `(N, H, W, 1)`, `(N, H, W, 3)` or
    `(N, 3, H, W)` uint8, and labels `(N,)`, which are indices into class_names where these are
    given, otherwise whole numbers or names.

    place, keys: what messages call where they are and what they are. more: `train_ids`,
    `train_groups` and so on. A split of no images and no labels is none. Raises TenfoldError where
    they don't fit together, and where a label has no class name.
    """
    keys = keys or {split: (f"{split} images", f"{split} labels") for split in parts}
    more = more or {}
    try:
        arrays = {split: tuple(map(np.atleast_1d, part)) for split, part in parts.items()}
    except ValueError as error:  # Of lists of unequal lengths.
        raise TenfoldError(f"{place} holds no arrays ({first_line(error)}); make some.") from error
    arrays = {split: part for split, part in arrays.items() if any(map(len, part))}
    names, numbered, notes = number_labels(
        {split: own.tolist() for split, (_, own) in arrays.items()},
        declared=None if class_names is None else names_declared(class_names, place),
        place=place,
        where=lambda split, position: f"{place}: {keys[split][1]}[{position}]",
    )
    splits = {}
    for split, labels in numbered.items():
        pixels = _pixels(arrays[split][0], f"{place}: {keys[split][0]}")
        num, kinds = len(pixels), ("ids", "groups", "original_sizes")
        own: dict[str, Any] = {"labels": labels, "ids": numbered_ids(split, num)}
        own |= {kind: more[f"{split}_{kind}"] for kind in kinds if f"{split}_{kind}" in more}
        for kind, values in own.items():
            if values.shape != ((num, 2) if kind == "original_sizes" else (num,)):
                raise TenfoldError(
                    f"{place}: the {split} split has {counted(num, 'image')} and {kind} of shape "
                    f"{values.shape}; they must be as many."
                )
        texts = {kind: _texts(own[kind], place) for kind in ("ids", "groups") if kind in own}
        sizes = own.get("original_sizes")
        splits[split] = Images(pixels, labels, names, original_sizes=sizes, **texts)
    require_classes(names, place)
    if "train" not in splits:
        raise TenfoldError(f"{place} holds no training images with labels; label them.")
    said = [as_text(each, place) for each in more.get(NOTES, np.array([])).ravel().tolist()]
    return Dataset.of(name, splits, source, notes=(*said, *notes))


def _texts(values: NDArray[Any], place: str | Path) -> NDArray[np.str_]:
    return np.array([as_text(each, place) for each in values.tolist()], dtype=np.str_)


def _pixels(pixels: NDArray[Any], what: str) -> NDArray[np.uint8]:
    shape = pixels.shape
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    elif pixels.ndim == 4 and shape[1] == 3 and shape[3] != 3:
        pixels = pixels.transpose(0, 2, 3, 1)
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or pixels.dtype != np.uint8:
        raise TenfoldError(
            f"{what} is {shape} {pixels.dtype}, where (N, H, W, 3) or (N, H, W) uint8 was "
            "expected; convert it."
        )
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))
