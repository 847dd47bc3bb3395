"""What a study found, in sentences that its numbers bear."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfold.errors import counted
from tenfold.evaluation.runs import END
from tenfold.formatting import listed, percent
from tenfold.results.studies import Comparison, Estimate, Point, VariantSummary, Verdict
from tenfold.run import RunFolder
from tenfold.studies.finished import StudyRuns, VariantRuns
from tenfold.studies.statistics import has_fallen
from tenfold.studies.takeover import origin_of

OVERFITTING = 0.05
"""How far training accuracy must be above validation accuracy to be called overfitting."""


def describe_findings(
    study: StudyRuns, variants: Sequence[VariantSummary], comparisons: Sequence[Comparison]
) -> list[str]:
    """Sentences on what was run, what came out best, what was published, epochs and overfitting."""
    findings = [*_describe_gaps(study)]
    if not study.runs:
        return [*findings, "No run is finished, so there is nothing to compare."]
    if study.split == "validation":
        findings.append(
            "The data has no test split: every result here is of the validation pictures, which "
            "may have been used to choose among models."
        )
    findings += _describe_mixed_pictures(study)
    findings += _describe_best(study, variants)
    findings += _describe_missing_comparisons(study, comparisons)
    findings += _describe_published(variants)
    findings += [text for variant in study.variants if (text := _describe_peak(study, variant))]
    findings += _describe_overfitting(study)
    if num_reused := sum(origin_of(RunFolder(run.folder)) is not None for run in study.runs):
        was_or_were = "was" if num_reused == 1 else "were"
        findings.append(
            f"{num_reused:,} of {counted(len(study.runs), 'run')} {was_or_were} taken over from "
            "elsewhere, where recipe, seed and pictures were the same."
        )
    return findings


def _describe_gaps(study: StudyRuns) -> list[str]:
    """What was run of a study that is not whole, and what failed why."""
    planned = sum(variant.num_planned for variant in study.variants)
    if len(study.runs) == planned:
        return []
    short = [
        f"{variant.label} has {len(variant.runs) or 'none'} of "
        f"{counted(variant.num_planned, 'planned seed')}"
        for variant in study.variants
        if len(variant.runs) < variant.num_planned
    ]
    is_or_are = "is" if len(study.runs) == 1 else "are"
    failed = f" and {len(study.failed)} failed" if study.failed else ""
    findings = [
        f"This study was cut short: {len(study.runs)} of {counted(planned, 'planned run')} "
        f"{is_or_are} finished{failed}. {'; '.join(short)}."
    ]
    by_error: dict[str | None, list[str]] = {}
    for record in study.failed:
        by_error.setdefault(record.error, []).append(record.trial)
    findings += [f"{_first_of(trials)} failed: {error}" for error, trials in by_error.items()]
    return findings


def _describe_mixed_pictures(study: StudyRuns) -> list[str]:
    """Which runs were trained before or after their data were changed."""
    kinds: dict[tuple[Any, Any], dict[str, list[str]]] = {}
    for variant in study.variants:
        for seed, run in variant.runs.items():
            if checksums := run.data.checksums:
                chosen = variant.recipe.get("data", {})
                seen = kinds.setdefault((chosen.get("name"), chosen.get("image_size")), {})
                key = json.dumps(checksums, sort_keys=True)
                seen.setdefault(key, []).append(f"{variant.label}, seed {seed}")
    findings = []
    for (name, _), seen in kinds.items():
        *others, most = sorted(seen.values(), key=len)
        findings += [
            f"{_first_of(runs)} saw other pictures of {name} than {_first_of(most)}, so their "
            "results can't be compared; remove the folders of the older ones and repeat the study."
            for runs in others
        ]
    return findings


def _describe_best(study: StudyRuns, variants: Sequence[VariantSummary]) -> list[str]:
    ends = [(v.label, end, end.ours) for v in variants if (end := v.end) and end.ours]
    if not ends:
        return []
    label, point, ours = max(ends, key=lambda end: end[2].mean)
    epochs = {end.epoch for _, end, _ in ends}
    after = f" after {counted(point.epoch, 'epoch')}" if len(epochs) == 1 else ""
    right = f"right on {_with_interval(ours)} of the {study.split} pictures"
    if len(ends) == 1:
        return [f"{label} is {right}{after}."]
    return [f"{label} ends highest{after}, {right}."]


def _describe_missing_comparisons(study: StudyRuns, comparisons: Sequence[Comparison]) -> list[str]:
    """Which differences could not be tested, or not on all pictures, and why."""
    partial = [
        f"{c.variant} and {c.baseline} are compared on the {c.num_images:,} pictures that all "
        f"their runs answered, of {c.num_own:,}."
        for c in comparisons
        if c.num_images < c.num_own
    ]
    finished = [variant for variant in study.variants if variant.runs]
    expected = study.plan.baseline
    if expected is None or len(finished) < 2:
        return partial
    baseline = next((v for v in finished if v.label == expected), None)
    if baseline is None:
        return [f"{expected}, the baseline, has no finished run, so nothing is compared."]
    compared = {study.plan.baseline, *(comparison.variant for comparison in comparisons)}
    left_out = [variant.label for variant in finished if variant.label not in compared]
    if left_out:
        partial.append(
            f"{listed(left_out)} can't be compared with {expected}: their runs kept no "
            f"predictions of the same {study.split} pictures."
        )
    return partial


def _describe_published(variants: Sequence[VariantSummary]) -> list[str]:
    """How many published results are reached, and each one that is not."""
    claims = [(v, point) for v in variants for point in v.points if point.published]
    if not claims:
        return []
    verdicts = Counter(point.verdict for _, point in claims)
    words: dict[Verdict | None, str] = {
        "beaten": "beaten",
        "met": "met",
        "within the interval": "within the interval of ours",
        "below": "not reproduced",
        "lower": "above ours, whose settings are partly guessed",
        None: "not measured",
    }
    parts = [
        f"{verdicts[key]} {_is(verdicts[key])} {text}"
        for key, text in words.items()
        if verdicts[key]
    ]
    head = f"Of {len(claims)} published results, {listed(parts)}."
    if len(claims) == 1:
        head = f"The published result is {words[claims[0][1].verdict]}."
    return [
        head,
        *(_describe_miss(variant, point) for variant, point in claims if point.verdict == "below"),
    ]


def _describe_miss(variant: VariantSummary, point: Point) -> str:
    published, ours = point.published, point.compared
    assert published is not None
    assert ours is not None
    source = f" ({published.source})" if published.source else ""
    exact = f"{100 * published.accuracy:.2f}".rstrip("0").rstrip(".")
    return (
        f"The published {exact} % of {variant.label} after {counted(point.epoch, 'epoch')}"
        f"{source} does not reproduce: here it is {_with_interval(ours)}"
        f"{' in training mode' if published.training_mode else ''}."
    )


def _describe_peak(study: StudyRuns, variant: VariantRuns) -> str | None:
    """Where the mean accuracy over the epochs is highest, and whether it has fallen since.

    None where it was measured only once.
    """
    epochs = [*variant.milestones, END]
    by_epoch = [variant.accuracies(study.split, epoch=epoch) for epoch in epochs]
    seeds = sorted(set.intersection(*map(set, by_epoch)))
    if len(epochs) < 2 or not seeds:
        return None
    values = np.array([[found[seed] for seed in seeds] for found in by_epoch])
    means = values.mean(axis=1)
    peak, last = int(means.argmax()), variant.last_epoch
    if peak == len(epochs) - 1:
        after = counted(last, "epoch")
        return f"{variant.label} is still at its best after {after}, with {percent(means[-1])}."
    at_peak = (
        f"{variant.label} peaks at {percent(means[peak])} after {counted(epochs[peak], 'epoch')}"
    )
    if not has_fallen(values, num_pictures=variant.num_images(study.split)):
        return f"{at_peak}; that it is at {percent(means[-1])} after {last} may be chance."
    one = " in the one run there is" if len(seeds) == 1 else ""
    return f"{at_peak} and has fallen to {percent(means[-1])} after {last}{one}: more epochs hurt."


def _describe_overfitting(study: StudyRuns) -> list[str]:
    """By how much training accuracy ends above validation accuracy, the widest gap first."""
    gaps = {v.label: gap for v in study.variants if (gap := _gap(v)) is not None}
    wide = sorted(
        (label for label, gap in gaps.items() if gap >= OVERFITTING), key=gaps.__getitem__
    )
    if not wide:
        return []
    told = [f"{100 * gaps[label]:.1f} points with {label}" for label in reversed(wide)]
    rest = [label for label in gaps if label not in wide]
    less = f"; by less than {100 * OVERFITTING:.0f} points with {listed(rest)}" if rest else ""
    return [
        f"Overfitting: at the end training accuracy is above validation accuracy by "
        f"{listed(told)}{less}."
    ]


def _gap(variant: VariantRuns) -> float | None:
    """Training less validation accuracy in the last epoch, as the mean over seeds."""
    gaps = []
    for run in variant.runs.values():
        last = run.epochs[-1] if run.epochs else None
        if last and last.validation_accuracy is not None:
            gap = last.train_accuracy - last.validation_accuracy
            gaps += [gap] if math.isfinite(gap) else []
    return math.fsum(gaps) / len(gaps) if gaps else None


def _with_interval(found: Estimate) -> str:
    """`61.3 % (60.9 to 61.7 over 3 seeds)`."""
    over = f"{found.n} seeds" if found.interval_over == "seeds" else "pictures, one seed"
    low, high = f"{100 * found.low:.1f}", f"{100 * found.high:.1f}"
    return f"{percent(found.mean)} ({low} to {high} over {over})"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _first_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
