"""Data sets by name that are others' to fetch: of the Hugging Face hub, of torchvision, and by a
reader of one's own."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenfold.data.arrays import from_arrays
from tenfold.data.cache_folder import cache_folder
from tenfold.data.images import Dataset
from tenfold.errors import TenfoldError, first_line

HUB = "hf:"
TORCHVISION = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "svhn": "SVHN",
    "stl10": "STL10",
    "eurosat": "EuroSAT",
}
"""Names of ours, and the classes of torchvision.datasets that they are."""

_CONVERTED = "refs/convert/parquet"
"""The branch that the hub itself writes for data sets of other formats."""


def is_elsewhere(name: str) -> bool:
    """Whether `name` is a data set of the hub, of torchvision, or of a reader of one's own."""
    if name.startswith(HUB) or name in TORCHVISION:
        return True
    return re.fullmatch(r".*\.py:\w+|\w+(\.\w+)*:\w+", name) is not None and not Path(name).exists()


def find(name: str) -> Dataset | Path:
    """The data set `name`, or the folder that it was fetched to.

    Raises TenfoldError where it can't be fetched or is no data set of images.
    """
    if name.startswith(HUB):
        return _from_hub(name.removeprefix(HUB))
    if name in TORCHVISION:
        return _from_torchvision(name)
    return _from_reader(name)


def _from_hub(name: str) -> Path:
    """A data set of the hub, `OWNER/NAME` or `OWNER/NAME/CONFIGURATION`, as its parquet files or
    its folders of images. What was fetched once is taken from the hub's own cache when offline."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RevisionNotFoundError

    owner, _, rest = name.partition("/")
    short, _, configuration = rest.partition("/")
    if not owner or not short:
        raise TenfoldError(f"hf:{name} must be hf:OWNER/NAME, as the hub calls the data set.")
    inside = f"{configuration}/" if configuration else ""
    patterns = [f"{inside}**/*.parquet", f"{inside}*.parquet"]
    images = [f"*.{kind}" for kind in ("png", "jpg", "jpeg", "csv", "webp", "bmp", "jsonl")]
    for revision, wanted in ((None, patterns), (_CONVERTED, patterns), (None, images)):
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
    kind, root = getattr(datasets, TORCHVISION[name]), cache_folder() / "torchvision"
    root.mkdir(parents=True, exist_ok=True)
    try:
        if name == "eurosat":
            return Path(kind(str(root), download=True).root)
        key, values = "train", dict[str, Any](train=True, test=False)
        if name in ("svhn", "stl10"):
            key, values = "split", dict[str, Any](train="train", test="test")
        splits = {s: kind(str(root), download=True, **{key: each}) for s, each in values.items()}
    except Exception as error:  # torchvision raises what urllib, zipfile and others raise.
        raise TenfoldError(
            f"{name} can't be fetched by torchvision ({first_line(error)}); check the network, or "
            f"put its files into {root}."
        ) from error
    parts = {
        split: (each.data, each.targets if hasattr(each, "targets") else each.labels)
        for split, each in splits.items()
    }
    classes = getattr(splits["train"], "classes", None)
    return from_arrays(parts, class_names=classes, name=name, source="torchvision", place=name)


def _from_reader(name: str) -> Dataset:
    from pydantic_core import PydanticCustomError

    from tenfold.registry import find_part

    try:
        found = find_part("reader", name).call()
    except PydanticCustomError as error:
        raise TenfoldError(f"The data set {error.message()}") from error
    if isinstance(found, Dataset):
        return found
    if not isinstance(found, Mapping) or "train" not in found:
        raise TenfoldError(
            f"{name} returned {type(found).__name__}, where a tenfold.Dataset or a dictionary with "
            "'train' and perhaps 'validation' and 'test' was expected, each (images, labels)."
        )
    parts = {split: found[split] for split in ("train", "validation", "test") if split in found}
    names = found.get("class_names")
    short = name.rpartition(":")[2]
    return from_arrays(parts, class_names=names, name=short, source=name, place=name)
