"""A study's runs summed up in one file, summary.json: what tables, figures and pages read.

Numbers come first, then the sentences that these bear.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import counted
from tenfold.evaluation.predictions import load_predictions
from tenfold.evaluation.runs import END, Run
from tenfold.formatting import hundredths, listed, percent
from tenfold.results.facts import finite
from tenfold.results.runs import Epoch
from tenfold.results.studies import (
    VERDICTS,
    Band,
    Comparison,
    Curves,
    Estimate,
    Failure,
    Point,
    PublishedResult,
    StudySummary,
    VariantSummary,
    Verdict,
)
from tenfold.run import RunFolder
from tenfold.studies.definition import command_of
from tenfold.studies.finished import StudyRuns, VariantRuns, are_of_same_images, read_study_runs
from tenfold.studies.statistics import (
    describe_difference,
    has_fallen,
    holm,
    mcnemar_p,
    summarise,
    welch_difference,
)
from tenfold.studies.takeover import origin_of

OVERFITTING = 0.05
"""How far training accuracy must be above validation accuracy to be called overfitting."""

Rights = dict[int, tuple[NDArray[np.str_], NDArray[np.bool_]]]
"""By seed, ids (N,), sorted, and whether the image's prediction is right."""


def summarise_study(folder: Path) -> StudySummary:
    """What the runs in the study's `folder` show by now, also written to `folder/summary.json`.

    Curves have the mean, lowest and highest value of each epoch. Results are those on the test
    split, or on the validation split where the data has no test. Raises TenfoldError where there
    is no study in `folder`, or where a file of it is damaged.
    """
    summary = summarise_runs(read_study_runs(folder))
    summary = summary.model_copy(update={"command": command_of(folder)})
    summary.write(folder / "summary.json")
    return summary


def summarise_runs(study: StudyRuns) -> StudySummary:
    """The same of runs that were read before; raises TenfoldError where predictions can't be."""
    plan, machines = study.plan, study.machines
    summary = StudySummary(
        name=plan.name,
        title=plan.title,
        question=plan.question,
        limits=plan.limits,
        command=None,
        data=tuple(dict.fromkeys(_describe_data(run) for run in study.runs)),
        baseline=plan.baseline or None,
        planned=sum(variant.num_planned for variant in study.variants),
        finished=len(study.runs),
        failed=len(study.failed),
        failures=tuple(Failure(trial=r.trial, error=r.error) for r in study.failed),
        machine=machines[0] if len(machines) == 1 else None,
        variants=tuple(_describe_variant(v, split=study.split) for v in study.variants),
        comparisons=tuple(compare_with_baseline(study)),
        findings=(),
    )
    several = {"machines": machines} if len(machines) > 1 else {}
    findings = tuple(describe_findings(study, summary))
    return summary.model_copy(update={"findings": findings, **several})


def _describe_data(run: Run) -> str:
    """`cifar10: 45,000 training, 5,000 validation and 10,000 test images`."""
    names = {"train": "training"}
    sizes = [f"{n:,} {names.get(split, split)}" for split, n in run.data.splits.items() if n]
    return f"{run.data_name}: {listed(sizes)} images" if sizes else run.data_name


def _describe_variant(variant: VariantRuns, *, split: str) -> VariantSummary:
    runs = [*variant.runs.values()]
    times = [run.training for run in runs if run.training]
    return VariantSummary(
        label=variant.label,
        recipe=variant.recipe.get("name"),
        model=variant.recipe.get("model", {}).get("name"),
        num_parameters=next((n for run in runs if (n := run.num_parameters)), None),
        planned_seeds=variant.num_planned,
        seeds=tuple(variant.runs),
        training_seconds=_over_seeds([t.seconds for t in times]),
        process_seconds=_over_seeds([t.process_seconds for t in times]),
        points=tuple(_describe_point(variant, e, split=split) for e in (*variant.milestones, END)),
        curves=_describe_curves(runs),
    )


def _over_seeds(values: Sequence[float | None], num_images: int | None = None) -> Estimate | None:
    known = [value for value in map(finite, values) if value is not None]
    return summarise(known, num_images=num_images) if known else None


def _describe_point(variant: VariantRuns, epoch: int, *, split: str) -> Point:
    """A variant after `epoch`; beside it what is published for that, the highest if several."""

    def measured(split: str, *, in_training_mode: bool = False) -> Estimate | None:
        found = variant.accuracies(split, epoch=epoch, in_training_mode=in_training_mode)
        return _over_seeds([*found.values()], variant.num_images(split))

    last = variant.last_epoch
    wanted = {None, END, last} if epoch == END else {epoch}
    claims = [entry for entry in variant.planned.published if entry.epoch in wanted]
    published = max(claims, key=lambda entry: entry.accuracy, default=None)
    point = Point(
        epoch=last if epoch == END else epoch,
        is_end=epoch == END,
        test=measured("test"),
        validation=measured("validation"),
        training_mode=measured(split, in_training_mode=True),
        published=published and PublishedResult(**published.model_dump(exclude={"epoch"})),
        verdict=None,
    )
    point._split = split
    return point.model_copy(update={"verdict": judge(point.compared, published)})


