"""A study's summary -> one self-contained HTML file."""

from pathlib import Path

from tenfold import __version__
from tenfold.files import write_text
from tenfold.reporting.page import environment
from tenfold.reporting.study_summary import Study, read_study
from tenfold.reporting.study_views import view_study

_FOLDER = Path(__file__).parent
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


def render_study(study: Study) -> str:
    """The page about `study` as HTML that refers to nothing outside itself."""
    styles = "".join((_FOLDER / name).read_text(encoding="utf-8") for name in _STYLE_SHEETS)
    return (
        environment()
        .get_template("study.html")
        .render(view=view_study(study), styles=styles, version=__version__)
    )
