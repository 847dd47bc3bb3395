"""Compiling a network ahead of its training, so that no step waits for it."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn

from tenfold.errors import TenfoldError
from tenfold.recipe import Recipe


def compile_network(
    network: nn.Module,
    recipe: Recipe,
    *,
    num_images: int,
    side: int,
    precision: Callable[[], AbstractContextManager[None]],
) -> float:
    """Compile the passes of `network`, for each shape that it will be trained on; returns seconds.

    num_images: in the training set. side: of whole pictures, in pixels. precision: what passes run
    under. Weights and running statistics stay as they are, and gradients None. Raises TenfoldError
    where there is no compiler.
    """
    from torch._dynamo.exc import TorchDynamoException  # Takes a second, which others don't need.

    started = time.monotonic()
    network.compile(dynamic=False)
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    network.train()
    try:
        for shape in _shapes(recipe, num_images, side):
            inputs = torch.zeros(shape, device=next(network.parameters()).device)
            with precision():
                logits = network(inputs.to(memory_format=torch.channels_last))
            logits.float().sum().backward()
    except TorchDynamoException as error:
        raise TenfoldError(
            f"training.compile = true does not work here ({_first_line(error)}); leave it out with "
            "--set training.compile=false."
        ) from error
    for buffer, before in buffers:
        buffer.copy_(before)
    network.zero_grad()
    return time.monotonic() - started


def _shapes(recipe: Recipe, num_images: int, side: int) -> list[tuple[int, int, int, int]]:
    """Of the batches to come: whole ones and the last of an epoch, at each size."""
    size = min(recipe.training.batch_size, num_images)
    counts = sorted({size, num_images % size or size}, reverse=True)
    sides = [*recipe.training.sizes, side]
    return [(count, 3, one, one) for one in sides for count in counts if count > 1]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
