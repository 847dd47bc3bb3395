"""A trained model as a file: weights, and everything needed to use them on an image."""

import copy
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field, FiniteFloat, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import pad

from tenfold.augment import batch_normalise
from tenfold.data.decoding import (
    AnyImage,
    BrokenImageError,
    Window,
    prepare_image,
    require_pixels,
    resize_pixels,
)
from tenfold.data.normalisation import Normalisation
from tenfold.errors import TenfoldError, first_line
from tenfold.evaluation.calibration import fitted_of, operating_points_of, set_threshold
from tenfold.evaluation.features import features_of
from tenfold.evaluation.folding import faster
from tenfold.evaluation.onnx_forward import quick_forward
from tenfold.evaluation.probabilities import softmax
from tenfold.evaluation.thresholds import set_of
from tenfold.files import write_bytes
from tenfold.models import Pretrained
from tenfold.models.parts import evaluated
from tenfold.own_parts import code_of_run
from tenfold.progress import Progress
from tenfold.recipe import EvaluationOptions, Recipe, recipe_from_dict
from tenfold.results.runs import Result, read_result

FORMAT = "tenfold-model-1"
HEADER_KEY = "tenfold"
BATCH = 250
MANY, FEW = 100, 8
"""Images that are worth a faster copy of the network, and those on which that is compared."""

VIEWS = {"one": 1, "mirror": 2, "six": 6}
"""How many there are."""

SHARE_UNSURE = 0.8
"""Of `views_below`, a generous estimate of the share of images that are seen again: a network that
is right on 77 % was unsure, below 0.4, of 29 % of them, and one on 87 %, below 0.5, of 26 %."""


