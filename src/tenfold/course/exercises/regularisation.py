"""Exercises of chapter 7: what keeps a network from memorising its images."""

import numpy as np

from tenfold.course.exercises.comparing import Solution, assert_equal, random


def dropout(function: Solution) -> None:
    """Chapter 7, exercise 1."""
    values, uniform = 1 + random(50, 8), np.random.default_rng(1).random((50, 8))
    assert_equal(
        function(values, 0.3, uniform, True),
        np.where(uniform < 0.3, 0, values / 0.7),
        "dropout with a share of 0.3, in training",
        "0 where `uniform` is below the share; what is kept is divided by 1 - share, so that the "
        "mean stays.",
    )
    assert_equal(
        function(values, 0.3, uniform, False),
        values,
        "dropout in evaluation",
        "In evaluation nothing is dropped and nothing scaled.",
    )


def smoothed_loss(function: Solution) -> None:
    """Chapter 7, exercise 2."""
    import torch

    logits, labels = 5 * random(7, 4), np.array([0, 3, 1, 2, 2, 0, 1])
    for smoothing in (0.0, 0.1, 0.5):
        expected = torch.nn.functional.cross_entropy(
            torch.tensor(logits), torch.tensor(labels), label_smoothing=smoothing
        )
        assert_equal(
            function(logits, labels, smoothing),
            expected,
            f"smoothed_loss with a smoothing of {smoothing}",
            "The target is 1 - smoothing at the label, plus smoothing / K at every class, the "
            "label among them.",
        )


def shift(function: Solution) -> None:
    """Chapter 7, exercise 3."""
    image = np.arange(5 * 6 * 2).reshape(5, 6, 2)
    cases = {
        (0, 0): (np.arange(5), np.arange(6)),
        (2, 0): (np.array([2, 1, 0, 1, 2]), np.arange(6)),
        (-1, 0): (np.array([1, 2, 3, 4, 3]), np.arange(6)),
        (0, 3): (np.arange(5), np.array([3, 2, 1, 0, 1, 2])),
        (1, -2): (np.array([1, 0, 1, 2, 3]), np.array([2, 3, 4, 5, 4, 3])),
    }
    for (rows, columns), (from_rows, from_columns) in cases.items():
        assert_equal(
            function(image, rows, columns),
            image[from_rows][:, from_columns],
            f"shift by {rows} down and {columns} to the right",
            "Pad by the size of the shift (np.pad, mode='reflect'), and cut out from the padding "
            "less the shift.",
        )


def stopping_epoch(function: Solution) -> None:
    """Chapter 7, exercise 4."""
    cases = {
        ((3.0, 2.0, 1.0), 2): 2,
        ((3.0, 1.0, 2.0, 2.0, 0.5), 2): 1,
        ((3.0, 1.0, 2.0, 0.5, 0.6), 2): 3,
        ((1.0, 1.0, 1.0, 1.0), 2): 0,
    }
    for (losses, patience), expected in cases.items():
        assert_equal(
            function(list(losses), patience),
            expected,
            f"stopping_epoch of {list(losses)} with a patience of {patience}",
            "What comes after `patience` epochs without a better loss is never trained: it "
            "can't be chosen. An equal loss is no better one.",
        )
