"""The page about runs, a study or a search, whichever command asks for it."""

from functools import partial
from pathlib import Path

from tenfold.console.output import Output
from tenfold.errors import TenfoldError


def show_page(output: Output, page: Path) -> Path:
    """Say where a page is."""
    output.record("page", path=str(page))
    output.say(f"The page is {page.resolve()}", bold=True)
    return page


def write_page(
    output: Output, folders: list[Path], out: Path | None, *, data: str | None = None
) -> Path:
    """Write the page about `folders`, and say where it is."""
    page = _page_of(folders[0], out, data) if len(folders) == 1 else None
    return show_page(output, page or _page_of_runs(folders, out, data))


def _page_of(folder: Path, out: Path | None, data: str | None) -> Path:
    """The page about a study, a search or a run, whichever `folder` holds."""
    if data is not None and not (folder / "recipe.json").exists():
        raise TenfoldError(f"{folder} is no run, whose images --data could name; leave it out.")
    if (folder / "study.json").exists():
        from tenfold.reporting.study.page import write_study_page
        from tenfold.studies.analysis import summarise_study

        summarise_study(folder)  # Runs may have been added since, or the study cut short.
        return write_study_page(folder, out)
    if (folder / "search.json").exists():
        from tenfold.reporting.search.page import write_search_page

        return write_search_page(folder, out)
    from tenfold.reporting.page import write_figures

    page = _page_of_runs([folder], out, data)
    write_figures(folder)
    return page


def _page_of_runs(runs: list[Path], out: Path | None, data: str | None) -> Path:
    from tenfold.reporting.galleries import load_dataset
    from tenfold.reporting.page import write_report

    if out is None and len(runs) > 1:
        out = Path("report.html")
    return write_report(runs, out, loader=partial(load_dataset, place=data))
