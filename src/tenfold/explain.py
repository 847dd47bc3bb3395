"""Why a model says what it says: what its layers see, where it looked, which images are alike.

N images, C classes or channels, H and W pixels, D features. Pixels are uint8, as the model's
data has them; maps of what mattered are `(N, H, W)` float32, the larger the more it spoke for the
class asked about.
"""

import contextlib
import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from tenfold.errors import TenfoldError, missing_extra
from tenfold.evaluation.features import kept_features, key_of_network
from tenfold.evaluation.trained import TrainedModel
from tenfold.models.blocks import Layer
from tenfold.models.parts import evaluated, gradient_batch, parts_of
from tenfold.progress import Progress

STEPS = 32
"""Of the integral, from the mean image to the image itself."""

OCCLUDED_SHARE, OCCLUDED_STRIDE_SHARE = 0.25, 0.125
"""Side of the patch that is covered, and how far it moves, as shares of the image's side."""

_Pixels = NDArray[np.uint8]
_Maps = NDArray[np.float32]
_Classes = NDArray[np.int64]


def first_filters(model: TrainedModel) -> _Maps | None:
    """The filters of the first convolution: (F, h, w, 3), each stretched to [0, 1].

    None where it is no convolution of the colours. For a dense network its first layer's weights,
    as images.
    """
    kinds = (nn.Conv2d, nn.Linear)
    first = next((m for m in model.module.modules() if isinstance(m, kinds)), None)
    if first is None:
        return None
    weights = first.weight.detach().float().cpu().numpy()
    if isinstance(first, nn.Linear) and first.in_features == 3 * math.prod(model.image_size):
        weights = weights.reshape(len(weights), 3, *model.image_size)
    if weights.ndim != 4 or weights.shape[1] != 3:
        return None
    low = weights.min(axis=(1, 2, 3), keepdims=True)
    high = weights.max(axis=(1, 2, 3), keepdims=True)
    stretched = (weights - low) / np.maximum(high - low, 1e-12)
    return np.ascontiguousarray(stretched.transpose(0, 2, 3, 1))


def feature_maps(model: TrainedModel, pixels: _Pixels) -> dict[str, _Maps]:
    """What each layer with maps answers to a few images, from the input on: (N, C, h, w) float32 by
    the layer's name."""
    layers = parts_of(model.module, model.image_size).layers
    with evaluated(model.module), _recorded(layers) as outputs, torch.inference_mode():
        model.module(model.inputs(pixels))
        return {layer.name: _as_maps(layer, outputs[layer.name]) for layer in layers}


def features_before_head(
    model: TrainedModel, pixels: _Pixels, *, progress: Progress | None = None
) -> _Maps:
    """(N, D): the vectors from which the last layer makes its logits, or these where it is no
    linear one; from the cache where they were computed before."""
    head, seen = parts_of(model.module, model.image_size).head, list[Tensor]()

    def compute(block: _Pixels) -> Tensor:
        seen.clear()
        logits: Tensor = model.module(model.inputs(block))
        return seen[0] if seen else logits

    facts = {"features": "before the head", "model": model.recipe.to_dict()["model"]}
    key = key_of_network(model.module, model.normalisation, **facts)
    hooks = contextlib.ExitStack()
    if head is not None:
        hook = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        hooks.enter_context(hook)
    with hooks, evaluated(model.module):
        return kept_features(
            compute,
            pixels,
            key=key,
            num_features=len(model.class_names) if head is None else head.in_features,
            batch_size=gradient_batch(model.module, model.image_size),
            progress=progress,
        )


# -- where it looked -----------------------------------------------------------------------------


Method = Callable[..., _Maps]


def _in_batches(attribute: Callable[..., Tensor]) -> Method:
    """`attribute`, of normalised images and classes as tensors, for pixels and classes of NumPy."""

    @functools.wraps(attribute)
    def method(model: TrainedModel, pixels: _Pixels, classes: _Classes, **options: Any) -> _Maps:
        parts, size = [], gradient_batch(model.module, model.image_size)
        with evaluated(model.module):
            for start in range(0, len(pixels), size):
                inputs = model.inputs(pixels[start : start + size])
                target = torch.as_tensor(classes[start : start + size], device=inputs.device)
                found = attribute(model, inputs, target, **options)
                parts.append(found.sum(dim=1).detach().float().cpu().numpy())
        return np.concatenate(parts)

    return method


@_in_batches
def grad_cam(model: TrainedModel, inputs: Tensor, classes: Tensor) -> Tensor:
    """Where the deepest layer with maps found what speaks for `classes` (N,).

    Selvaraju et al. (2017, arXiv 1610.02391): the layer's maps, weighed by the mean gradient of the
    class's logit, where they are positive; enlarged to the image. Raises TenfoldError for a
    network without maps, such as a dense one.
    """
    layer = parts_of(model.module, model.image_size).last
    if layer is None:
        raise TenfoldError(
            f"A {model.recipe.model.name} network has no maps of where something is; ask for "
            "integrated gradients or occlusion instead."
        )
    as_maps = layer.as_maps or (lambda outputs: outputs)
    with _recorded([layer]) as outputs, torch.enable_grad():
        # So that there is a gradient even where no weight of the network learns.
        logits = model.module(inputs.requires_grad_(True))
        output = outputs[layer.name]
        [gradient] = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), output)
        maps, gradients = as_maps(output), as_maps(gradient)
        weights = gradients.mean(dim=(2, 3), keepdim=True)
        found = (weights * maps).sum(dim=1, keepdim=True).relu()
        return interpolate(found, model.image_size, mode="bilinear", align_corners=False)


