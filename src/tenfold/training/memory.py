"""How much memory the training of a large network is going to take, said before it begins."""

import contextlib
import copy
import ctypes

import psutil
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tenfold.models import Pretrained


def expected_bytes(model: Pretrained, *, num_images: int) -> int:
    """What this process is going to hold while `model` learns from `num_images` at once.

    What the backward pass needs of two images is counted on a copy, so that nothing is changed.
    """
    network = copy.deepcopy(model).train()
    own = {tensor.data_ptr() for tensor in [*network.parameters(), *network.buffers()]}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    side = model.preprocessing.side
    with torch.random.fork_rng(devices=[]), saved_tensors_hooks(note, lambda tensor: tensor):
        network(torch.zeros(2, 3, side, side).to(memory_format=torch.channels_last))
    learnt = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    activations = sum(kept.values()) * num_images // 2
    _give_back()
    return int(psutil.Process().memory_info().rss) + 3 * learnt + activations


def _give_back() -> None:
    """What was computed before leaves glibc with memory that it would keep for another time."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
