"""`tenfold predict` of single images: a table of a few, or a folder of parts of any number."""

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tenfold.cli.options import chosen_part
from tenfold.console.output import Output
from tenfold.errors import counted
from tenfold.formatting import percent

if TYPE_CHECKING:
    from tenfold.cli.predictions import Task
    from tenfold.data.image_sources import Part
    from tenfold.evaluation.picture_predictions import Model, PicturePrediction

MAX_ROWS = 40

logger = logging.getLogger("tenfold")


def predict_images(output: Output, run: Path, places: list[str], task: "Task") -> None:
    """Predict single images as `task` says."""
    from tenfold.data.image_sources import find_parts
    from tenfold.deployment.any_model import model_file
    from tenfold.evaluation.picture_predictions import predict_parts, with_threshold
    from tenfold.files import write_text

    model_file(run)
    parts = find_parts(places)
    model, threshold = _load_model(run, task)
    if task.out is not None:
        _write_parts(output, run, places, task, parts, model, threshold)
        return
    csv, top = task.csv, min(task.top, len(model.class_names))
    with output.progress() as bars:
        progress = bars if csv is not None or output.style == "rich" else None
        predictions = [
            with_threshold(prediction, threshold)
            for _, some in predict_parts(model, parts, top=top, progress=progress)
            for prediction in some
        ]
    broken = [prediction for prediction in predictions if prediction.error is not None]
    num_images = len(predictions) - len(broken)
    for prediction in broken:
        logger.warning("%s can't be read as a picture: %s", prediction.path, prediction.error)
    if task.skip_broken:
        predictions = [prediction for prediction in predictions if prediction.error is None]
    if csv is None:
        _show_images(output, predictions, top=top)
    else:
        write_text(csv, _images_text(predictions, top=top))
        output.record("written", csv=str(csv), num_images=num_images, num_broken=len(broken))
        output.say(f"{predictions_are(num_images)} in {csv}.")
    if broken and not task.skip_broken:
        raise typer.Exit(1)


def _write_parts(
    output: Output,
    run: Path,
    places: list[str],
    task: "Task",
    parts: "list[Part]",
    model: "Model",
    threshold: float,
) -> None:
    """The predictions of any number of images in a folder; see `evaluation.prediction_parts`."""
    from tenfold.deployment.any_model import model_file
    from tenfold.evaluation import prediction_parts as parted

    assert task.out is not None
    settings = parted.Settings(
        model_sha256=parted.checksum_of(model_file(run)),
        temperature=getattr(model, "temperature", 1.0),
        threshold=None if task.accuracy is None else threshold,
        class_names=model.class_names,
        top=min(task.top, len(model.class_names)),
        file_format=task.file_format,
        images_sha256=parted.images_checksum(parts),
        num_parts=len(parts),
    )
    manifest = parted.Manifest(model=str(run), images=tuple(places), settings=settings)

    def on_part(file: Path, table: parted.Table) -> None:
        counts = {"num_images": table.num_images, "num_broken": table.num_broken}
        output.record("part", file=str(file), **counts)

    with output.progress() as progress:
        if (address := task.address()) is None:
            predict = parted.predict_here(model, settings, progress=progress)
        else:
            from tenfold.deployment.cluster_predictions import predict_on_cluster

            jobs, threads = task.jobs, task.threads
            predict = predict_on_cluster(
                run, settings, address=address, jobs=jobs, threads=threads, progress=progress
            )
        share = chosen_part(task.part) or (1, 1)
        manifest = parted.predict_to_folder(
            predict, parts, task.out, manifest=manifest, share=share, on_part=on_part
        )
    done, complete = manifest.finished, manifest.is_complete
    output.record("written", out=str(task.out), is_complete=complete, **done.model_dump())
    if done.num_broken:
        images = counted(done.num_broken, "image")
        logger.warning("%s can't be read; the column error says why.", images)
    files = f"{done.num_parts:,} of {counted(len(parts), 'part')}"
    output.say(f"{predictions_are(done.num_images - done.num_broken)} in {task.out} ({files}).")


def watch(output: Output, run: Path, folder: Path, task: "Task") -> None:
    """A line for each image that comes into `folder`, until somebody ends it."""
    from tenfold.evaluation.picture_predictions import watch_folder, with_threshold

    model, threshold = _load_model(run, task)
    top = min(task.top, len(model.class_names))
    with contextlib.suppress(KeyboardInterrupt):
        for prediction in watch_folder(model, folder, top=top):
            prediction = with_threshold(prediction, threshold)
            _record(output, prediction, top=top)
            classes = (f"{label} ({percent(share)})" for label, share in prediction.guesses)
            unsure = "unsure, perhaps " if prediction.is_unsure else ""
            output.say(f"{prediction.path}: {unsure}{', '.join(classes) or prediction.error}")


def _load_model(run: Path, task: "Task") -> "tuple[Model, float]":
    from tenfold.deployment.any_model import load_any

    share = task.accuracy / 100 if task.accuracy is not None else None
    return load_any(run, accuracy=share, threads=task.threads)


def _show_images(output: Output, predictions: "list[PicturePrediction]", *, top: int) -> None:
    if output.style == "plain":
        output.say(_images_text(predictions, top=top).rstrip("\n"))
        return
    for prediction in predictions:
        _record(output, prediction, top=top)
    places = ["likeliest", *(f"{number}." for number in range(2, top + 1))]
    rows = []
    for prediction in predictions[:MAX_ROWS]:
        cells = [f"{label} {percent(share)}" for label, share in prediction.guesses]
        if prediction.is_unsure:
            cells[0] += " (unsure)"
        rows.append([prediction.path, *(cells or ["(broken)", *[""] * (top - 1)])])
    output.table("Predictions", ["picture", *places], rows)
    if len(predictions) > MAX_ROWS:
        output.say(f"{len(predictions) - MAX_ROWS:,} more: add --csv FILE to have all in a file.")


def _record(output: Output, prediction: "PicturePrediction", *, top: int) -> None:
    likeliest = [guess._asdict() for guess in prediction.guesses]
    first = likeliest[0] if likeliest else {"label": None, "probability": None}
    more: dict[str, Any] = {"top": likeliest} if top > 1 else {}
    if prediction.is_unsure:
        more["unsure"] = True
    output.record("prediction", id=prediction.path, **first, **more, error=prediction.error)


def _images_text(predictions: "list[PicturePrediction]", *, top: int) -> str:
    from tenfold.evaluation.picture_predictions import table_of
    from tenfold.evaluation.submissions import table_text

    has_unsure = any(prediction.is_unsure for prediction in predictions)
    return table_text(*table_of(predictions, top=top, has_unsure=has_unsure))


def predictions_are(number: int) -> str:
    """The beginning of a sentence: `1 prediction is`, `2 predictions are`."""
    return f"{counted(number, 'prediction')} {'is' if number == 1 else 'are'}"
