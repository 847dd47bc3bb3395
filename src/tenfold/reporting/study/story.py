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

# A validation line that ends lower than this below its best has turned.
_CLEAR_FALL = 0.01


def exact_percent(share: float) -> str:
    """A published share with the decimals that it was published with, up to two: `57.97 %`."""
    number = f"{100 * share:.2f}".rstrip("0").rstrip(".")
    return f"{number} %"


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
    parts = []
    if study.failed:
        parts.append(f"{study.failed} failed")
    if study.num_missing:
        parts.append(f"{study.num_missing} {_were(study.num_missing)} not run to the end")
    return (
        f"This study was cut short: {study.finished} of "
        f"{counted(study.planned, 'planned run')} "
        f"{'is' if study.finished == 1 else 'are'} finished, {listed(parts)}. The numbers "
        "rest on the finished ones alone."
    )


def missing_parts(study: StudySummary) -> tuple[str, ...]:
    """Each variant that has fewer seeds than planned, in a few words."""
    return tuple(
        f"{variant.label}: "
        + (
            f"{len(variant.seeds)} of {counted(variant.planned_seeds, 'seed')}"
            if variant.seeds
            else "no run"
        )
        for variant in study.variants
        if len(variant.seeds) < variant.planned_seeds
    )


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
    if not claims:
        return ""
    number = len(study.published)
    if number == 1:
        head = "The published result did not reproduce: "
    elif len(claims) == number:
        head = f"None of the {number} published results reproduced: "
    else:
        head = f"{len(claims)} of {number} published results did not reproduce: "
    return head + "; ".join(_describe_miss(study, claim) for claim in claims) + "."


def seeds(study: StudySummary) -> str:
    """How many seeds each variant has."""
    run = [variant for variant in study.variants if variant.seeds]
    if not run:
        return "No variant has a finished run."
    if len({variant.seeds for variant in run}) == 1 and len(run) == len(study.variants):
        numbers = listed([str(seed) for seed in run[0].seeds])
        if len(run[0].seeds) == 1:
            return f"Each variant was trained once, with seed {numbers}."
        return f"Each variant was trained with {len(run[0].seeds)} seeds: {numbers}."
    return (
        "Seeds: " + "; ".join(f"{v.label}, {len(v.seeds) or 'none'}" for v in study.variants) + "."
    )


def machine(study: StudySummary) -> str:
    """Where it was trained, in a sentence."""
    if not study.all_machines:
        return "The runs don't say on which machine they were trained."
    described = [one.in_words for one in study.all_machines]
    if len(described) == 1:
        return f"Trained on {described[0]}."
    return (
        f"Trained on {len(described)} machines, so times are not comparable: "
        f"{'; '.join(described)}."
    )


def describe_curves(curves: Curves) -> str:
    """Where both lines end, and where validation was best if that was not at the end."""
    train, validation = curves.train_accuracy.mean, curves.validation_accuracy.mean
    if curves.validation_accuracy.is_empty or math.isnan(validation[-1]):
        return f"Ends at {percent(train[-1])} in training; nothing was held back for validation."
    text = f"Ends at {percent(train[-1])} in training and {percent(validation[-1])} in validation."
    best, place = max((value, -place) for place, value in enumerate(validation) if value == value)
    if best - validation[-1] > _CLEAR_FALL:
        text += (
            f" Validation was best after {counted(curves.epochs[-place], 'epoch')}, with "
            f"{percent(best)}, and fell by {points(best - validation[-1])}."
        )
    return text


def core_minutes(estimate: Estimate | None) -> str:
    """Process time of a run in minutes of one core; a dash for None."""
    if estimate is None:
        return "–"
    return minutes_of(estimate.mean)


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


def _describe_miss(study: StudySummary, claim: Published) -> str:
    _, point, published = claim
    ours = point.compared
    when = f" after {counted(point.epoch, 'epoch')}" if study.followed else ""
    here = "not measured here" if ours is None else f"here {ours.in_words}"
    here += " in training mode" if published.training_mode else ""
    share = exact_percent(published.accuracy)
    return f"{claim.variant.label}{when}, published {share}, {here}"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"
