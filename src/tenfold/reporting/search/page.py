"""A search's trials -> one self-contained HTML file."""

from pathlib import Path
from typing import Any, get_args

from tenfold.files import write_text
from tenfold.reporting.search import figures
from tenfold.reporting.templating import render_page
from tenfold.results.searches import SearchSummary, State, read_search

NUM_RANKED = 10
_STYLE_SHEETS = ("style.css", "report.css", "search.css")


def write_search_page(folder: Path, out: Path | None = None) -> Path:
    """Write the page about the search in `folder`, from its trials.json alone; return its path.

    out: the HTML file; `report.html` in `folder` where None.

    Raises TenfoldError where the trials are missing or damaged, and where the file can't be
    written.
    """
    path = Path(folder) / "report.html" if out is None else Path(out)
    values = _view_search(read_search(Path(folder)), Path(folder))
    write_text(path, render_page("search.html", style_sheets=_STYLE_SHEETS, **values))
    return path


def _view_search(search: SearchSummary, folder: Path) -> dict[str, Any]:
    """The values of the template for the search in `folder`."""
    numbers = {state: len(search.of_state(state)) for state in get_args(State)}
    order = list(search.importances or ())
    return {
        "search": search,
        "figures": figures,
        "commands": search.commands(folder),
        "is_judged": any(t.last_value is not None for t in search.of_state("complete", "pruned")),
        "slices": sorted(
            search.space, key=lambda s: order.index(s.key) if s.key in order else len(order)
        ),
        "ranked": search.ranked[:NUM_RANKED],
        "counts": ", ".join(f"{number} {state}" for state, number in numbers.items() if number),
    }
