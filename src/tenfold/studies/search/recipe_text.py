"""TOML as people write it: short lists on one line."""

import re
from collections.abc import Mapping
from typing import Any

import tomli_w


def to_toml(values: Mapping[str, Any]) -> str:
    """`values` as TOML; a list of plain values stands on one line."""
    text = tomli_w.dumps(values)
    return re.sub(r"= \[\n((?:    [^\n]*,\n)*)\]\n", _joined, text)


def to_inline_table(values: Mapping[str, Any]) -> str:
    """Plain values as a table on one line, which TOML before 1.1 can read."""
    return "{" + ", ".join(to_toml({key: v}).strip() for key, v in values.items()) + "}"


def _joined(match: re.Match[str]) -> str:
    items = [line.strip().removesuffix(",") for line in match[1].splitlines()]
    return f"= [{', '.join(items)}]\n"
