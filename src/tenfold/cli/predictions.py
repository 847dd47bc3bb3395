"""`tenfold predict` and `tenfold score`: images to labels, and labels to a score."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenfold.cli.image_predictions import predict_images, predictions_are, watch
from tenfold.cli.options import (
    DataOption,
    JsonOption,
    ModelArgument,
    PartOption,
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
    from tenfold.progress import Progress
    from tenfold.results.runs import LabelMetrics
    from tenfold.run import RunFolder

NUM_CONFUSIONS = 5


@dataclass(frozen=True)
class Task:
    """What is predicted, and where it goes."""

    split: Annotated[
        str | None, typer.Option(help="Predict the run's test, validation or train instead.")
    ] = None
    csv: Annotated[Path | None, typer.Option(help="Write the predictions to this file.")] = None
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the predictions of any number of images to this folder, in parts; run "
            "again, it goes on."
        ),
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

    def address(self) -> str | None:
        """The Ray cluster to predict on; None for this machine."""
        return self.cluster or os.environ.get("RAY_ADDRESS") if self.out else None


def predict(
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
    as_json: JsonOption = False,
) -> None:
    """Name the class of images, or of a whole split as id,label for `tenfold score`.

    A split's file has the ids that `tenfold data export` gives, and no accuracy is shown. Without
    --csv a terminal shows the accuracy, and a use of the test split is written down; a pipe gets
    the lines of the file. Broken pictures are named and the others predicted; the exit status is
    then 1 unless they are to be skipped. With --out the folder gets a file for every 10,000 images
    and a manifest.json; broken images have their reason in the column error, and the status is 0.
    """
    output = Output(as_json=as_json)
    if task.watch is not None:
        if pictures or task != Task(
            watch=task.watch, top=task.top, accuracy=task.accuracy, threads=task.threads
        ):
            raise TenfoldError(
                "--watch predicts what comes into its folder and writes lines; leave out images, "
                "--split, --csv, --out, --labels, --data and --skip-broken."
            )
        watch(output, run, task.watch, task)
        return
    from tenfold.files import require_place

    _require_one_task(pictures, task)
    for file in (task.csv, task.labels):
        require_place(file)
    if task.split is None:
        predict_images(output, run, pictures or [], task)
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


def _require_one_task(pictures: list[str] | None, task: Task) -> None:
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
        "--out belongs to images; leave it out, or leave out --split.": has_split and task.out,
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
    for sentence, is_wrong in wrong.items():
        if is_wrong:
            raise TenfoldError(sentence)


def _show_split(output: Output, run: "RunFolder", options: dict[str, Any]) -> None:
    from tenfold.evaluation.evaluate import evaluate_run
    from tenfold.run import command_line

    with output.progress() as progress:
        metrics = evaluate_run(
            run, **options, recall=True, purpose=command_line(), progress=progress
        )
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
    from tenfold.evaluation.evaluate import predict_split
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
        output.say(f"{predictions_are(len(guesses))} in {csv}.")
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