@dataclass(frozen=True, eq=False, repr=False)
class TrainedModel:
    """A network with what it was trained for.

    module: `(N, 3, H, W)` float32 -> `(N, C)` logits. class_names: one a logit, in order.
    image_size: height and width in pixels that the network expects. temperature: what logits are
    divided by before they become probabilities, fitted on validation images; no prediction changes.
    window: what is black and what is white in files of more than eight bits; empty where it was
    trained on none. result: what the run found, None for weights alone.

    >>> from tenfold import load_data, train
    >>> run = train("ann", data="digits", epochs=1, training__min_steps=0, progress=False)
    >>> run.model.predict_proba(load_data("digits").train.pixels[:5]).shape
    (5, 10)
    """

    module: nn.Module
    recipe: Recipe
    class_names: tuple[str, ...]
    normalisation: Normalisation
    image_size: tuple[int, int]
    temperature: float = 1.0
    window: Window = ()
    result: Result | None = None

    @property
    def operating_points(self) -> dict[str, float]:
        """By class, the probability from which on an image counts as one of it, where `tenfold
        evaluate --sensitivity` chose it."""
        points = operating_points_of(self.result) if self.result else ()
        return {each.class_name: each.threshold for each in points}

    def __repr__(self) -> str:
        height, width = self.image_size
        number = sum(parameter.numel() for parameter in self.module.parameters())
        classes = f"{len(self.class_names)} classes"
        return (
            f"TrainedModel({self.recipe.name}, {classes}, {height}x{width}, {number:,} parameters)"
        )

    def logits(
        self,
        pixels: NDArray[np.uint8],
        *,
        batch_size: int | None = None,
        training_mode: bool = False,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Logits `(N, C)` of images `(N, H, W, 3)` uint8, computed in batches without gradients.

        Floats in [0, 1] count as uint8 divided by 255. training_mode: with dropout, the same for a
        seed, and batch norms on the statistics of each batch. Raises TenfoldError where the
        images' size is not `image_size`, and for other types and ranges.
        """
        pixels = self._of_its_size(pixels)
        device = next(self.module.parameters()).device
        module = self.module
        network: Callable[[Tensor], Tensor] = module
        if batch_size is None:
            batch_size = BATCH
            if isinstance(module, Pretrained):
                batch_size = module.batch_size(BATCH)
            elif device.type == "cuda":  # As many pixels as 2,000 images of CIFAR-10 have.
                batch_size = max(BATCH, 2000 * 32**2 // (pixels.shape[1] * pixels.shape[2]))
        logits = np.empty((len(pixels), len(self.class_names)), dtype=np.float32)
        seeded = [device] if device.type == "cuda" else []
        with (
            evaluated(module),
            torch.inference_mode(),
            torch.random.fork_rng(seeded, enabled=training_mode),
        ):
            if training_mode:
                torch.manual_seed(self.recipe.seed)
                network = copy.deepcopy(module).train()  # Whose running statistics may move.
            elif isinstance(module, Pretrained):
                network = quick_forward(module, self.inputs(pixels[:FEW]), len(pixels))
            elif len(pixels) >= MANY:
                network = faster(module, self.inputs(pixels[:FEW]))
            start = 0
            while (left := len(pixels) - start) > 0:
                # A batch norm has nothing to average over one image, so none is left alone.
                alone = training_mode and left == batch_size + 1
                end = start + (left if alone else min(left, batch_size))
                inputs = self.inputs(pixels[start:end])
                output = logits_of_views(network, inputs, self.recipe.evaluation)
                logits[start:end] = output.float().cpu().numpy()
                start = end
                if progress is not None:
                    progress("evaluating", end, len(pixels))
        return logits

    def inputs(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """What `module` takes for images `(N, H, W, 3)` uint8, on its device."""
        device = next(self.module.parameters()).device
        mean, std = (torch.tensor(values, device=device) for values in self.normalisation)
        pixels = np.array(_checked(pixels))  # A copy, for torch takes none that can't be written.
        return batch_normalise(torch.from_numpy(pixels).to(device), mean, std)

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
        pixels = self._of_its_size(pixels)
        assert isinstance(self.module, Pretrained)
        features = features_of(self.module, pixels, self.normalisation, progress=progress)
        device = next(self.module.parameters()).device
        with evaluated(self.module), torch.inference_mode():
            logits = self.module.head(torch.from_numpy(features).to(device))
        found: NDArray[np.float32] = logits.float().cpu().numpy()
        return found

    def _of_its_size(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if pixels.ndim != 4 or pixels.shape[1:] != (*self.image_size, 3):
            raise TenfoldError(
                f"This model takes images of {self.image_size[0]}x{self.image_size[1]} pixels as "
                f"(N, H, W, 3) uint8, not an array of shape {pixels.shape}; resize them first."
            )
        return _checked(pixels)

    def pixels(self, pictures: AnyImage | Iterable[AnyImage]) -> NDArray[np.uint8]:
        """`(N, H, W, 3)` uint8: one or several images as the model sees them, of any size.

        images: paths, contents of files, Pillow images and arrays `(H, W, 3)`, also mixed; or an
        array `(N, H, W, 3)`. Arrays hold uint8 or floats in [0, 1], which count as uint8 divided by
        255. Raises TenfoldError, naming it, for an image that can't be read.
        """
        from PIL import Image

        if isinstance(pictures, np.ndarray) and pictures.ndim == 4:
            pixels, (height, width) = _checked(pictures), self.image_size
            if height == width:
                return resize_pixels(pixels, image_size=height)
            return self._of_its_size(pixels)
        is_one = isinstance(pictures, str | bytes | os.PathLike | np.ndarray | Image.Image)
        found = [np.empty((0, *self.image_size, 3), dtype=np.uint8)]
        several = cast("Iterable[AnyImage]", [pictures] if is_one else pictures)
        for number, picture in enumerate(several, start=1):
            try:
                pixels = prepare_image(picture, size=self.image_size, window=self.window)
            except BrokenImageError as error:
                name = str(picture) if isinstance(picture, str | Path) else f"image {number}"
                raise TenfoldError(f"{name} can't be used: it {error}.") from error
            found.append(pixels[None])
        return np.concatenate(found)

    def predict_proba(self, pictures: AnyImage | Iterable[AnyImage]) -> NDArray[np.float32]:
        """Probabilities `(N, C)` of one or several images, which may be whatever `pixels` takes,
        such as `(N, H, W, 3)` uint8."""
        return softmax(self.logits(self.pixels(pictures)) / np.float32(self.temperature))

    def predict(self, pictures: AnyImage | Iterable[AnyImage]) -> list[str]:
        """The most likely class name of each of one or several images: paths, Pillow images,
        arrays of uint8 or of floats in [0, 1], in short whatever `pixels` takes."""
        logits = self.logits(self.pixels(pictures))
        return [self.class_names[index] for index in logits.argmax(axis=1)]

    def predict_sets(
        self, pictures: AnyImage | Iterable[AnyImage], coverage: float = 0.95
    ) -> list[tuple[str, ...]]:
        """The conformal set of each of one or several images: the classes, the likeliest first,
        that hold the true one for at least `coverage` of images like those for validation.

        coverage: 0.9, 0.95 or 0.99. The promise is one over all images together, and over the
        choice of the validation images; not of each class. Raises TenfoldError for weights alone,
        and where there were too few validation images for it.
        """
        if self.result is None:
            raise TenfoldError("Weights alone have no sets; load the run's folder.")
        threshold = set_threshold(self.result, coverage)
        shares = self.predict_proba(pictures)
        return [set_of(self.class_names, row, threshold) for row in shares]


# -- several views of an image, whose logits are averaged ------------------------------------------


def num_views(options: EvaluationOptions) -> float:
    """How often an image is seen on average, as an estimate."""
    again = 1.0 if options.views_below == 1 else SHARE_UNSURE * options.views_below
    return 1 + again * (VIEWS[options.views] - 1)


def logits_of_views(
    network: Callable[[Tensor], Tensor], inputs: Tensor, options: EvaluationOptions
) -> Tensor:
    """Logits (B, C) of images (B, 3, H, W), each seen as often as `options` has it.

    `mirror` is the mean of an image and its mirror image. `six` gives half the weight to these two
    and half to the two of them shifted by a pixel up and left, and down and right, as Jordan (2024,
    arXiv 2404.00498) has them. Only images of which the plain view is unsure are seen again.
    """
    logits = network(inputs)
    if options.views == "one":
        return logits
    unsure = logits.softmax(dim=1).amax(dim=1) < options.views_below
    places = unsure.nonzero()[:, 0]
    if len(places) == 0:
        return logits
    seen = inputs[places]
    views, share = [seen.flip(3)], 1 / 2
    if options.views == "six":
        height, width = seen.shape[2:]
        padded = pad(seen, (1, 1, 1, 1), mode="reflect")
        for corner in (0, 2):
            shifted = padded[:, :, corner : corner + height, corner : corner + width]
            views += [shifted, shifted.flip(3)]
        share = 1 / 4
    # As one batch, which takes 6 % less than five.
    mirrored, *others = network(torch.cat(views)).chunk(len(views))
    mean = share * (logits[places] + mirrored) + sum(others) / 8
    return logits.index_copy(0, places, mean)


# -- as a file -----------------------------------------------------------------------------------


def _checked(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    try:
        return require_pixels(pixels)
    except BrokenImageError as error:
        raise TenfoldError(f"What the model is to look at {error}.") from error


def build_network(recipe: Recipe, *, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """The recipe's network with fresh weights, in channels_last memory."""
    module: nn.Module = recipe.model(num_classes=num_classes, image_size=image_size)
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
        **({"window": model.window} if model.window else {}),
    }
    # One key, since the order of several would differ from process to process.
    write_bytes(path, save(tensors, metadata={HEADER_KEY: json.dumps(header)}))


