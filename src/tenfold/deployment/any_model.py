"""A model to predict with, by where it is: a run's folder, its weights alone, or an ONNX file."""

from pathlib import Path

from tenfold.errors import TenfoldError
from tenfold.evaluation.picture_predictions import Model
from tenfold.run import open_run

FILES = (".onnx", ".safetensors")


def model_file(run: Path) -> Path:
    """The file of weights. Raises TenfoldError where there is no run or file, without torch."""
    if run.suffix not in FILES:
        return open_run(run).model
    if run.is_file():
        return run
    raise TenfoldError(f"There is no model {run}; check the path.")


def load_any(run: Path, *, accuracy: float | None, threads: int | None) -> tuple[Model, float]:
    """The model, and the confidence below which a prediction is unsure.

    accuracy: 0.95 or 0.99, which the sure ones are to have; None calls none unsure. threads: None
    takes all cores. Raises TenfoldError where the model can't be used, or promises no such
    accuracy.
    """
    if run.suffix == ".onnx":
        from tenfold.deployment.predictor import Predictor

        predictor = Predictor(run, threads=threads or 0, accuracy=accuracy)
        return predictor, predictor.threshold
    from tenfold.evaluation.calibration import fitted_of, why_unfitted
    from tenfold.evaluation.thresholds import confidence_for
    from tenfold.evaluation.trained import load
    from tenfold.results.runs import read_result
    from tenfold.training.process import prepare_process

    prepare_process(threads)
    if run.suffix == ".safetensors":
        if accuracy is not None:
            raise TenfoldError(
                f"{run} alone has no thresholds; name the run's folder, or leave out --accuracy."
            )
        return load(run), 0.0
    folder, threshold = open_run(run), 0.0
    if accuracy is not None:
        result = read_result(folder.result)
        fitted = fitted_of(result)
        known = [each.to_dict() for each in (fitted.thresholds if fitted else ())]
        threshold = confidence_for(known, accuracy, unfitted=why_unfitted(result))
    return load(folder.path), threshold
