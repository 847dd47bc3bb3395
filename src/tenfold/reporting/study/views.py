"""What the template of a study shows: tables and charts."""

from dataclasses import dataclass

from markupsafe import Markup

from tenfold.errors import counted
from tenfold.formatting import count, duration, percent, signed_points
from tenfold.reporting.charts import Chart, Charts
from tenfold.reporting.study import story
from tenfold.reporting.study.charts import differences_chart, learning_multiples, result_charts
from tenfold.reporting.study.marks import Mark
from tenfold.reporting.study.story import exact_percent
from tenfold.reporting.study.summary import BELOW, LOWER, Difference, Point, Study, Variant
from tenfold.reporting.views import Tile

_SIGNS = {
    "beaten": ("▲", "good"),
    "met": ("✓", "good"),
    "within the interval": ("≈", "fair"),
    BELOW: ("▼", "bad"),
    LOWER: ("▽", "fair"),
    None: ("–", "fair"),
}


@dataclass(frozen=True)
class Claim:
    """A published number beside ours.

    when: after how many epochs, where there are several; here: ours, where it doesn't stand next
    to it anyway.
    """

    published: str
    when: str
    source: str
    sign: str
    kind: str
    verdict: str
    here: str


@dataclass(frozen=True)
class ResultRow:
    """A variant's line in the table of results."""

    label: str
    key: Markup
    accuracy: str
    interval: str
    epochs: int | None
    seeds: str
    parameters: str
    time: str
    core_minutes: str
    claims: tuple[Claim, ...]
    is_baseline: bool


@dataclass(frozen=True)
class Cell:
    """A variant at one milestone."""

    accuracy: str
    interval: str
    is_best: bool
    claim: Claim | None


@dataclass(frozen=True)
class DifferenceRow:
    """A variant against the baseline."""

    label: str
    key: Markup
    epoch: int | None
    difference: str
    interval: str
    p_holm: str
    mcnemar_p: str
    sentence: str


@dataclass(frozen=True)
class StudyView:
    """Everything that a page says about a study."""

    study: Study
    findings: tuple[str, ...]
    cut_short: str
    missing: tuple[str, ...]
    failures: tuple[str, ...]
    not_reproduced: str
    tiles: tuple[Tile, ...]
    legend: tuple[tuple[Markup, str], ...]
    epochs_at_end: int | None
    results: tuple[ResultRow, ...]
    has_published: bool
    charts: tuple[Chart, ...]
    milestone_legend: tuple[tuple[Markup, str], ...]
    milestones: tuple[tuple[int, tuple[Cell, ...]], ...]
    accuracy_curves: tuple[Chart, ...]
    loss_curves: tuple[Chart, ...]
    differences: tuple[DifferenceRow, ...]
    differences_chart: Chart | None
    tests_note: str
    how_to_read: tuple[str, ...]
    how_it_was_run: tuple[str, ...]
    command: str


def view_study(study: Study) -> StudyView:
    """Prepare a study for its page."""
    charts = Charts()
    marks = {variant.label: Mark(number) for number, variant in enumerate(study.variants)}
    return StudyView(
        study=study,
        findings=story.findings(study),
        cut_short=story.cut_short(study),
        missing=story.missing_parts(study),
        failures=story.failures(study),
        not_reproduced=story.not_reproduced(study),
        tiles=_tiles(study),
        legend=tuple((mark.key, label) for label, mark in marks.items()),
        epochs_at_end=story.ends_with(study),
        results=tuple(_result_row(study, variant, marks) for variant in study.variants),
        has_published=bool(study.published),
        charts=result_charts(study, marks, charts),
        milestone_legend=tuple((marks[v.label].key, v.label) for v in study.followed),
        milestones=_milestones(study),
        accuracy_curves=learning_multiples(study, marks, charts, quantity="accuracy"),
        loss_curves=learning_multiples(study, marks, charts, quantity="loss"),
        differences=tuple(_difference_row(one, marks) for one in study.differences),
        differences_chart=differences_chart(study.differences, marks, charts),
        tests_note=story.describe_tests(study.differences),
        how_to_read=story.how_to_read(study),
        how_it_was_run=(story.seeds(study), story.machine(study)),
        command=study.command,
    )


