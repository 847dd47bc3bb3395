"""A search's trials -> one self-contained HTML file."""

from pathlib import Path
from typing import Any, get_args

from tenfold.files import write_text
from tenfold.reporting.charts import Chart, Charts
from tenfold.reporting.search import figures
from tenfold.reporting.templating import render_page
from tenfold.results.searches import SearchSummary, Setting, State, read_search

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
    charts = Charts()
    numbers = {state: len(search.of_state(state)) for state in get_args(State)}
    judged = any(t.last_value is not None for t in search.of_state("complete", "pruned"))
    return {
        "search": search,
        "commands": search.commands(folder) if search.best_trial else (),
        "course": _course(search, charts) if judged else (),
        "importances": _importances(search, charts),
        "slices": _slices(search, charts) if judged else (),
        "ranked": search.ranked[:NUM_RANKED],
        "counts": ", ".join(f"{number} {state}" for state, number in numbers.items() if number),
    }


def _course(search: SearchSummary, charts: Charts) -> tuple[Chart, ...]:
    return (
        charts.chart(
            "Trial by trial",
            figures.history(search),
            "The dashed line is the recipe as it is. A pruned trial is shown at its last epoch. "
            "Triangles at the bottom are trials that fell below the chart.",
        ),
        charts.chart(
            "Epoch by epoch",
            figures.curves(search),
            "Each line is a trial. One that ends early was pruned: its best epoch was below the "
            "median of the complete ones.",
        ),
    )


def _importances(search: SearchSummary, charts: Charts) -> Chart | None:
    if search.importances is None:
        return None
    return charts.chart(
        "How much each setting matters",
        figures.importances(search),
        "The share of each setting in the spread of the complete trials’ accuracies, within the "
        "ranges that were searched (fANOVA, Hutter et al. 2014).",
    )


def _slices(search: SearchSummary, charts: Charts) -> tuple[Chart, ...]:
    order = list(search.importances or ())
    settings = sorted(
        search.space, key=lambda s: order.index(s.key) if s.key in order else len(order)
    )
    return tuple(
        charts.chart(
            setting.key,
            figures.slice_of(search, setting),
            _slice_note(setting),
            description=f"validation accuracy over {setting.key}",
        )
        for setting in settings
    )


def _slice_note(setting: Setting) -> str:
    if not setting.log:
        return ""
    edge = "; the recipe’s 0 is drawn at the left edge" if setting.own == 0 else ""
    return f"logarithmic{edge}"
