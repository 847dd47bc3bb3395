"""`tenfold predict` and `tenfold score`: images to labels, and labels to a score."""

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenfold.cli.options import (
    DataOption,
    ModelArgument,
    PartOption,
    SkipBrokenOption,
    ThreadsOption,
    chosen_part,
    require_data,
    require_split,
)
from tenfold.console.output import Output
from tenfold.console.summaries import show_metrics
from tenfold.deployment.options import SetsOption
from tenfold.errors import TenfoldError, counted
from tenfold.formatting import percent

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

    split: Annotated[str | None, "Predict the run's test, validation or train instead."] = None
    csv: Annotated[Path | None, "Write the predictions to this file."] = None
    out: Annotated[
        Path | None,
        "Write the predictions of any number of images to this folder, in parts; run "
        "again, it goes on.",
    ] = None
    file_format: Annotated[
        str, typer.Option("--format", metavar="csv|parquet", help="Of the parts of --out.")
    ] = "csv"
    part: PartOption = None
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS|auto",
            help="With --out: on the nodes of this Ray cluster; RAY_ADDRESS does the same.",
        ),
    ] = None
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="With --cluster: models at once; as many as fit if not given."),
    ] = None
    labels: Annotated[Path | None, "With --csv: write the split's true labels there."] = None
    data: DataOption = None
    top: Annotated[int, typer.Option(min=1, help="Classes to name for each image.")] = 1
    accuracy: Annotated[
        int | None, "95 or 99: mark as unsure what keeps so many in a hundred from being right."
    ] = None
    sets: SetsOption = None
    watch: Annotated[Path | None, "Predict what comes into this folder, until Ctrl-C."] = None
    skip_broken: SkipBrokenOption = False
    threads: ThreadsOption = None

    def address(self) -> str | None:
        """The Ray cluster to predict on; None for this machine."""
        return self.cluster or os.environ.get("RAY_ADDRESS") if self.out else None


def predict(
    output: Output,
    run: ModelArgument,
    pictures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE|FOLDER",
            help="Image files, folders of them, lists (a .txt file of paths), parquet files and "
            "tar shards; by path, or by address such as s3://, gs:// and hf://.",
        ),
    ] = None,
    *,
    task: Task,
) -> None:
    """Name the class of images, or of a whole split as id,label for `tenfold score`.

    A split's file has the ids that `tenfold data export` gives, and no accuracy is shown. Without
    --csv a terminal shows the accuracy, and a use of the test split is written down; a pipe gets
    the lines of the file. Broken pictures are named and the others predicted; the exit status is
    then 1 unless they are to be skipped. With --out the folder gets a file for every 10,000 images
    and a manifest.json; broken images have their reason in the column error, and the status is 0.
    """
    from tenfold.files import require_place

    _require_one_task(pictures, task)
    for file in (task.csv, task.labels):
        require_place(file)
    if task.watch is not None:
        _watch(output, run, task.watch, task)
    elif task.out is not None:
        _write_parts(output, run, pictures or [], task, task.out)
    elif task.split is None:
        _predict_images(output, run, pictures or [], task)
    else:
        _predict_split(output, run, task, task.split)


def score(
    output: Output,
    submission: Annotated[Path, "Predictions: a CSV file of id,label."],
    labels: Annotated[Path, "The true labels: a CSV file of id,label."],
    allow_missing: Annotated[bool, "Count labels without a prediction as wrong."] = False,
) -> None:
    """Score a file of predictions by a file of true labels, joined by id.

    `tenfold data export cifar10 FOLDER` writes the labels of CIFAR-10 to FOLDER/testLabels.csv and
    FOLDER/trainLabels.csv; `tenfold predict --labels FILE` writes those of any split of a run.
    """
    from tenfold.evaluation.submissions import score_submission

    metrics = score_submission(submission, labels, allow_missing=allow_missing)
    output.record("score", submission=str(submission), labels=str(labels), **metrics.to_dict())
    low, high = metrics.accuracy_interval
    output.say(
        f"{submission}: {percent(metrics.accuracy, 2)} of "
        f"{counted(metrics.num_images, 'picture')} right "
        f"(95 % interval {percent(low)} to {percent(high)})",
        bold=True,
    )
    if metrics.num_missing:
        output.say(f"{metrics.num_missing:,} of them have no prediction and count as wrong.")
    _show_classes(output, metrics)