def load(run: str | Path) -> TrainedModel:
    """The trained model of a run folder, with its temperature, or of a `model.safetensors`.

    Raises TenfoldError where there is no finished run or the file is damaged.

    >>> from tenfold import train
    >>> run = train("ann", data="digits", epochs=1, training__min_steps=0, progress=False)
    >>> load(run.path).class_names[:2]
    ('zero', 'one')
    """
    path = Path(run)
    if path.suffix == ".safetensors":
        return load_model(path)
    model = load_model(path / "model.safetensors")
    if not (path / "result.json").exists():
        return model
    result = read_result(path / "result.json")
    kept = fitted_of(result)
    return replace(model, result=result, temperature=kept.temperature if kept else 1.0)


Side = Annotated[int, Field(strict=True, ge=1, le=65536)]


class _Header(BaseModel):
    """What a file's header says of its weights."""

    recipe: dict[str, Any]
    class_names: Annotated[tuple[str, ...], Field(min_length=1)]
    normalisation: Normalisation
    image_size: tuple[Side, Side]
    window: tuple[()] | tuple[FiniteFloat, FiniteFloat] = ()
    white_level: Annotated[int, Field(strict=True, ge=0, le=65535)] = 0
    """Of versions that knew no other window than (0, white_level)."""


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
        known = _Header.model_validate(header)
        with code_of_run(path.parent):
            recipe = recipe_from_dict(known.recipe, source=str(path))
        class_names, size = known.class_names, known.image_size
        if len(set(class_names)) < len(class_names):
            raise ValueError("class_names")
        normalisation = known.normalisation
        if not np.isfinite(normalisation).all() or min(normalisation.std) <= 0:
            raise ValueError("normalisation")
        # Without memory behind it, so that a header can't ask for more than the file has.
        with torch.device("meta"):
            expected = build_network(recipe, num_classes=len(class_names), image_size=size)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        what: Any = first_line(error)
        if isinstance(error, ValidationError):
            what = error.errors()[0]["loc"][0]
        raise TenfoldError(
            f"{path} is not a model that tenfold wrote: its header lacks or garbles {what}; give a "
            "run folder or its model.safetensors."
        ) from error
    require_same_tensors(tensors, expected.state_dict(), source=str(path))
    with torch.random.fork_rng(devices=[]):
        module = build_network(recipe, num_classes=len(class_names), image_size=size)
    module.load_state_dict(tensors)
    module.eval()
    window: Window = known.window or ((0, known.white_level) if known.white_level else ())
    return TrainedModel(module, recipe, class_names, normalisation, size, window=window)


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
