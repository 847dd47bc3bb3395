"""Trials: combinations of values, each with several seeds."""

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.errors import TenfoldError

LONGEST_NAME = 100
"""Characters of a trial's name; file systems allow 255 bytes, and paths have other parts too."""


@dataclass(frozen=True)
class Trial:
    """A combination of values, as `key=value` overrides of the recipe, with a seed."""

    overrides: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """A unique name that is safe as a folder's, such as `optimizer.lr=0.1,seed=2`.

        Where characters had to be replaced or cut off, a digest keeps it unique.
        """
        seed = f"seed={self.seed}"
        if not self.overrides:
            return seed
        text = ",".join(self.overrides)
        safe = re.sub(r"[^A-Za-z0-9.,=_+\[\]-]+", "-", text)
        room = LONGEST_NAME - len(f",{seed}")
        if safe != text or len(safe) > room:
            digest = hashlib.sha256(json.dumps(self.overrides).encode()).hexdigest()[:8]
            safe = f"{safe[: room - 9]}-{digest}"
        return f"{safe},{seed}"


def expand(grid: Sequence[str], num_seeds: int, *, first_seed: int = 0) -> list[Trial]:
    """Every combination of the values in `grid`, each with `num_seeds` seeds.

    grid: items such as `optimizer.lr=0.1,0.2`. Commas in brackets or quotes don't separate values:
    `model.widths=[32,64],[64,128]` has two. Raises TenfoldError for items in another form.
    """
    if num_seeds < 1 or first_seed < 0:
        raise TenfoldError(
            f"A study needs 1 seed or more, from 0 on, not {num_seeds} from {first_seed} on; "
            "change --seeds."
        )
    choices = [_parse_item(item) for item in grid]
    for key, count in Counter(values[0].partition("=")[0] for values in choices).items():
        if count > 1:
            raise TenfoldError(f"--grid has {key} {count} times; give all its values in one item.")
    seeds = range(first_seed, first_seed + num_seeds)
    combinations = itertools.product(*choices)
    return [Trial(overrides, seed) for overrides in combinations for seed in seeds]


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