def _require_one_task(pictures: list[str] | None, task: Task) -> None:
    has_split, csv, labels = task.split is not None, task.csv, task.labels
    asked = {name: getattr(task, name) for name in ("watch", "top", "accuracy", "sets", "threads")}
    wrong = {
        "--watch predicts what comes into its folder and writes lines; leave out images, --split, "
        "--csv, --out, --labels, --data and --skip-broken.": task.watch
        and (pictures or task != Task(**asked)),
        "Both images and --split were given; leave one of them out.": pictures and has_split,
        "Neither images nor --split were given; name image files or folders, or a split of the "
        "run's data such as --split test.": not pictures and not has_split and not task.watch,
        "--labels goes with --csv, for `tenfold score`; add --csv FILE.": (
            has_split and labels and not csv
        ),
        f"--csv and --labels are both {csv}; give two files.": (
            labels and csv and labels.absolute() == csv.absolute()
        ),
        "Both --csv and --out were given; leave one of them out.": csv and task.out,
        "--skip-broken goes without --out, whose files hold the reason of each broken image in the "
        "column error; leave it out.": task.out and task.skip_broken,
        "--part, --format, --cluster and --jobs go with --out; add --out FOLDER.": not task.out
        and (task.part or task.cluster or task.jobs or task.file_format != "csv"),
        "--jobs goes with --cluster; add it, or leave --jobs out.": task.jobs
        and not task.address(),
        f"--format {task.file_format!r} is neither csv nor parquet; choose one of them.": (
            task.file_format not in ("csv", "parquet")
        ),
    }
    for name in ("data", "labels") if not has_split else ("top", "accuracy", "sets", "out"):
        sentence = f"--{name} belongs to images; leave it out, or leave out --split."
        if not has_split:
            sentence = f"--{name} belongs to a split; add --split test, or leave it out."
        wrong[sentence] = getattr(task, name) != getattr(Task, name)
    for sentence, is_wrong in wrong.items():
        if is_wrong:
            raise TenfoldError(sentence)
    chosen_part(task.part)


def _predict_split(output: Output, place: Path, task: Task, split: str) -> None:
    from tenfold.run import command_line, finished_run

    require_split(split)
    require_data(task.data)
    run = finished_run(place)

    from tenfold.evaluation.calibration import fitted_of, with_temperature
    from tenfold.evaluation.evaluate import evaluate_run, predict_split
    from tenfold.evaluation.submissions import submission_ids, submission_text, write_submission
    from tenfold.results.runs import read_result
    from tenfold.training.process import prepare_process

    prepare_process(task.threads)
    options: dict[str, Any] = {"split": split, "data": task.data, "skip_broken": task.skip_broken}
    if task.csv is None and output.style == "rich":
        with output.progress() as progress:
            metrics = evaluate_run(
                run, **options, recall=True, purpose=command_line(), progress=progress
            )
        _show_classes(output, metrics)
        show_metrics(output, split, metrics)
        if split == "test":
            output.say("This look at the test split is written down in the run's result.json.")
        output.say("Add --csv FILE to write the predictions to a file.")
        return
    with output.progress() as bars:
        # Without a file, standard output is the file, and has no room for progress.
        progress_of_file = bars if task.csv is not None else None
        predictions = predict_split(run, **options, progress=progress_of_file)
    names = predictions.class_names
    predicted = [names[index] for index in predictions.logits.argmax(axis=1)]
    if task.csv is not None:
        write_submission(task.csv, predictions.ids, predicted)
        output.record("written", csv=str(task.csv), num_images=len(predicted))
        output.say(f"{_predictions_are(len(predicted))} in {task.csv}.")
        if task.labels is not None:
            write_submission(task.labels, predictions.ids, [names[i] for i in predictions.labels])
            output.record("written", labels=str(task.labels), num_images=len(predicted))
            output.say(f"Their true labels are in {task.labels}.")
        return
    if output.style == "plain":
        output.say(submission_text(predictions.ids, predicted).rstrip("\n"))
    if (fitted := fitted_of(read_result(run.result))) is not None:
        predictions = with_temperature(predictions, fitted.temperature)
    probabilities = predictions.probabilities.max(axis=1).tolist()
    ids = submission_ids(predictions.ids)
    for name, label, probability in zip(ids, predicted, probabilities, strict=True):
        output.record("prediction", id=name, label=label, probability=probability)


