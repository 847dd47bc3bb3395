"""`tenfold predict` and `tenfold score`: images to labels, and labels to a score."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenfold.cli.options import (
    DataOption,
    JsonOption,
    ModelArgument,
    SkipBrokenOption,
    ThreadsOption,
    require_data,
    require_split,
)
from tenfold.console.output import Output
from tenfold.console.summaries import show_metrics
from tenfold.errors import TenfoldError, counted
from tenfold.formatting import percent

if TYPE_CHECKING:
    from tenfold.evaluation.picture_predictions import Model, PicturePrediction
    from tenfold.progress import Progress
    from tenfold.results.runs import LabelMetrics
    from tenfold.run import RunFolder

MAX_ROWS = 40
NUM_CONFUSIONS = 5

logger = logging.getLogger("tenfold")


@dataclass(frozen=True)
class Task:
    """What is predicted, and where it goes."""

    split: Annotated[
        str | None, typer.Option(help="Predict the run's test, validation or train instead.")
    ] = None
    csv: Annotated[Path | None, typer.Option(help="Write the predictions to this file.")] = None
    labels: Annotated[
        Path | None, typer.Option(help="With --csv: write the split's true labels there.")
    ] = None
    data: DataOption = None
    top: Annotated[int, typer.Option(min=1, help="Classes to name for each image.")] = 1
    accuracy: Annotated[
        int | None,
        typer.Option(
            help="95 or 99: mark as unsure what keeps so many in a hundred from being right."
        ),
    ] = None
    watch: Annotated[
        Path | None, typer.Option(help="Predict what comes into this folder, until Ctrl-C.")
    ] = None
    skip_broken: SkipBrokenOption = False
    threads: ThreadsOption = None


def predict(
    run: ModelArgument,
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(metavar="IMAGE|FOLDER", help="Image files, or folders of them."),
    ] = None,
    *,
    task: Task,
    as_json: JsonOption = False,
) -> None:
    """Name the class of images, or of a whole split as id,label for `tenfold score`.

    A split's file has the ids that `tenfold data export` gives, and no accuracy is shown. Without
    --csv a terminal shows the accuracy, and a use of the test split is written down; a pipe gets
    the lines of the file. Broken pictures are named and the others predicted; the exit status is
    then 1 unless they are to be skipped.
    """
    output = Output(as_json=as_json)
    if task.watch is not None:
        if pictures or task != Task(
            watch=task.watch, top=task.top, accuracy=task.accuracy, threads=task.threads
        ):
            raise TenfoldError(
                "--watch predicts what comes into its folder and writes lines; leave out images, "
                "--split, --csv, --labels, --data and --skip-broken."
            )
        _watch(output, run, task.watch, task)
        return
    from tenfold.files import require_place

    _require_one_task(pictures, task)
    for file in (task.csv, task.labels):
        require_place(file)
    if task.split is None:
        _predict_pictures(output, run, pictures or [], task)
        return

    from tenfold.run import finished_run

    require_split(task.split)
    require_data(task.data)
    folder = finished_run(run)

    from tenfold.training.process import prepare_process

    prepare_process(task.threads)
    options = {name: getattr(task, name) for name in ("split", "data", "skip_broken")}
    if task.csv is None and output.style == "rich":
        _show_split(output, folder, options)
    else:
        _write_split(output, folder, options, csv=task.csv, labels=task.labels)


def score(
    submission: Annotated[Path, typer.Argument(help="Predictions: a CSV file of id,label.")],
    labels: Annotated[Path, typer.Argument(help="The true labels: a CSV file of id,label.")],
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Count labels without a prediction as wrong.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Score a file of predictions by a file of true labels, joined by id.

    `tenfold data export cifar10 FOLDER` writes the labels of CIFAR-10 to FOLDER/testLabels.csv and
    FOLDER/trainLabels.csv; `tenfold predict --labels FILE` writes those of any split of a run.
    """
    from tenfold.evaluation.submissions import score_submission

    output = Output(as_json=as_json)
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


