"""What files and folders call the splits."""

import re

SPLITS = ("train", "validation", "test")

_SPELLINGS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def split_named(name: str) -> str | None:
    """The split that a folder of this name holds, whatever its case; None for any other name."""
    return _SPELLINGS.get(name.casefold())


def split_within(path: str) -> str | None:
    """The split that a relative path names, as in `data/train-00000.parquet`."""
    words = re.split(r"[^a-z]+", path.casefold())
    return next((_SPELLINGS[word] for word in reversed(words) if word in _SPELLINGS), None)
