"""What a study found, in sentences that its numbers bear."""

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from tenfold.errors import counted
from tenfold.evaluation.runs import END
from tenfold.formatting import listed, percent
from tenfold.results.studies import VERDICTS, StudySummary
from tenfold.run import RunFolder
from tenfold.studies.finished import StudyRuns, VariantRuns, are_of_same_images
from tenfold.studies.statistics import has_fallen
from tenfold.studies.takeover import origin_of

OVERFITTING = 0.05
"""How far training accuracy must be above validation accuracy to be called overfitting."""


def describe_findings(study: StudyRuns, summary: StudySummary) -> Iterator[str]:
    """Sentences on what came out best, what was published, epochs and overfitting.

    What is missing or did not reproduce, `reporting.study.story` says from the summary.
    """
    if not study.runs:
        yield "No run is finished, so there is nothing to compare."
        return
    if study.split == "validation":
        yield (
            "The data has no test split: every result here is of the validation images, which may "
            "have been used to choose among models."
        )
    for variant in study.variants:
        if not are_of_same_images([*variant.runs.values()]) and variant.runs:
            yield (
                f"The runs of {variant.label} saw different images, since their data were changed "
                "in between; train them again."
            )
    yield from _describe_best(summary)
    yield from _describe_missing_comparisons(study, summary)
    verdicts = Counter(claim.point.verdict for claim in summary.published)
    parts = [f"{verdicts[key]} {text}" for key, text in VERDICTS.items() if verdicts[key]]
    parts += [f"{verdicts[None]} not measured"] if verdicts[None] else []
    if parts:
        yield f"Of {counted(verdicts.total(), 'published result')}: {listed(parts)}."
    for variant in study.variants:
        yield from _describe_peak(study, variant)
    yield from _describe_overfitting(study)
    if num_reused := sum(origin_of(RunFolder(run.folder)) is not None for run in study.runs):
        was_or_were = "was" if num_reused == 1 else "were"
        yield (
            f"{num_reused:,} of {counted(len(study.runs), 'run')} {was_or_were} taken over from "
            "elsewhere, where recipe, seed and images were the same."
        )


def _describe_best(summary: StudySummary) -> Iterator[str]:
    ends = [(v.label, end, end.ours) for v in summary.variants if (end := v.end) and end.ours]
    if not ends:
        return
    label, point, ours = max(ends, key=lambda end: end[2].mean)
    epochs = {end.epoch for _, end, _ in ends}
    after = f" after {counted(point.epoch, 'epoch')}" if len(epochs) == 1 else ""
    over = counted(ours.n, "seed") if ours.interval_over == "seeds" else "images, one seed"
    verb = "has" if len(ends) == 1 else "ends highest, with"
    yield f"{label} {verb} a {summary.split} accuracy of {ours.in_words}{after}, over {over}."


def _describe_missing_comparisons(study: StudyRuns, summary: StudySummary) -> Iterator[str]:
    """Which differences could not be tested, or not on all images, and why."""
    for c in summary.comparisons:
        if c.num_images < c.num_own:
            yield (
                f"{c.variant} and {c.baseline} are compared on the {c.num_images:,} images that "
                f"all their runs predicted, of {c.num_own:,}."
            )
    finished = [variant.label for variant in study.variants if variant.runs]
    baseline = study.plan.baseline
    compared = {baseline, *(comparison.variant for comparison in summary.comparisons)}
    left_out = [label for label in finished if label not in compared]
    if baseline is None or len(finished) < 2 or not left_out:
        return
    if baseline not in finished:
        yield f"{baseline}, the baseline, has no finished run, so nothing is compared."
    else:
        yield (
            f"{listed(left_out)} can't be compared with {baseline}: their runs kept no "
            f"predictions of the same {study.split} images."
        )


def _describe_peak(study: StudyRuns, variant: VariantRuns) -> Iterator[str]:
    """Where the mean accuracy over the epochs is highest, and whether it has fallen since."""
    epochs = [*variant.milestones, END]
    by_epoch = [variant.accuracies(study.split, epoch=epoch) for epoch in epochs]
    seeds = sorted(set.intersection(*map(set, by_epoch)))
    if len(epochs) < 2 or not seeds:
        return
    values = np.array([[found[seed] for seed in seeds] for found in by_epoch])
    means = values.mean(axis=1)
    peak, last = int(means.argmax()), variant.last_epoch
    end = percent(means[-1])
    best = f"{variant.label} peaks at {percent(means[peak])} after {counted(epochs[peak], 'epoch')}"
    if peak == len(epochs) - 1:
        yield f"{variant.label} is still at its best after {counted(last, 'epoch')}, with {end}."
    elif not has_fallen(values, num_pictures=variant.num_images(study.split)):
        yield f"{best}; that it is at {end} after {last} may be chance."
    else:
        one = " in the one run there is" if len(seeds) == 1 else ""
        yield f"{best} and has fallen to {end} after {last}{one}: more epochs hurt."


def _describe_overfitting(study: StudyRuns) -> Iterator[str]:
    """By how much training accuracy ends above validation accuracy, the widest gap first."""
    gaps = {}
    for variant in study.variants:
        ends = [run.epochs[-1] for run in variant.runs.values() if run.epochs]
        found = [e.train_accuracy - v for e in ends if (v := e.validation_accuracy) is not None]
        if known := [gap for gap in found if math.isfinite(gap)]:
            gaps[variant.label] = math.fsum(known) / len(known)
    ordered = sorted(gaps, key=lambda label: -gaps[label])
    wide = [f"{100 * gaps[v]:.1f} points with {v}" for v in ordered if gaps[v] >= OVERFITTING]
    rest = [label for label in gaps if gaps[label] < OVERFITTING]
    less = f"; by less than {100 * OVERFITTING:.0f} points with {listed(rest)}" if rest else ""
    if wide:
        yield (
            "Overfitting: at the end training accuracy is above validation accuracy by "
            f"{listed(wide)}{less}."
        )
