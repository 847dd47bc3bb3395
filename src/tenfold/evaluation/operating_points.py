"""A threshold by the wanted sensitivity: chosen on validation images, measured on others."""

from tenfold.errors import TenfoldError
from tenfold.evaluation.calibration import fitted_of, with_temperature
from tenfold.evaluation.evaluate import predict_split
from tenfold.evaluation.metrics import interval_of
from tenfold.evaluation.predictions import Predictions, load_predictions
from tenfold.evaluation.roc import Levels, levels_of, threshold_for
from tenfold.evaluation.thresholds import CERTAINTY, images_needed
from tenfold.progress import Progress
from tenfold.results.runs import OperatingPoint, Rates, read_result
from tenfold.run import RunFolder


def choose_operating_point(
    run: RunFolder,
    sensitivity: float,
    *,
    class_name: str | None = None,
    key: str = "test",
    progress: Progress | None = None,
) -> OperatingPoint:
    """The threshold that promises `sensitivity` for a class, kept in the run's result.

    class_name: None takes the second of two classes. key: the split of the run's results, evaluated
    before, on which the threshold is measured. Raises TenfoldError for a class that isn't there,
    and where the validation images are too few for the promise.
    """
    result = read_result(run.result)
    fitted = fitted_of(result)
    temperature = fitted.temperature if fitted else 1.0
    validation = predict_split(run, split="validation", progress=progress)
    name = _positive_class(validation.class_names, class_name)
    levels = _levels(validation, name, temperature)
    threshold = threshold_for(levels, sensitivity)
    if threshold is None:
        raise TenfoldError(
            f"No threshold can promise to find {100 * sensitivity:g} % of {name} from its "
            f"{levels.num_positive:,} validation images, where {images_needed(sensitivity):,} are "
            "the fewest that can; hold out more with data.validation_size, or ask for less."
        )
    splits = {"validation": rates_at(levels, threshold)}
    if key != "validation":
        measured = _levels(load_predictions(run.predictions(key)), name, temperature)
        splits[key] = rates_at(measured, threshold)
    point = OperatingPoint(
        class_name=name,
        sensitivity=sensitivity,
        threshold=threshold,
        temperature=temperature,
        splits=splits,
    )
    with run.writer():
        read_result(run.result).with_operating_point(point).write(run.result)
    return point


def rates_at(levels: Levels, threshold: float) -> Rates:
    """What it does to call images of a probability of `threshold` or more positive."""
    called = levels.scores >= threshold
    found, false = int(levels.positive[called].sum()), int(levels.negative[called].sum())
    num_positive, num_negative = levels.num_positive, levels.num_negative
    rejected = num_negative - false
    return Rates(
        num_positive=num_positive,
        num_negative=num_negative,
        sensitivity=found / num_positive if num_positive else None,
        sensitivity_interval=interval_of(found, num_positive),
        specificity=rejected / num_negative if num_negative else None,
        specificity_interval=interval_of(rejected, num_negative),
        precision=found / (found + false) if found + false else None,
    )


def sentence_of(point: OperatingPoint) -> str:
    """What it promises, in words."""
    return (
        f"{point.class_name} from a probability of {point.threshold:.4f} on: that finds "
        f"{100 * point.sensitivity:g} % of them with {100 * CERTAINTY:g} % certainty, as far as "
        "the validation images say"
    )


def _levels(predictions: Predictions, class_name: str, temperature: float) -> Levels:
    number = predictions.class_names.index(class_name)
    probabilities = with_temperature(predictions, temperature).probabilities[:, number]
    return levels_of(probabilities, predictions.labels == number)


def _positive_class(names: tuple[str, ...], asked: str | None) -> str:
    if asked is None and len(names) == 2:
        return names[1]
    if asked in names:
        return str(asked)
    known = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    found = (
        "Name the class that is to be found" if asked is None else f"There is no class {asked!r}"
    )
    raise TenfoldError(f"{found} with --class; the run knows {known}.")
