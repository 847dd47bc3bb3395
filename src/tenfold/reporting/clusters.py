"""An order of classes in which those that are confused stand side by side, and where to look first.

C classes.
"""

import numpy as np
from numpy.typing import NDArray


def class_order(confusion: NDArray[np.int64]) -> list[int]:
    """The classes of `(C, C)` counts so that those taken for each other are neighbours: the leaves
    of an average linkage (scipy), in the order that brings like to like (Bar-Joseph et al. 2001,
    doi 10.1093/bioinformatics/17.suppl_1.S22)."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(confusion) < 3:
        return list(range(len(confusion)))
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    alike = shares + shares.T
    np.fill_diagonal(alike, 0)
    distances = squareform(alike.max() - alike, checks=False)
    tree = linkage(distances, method="average", optimal_ordering=True)
    return [int(place) for place in leaves_list(tree)]


def most_confused_block(confusion: NDArray[np.int64], order: list[int], size: int) -> list[int]:
    """The `size` neighbours in `order` that are taken for each other the most often."""
    errors = confusion[np.ix_(order, order)].copy()
    np.fill_diagonal(errors, 0)
    starts = range(len(order) - size + 1)
    best = max(starts, key=lambda i: int(errors[i : i + size, i : i + size].sum()))
    return order[best : best + size]
