"""A run's predictions of a split: those that it saved if they are its own, else new ones."""

import logging

from tenfold.errors import TenfoldError
from tenfold.evaluation.evaluate import SPLITS, evaluate_run, open_split, use_of
from tenfold.evaluation.metrics import compare_labels
from tenfold.evaluation.predictions import Predictions, load_predictions, predict_images
from tenfold.evaluation.trained_on import count_trained_on
from tenfold.progress import Progress
from tenfold.results.runs import Metrics, read_result
from tenfold.run import RunFolder

logger = logging.getLogger("tenfold")


def predict_split(
    run: RunFolder,
    *,
    split: str,
    data: str | None = None,
    skip_broken: bool = False,
    progress: Progress | None = None,
) -> Predictions:
    """What `run` says of the pictures of `split`; nothing is written, and no accuracy shown.

    Arguments and errors are those of `evaluate_run`. The run's saved predictions are used where
    there are some, as `saved_predictions` finds them, and need no data.
    """
    saved = None if data is not None else saved_predictions(run, split)
    if saved is not None:
        logger.info("%s has the predictions already.", run.predictions(split))
        return saved
    opened = open_split(run, split=split, data=data, skip_broken=skip_broken, progress=progress)
    if number := count_trained_on(run, opened.images, own=opened.key in SPLITS):
        logger.warning("%s was trained on %d of the images of %s.", run.path, number, opened.key)
    return predict_images(opened.model, opened.images, progress=progress)


def recall_or_evaluate(
    run: RunFolder,
    *,
    split: str,
    data: str | None = None,
    skip_broken: bool = False,
    purpose: str,
    progress: Progress | None = None,
) -> Metrics:
    """Metrics as `evaluate_run` gives them, without computing again what the run has saved.

    Whoever asks for them sees them, so each use of a test split is written down here too.
    """
    if data is not None or saved_predictions(run, split) is None:
        return evaluate_run(
            run, split=split, data=data, skip_broken=skip_broken, purpose=purpose, progress=progress
        )
    with run.writer():
        result = read_result(run.result)
        metrics = result.splits[split]
        use = use_of(split, metrics.accuracy, purpose=purpose)
        result.with_use(use).write(run.result)
    return metrics


def saved_predictions(run: RunFolder, split: str) -> Predictions | None:
    """The predictions in the run folder, if they are those of the run's result; otherwise None.

    They are if they come to the same classes and the same confusion matrix.
    """
    if split not in SPLITS or not run.is_finished() or not run.predictions(split).exists():
        return None
    try:
        predictions = load_predictions(run.predictions(split))
        recorded = read_result(run.result).splits[split]
        names = [score.name for score in recorded.per_class]
        compared = compare_labels(predictions.labels, predictions.predicted, class_names=names)
        same = list(predictions.class_names) == names
        same = same and compared.confusion == recorded.confusion
        same = same and len(predictions.ids) == recorded.num_images
    except (TenfoldError, KeyError, TypeError, ValueError, IndexError):
        same = False
    if not same:
        logger.warning(
            "%s does not fit the run's result and is passed over.", run.predictions(split)
        )
    return predictions if same else None
