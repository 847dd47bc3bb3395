"""What a frozen network says of pictures, computed once and kept by what it depends on."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tenfold.augment import batch_normalise
from tenfold.data.cache_folder import cache_folder
from tenfold.data.normalisation import Normalisation
from tenfold.files import atomic_file
from tenfold.models import Pretrained
from tenfold.progress import Progress

FORMAT = 1
"""Of the files; a change of the arithmetic changes it."""


def features_of(
    model: Pretrained,
    pixels: NDArray[np.uint8],
    normalisation: Normalisation,
    *,
    batch_size: int = 100,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Features `(N, D)` of pictures `(N, H, W, 3)` uint8, from the cache where they are there.

    They depend on the backbone's weights, the pictures and how they are brought to it, and on
    nothing else, so any run that asks for the same gets the same. Raises TenfoldError where the
    cache can't be written.
    """
    path = cache_folder() / "features" / f"{_key(model, pixels, normalisation)}.npy"
    found = _kept(path, (len(pixels), model.backbone.num_features))
    if found is not None:
        return found
    features = _compute(model, pixels, normalisation, batch_size=batch_size, progress=progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        np.save(file, features)
    return features


def _kept(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """The array in `path`, or None where there is none or it is damaged."""
    try:
        found: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    sound = found.shape == shape and found.dtype == np.float32
    return found if sound else None


def _compute(
    model: Pretrained,
    pixels: NDArray[np.uint8],
    normalisation: Normalisation,
    *,
    batch_size: int,
    progress: Progress | None,
) -> NDArray[np.float32]:
    device = next(model.parameters()).device
    mean, std = (torch.tensor(values, device=device) for values in normalisation)
    features = np.empty((len(pixels), model.backbone.num_features), dtype=np.float32)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(pixels), batch_size):
            block = torch.from_numpy(np.array(pixels[start : start + batch_size])).to(device)
            found = model.features(batch_normalise(block, mean, std))
            features[start : start + batch_size] = found.float().cpu().numpy()
            if progress is not None:
                progress("features", min(start + batch_size, len(pixels)), len(pixels))
    model.train(was_training)
    return features


def _key(model: Pretrained, pixels: NDArray[np.uint8], normalisation: Normalisation) -> str:
    """A name for the features that nothing else has."""
    digest = hashlib.sha256()
    facts = {
        "format": FORMAT,
        "network": model.name,
        "preprocessing": model.preprocessing,
        "normalisation": normalisation,
        "shape": pixels.shape,
    }
    digest.update(json.dumps(facts).encode())
    for name, tensor in model.backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for start in range(0, len(pixels), 1000):
        digest.update(np.ascontiguousarray(pixels[start : start + 1000]).data)
    return digest.hexdigest()
