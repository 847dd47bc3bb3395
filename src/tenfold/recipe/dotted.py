"""Nested tables under dotted keys, as `--set` names the fields of a recipe."""

import json
from collections.abc import Mapping
from typing import Any


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted keys; tuples become lists, as JSON has them."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def as_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """The same with values as a recipe would write them."""
    found: dict[str, str] = {}
    for key, value in flatten(values).items():
        if key.endswith("_size") and isinstance(value, float) and value.is_integer():
            value = int(value)  # A number of images, where a share might have stood.
        found[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found