def _show_classes(output: Output, metrics: "LabelMetrics") -> None:
    rows = []
    for row, column in zip(metrics.per_class, zip(*metrics.confusion, strict=True), strict=True):
        recall = "no images" if row.recall is None else percent(row.recall)
        precision = percent(row.precision or 0.0) if any(column) else "-"
        rows.append([row.name, f"{row.num_images:,}", recall, f"{sum(column):,}", precision])
    output.table("By class", ["class", "pictures", "recall", "predicted", "precision"], rows)
    confused = [
        [pair.true, pair.predicted, f"{pair.count:,}", percent(pair.share)]
        for pair in metrics.most_confused[:NUM_CONFUSIONS]
    ]
    if confused:
        columns = ["true", "predicted", "pictures", "of the class"]
        output.table("Most often confused", columns, confused)


def _predict_images(output: Output, run: Path, places: list[str], task: Task) -> None:
    from tenfold.evaluation.image_predictions import predict_parts
    from tenfold.files import write_text

    _, parts, loaded = _opened(run, places, task)
    csv, top = task.csv, min(task.top, len(loaded.model.class_names))
    with output.progress() as bars:
        progress = bars if csv is not None or output.style == "rich" else None
        predictions = [
            prediction
            for _, some in predict_parts(
                loaded.model, parts, top=top, progress=progress, **loaded.options()
            )
            for prediction in some
        ]
    broken = [prediction for prediction in predictions if prediction.error is not None]
    num_images = len(predictions) - len(broken)
    for prediction in broken:
        logger.warning("%s can't be read as a picture: %s", prediction.path, prediction.error)
    if task.skip_broken:
        predictions = [prediction for prediction in predictions if prediction.error is None]
    if csv is None:
        _show_images(output, predictions, loaded.model, top=top)
    else:
        write_text(csv, _images_text(predictions, loaded.model, top=top))
        output.record("written", csv=str(csv), num_images=num_images, num_broken=len(broken))
        output.say(f"{_predictions_are(num_images)} in {csv}.")
    if broken and not task.skip_broken:
        raise typer.Exit(1)


def _write_parts(output: Output, run: Path, places: list[str], task: Task, out: Path) -> None:
    from tenfold.evaluation import prediction_parts as parted

    file, parts, loaded = _opened(run, places, task)
    model = loaded.model
    settings = parted.Settings(
        model_sha256=parted.checksum_of(file),
        temperature=getattr(model, "temperature", 1.0),
        threshold=None if task.accuracy is None else loaded.threshold,
        set_threshold=loaded.set_threshold,
        operating_points=dict(loaded.model.operating_points),
        class_names=model.class_names,
        top=min(task.top, len(model.class_names)),
        file_format="parquet" if task.file_format == "parquet" else "csv",
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
            predict, parts, out, manifest=manifest, share=share, on_part=on_part
        )
    done, complete = manifest.finished, manifest.is_complete
    output.record("written", out=str(out), is_complete=complete, **done.model_dump())
    if done.num_broken:
        images = counted(done.num_broken, "image")
        logger.warning("%s can't be read; the column error says why.", images)
    files = f"{done.num_parts:,} of {counted(len(parts), 'part')}"
    output.say(f"{_predictions_are(done.num_images - done.num_broken)} in {out} ({files}).")


