"""A search's trials -> one self-contained HTML file."""

from pathlib import Path

from tenfold.files import write_text
from tenfold.reporting.search.views import view_search
from tenfold.reporting.templating import render_page
from tenfold.results.searches import SearchSummary, read_search

_STYLE_SHEETS = ("style.css", "report.css", "search.css")


def write_search_page(folder: Path, out: Path | None = None) -> Path:
    """Write the page about the search in `folder`, from its trials.json alone; return its path.

    out: the HTML file; `report.html` in `folder` where None.

    Raises TenfoldError where the trials are missing or damaged, and where the file can't be
    written.
    """
    path = Path(folder) / "report.html" if out is None else Path(out)
    write_text(path, render_search(read_search(Path(folder)), Path(folder)))
    return path


def render_search(search: SearchSummary, folder: Path) -> str:
    """The page about the search in `folder` as HTML that refers to nothing outside itself."""
    return render_page("search.html", style_sheets=_STYLE_SHEETS, **view_search(search, folder))
