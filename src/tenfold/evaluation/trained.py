"""A trained model as a file: weights, and everything needed to use them on a picture."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save
from torch import nn

from tenfold.augment import batch_normalise
from tenfold.data.normalisation import Normalisation
from tenfold.errors import TenfoldError, first_line
from tenfold.evaluation.calibration import fitted_of
from tenfold.evaluation.features import features_of
from tenfold.evaluation.views import logits_of_views
from tenfold.files import read_json, write_bytes
from tenfold.models import Pretrained, build
from tenfold.progress import Progress
from tenfold.recipe import Recipe, options_of, recipe_from_dict

FORMAT = "tenfold-model-1"
HEADER_KEY = "tenfold"


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network with what it was trained for.

    module: `(N, 3, H, W)` float32 -> `(N, C)` logits. class_names: one a logit, in order.
    image_size: height and width in pixels that the network expects. temperature: what logits are
    divided by before they become probabilities, fitted on validation pictures; no guess changes.
    """

    module: nn.Module
    recipe: Recipe
    class_names: tuple[str, ...]
    normalisation: Normalisation
    image_size: tuple[int, int]
    temperature: float = 1.0

    def logits(
        self,
        pixels: NDArray[np.uint8],
        *,
        batch_size: int = 250,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Logits `(N, C)` of pictures `(N, H, W, 3)` uint8, computed in batches without gradients.

        Raises TenfoldError where the pictures' size is not `image_size`.
        """
        self._require_size(pixels)
        device = next(self.module.parameters()).device
        mean, std = (torch.tensor(values, device=device) for values in self.normalisation)
        was_training = self.module.training
        self.module.eval()
        logits = np.empty((len(pixels), len(self.class_names)), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(pixels), batch_size):
                block = torch.from_numpy(np.array(pixels[start : start + batch_size])).to(device)
                inputs = batch_normalise(block, mean, std)
                output = logits_of_views(self.module, inputs, self.recipe.evaluation)
                logits[start : start + batch_size] = output.float().cpu().numpy()
                if progress is not None:
                    progress("evaluating", min(start + batch_size, len(pixels)), len(pixels))
        self.module.train(was_training)
        return logits

    @property
    def is_head_alone(self) -> bool:
        """Whether nothing but the head of a pretrained network was trained."""
        stages = self.recipe.stages
        head_alone = bool(stages) and all(stage.trains == "head" for stage in stages)
        return head_alone and self.recipe.evaluation.views == "one"

    def logits_by_features(
        self, pixels: NDArray[np.uint8], *, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """As `logits`, of a pretrained network whose features of `pixels` are kept for others."""
        self._require_size(pixels)
        assert isinstance(self.module, Pretrained)
        features = features_of(self.module, pixels, self.normalisation, progress=progress)
        device = next(self.module.parameters()).device
        was_training = self.module.training
        self.module.eval()
        with torch.inference_mode():
            logits = self.module.head(torch.from_numpy(features).to(device))
        self.module.train(was_training)
        found: NDArray[np.float32] = logits.float().cpu().numpy()
        return found

    def _require_size(self, pixels: NDArray[np.uint8]) -> None:
        if pixels.ndim != 4 or pixels.shape[1:] != (*self.image_size, 3):
            raise TenfoldError(
                f"This model takes pictures of {self.image_size[0]}x{self.image_size[1]} pixels as "
                f"(N, H, W, 3) uint8, not an array of shape {pixels.shape}; resize them first."
            )

    def predict_proba(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities `(N, C)` of pictures `(N, H, W, 3)` uint8."""
        logits = self.logits(pixels) / np.float32(self.temperature)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    def predict(self, pixels: NDArray[np.uint8]) -> list[str]:
        """The most likely class name of each of the pictures `(N, H, W, 3)` uint8."""
        return [self.class_names[index] for index in self.logits(pixels).argmax(axis=1)]


def build_network(recipe: Recipe, *, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """The recipe's network with fresh weights, in channels_last memory."""
    module = build(
        recipe.model.name,
        num_classes=num_classes,
        image_size=image_size,
        **options_of(recipe.model),
    )
    return module.to(memory_format=torch.channels_last)


def save_model(path: Path, model: TrainedModel) -> None:
    """Write the weights, with recipe, class names and normalisation in the header, atomically."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.module.state_dict().items()}
    header = {
        "format": FORMAT,
        "recipe": model.recipe.to_dict(),
        "class_names": model.class_names,
        "normalisation": model.normalisation._asdict(),
        "image_size": model.image_size,
    }
    # One key, since the order of several would differ from process to process.
    write_bytes(path, save(tensors, metadata={HEADER_KEY: json.dumps(header)}))


def load(run: str | Path) -> TrainedModel:
    """The trained model of a run folder, with its temperature, or of a `model.safetensors`.

    Raises TenfoldError where there is no finished run or the file is damaged.
    """
    path = Path(run)
    if path.suffix == ".safetensors":
        return load_model(path)
    model = load_model(path / "model.safetensors")
    kept = fitted_of(read_json(path / "result.json")) if (path / "result.json").exists() else None
    return model if kept is None else replace(model, temperature=kept.temperature)


def load_model(path: Path) -> TrainedModel:
    """The model that `save_model` wrote; nothing in the file is ever executed.

    Raises TenfoldError where the file is missing, is no safetensors file, or holds weights that
    don't fit the network that its recipe names.
    """
    metadata, tensors = _read_safetensors(path)
    try:
        header = json.loads(metadata[HEADER_KEY])
        if header["format"] != FORMAT:
            raise TenfoldError(
                f"{path} has the format {header['format']!r}, and this version reads {FORMAT!r}; "
                "use the version of tenfold that wrote it."
            )
        recipe = recipe_from_dict(header["recipe"], source=str(path))
        class_names, size = tuple(header["class_names"]), tuple(header["image_size"])
        constants = header["normalisation"]
        normalisation = Normalisation(tuple(constants["mean"]), tuple(constants["std"]))
        _require_sound(class_names, size, normalisation)
        # Without memory behind it, so that a header can't ask for more than the file has.
        with torch.device("meta"):
            expected = build_network(recipe, num_classes=len(class_names), image_size=size)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise TenfoldError(
            f"{path} is not a model that tenfold wrote: its header lacks or garbles "
            f"{first_line(error)}; give a run folder or its model.safetensors."
        ) from error
    require_same_tensors(tensors, expected.state_dict(), source=str(path))
    with torch.random.fork_rng(devices=[]):
        module = build_network(recipe, num_classes=len(class_names), image_size=size)
    module.load_state_dict(tensors)
    module.eval()
    return TrainedModel(module, recipe, class_names, normalisation, size)


def _require_sound(
    class_names: tuple[Any, ...], size: tuple[Any, ...], normalisation: Normalisation
) -> None:
    """Raise ValueError, naming it, for a value that no training writes."""
    if len(set(class_names)) < max(len(class_names), 1) or not _all_of(str, class_names):
        raise ValueError("class_names")
    if len(size) != 2 or not _all_of(int, size) or not all(0 < side <= 65536 for side in size):
        raise ValueError("image_size")
    for constants in normalisation:
        if len(constants) != 3 or not all(math.isfinite(value) for value in constants):
            raise ValueError("normalisation")
    if min(normalisation.std) <= 0:
        raise ValueError("normalisation")


def _all_of(kind: type, values: Iterable[Any]) -> bool:
    return all(type(value) is kind for value in values)


def require_same_tensors(
    found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], *, source: str
) -> None:
    """Raise TenfoldError, naming the first difference, unless names and shapes agree."""
    for name in sorted(set(found) | set(expected)):
        has = tuple(found[name].shape) if name in found else "nothing"
        needs = tuple(expected[name].shape) if name in expected else "nothing"
        if has != needs:
            raise TenfoldError(
                f"{source} does not fit this network: for {name} it has {has}, and the network "
                f"needs {needs}; use the recipe that it was trained with."
            )


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    if not path.is_file():
        raise TenfoldError(f"There is no model file {path}; finish its training first.")
    try:
        # Not by path, which safetensors wants to be UTF-8.
        content = path.read_bytes()
        tensors = tensors_of(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return header.get("__metadata__", {}), tensors
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise TenfoldError(
            f"{path} is not a sound safetensors file ({first_line(error)}); restore it from a "
            "copy or train the run again."
        ) from error
