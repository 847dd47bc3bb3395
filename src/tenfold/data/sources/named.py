"""Data sets by name that others fetch or make: scikit-learn's digits, those of the Hugging Face hub
and of torchvision, and what a reader of one's own gives."""

import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.data.arrays import from_arrays
from tenfold.data.cache_folder import cache_folder
from tenfold.data.images import Dataset, Images, numbered_ids, with_checksums
from tenfold.data.tables import SPLITS
from tenfold.errors import TenfoldError, first_line

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TORCHVISION = {
    "mnist": ("MNIST", "train", True, False),
    "fashion-mnist": ("FashionMNIST", "train", True, False),
    "svhn": ("SVHN", "split", "train", "test"),
    "stl10": ("STL10", "split", "train", "test"),
    "eurosat": ("EuroSAT", "", "", ""),
}
"""Names of ours; classes of torchvision.datasets, and how each is asked for its splits."""


def is_elsewhere(name: str) -> bool:
    """Whether `name` is a data set of the hub, of torchvision, or of a reader of one's own."""
    if name.startswith("hf:") or name in _TORCHVISION:
        return True
    return re.fullmatch(r".*\.py:\w+|\w+(\.\w+)*:\w+", name) is not None and not Path(name).exists()


def find(name: str) -> Dataset | Path:
    """The data set `name`, or the folder that it was fetched to.

    Raises TenfoldError where it can't be fetched or is no data set of images.
    """
    if name.startswith("hf:"):
        return _from_hub(name.removeprefix("hf:"))
    return _from_torchvision(name) if name in _TORCHVISION else _from_reader(name)


def load_digits() -> Dataset:
    """1,442 train and 355 test images of 32x32, from the UCI digits that come with scikit-learn.

    The originals are 8x8 with 17 levels of grey. Each of their pixels becomes a block of 4x4, and
    its level v the value round(255 v / 16) in all three channels. Of each class every fifth image,
    in scikit-learn's order, is a test image.
    """
    # Importing scikit-learn for it would take two seconds.
    origin = getattr(importlib.util.find_spec("sklearn"), "origin", None)
    table = np.loadtxt(Path(str(origin)).parent / "datasets/data/digits.csv.gz", delimiter=",")
    labels = table[:, -1].astype(np.int64)
    grey = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(grey.repeat(4, axis=1).repeat(4, axis=2)[..., None], 3, axis=3)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    splits = {}
    for split, chosen in (("train", ~is_test), ("test", is_test)):
        ids = numbered_ids(split, int(chosen.sum()))
        splits[split] = Images(pixels[chosen], labels[chosen], DIGIT_NAMES, ids)
    return with_checksums(Dataset.of("digits", splits, "scikit-learn"))


def _from_hub(name: str) -> Path:
    """A data set of the hub, `OWNER/NAME` or `OWNER/NAME/CONFIGURATION`, as its parquet files or
    its folders of images. What was fetched once is taken from the hub's own cache when offline."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RevisionNotFoundError

    owner, short, configuration, *_ = *name.split("/", 2), "", ""
    if not owner or not short:
        raise TenfoldError(f"hf:{name} must be hf:OWNER/NAME, as the hub calls the data set.")
    inside = f"{configuration}/" if configuration else ""
    tables = [f"{inside}**/*.parquet", f"{inside}*.parquet"]
    images = [f"*.{kind}" for kind in ("png", "jpg", "jpeg", "csv", "webp", "bmp", "jsonl")]
    # The hub itself writes the second branch, for data sets of other formats.
    for revision, wanted in ((None, tables), ("refs/convert/parquet", tables), (None, images)):
        try:
            place = snapshot_download(
                f"{owner}/{short}", repo_type="dataset", revision=revision, allow_patterns=wanted
            )
        except RevisionNotFoundError:
            continue
        except Exception as error:  # Of the network, of names, of logins: the library knows many.
            raise TenfoldError(
                f"hf:{name} can't be fetched ({first_line(error)}); check the name and the "
                "network, and log in with `hf auth login` if it is private."
            ) from error
        folder = Path(place) / configuration
        if folder.is_dir() and any(file.is_file() for file in folder.rglob("*.*")):
            return folder
    raise TenfoldError(f"hf:{name} has neither parquet files nor images; give another data set.")


def _from_torchvision(name: str) -> Dataset | Path:
    try:
        from torchvision import datasets
    except ImportError:
        raise TenfoldError(
            f"{name} comes by torchvision, which isn't installed; `pip install torchvision`."
        ) from None
    kind, key, *values = _TORCHVISION[name]
    make, root = getattr(datasets, kind), cache_folder() / "torchvision"
    root.mkdir(parents=True, exist_ok=True)
    try:
        if not key:
            return Path(make(str(root), download=True).root)
        train, test = (make(str(root), download=True, **{key: value}) for value in values)
    except Exception as error:  # torchvision raises what urllib, zipfile and others raise.
        raise TenfoldError(
            f"{name} can't be fetched by torchvision ({first_line(error)}); check the network, or "
            f"put its files into {root}."
        ) from error
    labels = "targets" if hasattr(train, "targets") else "labels"
    splits = {"train": train, "test": test}
    return from_arrays(
        {split: (each.data, getattr(each, labels)) for split, each in splits.items()},
        class_names=getattr(train, "classes", None),
        name=name,
        source="torchvision",
        place=name,
    )


def _from_reader(name: str) -> Dataset:
    from pydantic_core import PydanticCustomError

    from tenfold.registry import find_part

    try:
        found: Any = find_part("reader", name).call()
    except PydanticCustomError as error:
        raise TenfoldError(f"The data set {error.message()}") from error
    if isinstance(found, Dataset):
        return found
    if not isinstance(found, Mapping) or "train" not in found:
        raise TenfoldError(
            f"{name} returned {type(found).__name__}, where a tenfold.Dataset or a dictionary with "
            "'train' and perhaps 'validation' and 'test' was expected, each (images, labels)."
        )
    parts = {split: found[split] for split in SPLITS if split in found}
    for split, part in parts.items():
        if not isinstance(part, tuple | list) or len(part) != 2:
            wrong = f"{name} returned {type(part).__name__} as {split!r}"
            raise TenfoldError(f"{wrong}, where a pair (images, labels) was expected.")
    names = found.get("class_names")
    if isinstance(names, str) or not isinstance(names, Iterable | None):
        wrong = f"{name} returned {names!r} as 'class_names'"
        raise TenfoldError(f"{wrong}, where a list of names was expected.")
    return from_arrays(
        parts,
        class_names=names,
        name=name.rpartition(":")[2],
        source=name,
        place=name,
    )