def _watch(output: Output, run: Path, folder: Path, task: Task) -> None:
    from tenfold.evaluation.image_predictions import watch_folder

    _, _, loaded = _opened(run, None, task)
    top = min(task.top, len(loaded.model.class_names))
    with contextlib.suppress(KeyboardInterrupt):
        for prediction in watch_folder(loaded.model, folder, top=top, **loaded.options()):
            _record(output, prediction, top=top)
            classes = (f"{label} ({percent(share)})" for label, share in prediction.guesses)
            unsure = "unsure, perhaps " if prediction.is_unsure else ""
            held = f"; set: {', '.join(prediction.conformal_set)}" * bool(prediction.conformal_set)
            held += f"; positive: {', '.join(prediction.positive)}" * bool(prediction.positive)
            output.say(f"{prediction.path}: {unsure}{', '.join(classes) or prediction.error}{held}")


def _opened(run: Path, places: list[str] | None, task: Task) -> "tuple[Path, list[Part], Loaded]":
    """The model's file, the images, and the model with its thresholds."""
    from tenfold.data.image_sources import find_parts
    from tenfold.deployment.any_model import load_any, model_file

    file, parts = model_file(run), [] if places is None else find_parts(places)
    accuracy, sets = (
        None if asked is None else asked / 100 for asked in (task.accuracy, task.sets)
    )
    return file, parts, load_any(run, accuracy=accuracy, sets=sets, threads=task.threads)


def _show_images(
    output: Output, predictions: "list[ImagePrediction]", model: "Model", *, top: int
) -> None:
    if output.style == "plain":
        output.say(_images_text(predictions, model, top=top).rstrip("\n"))
        return
    for prediction in predictions:
        _record(output, prediction, top=top)
    places = ["likeliest", *(f"{number}." for number in range(2, top + 1))]
    has_sets = any(prediction.conformal_set for prediction in predictions)
    rows = []
    for prediction in predictions[:MAX_ROWS]:
        cells = [f"{label} {percent(share)}" for label, share in prediction.guesses]
        if prediction.is_unsure:
            cells[0] += " (unsure)"
        held = [", ".join(prediction.conformal_set)] if has_sets else []
        held += [", ".join(prediction.positive)] if model.operating_points else []
        rows.append([prediction.path, *(cells or ["(broken)", *[""] * (top - 1)]), *held])
    more = [*["set"] * has_sets, *["positive"] * bool(model.operating_points)]
    output.table("Predictions", ["image", *places, *more], rows)
    if len(predictions) > MAX_ROWS:
        output.say(f"{len(predictions) - MAX_ROWS:,} more: add --csv FILE to have all in a file.")


def _record(output: Output, prediction: "ImagePrediction", *, top: int) -> None:
    likeliest = [guess._asdict() for guess in prediction.guesses]
    first = likeliest[0] if likeliest else {"label": None, "probability": None}
    more: dict[str, Any] = {"top": likeliest} if top > 1 else {}
    if prediction.is_unsure:
        more["unsure"] = True
    if prediction.conformal_set:
        more["set"] = list(prediction.conformal_set)
    if prediction.positive:
        more["positive"] = list(prediction.positive)
    output.record("prediction", id=prediction.path, **first, **more, error=prediction.error)


def _images_text(predictions: "list[ImagePrediction]", model: "Model", *, top: int) -> str:
    from tenfold.data.csv_tables import table_text
    from tenfold.evaluation.image_predictions import table_of

    columns = {
        "has_unsure": any(prediction.is_unsure for prediction in predictions),
        "has_sets": any(prediction.conformal_set for prediction in predictions),
        "has_points": bool(model.operating_points),
    }
    return table_text(*table_of(predictions, top=top, **columns))


def _predictions_are(number: int) -> str:
    """The beginning of a sentence: `1 prediction is`, `2 predictions are`."""
    return f"{counted(number, 'prediction')} {'is' if number == 1 else 'are'}"
