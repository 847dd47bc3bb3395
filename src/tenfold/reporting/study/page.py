"""A study's summary -> one self-contained HTML file."""

from pathlib import Path

from tenfold.files import write_text
from tenfold.reporting.charts import Charts
from tenfold.reporting.study.views import view_study
from tenfold.reporting.templating import render_page
from tenfold.results.studies import StudySummary, read_study

_STYLE_SHEETS = ("style.css", "report.css", "study.css")


def write_study_page(folder: Path, out: Path | None = None) -> Path:
    """Write the page about the study in `folder`, from its summary.json alone; return its path.

    out: the HTML file; `report.html` in `folder` where None.

    Raises TenfoldError where the summary is missing or damaged, and where the file can't be
    written.
    """
    path = Path(folder) / "report.html" if out is None else Path(out)
    write_text(path, render_study(read_study(Path(folder))))
    return path


def render_study(study: StudySummary) -> str:
    """The page about `study` as HTML that refers to nothing outside itself."""
    return render_page("study.html", style_sheets=_STYLE_SHEETS, **view_study(study, Charts()))
