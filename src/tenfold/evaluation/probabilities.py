"""Logits as probabilities, with NumPy alone: an exported model's predictor has no SciPy."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.floating[Any])


def softmax(logits: NDArray[T]) -> NDArray[T]:
    """Probabilities of logits, both (N, C)."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def log_sum_exp(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithms (N,) of what `softmax` divides by."""
    highest = logits.max(axis=1)
    return np.asarray(highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1)))


def unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (N, D) with length 1."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-12), dtype=np.float32)
