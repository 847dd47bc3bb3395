"""tenfold: train, compare and explain classifiers of small images.

The public names below are imported when first used, so that `import tenfold` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tenfold.evaluation.trained import TrainedModel

__version__ = "0.1.0"

_HOMES = {
    "Dataset": "tenfold.data",
    "Images": "tenfold.data",
    "Recipe": "tenfold.recipe",
    "TenfoldError": "tenfold.errors",
    "TrainOptions": "tenfold.training.train",
    "TrainedModel": "tenfold.evaluation.trained",
    "compute_metrics": "tenfold.evaluation.metrics",
    "evaluate_run": "tenfold.evaluation.evaluate",
    "fit": "tenfold.training.loop",
    "load_data": "tenfold.data",
    "load_recipe": "tenfold.recipe",
    "train": "tenfold.training.train",
    "write_report": "tenfold.reporting.page",
}

__all__ = sorted([*_HOMES, "load"])


def load(run: "str | Path") -> "TrainedModel":
    """The trained model of a run folder, or of a `model.safetensors`.

    Raises TenfoldError where there is no finished run or the file is damaged.
    """
    from pathlib import Path

    from tenfold.evaluation.trained import load_model

    path = Path(run)
    return load_model(path if path.suffix == ".safetensors" else path / "model.safetensors")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tenfold' has no attribute {name!r}")
    module = importlib.import_module(_HOMES[name])
    return getattr(module, "load" if name == "load_data" else name)


def __dir__() -> list[str]:
    return __all__
