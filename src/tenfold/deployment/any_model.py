"""A model to predict with, by where it is: a run's folder, its weights alone, or an ONNX file."""

from pathlib import Path
from typing import Any, NamedTuple

from tenfold.errors import TenfoldError
from tenfold.evaluation.image_predictions import Model
from tenfold.run import open_run

FILES = (".onnx", ".safetensors")


def model_file(run: Path) -> Path:
    """The file of weights. Raises TenfoldError where there is no run or file, without torch."""
    if run.suffix not in FILES:
        return open_run(run).model
    if run.is_file():
        return run
    raise TenfoldError(f"There is no model {run}; check the path.")


class Loaded(NamedTuple):
    """A model, the confidence below which a prediction is unsure, and the probability from which on
    a class belongs to an image's set, where sets were asked for."""

    model: Model
    threshold: float = 0.0
    set_threshold: float | None = None

    def options(self) -> dict[str, Any]:
        """Both thresholds, as `predict_parts` takes them."""
        return {"threshold": self.threshold, "set_threshold": self.set_threshold}


def load_any(
    run: Path, *, accuracy: float | None = None, sets: float | None = None, threads: int | None
) -> Loaded:
    """The model that `run` names, and what was fitted for it.

    accuracy: 0.95 or 0.99, which the sure predictions are to have; None calls none unsure. sets:
    0.9, 0.95 or 0.99, which of the sets of classes are to hold the true one. threads: None takes
    all cores. Raises TenfoldError where the model can't be used, or promises no such thing.
    """
    if run.suffix == ".onnx":
        from tenfold.deployment.predictor import Predictor

        predictor = Predictor(run, threads=threads or 0, accuracy=accuracy, sets=sets)
        return Loaded(predictor, predictor.threshold, predictor.set_threshold)
    from tenfold.evaluation.calibration import fitted_of, set_threshold, why_unfitted
    from tenfold.evaluation.thresholds import confidence_for
    from tenfold.evaluation.trained import load
    from tenfold.training.process import prepare_process

    prepare_process(threads)
    model = load(run if run.suffix == ".safetensors" else open_run(run).path)
    if accuracy is None and sets is None:
        return Loaded(model)
    if (result := model.result) is None:
        remedy = "name the run's folder, or leave out --sets and --accuracy"
        raise TenfoldError(f"{run} alone has no thresholds; {remedy}.")
    threshold, fitted = 0.0, fitted_of(result)
    if accuracy is not None:
        known = [each.to_dict() for each in (fitted.thresholds if fitted else ())]
        threshold = confidence_for(known, accuracy, unfitted=why_unfitted(result))
    return Loaded(model, threshold, None if sets is None else set_threshold(result, sets))
