"""What the tests of exercises compare with, and what they say."""

from collections.abc import Callable
from typing import Any

import numpy as np

Solution = Callable[..., Any]


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def assert_equal(
    found: Any, expected: Any, what: str, hint: str = "", tolerance: float = 1e-5
) -> None:
    """Fail unless both have the same shape and values. what: the call, in words of code."""
    assert found is not None, (
        f"{what} returns nothing yet: put your code in the place of the dots, and return its "
        "result."
    )
    found, expected = _array(found), _array(expected)
    assert found.shape == expected.shape, (
        f"{what} has the shape {found.shape}, where {expected.shape} is right. {hint}"
    )
    assert not np.isnan(found).any(), f"{what} is not a number (nan) somewhere. {hint}"
    worst = float(np.abs(found - expected).max(initial=0.0))
    assert worst <= tolerance * max(1.0, float(np.abs(expected).max(initial=0.0))), (
        f"{what} is off by {worst:.2g} at worst{_few(found, expected)}. {hint}"
    )


def _array(values: Any) -> Any:
    """Of anything, a tensor that has a gradient among it."""
    return np.asarray(values.detach() if hasattr(values, "detach") else values, dtype=float)


def _few(found: Any, expected: Any) -> str:
    """Both, where they can be read, and told apart."""
    shown, right = found.round(4).tolist(), expected.round(4).tolist()
    return "" if expected.size > 6 or shown == right else f": {shown}, where {right} is right"
