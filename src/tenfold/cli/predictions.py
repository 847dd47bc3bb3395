"""`tenfold predict` and `tenfold score`: images to labels, and labels to a score."""

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tenfold.cli import options as cli
from tenfold.console.output import Output
from tenfold.console.summaries import show_classes, show_metrics
from tenfold.deployment.options import SetsOption
from tenfold.errors import TenfoldError, counted
from tenfold.files import require_place, write_text
from tenfold.formatting import percent
from tenfold.run import RunFolder, command_line, finished_run

if TYPE_CHECKING:
    from tenfold.data.image_sources import Part
    from tenfold.deployment.any_model import Loaded
    from tenfold.evaluation.image_predictions import ImagePrediction, Model
    from tenfold.results.runs import LabelMetrics

NUM_CONFUSIONS = 5
MAX_ROWS = 40

logger = logging.getLogger("tenfold")


@dataclass(frozen=True)
class Task:
    """What is predicted, and where it goes."""

    split: Annotated[cli.Split | None, "Predict this split of the run's data instead."] = None
    csv: Annotated[Path | None, "Write the predictions to this file.", require_place] = None
    out: Annotated[
        Path | None,
        "Write the predictions of any number of images to this folder, in parts; run again, it "
        "goes on.",
    ] = None
    format: Annotated[Literal["csv", "parquet"], "Of the parts of --out."] = "csv"
    part: cli.PartOption = None
    cluster: Annotated[
        str | None,
        "With --out: on the nodes of this Ray cluster; RAY_ADDRESS does the same.",
        "ADDRESS|auto",
    ] = None
    jobs: Annotated[
        int | None, "With --cluster: models at once; as many as fit if not given.", cli.POSITIVE
    ] = None
    labels: Annotated[
        Path | None, "With --csv: write the split's true labels there.", require_place
    ] = None
    data: cli.DataOption = None
    top: Annotated[int, "Classes to name for each image.", cli.POSITIVE] = 1
    accuracy: Annotated[
        int | None, "95 or 99: mark as unsure what keeps so many in a hundred from being right."
    ] = None
    sets: SetsOption = None
    watch: Annotated[Path | None, "Predict what comes into this folder, until Ctrl-C."] = None
    skip_broken: cli.SkipBrokenOption = False
    threads: cli.ThreadsOption = None

    def address(self) -> str | None:
        """The Ray cluster to predict on; None for this machine."""
        return self.cluster or os.environ.get("RAY_ADDRESS") if self.out else None


GOES_WITH = (
    *(("data", "split"), ("labels", "split"), ("labels", "csv"), ("jobs", "cluster")),
    *(("part", "out"), ("format", "out"), ("cluster", "out")),
)
EXCLUDES = {
    "split": ("images", "top", "accuracy", "sets", "out"),
    "out": ("csv", "skip_broken"),
    "watch": ("images", "split", "csv", "out", "labels", "data", "skip_broken"),
}


def predict(
    output: Output,
    run: Annotated[
        Path,
        "A run folder such as runs/cnn/1, its model.safetensors, or an exported model.onnx.",
        "RUN",
    ],
    images: Annotated[
        list[str] | None,
        "Image files, folders of them, lists (a .txt file of paths), parquet files and tar shards; "
        "by path, or by address such as s3://, gs:// and hf://.",
        "IMAGE|FOLDER",
    ] = None,
    *,
    task: Task,
) -> None:
    """Name the class of images, or of a whole split as id,label for `tenfold score`.

    A split's file has the ids that `tenfold data export` gives, and no accuracy is shown. Without
    --csv a terminal shows the accuracy, and a use of the test split is written down; a pipe gets
    the lines of the file. Broken images are named and the others predicted; the exit status is
    then 1 unless they are to be skipped. With --out the folder gets a file for every 10,000 images
    and a manifest.json; broken images have their reason in the column error, and the status is 0.
    """
    _require_one_task(images, task)
    if task.watch is not None:
        _watch(output, run, task.watch, task)
    elif task.out is not None:
        _write_parts(output, run, images or [], task, task.out)
    elif task.split is None:
        _predict_images(output, run, images or [], task)
    elif task.csv is None and output.style == "rich":
        _show_score(output, finished_run(run), task, task.split)
    else:
        _predict_split(output, finished_run(run), task, task.split)


def _require_one_task(images: list[str] | None, task: Task) -> None:
    """Raise TenfoldError for options that don't go together."""
    given = {name for name, value in vars(task).items() if value != getattr(Task, name)}
    given |= {"images"} if images else set()
    given |= {"cluster"} if task.address() else set()
    shown = {name: f"--{name.replace('_', '-')}" for name in vars(task)} | {"images": "images"}
    if not given & {"images", "split", "watch"}:
        raise TenfoldError(
            "Neither images nor --split were given; name image files or folders, or a split of the "
            "run's data such as --split test."
        )
    for one, others in EXCLUDES.items():
        for other in others:
            if one in given and other in given:
                both = f"Both {shown[other]} and {shown[one]} were given"
                raise TenfoldError(f"{both}; leave one of them out.")
    for one, other in GOES_WITH:
        if one in given and other not in given:
            raise TenfoldError(f"{shown[one]} goes with {shown[other]}; add it, or leave it out.")
    if task.csv and task.labels and task.csv.absolute() == task.labels.absolute():
        raise TenfoldError(f"--csv and --labels are both {task.csv}; give two files.")


