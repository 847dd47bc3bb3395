"""FLOP of training, counted: convolutions and matrix products, multiplications and additions.

They are counted while two images of zeros go through the network, by torch's own formulas for each
operation, and depend on no machine.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

IMAGES = 2
"""That are counted together, for a batch norm has nothing to average over one."""

logger = logging.getLogger("tenfold")


class _Counter(TorchDispatchMode):
    """As torch's FlopCounterMode, which imports the compiler, as the meta device does: two seconds
    of each training."""

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.flop += count(*args, **kwargs, out_val=out)
        return out


def flop_of_image(network: nn.Module, shape: Sequence[int], *, learns: bool = True) -> float | None:
    """FLOP an image of a forward pass, and where it `learns` of the backward pass of what does.

    shape: of what the network takes, without the batch. Nothing of the network changes, and no
    random number is drawn. None, with a word in the log, for a network that can't be carried out.
    """
    named = [*network.named_parameters(), *network.named_buffers()]
    tensors = {
        name: torch.zeros_like(t, device="cpu").requires_grad_(t.requires_grad) for name, t in named
    }
    inputs = torch.zeros(IMAGES, *shape)
    try:
        with (
            torch.random.fork_rng(devices=[]),
            sdpa_kernel(SDPBackend.MATH),  # Whose products can be seen.
            torch.set_grad_enabled(learns),
            _Counter() as counter,
        ):
            outputs = functional_call(network, tensors, (inputs,))
            if learns:
                outputs.sum().backward()
    except Exception as error:  # What somebody's own network does may be anything.
        logger.info("The FLOP of %s can't be counted: %s", type(network).__name__, error)
        return None
    return float(counter.flop) / IMAGES
