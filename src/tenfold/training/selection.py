"""Which images an epoch trains on, where it is not all of them: those that were the hardest.

N images. Their losses are kept as (2, N) float32: in the first row as they were when the epoch
began, which is what decides, and in the second as they are now, so that an epoch that was
interrupted goes on with the same images.
"""

import math

import torch
from torch import Tensor

from tenfold.training.batches import seeded_generator


def unseen_losses(num_images: int, *, device: torch.device) -> Tensor:
    """Losses of images that have not been seen: (2, N) of infinity."""
    return torch.full((2, num_images), math.inf, device=device)


def num_selected(num_images: int, share: float) -> int:
    """How many images an epoch trains on."""
    return max(round(share * num_images), min(2, num_images))


def hardest(losses: Tensor, number: int, *, seed: int, epoch: int) -> Tensor:
    """Indices (M,) of the `number` images whose losses (2, N) were the highest when the epoch
    began; those that were never seen come first, and among equals the seed decides."""
    order = torch.randperm(losses.shape[1], generator=seeded_generator(seed, "selection", epoch))
    order = order.to(losses.device)
    ranked = losses[0, order].argsort(descending=True, stable=True)
    return order[ranked[:number]]
