"""What a network says of images, computed once and kept by what it depends on."""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tenfold.augment import batch_normalise
from tenfold.data.cache_folder import cache_folder
from tenfold.data.normalisation import Normalisation
from tenfold.errors import TenfoldError
from tenfold.evaluation.onnx_forward import BATCH, onnx_runtime, through_onnx
from tenfold.files import atomic_file
from tenfold.models import Pretrained
from tenfold.models.parts import evaluated
from tenfold.progress import Progress

FORMAT = 1
"""Of the files; a change of the arithmetic changes it."""

KEPT_TOGETHER = 2000
"""Images in a file, so that an interruption costs no more than their time."""

MOST_BYTES = 4_000_000_000
"""Of all features that are kept; those that were not asked for the longest go first."""

logger = logging.getLogger("tenfold")


def features_of(
    model: Pretrained,
    pixels: NDArray[np.uint8],
    normalisation: Normalisation,
    *,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Features `(N, D)` of images `(N, H, W, 3)` uint8, from the cache where they are there.

    They depend on the backbone's weights, the images, how they are brought to it, torch, timm, the
    kind of device and, on a processor for many images, on ONNX Runtime, if installed; on nothing
    else, so any run that asks for the same gets the same.
    """
    device = next(model.parameters()).device
    mean, std = (torch.tensor(values, device=device) for values in normalisation)

    engine = onnx_runtime(len(pixels), device)
    quick: list[Callable[[torch.Tensor], torch.Tensor] | None] = []

    def compute(block: NDArray[np.uint8]) -> torch.Tensor:
        inputs = batch_normalise(torch.from_numpy(np.array(block)).to(device), mean, std)
        if not quick:  # Once something is to be computed.
            resized = model.resized(inputs[:BATCH])
            quick.append(through_onnx(model.backbone, resized) if engine else None)
        return model.features(inputs, through=quick[0])

    key = key_of_network(
        model.backbone,
        normalisation,
        name=model.name,
        preprocessing=model.preprocessing,
        timm=metadata.version("timm"),
        **({"onnxruntime": engine} if engine else {}),
    )
    with evaluated(model):
        return kept_features(
            compute,
            pixels,
            key=key,
            num_features=model.num_features,
            batch_size=model.batch_size(100),
            progress=progress,
        )


def kept_features(
    compute: Callable[[NDArray[np.uint8]], torch.Tensor],
    pixels: NDArray[np.uint8],
    *,
    key: str,
    num_features: int,
    batch_size: int,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Features `(N, num_features)` as `compute` has them of a batch of `pixels` `(N, H, W, 3)`
    uint8, from the cache where they are there.

    key: of all besides the images that they depend on, see `key_of_network`.
    """
    features = np.empty((len(pixels), num_features), dtype=np.float32)
    folder = cache_folder() / "features" / key
    is_new, in_use = False, set[Path]()
    for first in range(0, len(pixels), KEPT_TOGETHER):
        part = pixels[first : first + KEPT_TOGETHER]
        digest = hashlib.sha256(str(part.shape).encode())
        digest.update(np.ascontiguousarray(part).data)
        path = folder / f"{digest.hexdigest()[:32]}.npy"
        found = _kept(path, (len(part), num_features))
        in_use.add(path)
        if found is None:
            found = features[first : first + len(part)]
            for start in range(0, len(part), batch_size):
                with torch.inference_mode():
                    seen = compute(part[start : start + batch_size])
                found[start : start + len(seen)] = seen.float().cpu().numpy()
                if progress is not None:
                    progress("features", first + start + len(seen), len(pixels))
            _keep(path, found)
            is_new = True
        features[first : first + len(part)] = found
    if is_new:
        _prune(folder.parent, in_use)
    return features


def _kept(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """The array in `path`, or None where there is none or it is damaged."""
    try:
        found: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if found.shape != shape or found.dtype != np.float32:
        return None
    with contextlib.suppress(OSError):
        path.touch()  # So that it is known when it was asked for.
    return found


def _keep(path: Path, features: NDArray[np.float32]) -> None:
    """Write the array, or say why it can't be; it is needed now in any case."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            np.save(file, features)
    except (OSError, TenfoldError) as error:
        logger.warning("Features are not kept for another time: %s", error)


def _prune(folder: Path, in_use: set[Path]) -> None:
    """Remove the files that were not asked for the longest, while there are more than MOST_BYTES of
    all; never those `in_use`."""
    with contextlib.suppress(OSError):
        files = {file: file.stat() for file in folder.rglob("*") if file.is_file()}
        total = sum(known.st_size for known in files.values())
        for file in sorted(files, key=lambda file: files[file].st_mtime):
            if total <= MOST_BYTES:
                return
            if file not in in_use:
                file.unlink(missing_ok=True)
                total -= files[file].st_size


def key_of_network(network: nn.Module, normalisation: Normalisation, **facts: Any) -> str:
    """A name for the network and what is done to its images. facts: what else decides."""
    facts |= {
        "format": FORMAT,
        "normalisation": normalisation,
        "torch": torch.__version__,
        "device": next(network.parameters()).device.type,
    }
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():  # And not how often a norm has seen a batch.
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
