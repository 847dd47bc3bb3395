"""Learning from another network's predictions beside the labels (Hinton et al. 2015).

N images of a batch, C classes.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate, kl_div, log_softmax

from tenfold.data import Images
from tenfold.data.normalisation import Normalisation
from tenfold.errors import TenfoldError
from tenfold.evaluation.evaluate import count_trained_on
from tenfold.evaluation.trained import TrainedModel, load_model
from tenfold.own_parts import sum_of
from tenfold.recipe import DistillationOptions
from tenfold.run import RunFolder, finished_run
from tenfold.training.flop import flop_of_image


def weights_of(options: DistillationOptions) -> Path:
    """The teacher's file. Raises TenfoldError where it is no finished run."""
    path = Path(options.teacher).expanduser()
    return path if path.suffix == ".safetensors" else finished_run(path).model


def checksum_of(options: DistillationOptions) -> str | None:
    """SHA-256 of the teacher's file, None without a teacher. Raises TenfoldError as above."""
    if not options.teacher:
        return None
    path = weights_of(options)
    return sum_of(path) if path.exists() else None  # What is missing is said where it is loaded.


class Teacher:
    """A trained network that is asked about the images of each step, just as the student sees them.

    student: how the images of a step are normalised. class_names: of the student's logits, in
    order. Nothing in it changes, so that a resumed run hears what it would have heard. Raises
    TenfoldError where there is no such run, or it doesn't know all of these classes.
    """

    def __init__(
        self,
        options: DistillationOptions,
        *,
        student: Normalisation,
        class_names: tuple[str, ...],
        device: torch.device,
    ) -> None:
        self._options = options
        self._model: TrainedModel = load_model(weights_of(options))
        known = self._model.class_names
        if missing := [name for name in class_names if name not in known]:
            raise TenfoldError(
                f"The teacher {options.teacher} doesn't know the class {missing[0]!r}; its classes "
                f"are {', '.join(known)}. Use one that was trained on the same classes."
            )
        self._network = self._model.module.to(device).eval().requires_grad_(False)
        self._order = torch.tensor([known.index(name) for name in class_names], device=device)
        # From the student's normalisation to the teacher's.
        (mean, std), (own_mean, own_std) = (
            (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in each)
            for each in (student, self._model.normalisation)
        )
        self._scale, self._offset = std / own_std, (mean - own_mean) / own_std

    @property
    def flop(self) -> float | None:
        """Counted FLOP of a look at one image."""
        return flop_of_image(self._network, (3, *self._model.image_size), learns=False)

    def losses(self, inputs: Tensor, logits: Tensor) -> Tensor:
        """(N,): how far the student's `logits` (N, C) for `inputs` (N, 3, H, W) are from what the
        teacher says: the divergence of both softened distributions, times the temperature squared.
        """
        temperature = self._options.temperature
        with torch.no_grad():
            seen = inputs * self._scale + self._offset
            if seen.shape[2:] != self._model.image_size:
                seen = interpolate(
                    seen, self._model.image_size, mode="bilinear", antialias=True,
                )  # fmt: skip
            said = self._network(seen)[:, self._order].float()
        divergences = kl_div(
            log_softmax(logits / temperature, dim=1),
            log_softmax(said / temperature, dim=1),
            reduction="none",
            log_target=True,
        )
        return temperature**2 * divergences.sum(dim=1)


def leaks_of(options: DistillationOptions, splits: dict[str, Images]) -> list[str]:
    """A sentence for each split of held-out images that the teacher was trained on."""
    if not options.teacher:
        return []
    run, notes = RunFolder(weights_of(options).parent), []
    for split, images in splits.items():
        if split != "train" and (number := count_trained_on(run, images, own=False)):
            notes.append(
                f"The teacher was trained on {number:,} of the {len(images):,} images of {split}: "
                "what the student gets right of these says little."
            )
    return notes
