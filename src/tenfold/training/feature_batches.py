"""What a step sees where the head trains alone: features that were computed before."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.training.batches import Part, seeded_generator


class TrainingFeatures:
    """Features of the training set with `views` versions of each picture; stands in for pictures.

    features: (V, N, D) float32. labels: (N,) int64. Which version a picture has in an epoch is
    drawn from (seed, epoch).
    """

    def __init__(self, features: Tensor, labels: Tensor, *, seed: int) -> None:
        self._features, self._labels = features, labels
        self._seed = seed
        self._views = torch.zeros_like(labels)

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def side(self) -> int:
        """Features have no size; any will do for a step that asks."""
        return 0

    def start_epoch(self, epoch: int, parts: Sequence[Tensor] = ()) -> None:
        """Draw a version of each picture."""
        generator = seeded_generator(self._seed, "views", epoch)
        drawn = torch.randint(len(self._features), (len(self),), generator=generator)
        self._views = drawn.to(self._labels.device)

    def part(
        self, indices: Tensor, *, step: int, batch_size: int, number: int, size: int | None = None
    ) -> Part:
        """The features at `indices` as the head sees them in this epoch."""
        inputs = self._features[self._views[indices], indices]
        return Part(inputs, self._labels[indices], len(indices) / batch_size, None)
