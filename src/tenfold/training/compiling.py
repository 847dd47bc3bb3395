"""Compiling a network ahead of its training, so that no step waits for it."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import cast

import torch
from torch import nn

from tenfold.augment import shrunk_size
from tenfold.errors import TenfoldError, first_line
from tenfold.recipe import Recipe
from tenfold.training.batches import batch_sizes


def compile_network(
    network: nn.Module,
    recipe: Recipe,
    *,
    num_images: int,
    num_processes: int,
    size: tuple[int, int],
    precision: Callable[[], AbstractContextManager[None]],
) -> tuple[nn.Module, float]:
    """`network` with its passes compiled for each shape that it will be trained on, and the seconds
    that this took. What validates and evaluates goes on with `network` itself.

    num_images: in the training set. size: height and width of whole pictures, in pixels.
    precision: what passes run under. Weights and running statistics stay as they are, and
    gradients None. Raises TenfoldError where there is no compiler.
    """
    from torch._dynamo.exc import TorchDynamoException  # Takes a second, which others don't need.

    started = time.monotonic()
    compiled = cast(nn.Module, torch.compile(network, dynamic=False))
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    network.train()
    try:
        for shape in _shapes(recipe, num_images, num_processes, size):
            inputs = torch.zeros(shape, device=next(network.parameters()).device)
            with precision():
                logits = compiled(inputs.to(memory_format=torch.channels_last))
            logits.float().sum().backward()
    except TorchDynamoException as error:
        raise TenfoldError(
            f"training.compile = true does not work here ({first_line(error)}); leave it out with "
            "--set training.compile=false."
        ) from error
    for buffer, before in buffers:
        buffer.copy_(before)
    network.zero_grad()
    return compiled, time.monotonic() - started


def _shapes(
    recipe: Recipe, num_images: int, num_processes: int, size: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """Of what is computed at once: parts of whole batches and of an epoch's last, at each size."""
    options = recipe.training
    parts = num_processes * options.accumulate
    lengths = batch_sizes(num_images, options.batch_size, least=2 * parts)
    counts = {len(part) for n in lengths for part in torch.arange(n).tensor_split(parts)}
    sizes = [*(shrunk_size(size, side) for side in options.sizes), size]
    return [(count, 3, *one) for one in sizes for count in sorted(counts, reverse=True)]
