"""A page of its own about pictures that somebody asked to have explained."""

from pathlib import Path

from tenfold.audit.store import Finding
from tenfold.files import write_text
from tenfold.reporting.audit.sections import view_audit
from tenfold.reporting.charts import Charts
from tenfold.reporting.templating import render_page


def write_explanation(run: Path, finding: Finding, path: Path) -> Path:
    """Write what `finding` says of pictures, for the run in the folder `run`, and return `path`."""
    sections = view_audit({"explanation": finding}, Charts())
    page = render_page(
        "explanation.html",
        style_sheets=("style.css", "report.css"),
        title=f"Where {run} looks",
        sections=sections,
    )
    write_text(path, page)
    return path
