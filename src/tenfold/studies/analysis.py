"""A study's runs summed up in one file, summary.json: what tables, figures and pages read."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tenfold.evaluation.metrics import IN_TRAINING_MODE
from tenfold.files import write_json
from tenfold.studies.comparisons import compare_with_baseline
from tenfold.studies.findings import describe_findings
from tenfold.studies.plan import command_of
from tenfold.studies.statistics import Summary, summarise
from tenfold.studies.study_runs import (
    END,
    FinishedRun,
    StudyRuns,
    VariantRuns,
    finite,
    read_study_runs,
)

CURVES = ("train_accuracy", "validation_accuracy", "train_loss", "validation_loss")


def summarise_study(folder: Path) -> dict[str, Any]:
    """What the runs in the study's `folder` show by now, also written to `folder/summary.json`.

    Accuracies are shares, times seconds. Each summary of values over seeds has their mean, sd,
    low, high, n and values; curves have the mean, lowest and highest value of each epoch. Results
    are those on the test split, or on the validation split where the data has no test. Raises
    TenfoldError where there is no study in `folder`, or where a file of it is damaged.
    """
    study = read_study_runs(folder)
    variants = [_describe_variant(variant, split=study.split) for variant in study.variants]
    comparisons = compare_with_baseline(study)
    summary = {
        "name": study.name,
        "title": study.title,
        "question": study.question,
        "limits": list(study.limits),
        "command": command_of(folder),
        "baseline": study.baseline,
        "planned": study.planned,
        "finished": len(study.runs),
        "failed": len(study.failed),
        "failures": [{"trial": r["trial"], "error": r["error"]} for r in study.failed],
        **_describe_machines(study),
        "variants": variants,
        "comparisons": [comparison.to_dict() for comparison in comparisons],
        "findings": describe_findings(study, variants, comparisons),
    }
    write_json(folder / "summary.json", summary)
    return summary


def _describe_variant(variant: VariantRuns, *, split: str) -> dict[str, Any]:
    results = [run.result for run in variant.runs]
    parameters = [result.get("model", {}).get("num_parameters") for result in results]
    return {
        "label": variant.label,
        "recipe": variant.recipe.get("name"),
        "model": variant.recipe.get("model", {}).get("name"),
        "num_parameters": next((number for number in parameters if number is not None), None),
        "planned_seeds": variant.num_planned,
        "seeds": [run.seed for run in variant.runs],
        "training_seconds": _summarise_times(results, "training_seconds"),
        "process_seconds": _summarise_times(results, "process_seconds"),
        "points": [
            *(_describe_point(variant, epoch, split=split) for epoch in variant.milestones),
            _describe_point(variant, END, split=split),
        ],
        "curves": _describe_curves(variant.runs),
    }


def _summarise_times(results: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any] | None:
    found = [finite(result.get("training", {}).get(key)) for result in results]
    values = [value for value in found if value is not None]
    return _as_json(summarise(values)) if values else None


def _describe_point(variant: VariantRuns, epoch: int, *, split: str) -> dict[str, Any]:
    """A variant after `epoch`; beside it what is published for that, the highest if several."""
    summaries = {name: _summarise_split(variant, name, epoch) for name in ("validation", "test")}
    last = variant.last_epoch
    wanted = {None, END, last} if epoch == END else {epoch}
    published = max(
        (entry for entry in variant.published if entry.get("epoch") in wanted),
        key=lambda entry: float(entry["accuracy"]),
        default=None,
    )
    in_training_mode = _summarise_split(variant, split, epoch, key=IN_TRAINING_MODE)
    claim = None
    ours = summaries[split]
    if published:
        settings = published.get("settings", "guessed")
        is_in_training_mode = bool(published.get("training_mode"))
        ours = in_training_mode if is_in_training_mode else ours
        claim = {
            "accuracy": published["accuracy"],
            "source": published.get("source", ""),
            "settings": settings,
            "training_mode": is_in_training_mode,
        }
    return {
        "epoch": last if epoch == END else epoch,
        "is_end": epoch == END,
        "test": _as_json(summaries["test"]),
        "validation": _as_json(summaries["validation"]),
        "training_mode": _as_json(in_training_mode),
        "published": claim,
        "verdict": judge(ours, claim["accuracy"], settings=settings) if ours and claim else None,
    }


def _summarise_split(
    variant: VariantRuns, split: str, epoch: int, *, key: str = "accuracy"
) -> Summary | None:
    values = [*variant.accuracies(split, epoch=epoch, key=key).values()]
    if not values:
        return None
    return summarise(values, num_pictures=variant.num_pictures(split))


def judge(ours: Summary, published: float, *, settings: str) -> str:
    """How a published accuracy stands to ours, in one of five verdicts.

    settings: whether they are the `source`'s; with others a lower result says nothing of it.
    """
    if ours.low > published:
        return "beaten"
    if ours.mean >= published:
        return "met"
    if ours.high >= published:
        return "within the interval"
    return "below" if settings == "source" else "lower"


def _describe_curves(runs: Sequence[FinishedRun]) -> dict[str, Any] | None:
    """The runs' logs epoch by epoch, over the seeds that have a value; None without a log."""
    logs = [{int(line["epoch"]): line for line in run.metrics} for run in runs]
    epochs = sorted({epoch for log in logs for epoch in log})
    if not epochs:
        return None
    curves: dict[str, Any] = {"epoch": epochs}
    for key in CURVES:
        found = ([finite(log.get(epoch, {}).get(key)) for log in logs] for epoch in epochs)
        known = [[value for value in values if value is not None] for values in found]
        curves[key] = {
            "mean": [math.fsum(values) / len(values) if values else None for values in known],
            "low": [min(values, default=None) for values in known],
            "high": [max(values, default=None) for values in known],
        }
    return curves


def _describe_machines(study: StudyRuns) -> dict[str, Any]:
    """`machine`, or None and a list of `machines` where there were several."""
    distinct: dict[str, dict[str, Any]] = {}
    for run in study.runs:
        hardware = run.provenance.get("hardware", {})
        machine = {
            "cpu": hardware.get("cpu"),
            "cores": hardware.get("cores"),
            "device": run.provenance.get("device") or hardware.get("device"),
            "threads": run.provenance.get("threads"),
        }
        if any(value is not None for value in machine.values()):
            distinct[json.dumps(machine)] = machine
    machines = [*distinct.values()]
    if len(machines) > 1:
        return {"machine": None, "machines": machines}
    return {"machine": machines[0] if machines else None}


def _as_json(summary: Summary | None) -> dict[str, Any] | None:
    if summary is None:
        return None
    return {**dataclasses.asdict(summary), "values": list(summary.values)}
