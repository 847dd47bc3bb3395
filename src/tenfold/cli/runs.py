"""`tenfold runs`: what has been trained, how good it is, and away with what is not wanted."""

import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tenfold.cli.options import RunsOption
from tenfold.cli.pages import write_page
from tenfold.console.output import Output
from tenfold.errors import TenfoldError, counted
from tenfold.files import read_json
from tenfold.formatting import duration, percent
from tenfold.run import RunFolder, open_run

State = Literal["finished", "running", "unfinished"]


def runs(
    output: Output,
    folders: Annotated[
        list[Path] | None, typer.Argument(help="These runs; all in --runs if none is named.")
    ] = None,
    *,
    recipe: Annotated[str | None, "Of this recipe."] = None,
    data: Annotated[str | None, "On this data set."] = None,
    state: Annotated[State | None, "That have come so far."] = None,
    sort: Annotated[Literal["date", "accuracy"], "Best or newest first."] = "date",
    compare: Annotated[bool, "Write the page that compares them."] = False,
    delete: Annotated[bool, "Delete what is listed, after a question."] = False,
    yes: Annotated[bool, "Delete without the question."] = False,
    runs: RunsOption = Path("runs"),
) -> None:
    """List runs, the newest or the best first; compare or delete them."""
    found = folders or [path.parent for path in sorted(runs.glob("*/*/recipe.json"))]
    wanted = {"recipe": recipe, "data": data, "state": state}.items()
    rows = [_describe(open_run(each)) for each in found]
    rows = [row for row in rows if all(value in (None, row[name]) for name, value in wanted)]
    rows.sort(key=lambda row: (row[sort] is not None, row[sort]), reverse=True)
    _show(output, rows, runs)
    if compare and rows:
        write_page(output, [Path(row["run"]) for row in rows], None)
    if delete and rows:
        _delete(output, rows, yes=yes)


def _describe(run: RunFolder) -> dict[str, Any]:
    """What a row of the list says, missing values as None."""
    recipe = read_json(run.recipe)
    provenance = read_json(run.provenance) if run.provenance.exists() else {}
    result = read_json(run.result) if run.is_finished() else {}
    splits = result.get("splits", {})
    split = next((name for name in ("test", "validation") if name in splits), None)
    state: State = "finished" if result else "running" if run.is_held() else "unfinished"
    sessions = provenance.get("sessions") or [{}]
    return {
        "run": str(run.path),
        "recipe": recipe.get("name"),
        "data": provenance.get("data", {}).get("name") or recipe.get("data", {}).get("name"),
        "state": state,
        "split": split,
        "accuracy": splits[split]["accuracy"] if split else None,
        "seconds": result.get("training", {}).get("training_seconds"),
        "date": sessions[-1].get("started"),
    }


def _show(output: Output, rows: list[dict[str, Any]], place: Path) -> None:
    if not rows:
        output.say(f"There is no such run in {place}; `tenfold train` makes one.")
        return
    cells = []
    for row in rows:
        output.record("run", **row)
        accuracy = f"{percent(row['accuracy'], 2)} {row['split']}" if row["split"] else "-"
        seconds = duration(row["seconds"]) if row["seconds"] is not None else "-"
        date = (row["date"] or "-")[:16].replace("T", " ")
        cells.append([row["run"], str(row["data"]), row["state"], accuracy, seconds, date])
    output.table("Runs", ["run", "data", "state", "accuracy", "training", "date"], cells)


def _delete(output: Output, rows: list[dict[str, Any]], *, yes: bool) -> None:
    """Delete the runs of `rows`. Raises TenfoldError where one of them is being written."""
    if held := [row["run"] for row in rows if row["state"] == "running"]:
        raise TenfoldError(f"{held[0]} is running; stop it first, or leave it out.")
    if not yes:
        if output.style != "rich":
            raise TenfoldError("--delete asks nobody in a pipe; add --yes.")
        typer.confirm(f"Delete {counted(len(rows), 'run')} for good?", abort=True)
    for row in rows:
        with RunFolder(Path(row["run"])).writer():
            shutil.rmtree(row["run"])
        output.record("deleted", run=row["run"])
    output.say(f"{counted(len(rows), 'run')} deleted.")
