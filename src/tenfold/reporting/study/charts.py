"""What a study's figures are drawn from, with their captions and their words for the blind."""

from collections.abc import Callable, Sequence

from tenfold.errors import counted
from tenfold.formatting import percent, points
from tenfold.reporting.charts import Chart, Charts
from tenfold.reporting.study import figures
from tenfold.reporting.study.figures import Line, Row
from tenfold.reporting.study.marks import Mark
from tenfold.reporting.study.story import exact_percent
from tenfold.results.studies import Band, Comparison, Curves, StudySummary, VariantSummary

# A validation line that ends lower than this below its best has turned.
_CLEAR_FALL = 0.01

_END_CAPTION = (
    "Where intervals overlap, the chart alone does not tell which variant is better; with one seed "
    "each they say nothing of the luck of a seed."
)
_PUBLISHED_CAPTION = " A hollow diamond is a published number, tied to ours by a stem."


def result_charts(study: StudySummary, marks: dict[str, Mark], charts: Charts) -> tuple[Chart, ...]:
    """The variants at the end of training, and on the way there."""
    found = []
    if any(variant.result for variant in study.variants):
        rows = [_interval_row(variant, marks[variant.label]) for variant in study.variants]
        found.append(
            charts.chart(
                "At the end of training",
                figures.interval_plot(rows, axis=f"{study.split} accuracy"),
                _END_CAPTION if len(rows) > 1 else "",
                description=_describe_rows(study),
            )
        )
    on_the_way = _milestone_lines(study, marks)
    if on_the_way:
        found.append(
            charts.chart(
                f"{study.split.capitalize()} accuracy at each milestone",
                figures.lines_with_bands(on_the_way),
                "Bands are 95 % intervals."
                + (_PUBLISHED_CAPTION if any(line.published for line in on_the_way) else ""),
                description="Accuracy over epochs; the table of milestones has the numbers.",
            )
        )
    # Where every variant has milestones, the curve through those says the same of better images.
    has_others = len(study.followed) < len(study.variants)
    if has_others and (lines := _validation_lines(study, marks)):
        found.append(
            charts.chart(
                "Validation accuracy, epoch by epoch",
                figures.lines_with_bands(lines),
                "Means over seeds; the bands reach from the lowest seed to the highest.",
                description="Validation accuracy over epochs of every variant.",
            )
        )
    return (*found, *_cost_charts(study, marks, charts))


def _cost_charts(study: StudySummary, marks: dict[str, Mark], charts: Charts) -> tuple[Chart, ...]:
    """Accuracy against what it costs, where the variants differ in that by a tenth or more."""
    found = []
    costs: dict[str, Callable[[VariantSummary], float | None]] = {
        "training time": lambda v: v.training_seconds.mean if v.training_seconds else None,
        "parameters": lambda v: v.num_parameters,
    }
    for cost, of in costs.items():
        placed = [
            (marks[variant.label], value, variant.result)
            for variant in study.variants
            if (value := of(variant)) and variant.result
        ]
        if len(placed) > 1 and max(c for _, c, _ in placed) > 1.1 * min(c for _, c, _ in placed):
            found.append(
                charts.chart(
                    f"Accuracy against {cost}",
                    figures.accuracy_against(placed, cost=cost),
                    "Best is top left: a high accuracy for little. The strokes are 95 % intervals.",
                )
            )
    return tuple(found)


def _validation_lines(study: StudySummary, marks: dict[str, Mark]) -> list[Line]:
    return [
        Line(marks[v.label], v.curves.epochs, v.curves.validation_accuracy)
        for v in study.variants
        if v.curves and len(v.curves.epochs) > 1 and not v.curves.validation_accuracy.is_empty
    ]


def _interval_row(variant: VariantSummary, mark: Mark) -> Row:
    result, end = variant.result, variant.end
    return Row(
        label=variant.label,
        mark=mark,
        mean=result.mean if result else None,
        interval=(result.low, result.high) if result else None,
        values=result.values if result else (),
        published=(end.published.accuracy,) if end and end.published else (),
    )


def _milestone_lines(study: StudySummary, marks: dict[str, Mark]) -> list[Line]:
    lines = []
    for variant in study.followed:
        known = [(point, point.ours) for point in variant.points if point.ours]
        band = Band(
            mean=tuple(test.mean for _, test in known),
            low=tuple(test.low for _, test in known),
            high=tuple(test.high for _, test in known),
        )
        published = tuple((p.epoch, p.published.accuracy) for p in variant.points if p.published)
        if known or published:
            epochs = [point.epoch for point, _ in known]
            lines.append(Line(marks[variant.label], epochs, band, published))
    return lines


def learning_multiples(
    study: StudySummary, marks: dict[str, Mark], charts: Charts, *, quantity: str
) -> tuple[Chart, ...]:
    """Training against validation, a small chart for each variant, on the same scale."""
    known = [
        (variant, variant.curves, *variant.curves.of(quantity))
        for variant in study.variants
        if variant.curves
    ]
    known = [entry for entry in known if not entry[2].is_empty]
    limits = figures.common_limits(
        [band for entry in known for band in entry[2:]], quantity=quantity
    )
    found = []
    for variant, curves, train, validation in known:
        figure = figures.train_against_validation(
            curves.epochs,
            train,
            validation,
            mark=marks[variant.label],
            quantity=quantity,
            limits=limits,
        )
        caption = _describe_curves(curves) if quantity == "accuracy" else ""
        found.append(
            charts.chart(
                variant.label,
                figure,
                caption,
                description=f"{quantity} by epoch, {variant.label}. {caption}",
            )
        )
    return tuple(found)


def _describe_curves(curves: Curves) -> str:
    """Where both lines end, and where validation was best if that was not at the end."""
    train, validation = curves.train_accuracy.mean, curves.validation_accuracy.mean
    if curves.validation_accuracy.is_empty or validation[-1] != validation[-1]:
        return f"Ends at {percent(train[-1])} in training; nothing was held back for validation."
    text = f"Ends at {percent(train[-1])} in training and {percent(validation[-1])} in validation."
    best = max((value, -place) for place, value in enumerate(validation) if value == value)
    epoch = curves.epochs[-best[1]]
    if best[0] - validation[-1] > _CLEAR_FALL:
        text += (
            f" Validation was best after {counted(epoch, 'epoch')}, with {percent(best[0])}, and "
            f"fell by {points(best[0] - validation[-1])}."
        )
    return text


def differences_chart(
    differences: Sequence[Comparison], marks: dict[str, Mark], charts: Charts
) -> Chart | None:
    """Differences from one baseline; None where there are several, or none."""
    if len({one.baseline for one in differences}) != 1:
        return None
    rows = [
        Row(
            label=one.variant,
            mark=marks.get(one.variant, Mark(0)),
            mean=one.difference,
            interval=(one.low, one.high),
        )
        for one in differences
    ]
    baseline = differences[0].baseline
    return charts.chart(
        f"Points above or below {baseline}",
        figures.interval_plot(rows, axis=f"points above or below {baseline}", is_difference=True),
        "An interval that crosses the line at zero leaves open which of the two is better.",
        description=" ".join(one.sentence for one in differences),
    )


def _describe_rows(study: StudySummary) -> str:
    told = [
        f"{v.label}: {v.result.in_words if v.result else 'not run'}"
        + (f", published {exact_percent(end.published.accuracy)}" if end and end.published else "")
        for v, end in ((variant, variant.end) for variant in study.variants)
    ]
    return f"{study.split.capitalize()} accuracy with 95 % intervals. " + "; ".join(told) + "."
