"""What a study shows, in sentences: for its page and for the document of all results."""

import math

from tenfold.errors import counted
from tenfold.formatting import duration, listed, percent, points
from tenfold.results.studies import (
    BELOW,
    VERDICTS,
    Curves,
    Estimate,
    Point,
    Published,
    StudySummary,
    Verdict,
)

CLEAR_FALL = 0.01
"""A validation line that ends lower than this below its best has turned."""


def exact_percent(share: float) -> str:
    """A published share with the decimals that it was published with, up to two: `57.97 %`."""
    return f"{round(100 * share, 2):g} %"


def ours_of(point: Point) -> str:
    """Our accuracy with its interval, and that in training mode, where it was measured."""
    parts = [point.ours.in_words] if point.ours else []
    if point.training_mode:
        parts.append(f"in training mode {point.training_mode.in_words}")
    return "; ".join(parts) or "not run"


def probability(p: float | None) -> str:
    """A p value as `0.034` or `< 0.001`; a dash for None."""
    if p is None:
        return "–"
    return f"{p:.3f}" if p >= 0.0005 else "< 0.001"


def cut_short(study: StudySummary) -> str:
    """What was run of a study that is not whole; empty for one that is."""
    if not study.was_cut_short:
        return ""
    missing, is_or_are = study.num_missing, "is" if study.finished == 1 else "are"
    parts = [f"{study.failed} failed"] if study.failed else []
    parts += [f"{missing} {'was' if missing == 1 else 'were'} not run to the end"] * bool(missing)
    return (
        f"This study was cut short: {study.finished} of {counted(study.planned, 'planned run')} "
        f"{is_or_are} finished, {listed(parts)}. The numbers rest on the finished ones alone."
    )


def missing_parts(study: StudySummary) -> tuple[str, ...]:
    """Each variant that has fewer seeds than planned, in a few words."""
    missing = [v for v in study.variants if len(v.seeds) < v.planned_seeds]
    done = [
        f"{len(v.seeds)} of {counted(v.planned_seeds, 'seed')}" if v.seeds else "no run"
        for v in missing
    ]
    return tuple(f"{v.label}: {words}" for v, words in zip(missing, done, strict=True))


def failures(study: StudySummary) -> tuple[str, ...]:
    """Which trials failed, for each reason."""
    by_error: dict[str | None, list[str]] = {}
    for one in study.failures:
        by_error.setdefault(one.error, []).append(one.trial)
    return tuple(
        f"{trials[0]}{f' and {len(trials) - 1} more' if trials[1:] else ''} failed: {error}"
        for error, trials in by_error.items()
    )


def not_reproduced(study: StudySummary) -> str:
    """Which published numbers lie above our interval; empty where none does."""
    claims = [claim for claim in study.published if claim.point.verdict == BELOW]
    number = len(study.published)
    if not claims:
        return ""
    head = f"{len(claims)} of {number} published results did not reproduce"
    if len(claims) == number:
        head = f"None of the {number} published results reproduced"
    if number == 1:
        head = "The published result did not reproduce"
    return f"{head}: {'; '.join(_describe_miss(study, claim) for claim in claims)}."


def _describe_miss(study: StudySummary, claim: Published) -> str:
    variant, point, published = claim
    when = f" after {counted(point.epoch, 'epoch')}" if study.followed else ""
    here = f"here {point.compared.in_words}" if point.compared else "not measured here"
    here += " in training mode" if published.training_mode else ""
    return f"{variant.label}{when}, published {exact_percent(published.accuracy)}, {here}"


def seeds(study: StudySummary) -> str:
    """How many seeds each variant has."""
    known = {variant.seeds for variant in study.variants}
    if not any(known):
        return "No variant has a finished run."
    if len(known) > 1:
        each = [f"{v.label}, {len(v.seeds) or 'none'}" for v in study.variants]
        return f"Seeds: {'; '.join(each)}."
    (same,) = known
    numbers = listed([str(seed) for seed in same])
    if len(same) == 1:
        return f"Each variant was trained once, with seed {numbers}."
    return f"Each variant was trained with {len(same)} seeds: {numbers}."


def machine(study: StudySummary) -> str:
    """Where it was trained, in a sentence."""
    described = [one.in_words for one in study.all_machines]
    if not described:
        return "The runs don't say on which machine they were trained."
    if len(described) == 1:
        return f"Trained on {described[0]}."
    number, all_of_them = len(described), "; ".join(described)
    return f"Trained on {number} machines, so times are not comparable: {all_of_them}."


def describe_curves(curves: Curves) -> str:
    """Where both lines end, and where validation was best if that was not at the end."""
    train, validation = curves.train_accuracy.mean, curves.validation_accuracy.mean
    if math.isnan(validation[-1]):
        return f"Ends at {percent(train[-1])} in training; nothing was held back for validation."
    ends = [percent(each[-1], 2) for each in (train, validation)]
    text = f"Ends at {ends[0]} in training and {ends[1]} in validation."
    best, epoch = max(
        ((value, -epoch) for value, epoch in zip(validation, curves.epochs, strict=True)
         if not math.isnan(value))
    )  # fmt: skip
    if best - validation[-1] > CLEAR_FALL:
        text += (
            f" Validation was best after {counted(-epoch, 'epoch')}, with {percent(best)}, and "
            f"fell by {points(best - validation[-1])}."
        )
    return text


def core_minutes(estimate: Estimate | None) -> str:
    """Process time of a run in minutes of one core; a dash for None."""
    return "–" if estimate is None else minutes_of(estimate.mean)


def minutes_of(seconds: float) -> str:
    """Seconds as minutes, `0.4`, `12.3` or `246`."""
    minutes = seconds / 60
    return f"{minutes:.1f}" if minutes < 99.95 else f"{minutes:,.0f}"


def total_time(study: StudySummary) -> str:
    """The training time of all finished runs together."""
    values = [s for v in study.variants if v.training_seconds for s in v.training_seconds.values]
    return duration(sum(values)) if values else "–"


def ends_with(study: StudySummary) -> int | None:
    """The number of epochs that every variant ends with; None where they differ."""
    ends = {variant.end.epoch for variant in study.variants if variant.end}
    return ends.pop() if len(ends) == 1 else None


def verdict_words(verdict: Verdict | None) -> str:
    """A verdict as a reader is told it."""
    return "not measured" if verdict is None else VERDICTS[verdict]
