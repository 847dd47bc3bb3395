"""FLOP of training, counted: convolutions and matrix products, multiplications and additions.

They are counted on torch's meta device, where nothing is computed, and depend on no machine.
"""

import logging
from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

IMAGES = 2
"""That are counted together, for a batch norm has nothing to average over one."""

logger = logging.getLogger("tenfold")


def flop_of_image(network: nn.Module, shape: Sequence[int], *, learns: bool = True) -> float | None:
    """FLOP an image of a forward pass, and where it `learns` of the backward pass of what does.

    shape: of what the network takes, without the batch. Nothing of the network changes. None, with
    a word in the log, for a network that the meta device can't carry out.
    """
    named = [*network.named_parameters(), *network.named_buffers()]
    tensors = {
        name: torch.empty_like(t, device="meta").requires_grad_(t.requires_grad)
        for name, t in named
    }
    inputs = torch.empty(IMAGES, *shape, device="meta")
    try:
        with (
            sdpa_kernel(SDPBackend.MATH),  # Whose products can be seen.
            torch.set_grad_enabled(learns),
            FlopCounterMode(display=False) as counter,
        ):
            outputs = functional_call(network, tensors, (inputs,))
            if learns:
                outputs.sum().backward()
    except Exception as error:  # What somebody's own network does may be anything.
        logger.info("The FLOP of %s can't be counted: %s", type(network).__name__, error)
        return None
    return float(counter.get_total_flops()) / IMAGES