def judge(ours: Estimate | None, published: PublishedResult | None) -> Verdict | None:
    """How a published accuracy stands to ours, in one of five verdicts; None without the two.

    Where not all settings are the source's, a lower result says nothing of it.
    """
    if ours is None or published is None:
        return None
    if ours.low > published.accuracy:
        return "beaten"
    if ours.mean >= published.accuracy:
        return "met"
    if ours.high >= published.accuracy:
        return "within the interval"
    return "below" if published.settings == "source" else "lower"


def _describe_curves(runs: Sequence[Run]) -> Curves | None:
    """The runs' logs epoch by epoch, over the seeds that have a value; None without a log."""
    logs = [{epoch.number: epoch for epoch in run.epochs} for run in runs]
    numbers = sorted({number for log in logs for number in log})

    def band(value_of: Callable[[Epoch], float | None]) -> Band:
        found = [[finite(value_of(log[n])) for log in logs if n in log] for n in numbers]
        known = [[value for value in values if value is not None] for values in found]
        return Band(
            mean=tuple(math.fsum(v) / len(v) if v else math.nan for v in known),
            low=tuple(min(v, default=math.nan) for v in known),
            high=tuple(max(v, default=math.nan) for v in known),
        )

    names = ("train_accuracy", "validation_accuracy", "train_loss", "validation_loss")
    bands = {name: band(attrgetter(name)) for name in names}
    return Curves(epoch=tuple(numbers), **bands) if numbers else None


def compare_with_baseline(study: StudyRuns) -> list[Comparison]:
    """Every other variant with predictions of the images that the baseline predicted, in order.

    Raises TenfoldError where predictions can't be read.
    """
    baseline = next((v for v in study.variants if v.label == study.plan.baseline), None)
    theirs = _rights(baseline, study.split) if baseline else {}
    if baseline is None or not theirs:
        return []
    pairs = []
    for variant in study.variants:
        runs = [*variant.runs.values(), *baseline.runs.values()]
        if variant is not baseline and are_of_same_images(runs):
            ours = _rights(variant, study.split)
            ids = [ids for ids, _ in (*ours.values(), *theirs.values())]
            if ours and all(np.array_equal(ids[0], others) for others in ids):
                pairs.append((variant, ours))
    tests = [welch_difference(_stacked(ours), _stacked(theirs)) for _, ours in pairs]
    corrected = holm([found.p for found in tests])
    comparisons = []
    for (variant, ours), found, p in zip(pairs, tests, corrected, strict=True):
        seed = min(set(ours) & set(theirs), default=None)
        sentence = describe_difference(
            found,
            variant=variant.label,
            baseline=baseline.label,
            p_holm=p,
            num_comparisons=len(tests),
        )
        comparison = Comparison(
            variant=variant.label,
            baseline=baseline.label,
            epoch=variant.last_epoch,
            p_holm=p,
            mcnemar_p=None if seed is None else mcnemar_p(ours[seed][1], theirs[seed][1]),
            sentence=sentence,
            **found.to_dict(),
        )
        comparisons.append(comparison)
    return comparisons


def _rights(variant: VariantRuns, split: str) -> Rights:
    """Of each seed whose run kept its predictions."""
    found = {}
    for seed, run in variant.runs.items():
        path, predictions = RunFolder(run.folder).predictions(split), run.answers.get(split)
        if predictions is None and path.exists():
            predictions = load_predictions(path)
        if predictions is not None:
            ids, first = np.unique(predictions.ids, return_index=True)
            found[seed] = ids, predictions.right[first]
    return found


def _stacked(rights: Rights) -> NDArray[np.bool_]:
    return np.stack([right for _, right in rights.values()])


def describe_findings(study: StudyRuns, summary: StudySummary) -> Iterator[str]:
    """Sentences on what came out best, what was published, epochs and overfitting.

    What is missing or did not reproduce, `reporting.story` says from the summary.
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
        codes = [run.provenance.code for run in variant.runs.values()]
        names = {name for code in codes for name, own in code.items() if own != codes[0].get(name)}
        if names:
            yield (
                f"The runs of {variant.label} were made by different versions of "
                f"{listed(sorted(names))}; train them again."
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
    over = f"over {counted(ours.n, 'seed')}"
    if ours.interval_over == "images":
        over = "from one seed; the interval is over the images"
    verb = "has" if len(ends) == 1 else "ends highest, with"
    yield f"{label} {verb} a {summary.split} accuracy of {ours.in_words}{after}, {over}."


def _describe_missing_comparisons(study: StudyRuns, summary: StudySummary) -> Iterator[str]:
    """Which differences could not be tested, and why."""
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
    elif not has_fallen(values, num_images=variant.num_images(study.split)):
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
    wide = [f"{hundredths(gaps[v])} points with {v}" for v in ordered if gaps[v] >= OVERFITTING]
    narrow = [label for label in gaps if 0 < gaps[label] < OVERFITTING]
    below = [label for label in gaps if gaps[label] <= 0]
    rest = f"; by less than {100 * OVERFITTING:.0f} points with {listed(narrow)}" if narrow else ""
    rest += f"; not with {listed(below)}" if below else ""
    if wide:
        yield (
            "Overfitting: at the end training accuracy is above validation accuracy by "
            f"{listed(wide)}{rest}."
        )
