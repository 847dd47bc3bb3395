"""Results in a few lines: runs, metrics, studies and data sets, in every style of output."""

from pathlib import Path
from typing import TYPE_CHECKING

from tenfold.console.output import Output
from tenfold.errors import counted
from tenfold.formatting import duration, interval, percent, power

if TYPE_CHECKING:
    from tenfold.data import Dataset
    from tenfold.results.runs import Ends, Metrics, OperatingPoint
    from tenfold.results.studies import Point, StudySummary, VariantSummary


def show_result(output: Output, run: Path) -> None:
    """What a finished run came to, split by split."""
    from tenfold.results.runs import Unfitted, read_provenance, read_result
    from tenfold.results.studies import computed_in

    result = read_result(run / "result.json")
    output.record("result", run=str(run), **result.to_dict())
    for split, metrics in result.splits.items():
        show_metrics(output, split, metrics)
    if isinstance(result.calibration, Unfitted):
        output.say(f"Its confidence stays as trained. {result.calibration.unfitted}")
    training, made = result.training, read_provenance(run / "provenance.json")
    if training.flop is not None and training.process_seconds is not None:
        output.say(
            f"Training took {power(training.flop)} counted FLOP and "
            f"{training.process_seconds:,.1f} core-seconds, in {computed_in(made)}."
        )
    output.say(f"The run is in {run}.")


def show_metrics(output: Output, split: str, metrics: "Metrics") -> None:
    """The accuracy on a split, with its interval."""
    low, high = metrics.accuracy_interval
    output.say(
        f"{split}: {percent(metrics.accuracy, 2)} of {counted(metrics.num_images, 'image')} "
        f"right (95 % interval {percent(low)} to {percent(high)}), loss {metrics.loss:.3f}",
        bold=split == "test",
    )
    if (share := metrics.accuracy_in_training_mode) is not None:
        output.say(f"{split}, with the network in training mode: {percent(share, 2)} accuracy")
    if number := metrics.num_trained_on:
        output.say(
            f"It was trained on {number:,} of them; what it gets right of those says little."
        )
    if unseen := [row.name for row in metrics.per_class if not row.num_images]:
        more = f" and {len(unseen) - 20} more" if len(unseen) > 20 else ""
        output.say(f"{split}: no images of {', '.join(unseen[:20])}{more}")


MAX_CLASSES = 20
"""That are shown one by one; of more, those of the least area under the curve."""


def show_classes(output: Output, split: str, metrics: "Metrics") -> None:
    """Sensitivity, specificity and the areas under the curves of each class, against the rest."""
    if metrics.macro_f1 is not None and metrics.balanced_accuracy is not None:
        output.say(
            f"{split}: macro F1 {percent(metrics.macro_f1)}, balanced accuracy "
            f"{percent(metrics.balanced_accuracy)}"
        )
    known = [row for row in metrics.per_class if row.auc is not None]
    left_out = len(known) - MAX_CLASSES
    names = {row.name for row in sorted(known, key=lambda row: row.auc or 0.0)[:MAX_CLASSES]}
    rows = [
        [
            row.name,
            f"{row.num_images:,}",
            with_interval(row.recall, row.recall_interval),
            with_interval(row.specificity, row.specificity_interval),
            with_interval(row.auc, row.auc_interval, as_share=False),
            f"{row.average_precision:.3f}",
        ]
        for row in known
        if row.name in names
    ]
    if rows:
        columns = ["class", "images", "sensitivity", "specificity", "AUC", "average precision"]
        output.table("Each class against the rest (95 % intervals)", columns, rows)
    if left_out > 0:
        output.say(f"{left_out:,} more classes have a larger AUC; the run's page shows all.")


def with_interval(value: float | None, ends: "Ends | None", *, as_share: bool = True) -> str:
    """`92.1 % (90.0 to 93.8 %)`, or `0.921 (0.900 to 0.938)`; a dash for None."""
    if as_share or value is None or ends is None:
        return percent(value) + (f" ({interval(*ends)})" if ends else "")
    return "{:.3f} ({:.3f} to {:.3f})".format(value, *ends)


