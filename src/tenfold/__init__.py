"""tenfold: train, compare and explain classifiers of small images.

The public names below are imported when first used, so that `import tenfold` costs nothing.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "Classifier": "tenfold.estimator",
    "Dataset": "tenfold.data",
    "Images": "tenfold.data",
    "Recipe": "tenfold.recipe",
    "Run": "tenfold.interactive",
    "TenfoldError": "tenfold.errors",
    "TrainOptions": "tenfold.training.train",
    "TrainedModel": "tenfold.evaluation.trained",
    "compute_metrics": "tenfold.evaluation.metrics",
    "evaluate_run": "tenfold.evaluation.evaluate",
    "find_lr": "tenfold.training.rate_finder",
    "fit": "tenfold.training.trainer",
    "load": "tenfold.evaluation.trained",
    "load_data": "tenfold.data",
    "load_recipe": "tenfold.recipe",
    "open_run": "tenfold.interactive",
    "train": "tenfold.interactive",
    "write_report": "tenfold.reporting.page",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tenfold' has no attribute {name!r}")
    module = importlib.import_module(_HOMES[name])
    return getattr(module, "load" if name == "load_data" else name)


def __dir__() -> list[str]:
    return __all__
