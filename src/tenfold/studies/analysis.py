"""A study's runs summed up in one file, summary.json: what tables, figures and pages read."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tenfold.evaluation.runs import END, Run
from tenfold.results.facts import finite
from tenfold.results.runs import Epoch, Training
from tenfold.results.studies import (
    Band,
    Curves,
    Estimate,
    Failure,
    Machine,
    Point,
    PublishedResult,
    StudySummary,
    VariantSummary,
    Verdict,
)
from tenfold.studies.comparisons import compare_with_baseline
from tenfold.studies.findings import describe_findings
from tenfold.studies.finished import StudyRuns, VariantRuns, read_study_runs
from tenfold.studies.planning import command_of
from tenfold.studies.statistics import summarise


def summarise_study(folder: Path) -> StudySummary:
    """What the runs in the study's `folder` show by now, also written to `folder/summary.json`.

    Curves have the mean, lowest and highest value of each epoch. Results are those on the test
    split, or on the validation split where the data has no test. Raises TenfoldError where there
    is no study in `folder`, or where a file of it is damaged.
    """
    study = read_study_runs(folder)
    summary = summarise_runs(study).model_copy(update={"command": command_of(folder)})
    summary.write(folder / "summary.json")
    return summary


def summarise_runs(study: StudyRuns) -> StudySummary:
    """The same of runs that were read before; raises TenfoldError where predictions can't be."""
    comparisons = compare_with_baseline(study)
    variants = tuple(_describe_variant(v, split=study.split) for v in study.variants)
    summary = StudySummary(
        name=study.plan.name,
        title=study.plan.title,
        question=study.plan.question,
        limits=study.plan.limits,
        baseline=study.plan.baseline or None,
        planned=sum(variant.num_planned for variant in study.variants),
        finished=len(study.runs),
        failed=len(study.failed),
        failures=tuple(Failure(trial=r.trial, error=r.error) for r in study.failed),
        **_describe_machines(study),
        variants=variants,
        comparisons=tuple(comparisons),
        findings=(),
    )
    findings = describe_findings(study, summary.variants, comparisons)
    return summary.model_copy(update={"findings": tuple(findings)})


def _describe_variant(variant: VariantRuns, *, split: str) -> VariantSummary:
    runs = [*variant.runs.values()]
    return VariantSummary(
        label=variant.label,
        recipe=variant.recipe.get("name"),
        model=variant.recipe.get("model", {}).get("name"),
        num_parameters=next((n for run in runs if (n := run.num_parameters)), None),
        planned_seeds=variant.num_planned,
        seeds=tuple(variant.runs),
        training_seconds=_summarise_times(runs, lambda t: t.training_seconds or t.wall_seconds),
        process_seconds=_summarise_times(runs, lambda t: t.process_seconds),
        points=(
            *(_describe_point(variant, epoch, split=split) for epoch in variant.milestones),
            _describe_point(variant, END, split=split),
        ),
        curves=_describe_curves(runs),
    )


def _summarise_times(
    runs: Sequence[Run], seconds: Callable[[Training], float | None]
) -> Estimate | None:
    found = [finite(seconds(run.training)) for run in runs if run.training]
    values = [value for value in found if value is not None]
    return summarise(values) if values else None


def _describe_point(variant: VariantRuns, epoch: int, *, split: str) -> Point:
    """A variant after `epoch`; beside it what is published for that, the highest if several."""
    test, validation = (_summarise_split(variant, name, epoch) for name in ("test", "validation"))
    last = variant.last_epoch
    wanted = {None, END, last} if epoch == END else {epoch}
    published = max(
        (entry for entry in variant.planned.published if entry.epoch in wanted),
        key=lambda entry: entry.accuracy,
        default=None,
    )
    point = Point(
        epoch=last if epoch == END else epoch,
        is_end=epoch == END,
        test=test,
        validation=validation,
        training_mode=_summarise_split(variant, split, epoch, in_training_mode=True),
        published=published
        and PublishedResult(
            accuracy=published.accuracy,
            source=published.source,
            settings=published.settings,
            training_mode=published.training_mode,
        ),
        verdict=None,
    )
    ours = test if split == "test" else validation
    ours = point.training_mode if published and published.training_mode else ours
    return point.model_copy(update={"verdict": judge(ours, published)})


def _summarise_split(
    variant: VariantRuns, split: str, epoch: int, *, in_training_mode: bool = False
) -> Estimate | None:
    found = variant.accuracies(split, epoch=epoch, in_training_mode=in_training_mode)
    return summarise([*found.values()], num_pictures=variant.num_images(split)) if found else None


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

    if not numbers:
        return None
    return Curves(
        epoch=tuple(numbers),
        train_accuracy=band(lambda epoch: epoch.train_accuracy),
        validation_accuracy=band(lambda epoch: epoch.validation_accuracy),
        train_loss=band(lambda epoch: epoch.train_loss),
        validation_loss=band(lambda epoch: epoch.validation_loss),
    )


def _describe_machines(study: StudyRuns) -> dict[str, Any]:
    """`machine`, or None and `machines` where there were several."""
    found = []
    for run in study.runs:
        machine = Machine.of(run.provenance)
        if machine not in found and machine != Machine(**dict.fromkeys(Machine.model_fields)):
            found.append(machine)
    if len(found) > 1:
        return {"machine": None, "machines": tuple(found)}
    return {"machine": found[0] if found else None}