def _show_score(output: Output, run: RunFolder, task: Task, split: str) -> None:
    from tenfold.evaluation.evaluate import evaluate_run

    options: dict[str, Any] = {"data": task.data, "skip_broken": task.skip_broken, "recall": True}
    with cli.computing(output, task.threads) as progress:
        metrics = evaluate_run(
            run, split=split, **options, purpose=command_line(), progress=progress
        )
    show_metrics(output, split, metrics)
    show_classes(output, split, metrics)
    if split == "test":
        output.say("This look at the test split is written down in the run's result.json.")
    output.say("Add --csv FILE to write the predictions to a file.")


def _predict_split(output: Output, run: RunFolder, task: Task, split: str) -> None:
    from tenfold.evaluation.calibration import fitted_of, with_temperature
    from tenfold.evaluation.evaluate import predict_split
    from tenfold.evaluation.submissions import submission_ids, submission_text, write_submission
    from tenfold.results.runs import read_result

    with cli.computing(output, task.threads) as bars:
        # Without a file, standard output is the file, and has no room for progress.
        predictions = predict_split(
            run,
            split=split,
            data=task.data,
            skip_broken=task.skip_broken,
            progress=bars if task.csv else None,
        )
    names, ids = predictions.class_names, predictions.ids
    predicted = [names[index] for index in predictions.logits.argmax(axis=1)]
    if task.csv is not None:
        write_submission(task.csv, ids, predicted)
        _announce_file(output, len(ids), task.csv, csv=str(task.csv))
        if task.labels is not None:
            write_submission(task.labels, ids, [names[i] for i in predictions.labels])
            said, file = f"Their true labels are in {task.labels}.", str(task.labels)
            cli.announce(output, "written", said, labels=file, num_images=len(ids))
        return
    if output.style == "plain":
        output.say(submission_text(ids, predicted).rstrip("\n"))
    if (fitted := fitted_of(read_result(run.result))) is not None:
        predictions = with_temperature(predictions, fitted.temperature)
    probabilities = predictions.probabilities.max(axis=1).tolist()
    for name, label, probability in zip(submission_ids(ids), predicted, probabilities, strict=True):
        output.record("prediction", id=name, label=label, probability=probability)


def _announce_file(output: Output, number: int, place: Path, note: str = "", **values: Any) -> None:
    said = f"{counted(number, 'prediction')} {'is' if number == 1 else 'are'} in {place}{note}."
    cli.announce(output, "written", said, **{"num_images": number, **values})


def _open(run: Path, places: list[str], task: Task) -> "tuple[Path, list[Part], Loaded]":
    """The model's file, the images, and the model with its thresholds."""
    from tenfold.data.image_sources import find_parts
    from tenfold.deployment.any_model import load_any, model_file

    file, parts = model_file(run), [] if task.watch else find_parts(places)
    accuracy, sets = (None if each is None else each / 100 for each in (task.accuracy, task.sets))
    return file, parts, load_any(run, accuracy=accuracy, sets=sets, threads=task.threads)


def _predict_images(output: Output, run: Path, places: list[str], task: Task) -> None:
    from tenfold.data.csv_tables import table_text
    from tenfold.evaluation.image_predictions import predict_parts

    _, parts, loaded = _open(run, places, task)
    csv, top = task.csv, min(task.top, len(loaded.model.class_names))
    with output.progress() as bars:
        progress = bars if csv is not None or output.style == "rich" else None
        found = predict_parts(loaded.model, parts, top=top, progress=progress, **loaded.options())
        predictions = [prediction for _, some in found for prediction in some]
    if not predictions:
        raise TenfoldError(f"There are no images in {', '.join(places)}; check the path.")
    sound = [prediction for prediction in predictions if prediction.error is None]
    num_broken = len(predictions) - len(sound)
    for prediction in predictions:
        if prediction.error is not None:
            logger.warning("%s can't be read as an image: %s", prediction.path, prediction.error)
    shown = sound if task.skip_broken else predictions
    columns, rows = _table(shown, loaded.model, task, top=top)
    if csv is not None:
        write_text(csv, table_text(columns, rows))
        _announce_file(output, len(sound), csv, csv=str(csv), num_broken=num_broken)
    elif output.style == "plain":
        output.say(table_text(columns, rows).rstrip("\n"))
    else:
        for prediction in shown:
            _record(output, prediction, top=top)
        output.table("Predictions", columns, rows[:MAX_ROWS])
        if len(rows) > MAX_ROWS:
            output.say(f"{len(rows) - MAX_ROWS:,} more: add --csv FILE to have all in a file.")
    if num_broken and not task.skip_broken:
        raise typer.Exit(1)


