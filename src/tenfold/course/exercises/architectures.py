"""Exercises of chapters 9 and 10: residual networks and transformers."""

import numpy as np

from tenfold.course.exercises.comparing import Solution, assert_equal, random


def residual(function: Solution) -> None:
    """Chapter 9, exercise 1."""
    x, one, two = random(4, 5), random(5, 5, seed=1), random(5, 5, seed=2)
    assert_equal(
        function(x, lambda values: values @ one, lambda values: values @ two),
        np.maximum(x + np.maximum(x @ one, 0) @ two, 0),
        "residual of (4, 5)",
        "ReLU after `first`; then `second`, then x is added, then ReLU.",
    )
    assert_equal(
        function(np.abs(x), np.zeros_like, np.zeros_like),
        np.abs(x),
        "residual whose convolutions give 0",
        "A block that computes nothing passes on what it gets.",
    )


def halved_shortcut(function: Solution) -> None:
    """Chapter 9, exercise 2."""
    x = random(2, 3, 6, 4)
    expected = np.zeros((2, 5, 3, 2))
    expected[:, :3] = x[:, :, ::2, ::2]
    hint = "x[:, :, ::2, ::2], and channels of zeros behind those that were there."
    assert_equal(function(x, 5), expected, "halved_shortcut of (2, 3, 6, 4) to 5 channels", hint)
    assert_equal(function(x, 3), expected[:, :3], "halved_shortcut to as many channels", hint)


def resnet_size(function: Solution) -> None:
    """Chapter 9, exercise 3."""
    from torch import nn

    from tenfold.models.resnet import cifar_resnet

    for n in (1, 3):
        network = cifar_resnet(num_classes=10, image_size=(32, 32), depth=6 * n + 2)
        kernels = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
        found = function(n)
        assert found is not None, "resnet_size returns nothing yet."
        assert len(found) == 2, "Return two numbers: layers, and weights of convolutions."
        assert_equal(
            found[0],
            6 * n + 2,
            f"the number of layers with n = {n}",
            "Three groups of n blocks of two, the first convolution and the linear layer.",
        )
        assert_equal(
            found[1],
            sum(kernel.numel() for kernel in kernels),
            f"the weights of convolutions with n = {n}",
            "The first layer has 3 x 16 x 9. The first convolution of a group goes from the "
            "channels of the group before; its other 2n - 1 from its own width to its own.",
        )


def patches(function: Solution) -> None:
    """Chapter 10, exercise 1."""
    images = random(2, 6, 4, 3)
    rows = [
        [images[n, r : r + 2, c : c + 2].ravel() for r in (0, 2, 4) for c in (0, 2)] for n in (0, 1)
    ]
    assert_equal(
        function(images, 2),
        np.array(rows),
        "patches of (2, 6, 4, 3) with size 2",
        "Reshape to (N, H / size, size, W / size, size, C), bring the two axes of a patch "
        "together, then reshape again.",
    )


def attention(function: Solution) -> None:
    """Chapter 10, exercise 2."""
    import torch

    q, k, v = 3 * random(5, 8), 3 * random(7, 8, seed=1), random(7, 4, seed=2)
    expected = torch.nn.functional.scaled_dot_product_attention(
        torch.tensor(q), torch.tensor(k), torch.tensor(v)
    )
    assert_equal(
        function(q, k, v),
        expected,
        "attention of 5 queries to 7 keys",
        "Divide by the root of the queries' width; the softmax is over the keys, along a row.",
    )


def layer_norm(function: Solution) -> None:
    """Chapter 10, exercise 3."""
    import torch

    x, gamma, beta = 3 + 2 * random(2, 4, 6), random(6, seed=1), random(6, seed=2)
    expected = torch.nn.functional.layer_norm(
        torch.tensor(x), (6,), torch.tensor(gamma), torch.tensor(beta)
    )
    assert_equal(
        function(x, gamma, beta),
        expected,
        "layer_norm of (2, 4, 6)",
        "Mean and variance over the features of each token, epsilon within the root.",
    )


def attention_cost(function: Solution) -> None:
    """Chapter 10, exercise 4."""
    for tokens, width in ((64, 192), (257, 768), (2, 3)):
        linear, products = 4 * tokens * width**2, 2 * tokens**2 * width
        assert_equal(
            function(tokens, width),
            linear + products,
            f"attention_cost({tokens}, {width})",
            "Queries, keys, values and outputs: T D D each. Scores and the mixing of values: T T D "
            "each.",
        )
