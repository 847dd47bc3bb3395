"""A study's summary -> one self-contained HTML file."""

from pathlib import Path
from typing import Any

from tenfold.files import write_text
from tenfold.reporting.study import figures, story
from tenfold.reporting.study.marks import Mark
from tenfold.reporting.templating import render_page
from tenfold.results.studies import BELOW, LOWER, Point, StudySummary, read_study

_STYLE_SHEETS = ("style.css", "report.css", "study.css")
_SIGNS = {
    "beaten": ("▲", "good"),
    "met": ("✓", "good"),
    "within the interval": ("≈", "fair"),
    BELOW: ("▼", "bad"),
    LOWER: ("▽", "fair"),
    None: ("–", "fair"),
}


def write_study_page(folder: Path, out: Path | None = None) -> Path:
    """Write the page about the study in `folder`, from its summary.json alone; return its path.

    out: the HTML file; `report.html` in `folder` where None.

    Raises TenfoldError where the summary is missing or damaged, and where the file can't be
    written.
    """
    path = Path(folder) / "report.html" if out is None else Path(out)
    values = view_study(read_study(Path(folder)))
    write_text(path, render_page("study.html", style_sheets=_STYLE_SHEETS, **values))
    return path


def view_study(study: StudySummary) -> dict[str, Any]:
    """The values of the template for `study`."""
    return {
        "study": study,
        "story": story,
        "study_figures": figures,
        "signs": _SIGNS,
        "marks": {variant.label: Mark(n) for n, variant in enumerate(study.variants)},
        "milestones": [(epoch, _points_at(study, epoch)) for epoch in study.milestones],
    }


def _points_at(study: StudySummary, epoch: int) -> list[tuple[Point | None, bool]]:
    """The point of each variant at a milestone, and whether it is the highest there."""
    points = [next((p for p in v.points if p.epoch == epoch), None) for v in study.followed]
    means = [point.ours.mean for point in points if point and point.ours]
    highest = max(means) if len(means) > 1 else None
    return [(p, bool(p and p.ours and p.ours.mean == highest)) for p in points]
