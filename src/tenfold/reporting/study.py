"""A study's summary -> one self-contained HTML file."""

from pathlib import Path
from typing import Any

from tenfold.reporting import story, study_figures
from tenfold.reporting.templating import write_page
from tenfold.results.studies import Point, StudySummary, read_study

STYLE_SHEETS = ("style.css", "report.css", "study.css")


def write_study_page(folder: Path, out: Path | None = None) -> Path:
    """Write the page about the study in `folder`, from its summary.json alone; return its path.

    out: the HTML file; `report.html` in `folder` where None.

    Raises TenfoldError where the summary is missing or damaged, and where the file can't be
    written.
    """
    values = view_study(read_study(folder))
    return write_page(out or folder / "report.html", "study.html", STYLE_SHEETS, **values)


def view_study(study: StudySummary) -> dict[str, Any]:
    """The values of the template for `study`, whose findings the main comparisons come before."""
    main = study.comparisons
    if len(main) > 3:
        main = (max(main, key=lambda one: one.difference),)
    findings = (*(one.sentence for one in main), *study.findings)
    study = study.model_copy(update={"findings": findings})
    return {
        "study": study,
        "story": story,
        "study_figures": study_figures,
        "marks": {v.label: study_figures.Mark(n) for n, v in enumerate(study.variants)},
        "milestones": [(epoch, _points_at(study, epoch)) for epoch in study.milestones],
    }


def _points_at(study: StudySummary, epoch: int) -> list[tuple[Point | None, bool]]:
    """The point of each variant at a milestone, and whether it is the highest there."""
    points = [next((p for p in v.points if p.epoch == epoch), None) for v in study.followed]
    means = [point.ours.mean for point in points if point and point.ours]
    highest = max(means) if len(means) > 1 else None
    return [(p, bool(p and p.ours and p.ours.mean == highest)) for p in points]
