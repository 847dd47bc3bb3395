"""What a step sees where the head trains alone: features that were computed before."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from tenfold.data.normalisation import Normalisation
from tenfold.errors import InterruptedRunError
from tenfold.evaluation.features import features_of
from tenfold.interruption import Interruption
from tenfold.models import Pretrained
from tenfold.progress import Progress
from tenfold.training.batches import Part, seeded_generator
from tenfold.training.devices import on_first_process


class Extractor:
    """Gives the features (N, D) of pictures (N, H, W, 3) uint8 to every process.

    Of several processes the first computes them, and the others find them in the cache.
    """

    def __init__(
        self,
        model: Pretrained,
        normalisation: Normalisation,
        *,
        accelerator: Accelerator,
        interruption: Interruption,
        progress: Progress | None,
    ) -> None:
        self._model, self._normalisation = model, normalisation
        self._accelerator, self._interruption = accelerator, interruption
        self._progress = progress

    def __call__(self, pixels: NDArray[np.uint8], told: Progress) -> Tensor:
        """Raises InterruptedRunError where a signal came."""
        if self._accelerator.num_processes > 1:
            # Some may find all features in a cache of their own, and must not be asked then.
            told = self._alone
            on_first_process(self._accelerator, lambda: len(self._compute(pixels, self._alone)))
        found = self._compute(pixels, told)
        return torch.from_numpy(found).to(self._accelerator.device)

    def _compute(self, pixels: NDArray[np.uint8], told: Progress) -> NDArray[np.float32]:
        return features_of(self._model, pixels, self._normalisation, progress=told)

    def _alone(self, label: str, done: int, total: int | None) -> None:
        """Progress while the other processes wait, which can't be asked for anything then."""
        if self._interruption.signal is not None:
            raise InterruptedRunError(
                f"Interrupted by {self._interruption.signal.name} among the features; those that "
                "are done are kept, and the same command resumes it."
            )
        if self._progress is not None:
            self._progress(label, done, total)


class TrainingFeatures:
    """Features of the training set, some versions of each picture; stands in for pictures.

    compute: gives (V, N, D) float32 of V versions, once there are weights. labels: (N,) int64.
    Which version a picture has in an epoch is drawn from (seed, epoch).
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

    @property
    def side(self) -> int:
        """Features have no size; any will do for a step that asks."""
        return 0

    def start_epoch(self, epoch: int, parts: Sequence[Tensor] = ()) -> None:
        """Draw a version of each picture."""
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
