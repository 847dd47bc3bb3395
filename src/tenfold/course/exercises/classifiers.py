"""Exercises of chapters 0 to 2: data, metrics and a linear classifier."""

import numpy as np

from tenfold.course.exercises.comparing import Solution, assert_equal, random


def accuracy(function: Solution) -> None:
    """Chapter 0, exercise 1."""
    predicted, labels = np.array([3, 1, 4, 1]), np.array([3, 1, 4, 2])
    assert_equal(function(predicted, labels), 0.75, "accuracy([3, 1, 4, 1], [3, 1, 4, 2])")
    same = function(labels, labels)
    assert_equal(same, 1.0, "accuracy of predictions that equal the labels")


def confusion_matrix(function: Solution) -> None:
    """Chapter 0, exercise 2."""
    labels, predicted = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 2, 2])
    expected = [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    assert_equal(
        function(labels, predicted, 3),
        expected,
        "confusion_matrix of three classes",
        "Row: the true class; column: the predicted one. Every image adds one to one cell.",
    )
    assert_equal(
        function(labels[:1], predicted[:1], 2),
        [[1, 0], [0, 0]],
        "confusion_matrix where a class has no image",
        "It is still C by C: the number of classes is given, not found in the labels.",
    )


def count_parameters(function: Solution) -> None:
    """Chapter 0, exercise 3."""
    assert_equal(function([4, 3]), 15, "count_parameters([4, 3])", "4 x 3 weights and 3 biases.")
    assert_equal(
        function([3072, 512, 256, 10]),
        1_707_274,
        "count_parameters([3072, 512, 256, 10])",
        "Each layer has a weight from every input to every output, and a bias for every output.",
    )


def nearest_neighbours(function: Solution) -> None:
    """Chapter 1, exercise 1."""
    from scipy.spatial.distance import cdist

    train, test = random(40, 6), random(15, 6, seed=1)
    labels = np.arange(40) % 4
    expected = labels[cdist(test, train).argmin(axis=1)]
    assert_equal(
        function(train, labels, test, 1),
        expected,
        "nearest_neighbours with k = 1",
        "Of each test row, find the train row at the least squared distance.",
    )
    groups = np.array([[0.0], [0.1], [0.2], [1.0], [1.1], [1.2]])
    found = function(groups, np.array([5, 5, 2, 2, 2, 5]), np.array([[0.05], [1.15]]), 3)
    assert_equal(
        found, [5, 2], "nearest_neighbours with k = 3", "Of the k labels, the most frequent."
    )


def stratified_split(function: Solution) -> None:
    """Chapter 1, exercise 2."""
    labels = np.repeat([0, 1, 2], [10, 30, 60])
    found = function(labels, 0.2, np.random.default_rng(0))
    assert found is not None, "stratified_split returns nothing yet."
    assert len(found) == 2, "Return two arrays of indices: to train on, and held out."
    train, held_out = map(np.asarray, found)
    both = np.sort(np.concatenate([train, held_out]))
    assert np.array_equal(both, np.arange(100)), (
        "Every index must be on one side, and on one only: an image on both sides is a leak."
    )
    counts = np.bincount(labels[held_out], minlength=3).tolist()
    assert counts == [2, 6, 12], (
        f"Of 10, 30 and 60 images a share of 0.2 is 2, 6 and 12; yours holds out {counts}. Draw "
        "in each class by itself."
    )
    other = function(labels, 0.2, np.random.default_rng(1))[1]
    assert sorted(other) != sorted(held_out), (
        "Another generator must hold out other images: draw from `generator`, don't take the first."
    )
    again = function(labels, 0.2, np.random.default_rng(0))[1]
    assert np.array_equal(again, held_out), (
        "The same generator must hold out the same images: draw from `generator` alone."
    )


def leaked(function: Solution) -> None:
    """Chapter 1, exercise 3."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
    test = np.concatenate([pixels[2:5], 255 - pixels[:3]])
    assert_equal(function(pixels, test), 3, "leaked, with three copies among six test images")
    assert_equal(function(pixels, 255 - pixels), 0, "leaked, where the splits share nothing")
    twice = np.concatenate([pixels, pixels])
    assert_equal(
        function(twice, pixels[:2]),
        2,
        "leaked, where train has an image twice",
        "Count test images that have a copy, not pairs.",
    )


def softmax(function: Solution) -> None:
    """Chapter 2, exercise 1."""
    from tenfold.evaluation.probabilities import softmax as ours

    logits = 3 * random(5, 10)
    assert_equal(
        function(logits),
        ours(logits),
        "softmax of (5, 10) logits",
        "exp of each logit, divided by the sum over its row (axis=1, keepdims=True).",
    )
    with np.errstate(all="ignore"):
        found = function(np.array([[1000.0, 0.0], [-1000.0, 0.0]]))
    assert_equal(
        found,
        [[1, 0], [0, 1]],
        "softmax of logits of 1,000",
        "exp(1000) overflows. Subtract the largest logit of each row first, which changes nothing: "
        "numerator and denominator are divided by the same number.",
    )


def cross_entropy(function: Solution) -> None:
    """Chapter 2, exercise 2."""
    from torch import tensor
    from torch.nn.functional import cross_entropy as ours

    logits, labels = random(6, 4), np.array([0, 1, 2, 3, 0, 1])
    assert_equal(
        function(logits, labels),
        float(ours(tensor(logits), tensor(labels))),
        "cross_entropy of (6, 4) logits",
        "The mean over images of minus the logarithm of the probability of the label.",
    )
    with np.errstate(all="ignore"):
        found = function(np.array([[0.0, 1000.0]]), np.array([0]))
    assert_equal(
        found,
        1000.0,
        "cross_entropy of a confident mistake",
        "The probability underflows to 0, and its logarithm is infinite. Don't take the logarithm "
        "of a softmax: log softmax(z)_i = z_i - max - log(sum(exp(z - max))).",
    )


def softmax_gradient(function: Solution) -> None:
    """Chapter 2, exercise 4."""
    import torch

    inputs, labels = random(7, 5), np.array([0, 1, 2, 0, 1, 2, 0])
    weights = torch.tensor(random(5, 3, seed=1), requires_grad=True)
    loss = torch.nn.functional.cross_entropy(torch.tensor(inputs) @ weights, torch.tensor(labels))
    [slope] = torch.autograd.grad(loss, weights)
    given = weights.detach().numpy()
    assert_equal(
        function(inputs, labels, given, 0.0),
        slope,
        "softmax_gradient without decay",
        "With P the probabilities and Y the labels as one-hot rows: X^T (P - Y) / N. Did you "
        "divide by the number of images?",
    )
    assert_equal(
        function(inputs, labels, given, 0.5),
        slope.numpy() + 0.5 * given,
        "softmax_gradient with a decay of 0.5",
        "The gradient of decay / 2 |W|^2 is decay W, not divided by the number of images.",
    )


def numerical_gradient(function: Solution) -> None:
    """Chapter 2, exercise 3."""
    at = random(3, 2)
    before = at.copy()
    found = function(lambda x: float((x**3).sum()), at)
    assert_equal(
        found,
        3 * before**2,
        "numerical_gradient of the sum of cubes",
        "Move one value of the array at a time. Central differences, (f(x + h) - f(x - h)) / 2h, "
        "are off by about h squared, one-sided ones by about h.",
        tolerance=1e-6,
    )
    assert np.array_equal(at, before), (
        "The array that was given is changed afterwards: work on a copy, or put each value back."
    )
