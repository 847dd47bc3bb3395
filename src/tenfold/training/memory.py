"""How much memory training is going to take, and what to say where there is not enough."""

import contextlib
import copy
import ctypes
from collections.abc import Iterator

import psutil
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tenfold.errors import OutOfMemoryError
from tenfold.models import Pretrained
from tenfold.recipe import Recipe


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
    with contextlib.suppress(OSError, AttributeError, TypeError):
        # What was computed before leaves glibc with memory that it would keep for another time.
        ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss) + 3 * learnt + activations


@contextlib.contextmanager
def memory_errors(recipe: Recipe) -> Iterator[None]:
    """Turn running out of memory into a sentence with a remedy."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        words = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")
        if not isinstance(error, MemoryError) and not any(w in str(error) for w in words):
            raise
        size = recipe.training.batch_size
        raise OutOfMemoryError(
            f"Memory ran out with training.batch_size = {size}; compute the same batch in parts "
            f"with --set training.accumulate={2 * recipe.training.accumulate}, or try --set "
            f"training.batch_size={max(size // 2, 2)}."
        ) from error
