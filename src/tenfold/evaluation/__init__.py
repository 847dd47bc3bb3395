"""What a trained model does on pictures that it has not seen. Knows nothing of the training.

The names below are imported when first used, so that scoring a table of labels needs no torch.
"""

import importlib
from typing import Any

_HOMES = {
    "Predictions": "predictions",
    "TrainedModel": "trained",
    "compute_metrics": "metrics",
    "load_model": "trained",
    "load_predictions": "predictions",
    "predict_images": "predictions",
    "save_model": "trained",
    "save_predictions": "predictions",
    "score_submission": "submissions",
    "wilson_interval": "metrics",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tenfold.evaluation' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tenfold.evaluation.{_HOMES[name]}"), name)