@_in_batches
def integrated_gradients(
    model: TrainedModel, inputs: Tensor, classes: Tensor, *, steps: int = STEPS
) -> Tensor:
    """What each pixel adds to the logit of `classes`, on the way from the mean image.

    Sundararajan, Taly and Yan (2017, arXiv 1703.01365), by captum. The sum over an image is the
    logit less that of the mean image, up to the error of the integral.
    """
    found: Tensor = _captum("IntegratedGradients", model).attribute(
        inputs,
        target=classes,
        n_steps=steps,
        method="gausslegendre",
        internal_batch_size=max(gradient_batch(model.module, model.image_size), len(inputs)),
    )
    return found


@_in_batches
def occlusion(model: TrainedModel, inputs: Tensor, classes: Tensor) -> Tensor:
    """How much the logit of `classes` falls where a patch of the mean colour covers the image.

    Zeiler and Fergus (2014, arXiv 1311.2901), by captum; a pixel's value is the mean over the
    patches that cover it.
    """
    shorter = min(model.image_size)
    side = max(round(shorter * OCCLUDED_SHARE), 1)
    stride = max(round(shorter * OCCLUDED_STRIDE_SHARE), 1)
    with torch.no_grad():
        found: Tensor = _captum("Occlusion", model).attribute(
            inputs,
            target=classes,
            sliding_window_shapes=(3, side, side),
            strides=(3, stride, stride),
        )
    return found[:, :1]  # A patch covers all colours, so that each has the whole.


METHODS: dict[str, Method] = {
    "grad-cam": grad_cam,
    "integrated-gradients": integrated_gradients,
    "occlusion": occlusion,
}


def methods_for(model: TrainedModel) -> dict[str, Method]:
    """Those of METHODS that have something to say about the model: a dense one has no maps."""
    has_maps = parts_of(model.module, model.image_size).last is not None
    return {name: method for name, method in METHODS.items() if has_maps or name != "grad-cam"}


def randomisation_check(
    model: TrainedModel, pixels: _Pixels, classes: _Classes, method: Method, *, seed: int = 0
) -> float:
    """How alike the maps of the model and of itself with random weights are: the mean rank
    correlation of absolute values, 1 for the same order and around 0 for none.

    Maps that say something about what was learnt must change (Adebayo et al. 2018, arXiv
    1810.03292).
    """
    from scipy.stats import spearmanr

    maps = np.abs(method(model, pixels, classes))
    shuffled = dataclasses.replace(model, module=_shuffled(model.module, seed=seed))
    others = np.abs(method(shuffled, pixels, classes))
    pairs = zip(maps.reshape(len(maps), -1), others.reshape(len(maps), -1), strict=True)
    # A map of nothing is like no other.
    found = [spearmanr(*pair).statistic if min(map(np.ptp, pair)) > 0 else 0.0 for pair in pairs]
    return float(np.mean(found))


def _captum(method: str, model: TrainedModel) -> Any:
    try:
        import captum.attr
    except ImportError:
        raise missing_extra("Maps of what mattered need captum", "audit") from None
    return getattr(captum.attr, method)(model.module)


# -- what they share -----------------------------------------------------------------------------


def _as_maps(layer: Layer, output: Tensor) -> _Maps:
    maps = layer.as_maps(output) if layer.as_maps is not None else output
    return np.asarray(maps.float().cpu().numpy())


@contextlib.contextmanager
def _recorded(layers: Sequence[Layer]) -> Iterator[dict[str, Tensor]]:
    """The outputs of `layers` by name, as they are, once the network has run."""
    outputs: dict[str, Tensor] = {}

    def record(layer: Layer, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            raise TenfoldError(
                f"{layer.name} of this network gives several things at once, so it can't be "
                "looked into; use another network to see where it looks."
            )
        outputs[layer.name] = output
        # An activation in place would change what the layer said.
        return output.clone()

    with contextlib.ExitStack() as hooks:
        for layer in layers:
            hook = functools.partial(record, layer)
            hooks.enter_context(layer.module.register_forward_hook(hook))
        yield outputs


def _shuffled(module: nn.Module, *, seed: int) -> nn.Module:
    """With weights in another order within each tensor, so that their sizes stay plausible."""
    module, generator = copy.deepcopy(module), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            order = torch.randperm(parameter.numel(), generator=generator)
            mixed = parameter.detach().cpu().flatten()[order].view(parameter.shape)
            parameter.copy_(mixed.to(parameter.device))
    return module
