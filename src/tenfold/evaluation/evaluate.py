"""Evaluate a finished run on a split of its data or of other data, and write that down."""

from typing import Any, TypedDict

from tenfold.data import Dataset, Images, load
from tenfold.data.splits import evaluation_split
from tenfold.errors import TenfoldError
from tenfold.evaluation.metrics import compute_metrics
from tenfold.evaluation.predictions import predict_images, save_predictions
from tenfold.evaluation.trained import TrainedModel, load_model
from tenfold.files import read_json, write_json
from tenfold.progress import Progress
from tenfold.recipe import DataOptions
from tenfold.run import RunFolder, now

SPLITS = ("validation", "test", "train")


class SplitOptions(TypedDict):
    """The keywords that decide which picture is in which split."""

    train_size: int
    validation_size: float
    test_size: float
    seed: int


def evaluate_run(
    run: RunFolder,
    *,
    split: str = "test",
    data: str | None = None,
    purpose: str = "tenfold evaluate",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Metrics of `run` on `split`, which are also written into the run folder.

    data: name or path of another data set than the run's; classes are matched by name, and the
    result is kept beside the run's own, under `<split> of <data>`.
    Raises TenfoldError where the run has no weights yet, or the data no such split or classes.
    """
    model = load_model(run.model)
    options = model.recipe.data
    dataset = load(data or options.name, image_size=model.image_size[0], progress=progress)
    images = split_of(dataset, split, options, own=data is None)
    key = split if data is None else f"{split} of {dataset.name}"
    with run.writer():
        metrics = score_images(run, model, images, split=key, progress=progress)
        result = read_json(run.result) if run.result.exists() else {}
        record_metrics(result, key, metrics, purpose=purpose)
        write_json(run.result, result)
    return metrics


def split_of(dataset: Dataset, split: str, options: DataOptions, *, own: bool = True) -> Images:
    """The pictures of `split`, the same ones that training left out.

    own: whether this is the data that the run was trained on; other data keeps the splits it has,
    and data without splits is taken whole as its test.
    """
    if split not in SPLITS:
        raise TenfoldError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
    if own:
        return evaluation_split(dataset, split, **splitting(options))
    splits = dataset.splits()
    if split not in splits and len(splits) == 1:
        return dataset.train
    if split not in splits:
        raise TenfoldError(
            f"{dataset.name} has no {split} split; it has {', '.join(splits)}: choose with --split."
        )
    return splits[split]


def splitting(options: DataOptions) -> SplitOptions:
    """What a recipe says of splits, as the keywords of `tenfold.data.splits`."""
    return {
        "train_size": options.train_size,
        "validation_size": options.validation_size,
        "test_size": options.test_size,
        "seed": options.split_seed,
    }


def score_images(
    run: RunFolder,
    model: TrainedModel,
    images: Images,
    *,
    split: str,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Predict, save the predictions in the run folder and return the metrics."""
    predictions = predict_images(model, images, progress=progress)
    save_predictions(run.predictions(split), predictions)
    return compute_metrics(predictions)


def record_metrics(
    result: dict[str, Any], split: str, metrics: dict[str, Any], *, purpose: str
) -> None:
    """Put metrics into `result`; each use of a test split is listed with its purpose."""
    result.setdefault("splits", {})[split] = metrics
    if split.startswith("test"):
        use = {"time": now(), "split": split, "purpose": purpose, "accuracy": metrics["accuracy"]}
        result.setdefault("test_uses", []).append(use)
