"""Exercises of chapters 3 to 7: what networks are made of and how they learn."""

from typing import Any

import numpy as np

from tenfold.course.exercises.comparing import Solution, assert_equal, random


def two_layer_gradients(function: Solution) -> None:
    """Chapter 3, exercise 1."""
    import torch

    inputs, labels = random(6, 5), np.array([0, 1, 2, 2, 1, 0])
    given = [random(5, 4, seed=1), random(4, seed=2), random(4, 3, seed=3), random(3, seed=4)]
    weights = [torch.tensor(each, requires_grad=True) for each in given]
    hidden = torch.relu(torch.tensor(inputs) @ weights[0] + weights[1])
    loss = torch.nn.functional.cross_entropy(hidden @ weights[2] + weights[3], torch.tensor(labels))
    slopes = dict(zip(("W1", "b1", "W2", "b2"), torch.autograd.grad(loss, weights), strict=True))
    found = function(inputs, labels, *given)
    assert found is not None, "two_layer_gradients returns nothing yet."
    assert len(found) == 4, "Return four arrays: the gradients of W1, b1, W2 and b2."
    hints = {
        "W2": "hidden^T times the gradient at the logits, (P - Y) / N.",
        "b2": "The sum over images of the gradient at the logits.",
        "W1": "Go back through W2 (gradient @ W2.T), then through the ReLU: 0 where it was 0.",
        "b1": "The sum over images of the gradient before the ReLU.",
    }
    theirs = dict(zip(slopes, found, strict=True))
    for name, hint in hints.items():  # From the loss backwards: the first mistake is the one.
        assert_equal(theirs[name], slopes[name], f"the gradient of {name}", hint)


def unbroadcast(function: Solution) -> None:
    """Chapter 3, exercise 2."""
    import torch

    for shape in ((3,), (4, 3), (1, 3), (4, 1), ()):
        value = torch.ones(shape, dtype=torch.float64, requires_grad=True)
        gradient = random(4, 3)
        [slope] = torch.autograd.grad(value.expand(4, 3), value, torch.tensor(gradient))
        assert_equal(
            function(gradient, shape),
            slope,
            f"unbroadcast of a (4, 3) gradient to {shape}",
            "A value that was used several times gets the sum of the gradients of its uses. Sum "
            "over axes that broadcasting added in front, and over those that were 1 "
            "(keepdims=True).",
        )


def topological_order(function: Solution) -> None:
    """Chapter 3, exercise 3."""
    parents = {"a": [], "b": ["a"], "c": ["a", "b"], "loss": ["c", "b"]}
    found = function("loss", parents.__getitem__)
    assert found is not None, "topological_order returns nothing yet."
    found = list(found)
    assert sorted(found) == sorted(parents), (
        f"Every node must be in the order once; yours is {found}. Remember which were visited."
    )
    for node, own in parents.items():
        for parent in own:
            assert found.index(node) < found.index(parent), (
                f"{node} must come before {parent}: its gradient must be complete before it is "
                "handed on to what it was made of."
            )
    chain: dict[int, list[int]] = {0: []} | {i: [i - 1] for i in range(1, 50)}
    assert list(function(49, chain.__getitem__)) == list(range(49, -1, -1)), (
        "A chain must be walked from its end to its beginning."
    )


def output_size(function: Solution) -> None:
    """Chapter 5, exercise 1."""
    cases = {
        (32, 3, 1, 1): 32,
        (32, 5, 1, 0): 28,
        (32, 3, 2, 1): 16,
        (28, 5, 3, 2): 10,
        (7, 7, 1, 0): 1,
    }
    for given, expected in cases.items():
        size, kernel, stride, padding = given
        assert_equal(
            function(size, kernel, stride, padding),
            expected,
            f"output_size({size}, kernel={kernel}, stride={stride}, padding={padding})",
            "The padded input is size + 2 padding long; count the places at which the kernel fits, "
            "one in every `stride`: floor((size + 2 padding - kernel) / stride) + 1.",
        )


_CONVOLUTIONS = (
    (1, 0, "stride 1, no padding"),
    (1, 1, "stride 1, padding 1"),
    (2, 0, "stride 2, no padding"),
    (2, 2, "stride 2, padding 2"),
)


def conv2d(function: Solution) -> None:
    """Chapter 5, exercise 2."""
    import torch

    images, kernels, bias = random(2, 3, 7, 6), random(4, 3, 3, 3, seed=1), random(4, seed=2)
    for stride, padding, named in _CONVOLUTIONS:
        x, weight, more = torch.tensor(images), torch.tensor(kernels), torch.tensor(bias)
        expected = torch.nn.functional.conv2d(x, weight, more, stride=stride, padding=padding)
        assert_equal(
            function(images, kernels, bias, stride, padding),
            expected,
            f"conv2d of (2, 3, 7, 6) images with (4, 3, 3, 3) kernels, {named}",
            "Each output is the sum, over channels and places of the kernel, of window times "
            "kernel, plus the bias of its channel. The kernel is not mirrored.",
        )


def im2col(function: Solution) -> None:
    """Chapter 5, exercise 3."""
    import torch

    images = random(2, 3, 5, 6)
    for stride, padding, named in _CONVOLUTIONS:
        expected = torch.nn.functional.unfold(
            torch.tensor(images), 3, stride=stride, padding=padding
        )
        assert_equal(
            function(images, 3, stride, padding),
            expected,
            f"im2col of (2, 3, 5, 6) images, {named}",
            "A column for every window, row by row of the output; in it the window as "
            "(channel, row, column), flattened.",
        )