def _require_one_task(pictures: list[Path] | None, task: Task) -> None:
    has_split, csv, labels = task.split is not None, task.csv, task.labels
    wrong = {
        "Both images and --split were given; leave one of them out.": pictures and has_split,
        "Neither images nor --split were given; name image files or folders, or a split of the "
        "run's data such as --split test.": not pictures and not has_split,
        "--data belongs to a split; add --split test, or leave it out.": (
            task.data is not None and not has_split
        ),
        "--labels belongs to a split; add --split test, or leave it out.": labels and not has_split,
        "--top belongs to single images; leave it out, or leave out --split.": (
            has_split and task.top > 1
        ),
        "--labels goes with --csv, for `tenfold score`; add --csv FILE.": labels and not csv,
        f"--csv and --labels are both {csv}; give two files.": (
            labels and csv and labels.absolute() == csv.absolute()
        ),
        "--accuracy belongs to single images; leave it out, or leave out --split.": (
            has_split and task.accuracy is not None
        ),
    }
    for sentence, is_wrong in wrong.items():
        if is_wrong:
            raise TenfoldError(sentence)


def _show_split(output: Output, run: "RunFolder", options: dict[str, Any]) -> None:
    from tenfold.evaluation.split_predictions import recall_or_evaluate
    from tenfold.run import command_line

    with output.progress() as progress:
        metrics = recall_or_evaluate(run, **options, purpose=command_line(), progress=progress)
    _show_classes(output, metrics)
    show_metrics(output, options["split"], metrics)
    if options["split"] == "test":
        output.say("This look at the test split is written down in the run's result.json.")
    output.say("Add --csv FILE to write the predictions to a file.")


def _write_split(
    output: Output,
    run: "RunFolder",
    options: dict[str, Any],
    *,
    csv: Path | None,
    labels: Path | None,
) -> None:
    from tenfold.evaluation.calibration import fitted_of, with_temperature
    from tenfold.evaluation.split_predictions import predict_split
    from tenfold.evaluation.submissions import submission_ids, submission_text, write_submission
    from tenfold.results.runs import read_result

    with output.progress() as bars:
        # Without a file, standard output is the file, and has no room for progress.
        progress: Progress | None = bars if csv is not None else None
        predictions = predict_split(run, **options, progress=progress)
    names = predictions.class_names
    guesses = [names[index] for index in predictions.logits.argmax(axis=1)]
    if csv is not None:
        write_submission(csv, predictions.ids, guesses)
        output.record("written", csv=str(csv), num_images=len(guesses))
        output.say(f"{_predictions(len(guesses))} in {csv}.")
        if labels is not None:
            write_submission(labels, predictions.ids, [names[i] for i in predictions.labels])
            output.record("written", labels=str(labels), num_images=len(guesses))
            output.say(f"Their true labels are in {labels}.")
        return
    if output.style == "plain":
        output.say(submission_text(predictions.ids, guesses).rstrip("\n"))
    if (fitted := fitted_of(read_result(run.result))) is not None:
        predictions = with_temperature(predictions, fitted.temperature)
    likelihoods = predictions.probabilities.max(axis=1).tolist()
    ids = submission_ids(predictions.ids)
    for name, guess, likelihood in zip(ids, guesses, likelihoods, strict=True):
        output.record("prediction", id=name, label=guess, probability=likelihood)


def _predict_pictures(output: Output, run: Path, places: list[Path], task: Task) -> None:
    from tenfold.evaluation.picture_predictions import (
        find_pictures,
        predict_pictures,
        with_threshold,
    )

    _require_model(run)
    paths = find_pictures(places)
    model, threshold = _load_model(run, task.accuracy, task.threads)
    csv, top = task.csv, min(task.top, len(model.class_names))
    with output.progress() as bars:
        progress = bars if csv is not None or output.style == "rich" else None
        predictions = [
            with_threshold(prediction, threshold)
            for prediction in predict_pictures(model, paths, top=top, progress=progress)
        ]
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
        num_images = len(paths) - len(broken)
        output.record("written", csv=str(csv), num_images=num_images, num_broken=len(broken))
        output.say(f"{_predictions(num_images)} in {csv}.")
    if broken and not task.skip_broken:
        raise typer.Exit(1)


