"""Trials: variants with a seed each; and grids, which are combinations of values."""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tenfold.errors import TenfoldError

LONGEST_NAME = 100
"""Characters of a trial's name; file systems allow 255 bytes, and paths have other parts too."""


@dataclass(frozen=True)
class Trial:
    """A variant, as a recipe with `key=value` overrides, and a seed."""

    variant: str
    recipe: str
    overrides: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder, such as `Leaky-ReLU,seed=2`."""
        return f"{folder_name(self.variant)},seed={self.seed}"

    @property
    def title(self) -> str:
        """Its name for people, such as `Leaky ReLU, seed 2`."""
        return f"{self.variant}, seed {self.seed}"


class Combination(NamedTuple):
    """Values of a grid, one for each of its keys; the label is empty where there is no grid."""

    label: str
    overrides: tuple[str, ...]


def folder_name(label: str) -> str:
    """`label` as a folder's name on every platform: `Leaky ReLU` as `Leaky-ReLU`.

    Where more than spaces had to be replaced or cut off, a digest keeps it unique.
    """
    text = re.sub(r",? ", "-", label)
    safe = re.sub(r"[^A-Za-z0-9.,=_+\[\]-]+", "-", text)
    room = LONGEST_NAME - len(",seed=10000")
    if safe != text or len(safe) > room:
        digest = hashlib.sha256(label.encode(errors="surrogatepass")).hexdigest()[:8]
        safe = f"{safe[: room - 9]}-{digest}"
    return safe


def combine(grid: Sequence[str]) -> list[Combination]:
    """Every combination of the values in `grid`; one without any values where it is empty.

    grid: items such as `optimizer.lr=0.1,0.2`. Commas in brackets or quotes don't separate values:
    `model.widths=[32,64],[64,128]` has two. Raises TenfoldError for items in another form.
    """
    choices = [_parse_item(item) for item in grid]
    keys = [values[0].partition("=")[0] for values in choices]
    for key, count in Counter(keys).items():
        if count > 1:
            raise TenfoldError(f"--grid has {key} {count} times; give all its values in one item.")
    words = _words_for(keys)
    return [
        Combination(
            ", ".join(
                f"{word} {_readable(override.partition('=')[2])}"
                for word, override in zip(words, overrides, strict=True)
            ),
            overrides,
        )
        for overrides in itertools.product(*choices)
    ]


def describe_grid(grid: Sequence[str]) -> str:
    """The keys of `grid` in words, such as `lr and dropout`."""
    return " and ".join(_words_for([item.partition("=")[0].strip() for item in grid]))


def _words_for(keys: Sequence[str]) -> list[str]:
    """A word or two for each key: its last part, unless another key has the same."""

    def shorten(key: str) -> str:
        section, _, last = key.rpartition(".")
        return (section if last == "name" and section else last).replace("_", " ")

    short = Counter(map(shorten, keys))
    return [shorten(key) if short[shorten(key)] == 1 else re.sub(r"[._]", " ", key) for key in keys]


def _readable(value: str) -> str:
    """A value as TOML writes it, for people."""
    if value[:1] in "\"'" and value[-1:] == value[:1]:
        value = value[1:-1]
    return {"true": "on", "false": "off"}.get(value, value)


def _parse_item(item: str) -> list[str]:
    """The overrides that a grid item such as `key=a,b` stands for."""
    key, equals, text = (part.strip() for part in item.partition("="))
    values = _split_values(text)
    if not equals or not all(key.split(".")) or values is None or not all(values):
        raise TenfoldError(
            f"--grid {item!r} must have the form key=value,value, such as optimizer.lr=0.1,0.2; "
            "put values that hold commas into brackets or quotes."
        )
    if key == "seed":
        raise TenfoldError(f"--grid {item!r} sets the seed; say how many with --seeds instead.")
    for value, count in Counter(values).items():
        if count > 1:
            raise TenfoldError(f"--grid {item!r} has {value} {count} times; once will do.")
    return [f"{key}={value}" for value in values]


def _split_values(text: str) -> list[str] | None:
    """`text` at its commas outside brackets and quotes; None where these are not balanced."""
    values, open_brackets, quote = [""], "", ""
    closing = {"]": "[", "}": "{"}
    for char in text:
        if char == "," and not open_brackets and not quote:
            values.append("")
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'" and (open_brackets or not values[-1].strip()):
            quote = char
        elif char in closing.values():
            open_brackets += char
        elif char in closing:
            if not open_brackets.endswith(closing[char]):
                return None
            open_brackets = open_brackets[:-1]
        values[-1] += char
    return None if open_brackets or quote else [value.strip() for value in values]