def show_operating_point(output: Output, point: "OperatingPoint") -> None:
    """A threshold, and what it does on the images that it was chosen on and on others."""
    from tenfold.evaluation.operating_points import sentence_of

    output.record("operating_point", **point.to_dict())
    output.say(f"{sentence_of(point)}.", bold=True)
    rows = [
        [
            split,
            f"{rates.num_positive:,} of {rates.num_positive + rates.num_negative:,}",
            with_interval(rates.sensitivity, rates.sensitivity_interval),
            with_interval(rates.specificity, rates.specificity_interval),
            percent(rates.precision),
        ]
        for split, rates in point.splits.items()
    ]
    columns = ["split", f"{point.class_name}", "sensitivity", "specificity", "precision"]
    output.table("With that threshold", columns, rows)


def show_comparison(output: Output, runs: list[Path]) -> None:
    """Finished runs as rows of a table."""
    from tenfold.results.runs import read_result

    rows = []
    for run in runs:
        result = read_result(run / "result.json")
        output.record("result", run=str(run), **result.to_dict())
        test, seconds = result.splits["test"], result.training.seconds
        accuracy = [percent(test.accuracy), interval(*test.accuracy_interval)]
        parameters = f"{result.model.num_parameters:,}"
        rows.append([result.model.name, *accuracy, parameters, duration(seconds), str(run)])
    columns = ["model", "test accuracy", "95 % interval", "parameters", "training", "run"]
    output.table("Comparison", columns, rows)


def show_study(output: Output, summary: "StudySummary") -> None:
    """What a study came to: its variants beside published results, its findings, what is missing.

    Of a variant with milestones, those that there is a published result for are shown.
    """
    from tenfold.reporting import story

    output.record("summary", **summary.to_dict())
    columns = ["variant", "epochs", "runs", f"{summary.split} accuracy", "95 % interval", "time"]
    rows = [
        _study_row(variant, point)
        for variant in summary.variants
        for point in variant.points
        if point.is_end or point.published
    ]
    if summary.published:
        columns += ["published", "verdict"]
    planned, finished = summary.planned, summary.finished
    lost = f", {summary.failed} failed" if summary.failed else ""
    missing = f" (cut short: {finished} of {counted(planned, 'run')} finished{lost})"
    title = summary.title + (missing if finished < planned else "")
    output.table(title, columns, [row[: len(columns)] for row in rows])
    gaps = (*story.missing_parts(summary), *story.failures(summary))
    sentences = [comparison.sentence for comparison in summary.comparisons]
    for said in (*gaps, *summary.findings, story.not_reproduced(summary), *sentences):
        if said:
            output.say(said)


def _study_row(variant: "VariantSummary", point: "Point") -> list[str]:
    """What a variant reached at a milestone or at the end."""
    from tenfold.results.studies import VERDICTS

    found, published, seconds = point.ours, point.published, variant.training_seconds
    mode = point.training_mode
    also = f", in training mode {percent(mode.mean, 2)}" if mode else ""
    return [
        variant.label,
        str(point.epoch),
        f"{len(variant.seeds)} of {variant.planned_seeds}",
        percent(found.mean, 2) + also if found else "-",
        interval(found.low, found.high) if found else "-",
        duration(seconds.mean) if seconds and point.is_end else "-",
        percent(published.accuracy, 2) if published else "-",
        VERDICTS[point.verdict] if point.verdict else "-",
    ]


def show_dataset(output: Output, dataset: "Dataset") -> None:
    """Splits, classes, checksums and notes of a data set."""
    import numpy as np

    height, width = dataset.train.size
    splits, names = dataset.splits(), dataset.class_names
    output.record(
        "dataset",
        name=dataset.name,
        source=dataset.source,
        class_names=list(names),
        image_size=[height, width],
        splits={name: len(images) for name, images in splits.items()},
        checksums=dict(dataset.checksums),
        notes=list(dataset.notes),
    )
    output.say(f"{dataset.name}: {height}x{width} pixels, from {dataset.source}", bold=True)
    counts = [np.bincount(images.labels, minlength=len(names)) for images in splits.values()]
    rows = [*zip(names, *counts, strict=True), ("all", *(count.sum() for count in counts))]
    cells = [[name, *(f"{number:,}" for number in numbers)] for name, *numbers in rows]
    output.table("Images by class", ["class", *splits], cells)
    for name, checksum in dataset.checksums.items():
        output.say(f"SHA-256 of {name}: {checksum}")
    for note in dataset.notes:
        output.say(f"Note: {note}")