def _watch(output: Output, run: Path, folder: Path, task: Task) -> None:
    """A line for each image that comes into `folder`, until somebody ends it."""
    import contextlib

    from tenfold.evaluation.picture_predictions import watch_folder, with_threshold

    model, threshold = _load_model(run, task.accuracy, task.threads)
    top = min(task.top, len(model.class_names))
    with contextlib.suppress(KeyboardInterrupt):
        for prediction in watch_folder(model, folder, top=top):
            prediction = with_threshold(prediction, threshold)
            _record(output, prediction, top=top)
            guesses = ", ".join(
                f"{guess.label} ({percent(guess.probability)})" for guess in prediction.guesses
            )
            unsure = "unsure, perhaps " if prediction.is_unsure else ""
            output.say(f"{prediction.path}: {unsure}{guesses or prediction.error}")


def _require_model(run: Path) -> None:
    """Raise TenfoldError where there is no run or file of a model, before torch is imported."""
    if run.suffix not in (".onnx", ".safetensors"):
        from tenfold.run import open_run

        open_run(run)
    elif not run.is_file():
        raise TenfoldError(f"There is no model {run}; check the path.")


def _load_model(run: Path, accuracy: int | None, threads: int | None) -> tuple["Model", float]:
    """The model of a run or of a file, and the confidence below which it had better not answer."""
    share = accuracy / 100 if accuracy is not None else None
    if run.suffix == ".onnx":
        from tenfold.deployment.predictor import Predictor

        predictor = Predictor(run, threads=threads or 0, accuracy=share)
        return predictor, predictor.threshold
    from tenfold.evaluation.calibration import fitted_of, why_unfitted
    from tenfold.evaluation.thresholds import confidence_for
    from tenfold.evaluation.trained import load
    from tenfold.results.runs import read_result
    from tenfold.run import open_run
    from tenfold.training.process import prepare_process

    prepare_process(threads)
    if run.suffix == ".safetensors":
        if share is not None:
            raise TenfoldError(
                f"{run} alone has no thresholds; name the run's folder, or leave out --accuracy."
            )
        return load(run), 0.0
    folder, threshold = open_run(run), 0.0
    if share is not None:
        result = read_result(folder.result)
        fitted = fitted_of(result)
        known = [each.to_dict() for each in (fitted.thresholds if fitted else ())]
        threshold = confidence_for(known, share, unfitted=why_unfitted(result))
    return load(folder.path), threshold


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
    from tenfold.evaluation.submissions import table_text

    columns = ["id", "label", "probability"]
    for number in range(2, top + 1):
        columns += [f"label_{number}", f"probability_{number}"]
    rows = []
    for prediction in predictions:
        cells = [prediction.path]
        for guess in prediction.guesses:
            cells += [guess.label, f"{guess.probability:.6f}"]
        cells += [""] * (len(columns) - len(cells))
        rows.append([*cells, "yes" if prediction.is_unsure else "", prediction.error or ""])
    header = [*columns, "unsure", "error"]
    if not any(prediction.is_unsure for prediction in predictions):
        unsure = header.index("unsure")
        rows = [row[:unsure] + row[unsure + 1 :] for row in rows]
        header.remove("unsure")
    return table_text(header, rows)


def _predictions(number: int) -> str:
    return f"{counted(number, 'prediction')} {'is' if number == 1 else 'are'}"


def _show_classes(output: Output, metrics: "LabelMetrics") -> None:
    """Recall and precision of each class, and what was most often taken for what."""
    predicted = [sum(column) for column in zip(*metrics.confusion, strict=True)]
    output.table(
        "By class",
        ["class", "pictures", "recall", "predicted", "precision"],
        [
            [
                row.name,
                f"{row.num_images:,}",
                "no images" if row.recall is None else percent(row.recall),
                f"{number:,}",
                percent(row.precision or 0.0) if number else "-",
            ]
            for row, number in zip(metrics.per_class, predicted, strict=True)
        ],
    )
    if metrics.most_confused:
        output.table(
            "Most often confused",
            ["true", "predicted", "pictures", "of the class"],
            [
                [pair.true, pair.predicted, f"{pair.count:,}", percent(pair.share)]
                for pair in metrics.most_confused[:NUM_CONFUSIONS]
            ],
        )
