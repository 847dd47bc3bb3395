"""A search's trials -> one self-contained HTML file."""

from pathlib import Path
from typing import get_args

from tenfold.reporting import search_figures
from tenfold.reporting.templating import write_page
from tenfold.results.searches import State, read_search

NUM_RANKED = 10
STYLE_SHEETS = ("style.css", "report.css", "search.css")


def write_search_page(folder: Path, out: Path | None = None) -> Path:
    """Write the page about the search in `folder`, from its trials.json alone; return its path.

    out: the HTML file; `report.html` in `folder` where None.

    Raises TenfoldError where the trials are missing or damaged, and where the file can't be
    written.
    """
    search = read_search(folder)
    numbers = {state: len(search.of_state(state)) for state in get_args(State)}
    order = [*(search.importances or ())]
    order += [setting.key for setting in search.space if setting.key not in order]
    return write_page(
        out or folder / "report.html",
        "search.html",
        STYLE_SHEETS,
        search=search,
        figures=search_figures,
        commands=search.commands(folder),
        is_judged=bool(search_figures.judged(search)),
        slices=sorted(search.space, key=lambda setting: order.index(setting.key)),
        ranked=search.ranked[:NUM_RANKED],
        counts=", ".join(f"{number} {state}" for state, number in numbers.items() if number),
    )
