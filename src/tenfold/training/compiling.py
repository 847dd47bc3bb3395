"""Compiling a network ahead of its training, so that no step waits for it."""

import time
from collections.abc import Sequence
from typing import cast

import torch
from accelerate import Accelerator
from torch import nn, optim

from tenfold.augment import shrunk_size
from tenfold.errors import TenfoldError, first_line
from tenfold.recipe import Recipe
from tenfold.training.batches import batch_sizes

PASSES_BEFORE_REPLAY = 3
"""Of a shape on a GPU: one that warms up, one that is recorded as a graph, and one from it."""


def compile_network(
    network: nn.Module,
    recipe: Recipe,
    *,
    optimizer: optim.Optimizer,
    blocks: Sequence[nn.Module],
    num_images: int,
    size: tuple[int, int],
    accelerator: Accelerator,
) -> tuple[nn.Module, float]:
    """`network` with its passes compiled for each shape that it will be trained on, and the seconds
    that this took. What validates and evaluates goes on with `network` itself.

    On a GPU passes are recorded as CUDA graphs too: launching their kernels one by one takes longer
    than computing them. blocks: that the recipe may freeze. num_images: in the training set. size:
    height and width of whole images, in pixels. Weights, running
    statistics and `optimizer` stay as they are, and gradients None. Raises TenfoldError where there
    is no compiler.
    """
    from torch._dynamo.exc import TorchDynamoException  # Takes a second, which others don't need.

    started = time.monotonic()
    device = next(network.parameters()).device
    on_gpu = device.type == "cuda"
    mode = "reduce-overhead" if on_gpu else None
    compiled = cast(nn.Module, torch.compile(network, dynamic=False, mode=mode))
    tensors = [*network.parameters(), *network.buffers()]
    before = [(tensor, tensor.detach().clone()) for tensor in tensors]
    learns = [(p, p.requires_grad) for p in network.parameters()]
    network.train()
    try:
        # What cuDNN may choose from; what is recorded meanwhile keeps to its choice.
        with torch.backends.cudnn.flags(
            enabled=True,
            benchmark=not recipe.training.deterministic,
            deterministic=recipe.training.deterministic,
            allow_tf32=torch.backends.cudnn.allow_tf32,
        ):
            for num_frozen in range(len(recipe.training.freeze_from) + 1):
                if num_frozen:
                    blocks[num_frozen - 1].requires_grad_(False)
                for shape in _shapes(recipe, num_images, accelerator.num_processes, size):
                    inputs = torch.zeros(shape, device=device).to(memory_format=torch.channels_last)
                    for _ in range(PASSES_BEFORE_REPLAY if on_gpu else 1):
                        network.zero_grad()
                        with accelerator.autocast():
                            logits = compiled(inputs)
                        logits.float().sum().backward()
                    if on_gpu and not optimizer.state:
                        optimizer.step()  # Whose kernels are loaded at their first use.
    except TorchDynamoException as error:
        raise TenfoldError(
            f"training.compile = true does not work here ({first_line(error)}); leave it out with "
            "--set training.compile=false."
        ) from error
    with torch.no_grad():
        for tensor, value in before:
            tensor.copy_(value)
    for parameter, flag in learns:
        parameter.requires_grad_(flag)
    optimizer.state.clear()
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