def max_pool2d(function: Solution) -> None:
    """Chapter 5, exercise 4."""
    import torch

    for shape in ((2, 3, 6, 8), (1, 2, 7, 5)):
        images = random(*shape)
        assert_equal(
            function(images),
            torch.nn.functional.max_pool2d(torch.tensor(images), 2),
            f"max_pool2d of {shape}",
            "The largest of each 2 by 2 window. A last row or column without a partner is dropped.",
        )
    assert float(np.max(function(-np.ones((1, 1, 2, 2))))) == -1, (
        "The largest of four values of -1 is -1: start from the values themselves, not from 0."
    )


def batch_norm(function: Solution) -> None:
    """Chapter 6, exercise 1."""
    import torch

    x, gamma, beta = 3 + 2 * random(16, 5), random(5, seed=1), random(5, seed=2)
    scale, shift = torch.tensor(gamma), torch.tensor(beta)
    expected = torch.nn.functional.batch_norm(
        torch.tensor(x), None, None, scale, shift, training=True
    )
    assert_equal(
        function(x, gamma, beta),
        expected,
        "batch_norm of (16, 5)",
        "Mean and variance over the batch (axis=0), the variance with N and not N - 1 below, and "
        "epsilon within the root.",
    )
    assert np.isfinite(function(np.ones((4, 2)), np.ones(2), np.ones(2))).all(), (
        "A unit that is the same for all images has the variance 0: epsilon keeps it from being "
        "divided by."
    )


def batch_norm_backward(function: Solution) -> None:
    """Chapter 6, exercise 2."""
    import torch

    gradient, gamma = random(12, 4, seed=1), random(4, seed=2)
    x = torch.tensor(3 + 2 * random(12, 4), requires_grad=True)
    y = torch.nn.functional.batch_norm(x, None, None, torch.tensor(gamma), training=True)
    [slope] = torch.autograd.grad(y, x, torch.tensor(gradient))
    assert_equal(
        function(gradient, x.detach().numpy(), gamma),
        slope,
        "batch_norm_backward of (12, 4)",
        "Multiply by gamma first; the two means are over the batch (axis=0); divide by the "
        "deviation last.",
    )


def initial_deviation(function: Solution) -> None:
    """Chapter 6, exercise 3."""
    for fan_in, slope in ((256, 0.0), (3072, 0.01), (64, 1.0), (100, 0.2)):
        expected = np.sqrt(2 / (1 + slope**2) / fan_in)
        assert_equal(
            function(fan_in, slope),
            expected,
            f"initial_deviation({fan_in}, {slope})",
            "n s^2 times the mean square that the activation lets through, (1 + slope^2) / 2, must "
            "be 1.",
        )


def dead_share(function: Solution) -> None:
    """Chapter 6, exercise 4."""
    activations = np.maximum(random(50, 8), 0)
    activations[:, [1, 4]] = 0
    assert_equal(
        function(activations),
        0.25,
        "dead_share with two of eight units at 0 for all images",
        "A unit is dead if it is 0 for every image, not for some.",
    )
    activations[7, 1] = 0.1
    assert_equal(function(activations), 0.125, "dead_share with one that one image wakes up")


def _parameter(values: Any) -> Any:
    import torch

    return torch.nn.Parameter(torch.tensor(values))


def momentum_step(function: Solution) -> None:
    """Chapter 4, exercise 1."""
    import torch

    weights, velocity = random(4, 3), np.zeros((4, 3))
    theirs = _parameter(weights)
    optimizer = torch.optim.SGD([theirs], lr=0.1, momentum=0.9)
    for step in range(3):
        gradient = random(4, 3, seed=step + 1)
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        found = function(weights, gradient, velocity, 0.1)
        assert found is not None, "momentum_step returns nothing yet."
        assert len(found) == 2, "Return the new weights, and the new velocity."
        weights, velocity = found
        assert_equal(
            weights,
            theirs,
            f"momentum_step, the weights after step {step + 1}",
            "The gradient is added whole, not times 1 - 0.9, and the step is the rate times the "
            "new velocity.",
        )


def adam_step(function: Solution) -> None:
    """Chapter 4, exercise 2."""
    import torch

    weights, m, v = random(4, 3), np.zeros((4, 3)), np.zeros((4, 3))
    theirs = _parameter(weights)
    optimizer = torch.optim.Adam([theirs], lr=0.1)
    for step in range(1, 4):
        gradient = random(4, 3, seed=step)
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        found = function(weights, gradient, m, v, step, 0.1)
        assert found is not None, "adam_step returns nothing yet."
        assert len(found) == 3, "Return the new weights, m and v."
        weights, m, v = found
        assert_equal(
            weights,
            theirs,
            f"adam_step, the weights after step {step}",
            "Divide m by 1 - beta1^t and v by 1 - beta2^t for the step, but return them as they "
            "were before that; epsilon is added to the root.",
        )


def cosine_with_warmup(function: Solution) -> None:
    """Chapter 4, exercise 3."""
    for step, expected in ((0, 0.0), (5, 0.5), (10, 1.0), (60, 0.5), (110, 0.0)):
        assert_equal(
            function(step, 110, 10),
            expected,
            f"cosine_with_warmup(step={step}, total=110, warmup=10)",
            "step / warmup until `warmup`, then (1 + cos(pi x)) / 2 with x from 0 to 1 over what "
            "is left.",
        )
    assert_equal(function(0, 100, 0), 1.0, "cosine_with_warmup without warm-up, at the first step")
