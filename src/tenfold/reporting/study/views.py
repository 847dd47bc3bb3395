"""What the template of a study shows besides the study itself: marks, tiles and charts."""

from typing import Any

from tenfold.reporting.charts import Charts
from tenfold.reporting.study import story
from tenfold.reporting.study.charts import differences_chart, learning_multiples, result_charts
from tenfold.reporting.study.marks import Mark
from tenfold.results.studies import BELOW, LOWER, Point, StudySummary

_SIGNS = {
    "beaten": ("▲", "good"),
    "met": ("✓", "good"),
    "within the interval": ("≈", "fair"),
    BELOW: ("▼", "bad"),
    LOWER: ("▽", "fair"),
    None: ("–", "fair"),
}


def view_study(study: StudySummary, charts: Charts) -> dict[str, Any]:
    """The values of the template for `study`."""
    marks = {variant.label: Mark(number) for number, variant in enumerate(study.variants)}
    return {
        "study": study,
        "story": story,
        "signs": _SIGNS,
        "marks": marks,
        "milestones": [(epoch, _points_at(study, epoch)) for epoch in study.milestones],
        "charts": result_charts(study, marks, charts),
        "accuracy_curves": learning_multiples(study, marks, charts, quantity="accuracy"),
        "loss_curves": learning_multiples(study, marks, charts, quantity="loss"),
        "differences_chart": differences_chart(study.comparisons, marks, charts),
    }


def _points_at(study: StudySummary, epoch: int) -> list[tuple[Point | None, bool]]:
    """The point of each variant at a milestone, and whether it is the highest there."""
    points = [next((p for p in v.points if p.epoch == epoch), None) for v in study.followed]
    means = [point.ours.mean for point in points if point and point.ours]
    highest = max(means) if len(means) > 1 else None
    return [(p, bool(p and p.ours and p.ours.mean == highest)) for p in points]
