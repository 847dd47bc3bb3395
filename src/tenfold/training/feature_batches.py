"""What a step sees where the head trains alone: features that were computed before."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from tenfold.data.normalisation import Normalisation
from tenfold.evaluation.features import features_of
from tenfold.models import Pretrained
from tenfold.progress import Progress
from tenfold.training.batches import Part, TrainingInputs, seeded_generator
from tenfold.training.devices import on_first_process


def shared_features(
    model: Pretrained,
    pixels: NDArray[np.uint8],
    *,
    normalisation: Normalisation,
    accelerator: Accelerator,
    progress: Progress,
) -> Tensor:
    """Features (N, D) of images (N, H, W, 3) uint8 on every process.

    Of several the first computes them, and the others find them in the cache.
    """

    def compute() -> NDArray[np.float32]:
        return features_of(model, pixels, normalisation, progress=progress)

    if accelerator.num_processes > 1:
        on_first_process(accelerator, lambda: len(compute()))
    return torch.from_numpy(compute()).to(accelerator.device)


class TrainingFeatures(TrainingInputs):
    """Features of the training set, some versions of each image.

    compute: gives (V, N, D) float32 of V versions, once there are weights. labels: (N,) int64.
    Which version an image has in an epoch is drawn from (seed, epoch).
    """

    def __init__(self, compute: Callable[[Progress], Tensor], labels: Tensor, *, seed: int) -> None:
        self._compute, self._labels = compute, labels
        self._features: Tensor | None = None
        self._seed = seed
        self._views = torch.zeros_like(labels)

    def prepare(self, progress: Progress) -> None:
        """Compute the features, the first time; the backbone stays as it is from then on."""
        if self._features is None:
            self._features = self._compute(progress)

    def __len__(self) -> int:
        return len(self._labels)

    def start_epoch(self, epoch: int, parts: Sequence[Tensor] = ()) -> None:
        """Draw a version of each image."""
        assert self._features is not None, "prepare comes first"
        generator = seeded_generator(self._seed, "views", epoch)
        drawn = torch.randint(len(self._features), (len(self),), generator=generator)
        self._views = drawn.to(self._labels.device)

    def part(
        self, indices: Tensor, *, step: int, batch_size: int, number: int, size: int | None = None
    ) -> Part:
        """The features at `indices` as the head sees them in this epoch."""
        assert self._features is not None
        inputs = self._features[self._views[indices], indices]
        return Part(inputs, self._labels[indices], len(indices) / batch_size, None)