def _table(
    predictions: "list[ImagePrediction]", model: "Model", task: Task, *, top: int
) -> tuple[list[str], list[list[str]]]:
    from tenfold.evaluation.image_predictions import table_of

    return table_of(
        predictions,
        top=top,
        has_unsure=task.accuracy is not None,
        has_sets=task.sets is not None,
        has_points=bool(model.operating_points),
    )


def _record(output: Output, prediction: "ImagePrediction", *, top: int) -> None:
    likeliest = [each._asdict() for each in prediction.likeliest]
    first = likeliest[0] if likeliest else {"label": None, "probability": None}
    more = {
        "top": likeliest if top > 1 else [],
        "unsure": prediction.is_unsure,
        "set": prediction.conformal_set,
        "positive": prediction.positive,
    }
    more = {name: value for name, value in more.items() if value}
    output.record("prediction", id=prediction.path, **first, **more, error=prediction.error)


def _watch(output: Output, run: Path, folder: Path, task: Task) -> None:
    from tenfold.evaluation.image_predictions import watch_folder

    _, _, loaded = _open(run, [], task)
    top = min(task.top, len(loaded.model.class_names))
    with contextlib.suppress(KeyboardInterrupt):
        for prediction in watch_folder(loaded.model, folder, top=top, **loaded.options()):
            _record(output, prediction, top=top)
            columns, [row] = _table([prediction], loaded.model, task, top=top)
            cells = zip(columns[1:], row[1:], strict=True)
            output.say(f"{row[0]}: {', '.join(f'{name} {cell}' for name, cell in cells if cell)}")


def _write_parts(output: Output, run: Path, places: list[str], task: Task, out: Path) -> None:
    from tenfold.evaluation import prediction_parts as parted

    file, parts, loaded = _open(run, places, task)
    model = loaded.model
    settings = parted.Settings(
        model_sha256=parted.checksum_of(file),
        temperature=getattr(model, "temperature", 1.0),
        threshold=None if task.accuracy is None else loaded.threshold,
        set_threshold=loaded.set_threshold,
        operating_points=dict(model.operating_points),
        class_names=model.class_names,
        top=min(task.top, len(model.class_names)),
        file_format=task.format,
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
        share = cli.chosen_part(task.part) or (1, 1)
        manifest = parted.predict_to_folder(
            predict, parts, out, manifest=manifest, share=share, on_part=on_part
        )
    done = manifest.finished
    if done.num_broken:
        broken = counted(done.num_broken, "image")
        logger.warning("%s can't be read; the column error says why.", broken)
    files = f" ({done.num_parts:,} of {counted(len(parts), 'part')})"
    counts = {"is_complete": manifest.is_complete, **done.model_dump()}
    _announce_file(output, done.num_images - done.num_broken, out, files, out=str(out), **counts)


def score(
    output: Output,
    submission: Annotated[Path, "Predictions: a CSV file of id,label."],
    labels: Annotated[Path, "The true labels: a CSV file of id,label."],
    *,
    allow_missing: Annotated[bool, "Count labels without a prediction as wrong."] = False,
) -> None:
    """Score a file of predictions by a file of true labels, joined by id.

    `tenfold data export cifar10 FOLDER` writes the labels of CIFAR-10 to FOLDER/testLabels.csv and
    FOLDER/trainLabels.csv; `tenfold predict --labels FILE` writes those of any split of a run.
    """
    from tenfold.evaluation.submissions import score_submission

    metrics = score_submission(submission, labels, allow_missing=allow_missing)
    low, high = metrics.accuracy_interval
    said = (
        f"{submission}: an accuracy of {percent(metrics.accuracy, 2)} on "
        f"{counted(metrics.num_images, 'image')} (95 % interval {percent(low)} to {percent(high)})"
    )
    files = {"submission": str(submission), "labels": str(labels)}
    cli.announce(output, "score", said, bold=True, **files, **metrics.to_dict())
    if metrics.num_missing:
        output.say(f"{metrics.num_missing:,} of them have no prediction and count as wrong.")
    _show_classes(output, metrics)


def _show_classes(output: Output, metrics: "LabelMetrics") -> None:
    rows = []
    for row, column in zip(metrics.per_class, zip(*metrics.confusion, strict=True), strict=True):
        recall = "no images" if row.recall is None else percent(row.recall)
        precision = percent(row.precision or 0.0) if any(column) else "-"
        rows.append([row.name, f"{row.num_images:,}", recall, f"{sum(column):,}", precision])
    output.table("By class", ["class", "images", "recall", "predicted", "precision"], rows)
    if confused := metrics.most_confused[:NUM_CONFUSIONS]:
        columns = ["true", "predicted", "images", "of the class"]
        pairs = [[p.true, p.predicted, f"{p.count:,}", percent(p.share)] for p in confused]
        output.table("Most often confused", columns, pairs)