def _tiles(study: Study) -> tuple[Tile, ...]:
    tiles = [
        Tile(
            f"{study.num_finished} of {study.num_planned}",
            "runs finished",
            counted(len(study.variants), "variant"),
        )
    ]
    measured = [(variant.result, variant) for variant in study.variants if variant.result]
    if measured:
        best, variant = max(measured, key=lambda pair: pair[0].mean)
        tiles.append(Tile(percent(best.mean), "highest at the end", variant.label))
    if study.published:
        reached = sum(claim.point.is_reached for claim in study.published)
        tiles.append(
            Tile(
                f"{reached} of {len(study.published)}",
                "published results reached",
                "beaten, met or within the interval",
            )
        )
    tiles.append(Tile(story.total_time(study), "training time", "of all runs together"))
    return tuple(tiles)


def _claim(study: Study, point: Point) -> Claim:
    sign, kind = _SIGNS[point.verdict]
    return Claim(
        published=exact_percent(point.published or 0),
        when=f" at {counted(point.epoch, 'epoch')}" if study.has_milestones else "",
        source=point.source,
        sign=sign,
        kind=kind,
        verdict=story.verdict_words(point.verdict),
        here=story.ours_of(point) if point.training_mode or not point.is_end else "",
    )


def _result_row(study: Study, variant: Variant, marks: dict[str, Mark]) -> ResultRow:
    result = variant.result
    time = variant.training_seconds
    return ResultRow(
        label=variant.label,
        key=marks[variant.label].key,
        accuracy=percent(result.mean, digits=2) if result else "not run",
        interval=story.interval_in_brackets(result) if result else "",
        epochs=variant.end.epoch if variant.end else None,
        seeds=str(len(variant.seeds))
        if len(variant.seeds) >= variant.planned_seeds
        else f"{len(variant.seeds)} of {variant.planned_seeds}",
        parameters=count(variant.num_parameters) if variant.num_parameters is not None else "–",
        time=duration(time.mean if time else None),
        core_minutes=story.core_minutes(variant.process_seconds),
        claims=tuple(
            _claim(study, point) for point in variant.points if point.published is not None
        ),
        is_baseline=variant.label == study.baseline,
    )


def _milestones(study: Study) -> tuple[tuple[int, tuple[Cell, ...]], ...]:
    rows = []
    for epoch in study.milestones:
        found = [
            next((point for point in variant.points if point.epoch == epoch), None)
            for variant in study.followed
        ]
        means = [point.ours.mean for point in found if point and point.ours]
        highest = max(means) if len(means) > 1 else None
        rows.append((epoch, tuple(_cell(study, point, highest) for point in found)))
    return tuple(rows)


def _cell(study: Study, point: Point | None, highest: float | None) -> Cell:
    test = point.ours if point else None
    return Cell(
        accuracy=percent(test.mean if test else None),
        interval=story.interval_in_brackets(test) if test else "",
        is_best=bool(test) and test is not None and test.mean == highest,
        claim=_claim(study, point) if point and point.published is not None else None,
    )


def _difference_row(one: Difference, marks: dict[str, Mark]) -> DifferenceRow:
    known = one.low is not None and one.high is not None
    return DifferenceRow(
        label=one.variant,
        key=marks[one.variant].key if one.variant in marks else Markup(),
        epoch=one.epoch,
        difference=signed_points(one.difference),
        interval=f"{signed_points(one.low or 0)} to {signed_points(one.high or 0)}"
        if known
        else "–",
        p_holm=story.probability(one.p_holm),
        mcnemar_p=story.probability(one.mcnemar_p),
        sentence=one.sentence,
    )
