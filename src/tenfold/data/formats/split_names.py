"""What files and folders call the splits."""

import re

SPLITS = ("train", "validation", "test")
PLAIN_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
"""Names that can be taken without a word."""

# As in training_set, seg_train, test_images, Val, hold-out; blanks are taken out before.
_SPELLING = re.compile(
    r"(?:seg|images?|imgs?|data)?"
    r"(?:(?P<train>train(?:ing)?)|(?P<validation>val(?:id(?:ation)?)?|dev|eval(?:uation)?)"
    r"|(?P<test>test(?:ing)?|holdout))"
    r"(?:set|data(?:set)?|images?|imgs?|split)?"
)


def split_named(name: str) -> str | None:
    """The split that a folder of this name holds, whatever its case; None for any other name."""
    match = _SPELLING.fullmatch(re.sub(r"[-_. ]+", "", name.casefold()))
    return match.lastgroup if match else None


def split_within(path: str) -> str | None:
    """The split that a relative path names, as in `data/train-00000.parquet`."""
    words = re.split(r"[^a-z]+", path.casefold())
    return next((split for word in reversed(words) if (split := split_named(word))), None)
