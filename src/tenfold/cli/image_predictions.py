"""`tenfold predict` of single images: a table of a few, or a folder of parts of any number."""

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
    from tenfold.evaluation.prediction_parts import Predict, Settings
    from tenfold.progress import Progress

MAX_ROWS = 40

logger = logging.getLogger("tenfold")


def predict_images(output: Output, run: Path, places: list[str], task: "Task") -> None:
    """Predict single images as `task` says."""
    from tenfold.data.image_sources import find_parts
    from tenfold.deployment.any_model import model_file

    model_file(run)
    share = chosen_part(task.part)
    parts = find_parts(places)
    model, threshold = _load_model(run, task)
    if task.out is not None:
        _write_parts(output, run, places, task, parts, model, threshold, share)
        return
    from tenfold.evaluation.picture_predictions import predict_parts

    csv, top = task.csv, min(task.top, len(model.class_names))
    with output.progress() as bars:
        progress = bars if csv is not None or output.style == "rich" else None
        predictions = [
            prediction
            for _, some in predict_parts(
                model, parts, top=top, threshold=threshold, progress=progress
            )
            for prediction in some
        ]
    num_all = len(predictions)
    broken = [prediction for prediction in predictions if prediction.error is not None]
    for prediction in broken:
        logger.warning("%s can't be read as a picture: %s", prediction.path, prediction.error)
    if task.skip_broken:
        predictions = [prediction for prediction in predictions if prediction.error is None]
    if csv is None:
        _show_pictures(output, predictions, top=top)
    else:
        from tenfold.files import write_text

        write_text(csv, _pictures_text(predictions, top=top))
        num_images = num_all - len(broken)
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
    share: tuple[int, int] | None,
) -> None:
    """The predictions of any number of images in a folder; see `evaluation.prediction_parts`."""
    from tenfold.deployment.any_model import model_file
    from tenfold.evaluation.prediction_parts import (
        Manifest,
        Settings,
        Table,
        checksum_of,
        images_checksum,
        predict_to_folder,
    )

    assert task.out is not None
    settings = Settings(
        model_sha256=checksum_of(model_file(run)),
        temperature=getattr(model, "temperature", 1.0),
        threshold=None if task.accuracy is None else threshold,
        class_names=model.class_names,
        top=min(task.top, len(model.class_names)),
        file_format="parquet" if task.file_format == "parquet" else "csv",
        images_sha256=images_checksum(parts),
        num_parts=len(parts),
    )
    manifest = Manifest(model=str(run), images=tuple(places), settings=settings)

    def on_part(file: Path, table: Table) -> None:
        counts = {"num_images": table.num_images, "num_broken": table.num_broken}
        output.record("part", file=str(file), **counts)

    with output.progress() as progress:
        predict = _predict(run, task, model, settings, progress)
        manifest = predict_to_folder(
            predict, parts, task.out, manifest=manifest, share=share or (1, 1), on_part=on_part
        )
    done = manifest.finished
    output.record(
        "written", out=str(task.out), is_complete=manifest.is_complete, **done.model_dump()
    )
    if done.num_broken:
        logger.warning(
            "%s can't be read; the column error says why.", counted(done.num_broken, "image")
        )
    number = done.num_images - done.num_broken
    files = f"{done.num_parts:,} of {counted(len(parts), 'part')}"
    output.say(f"{predictions_are(number)} in {task.out} ({files}).")


def _predict(
    run: Path, task: "Task", model: "Model", settings: "Settings", progress: "Progress"
) -> "Predict":
    """How parts are predicted: here, or on a cluster."""
    if (address := task.address()) is None:
        from tenfold.evaluation.prediction_parts import predict_here

        return predict_here(model, settings, progress=progress)
    from tenfold.deployment.cluster_predictions import predict_on_cluster

    return predict_on_cluster(
        run, settings, address=address, jobs=task.jobs, threads=task.threads, progress=progress
    )


def watch(output: Output, run: Path, folder: Path, task: "Task") -> None:
    """A line for each image that comes into `folder`, until somebody ends it."""
    import contextlib

    from tenfold.evaluation.picture_predictions import watch_folder

    model, threshold = _load_model(run, task)
    top = min(task.top, len(model.class_names))
    with contextlib.suppress(KeyboardInterrupt):
        for prediction in watch_folder(model, folder, top=top, threshold=threshold):
            _record(output, prediction, top=top)
            guesses = ", ".join(
                f"{guess.label} ({percent(guess.probability)})" for guess in prediction.guesses
            )
            unsure = "unsure, perhaps " if prediction.is_unsure else ""
            output.say(f"{prediction.path}: {unsure}{guesses or prediction.error}")


def _load_model(run: Path, task: "Task") -> "tuple[Model, float]":
    from tenfold.deployment.any_model import load_any

    share = task.accuracy / 100 if task.accuracy is not None else None
    return load_any(run, accuracy=share, threads=task.threads)


def _show_pictures(output: Output, predictions: "list[PicturePrediction]", *, top: int) -> None:
    if output.style == "plain":
        output.say(_pictures_text(predictions, top=top).rstrip("\n"))
        return
    for prediction in predictions:
        _record(output, prediction, top=top)
    places = ["likeliest", *(f"{number}." for number in range(2, top + 1))]
    rows = []
    for prediction in predictions[:MAX_ROWS]:
        cells = [f"{guess.label} {percent(guess.probability)}" for guess in prediction.guesses]
        if prediction.is_unsure:
            cells[0] += " (unsure)"
        rows.append([prediction.path, *(cells or ["(broken)", *[""] * (top - 1)])])
    output.table("Predictions", ["picture", *places], rows)
    if len(predictions) > MAX_ROWS:
        output.say(f"{len(predictions) - MAX_ROWS:,} more: add --csv FILE to have all in a file.")


def _record(output: Output, prediction: "PicturePrediction", *, top: int) -> None:
    guesses = [guess._asdict() for guess in prediction.guesses]
    first = guesses[0] if guesses else {"label": None, "probability": None}
    more: dict[str, Any] = {"top": guesses} if top > 1 else {}
    if prediction.is_unsure:
        more["unsure"] = True
    output.record("prediction", id=prediction.path, **first, **more, error=prediction.error)


def _pictures_text(predictions: "list[PicturePrediction]", *, top: int) -> str:
    from tenfold.evaluation.picture_predictions import table_of
    from tenfold.evaluation.submissions import table_text

    has_unsure = any(prediction.is_unsure for prediction in predictions)
    return table_text(*table_of(predictions, top=top, has_unsure=has_unsure))


def predictions_are(number: int) -> str:
    """The beginning of a sentence: `1 prediction is`, `2 predictions are`."""
    return f"{counted(number, 'prediction')} {'is' if number == 1 else 'are'}"
