"""`tenfold evaluate`, `runs` and `doctor`: what came of a training."""

import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tenfold.cli import options as cli
from tenfold.cli.pages import write_page
from tenfold.console.output import Output
from tenfold.console.summaries import show_classes, show_metrics, show_operating_point
from tenfold.errors import TenfoldError, counted
from tenfold.files import read_json, write_text
from tenfold.formatting import duration, percent
from tenfold.run import RunFolder, command_line, open_run

State = Literal["finished", "running", "unfinished"]


def evaluate(
    output: Output,
    run: cli.RunArgument,
    *,
    split: Annotated[cli.Split, "What to score it on."] = "test",
    data: cli.DataOption = None,
    sensitivity: Annotated[
        float | None,
        "Choose the threshold, by validation, from which on an image counts as one of a class so "
        "that so many of its images are found; exports and the service keep it.",
        "PERCENT",
        {"min": 50, "max": 99.9},
    ] = None,
    class_name: Annotated[
        str | None, "That class; the second of two where not given.", "--class"
    ] = None,
    reading: cli.Reading,
    threads: cli.ThreadsOption = None,
) -> None:
    """Score a finished run on a split; every use of the test split is written down."""
    if class_name is not None and sensitivity is None:
        raise TenfoldError("--class goes with --sensitivity; add --sensitivity 95.")

    from tenfold.evaluation.evaluate import evaluate_split
    from tenfold.evaluation.operating_points import choose_operating_point

    folder, point = RunFolder(run), None
    with cli.computing(output, threads) as progress:
        key, metrics = evaluate_split(
            folder,
            split=split,
            data=data,
            skip_broken=reading.skip_broken,
            purpose=command_line(),
            progress=progress,
        )
        if sensitivity is not None:
            point = choose_operating_point(
                folder, sensitivity / 100, class_name=class_name, key=key, progress=progress
            )
    output.record("metrics", split=split, **metrics.to_dict())
    show_metrics(output, split, metrics)
    show_classes(output, split, metrics)
    if point is not None:
        show_operating_point(output, point)


def runs(
    output: Output,
    folders: Annotated[list[Path] | None, "These runs; all in --runs if none is named."] = None,
    *,
    recipe: Annotated[str | None, "Of this recipe."] = None,
    data: Annotated[str | None, "On this data set."] = None,
    state: Annotated[State | None, "That have come so far."] = None,
    sort: Annotated[Literal["date", "accuracy"], "Best or newest first."] = "date",
    compare: Annotated[bool, "Write the page that compares them."] = False,
    delete: Annotated[bool, "Delete what is listed, after a question."] = False,
    yes: Annotated[bool, "Delete without the question."] = False,
    runs: cli.RunsOption = Path("runs"),
) -> None:
    """List runs, the newest or the best first; compare or delete them."""
    found = folders or [path.parent for path in sorted(runs.glob("*/*/recipe.json"))]
    wanted = {"recipe": recipe, "data": data, "state": state}.items()
    rows = [_describe(open_run(each)) for each in found]
    rows = [row for row in rows if all(value in (None, row[name]) for name, value in wanted)]
    rows.sort(key=lambda row: (row[sort] is not None, row[sort]), reverse=True)
    if not rows:
        output.say(f"There is no such run in {runs}; `tenfold train` makes one.")
        return
    cells = []
    for row in rows:
        output.record("run", **row)
        accuracy = f"{percent(row['accuracy'], 2)} {row['split']}" if row["split"] else "-"
        seconds, date = duration(row["seconds"]), (row["date"] or "-")[:16].replace("T", " ")
        cells.append([row["run"], str(row["data"]), row["state"], accuracy, seconds, date])
    output.table("Runs", ["run", "data", "state", "accuracy", "training", "date"], cells)
    if compare:
        write_page(output, [Path(row["run"]) for row in rows])
    if delete:
        _delete(output, rows, yes=yes)


def _describe(run: RunFolder) -> dict[str, Any]:
    """What a row of the list says, missing values as None."""
    recipe = read_json(run.recipe)
    provenance = read_json(run.provenance) if run.provenance.exists() else {}
    result = read_json(run.result) if run.is_finished() else {}
    splits = result.get("splits", {})
    split = next((name for name in ("test", "validation") if name in splits), None)
    sessions = provenance.get("sessions") or [{}]
    return {
        "run": str(run.path),
        "recipe": recipe.get("name"),
        "data": provenance.get("data", {}).get("name") or recipe.get("data", {}).get("name"),
        "state": "finished" if result else "running" if run.is_held() else "unfinished",
        "split": split,
        "accuracy": splits[split]["accuracy"] if split else None,
        "seconds": result.get("training", {}).get("training_seconds"),
        "date": sessions[-1].get("started"),
    }


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


def doctor(
    output: Output,
    run: cli.RunArgument,
    *,
    data: cli.PlaceOption = None,
    threads: cli.ThreadsOption = None,
) -> None:
    """Look for dead units, vanishing gradients and wrong step sizes, and say what to try."""
    from tenfold.reporting.diagnostics import layer_chart
    from tenfold.reporting.svg import standalone_svg
    from tenfold.training.doctor import diagnose

    with cli.computing(output, threads) as progress:
        found = diagnose(RunFolder(run), data=data, progress=progress)
    for event in ("activation", "layer"):
        for each in getattr(found, f"{event}s"):
            output.record(event, **each._asdict())
    title = f"Layers of {run}, on {found.num_images} training images"
    rows = [[layer.name, f"{layer.gradient:.1e}", f"{layer.update:.1e}"] for layer in found.layers]
    output.table(title, ["layer", "gradient (RMS)", "update over weight"], rows)
    rows = [[each.name, str(each.num_units), percent(each.dead)] for each in found.activations]
    output.table("Activations", ["in", "units", "dead"], rows)
    for finding in found.findings:
        cli.announce(output, "finding", finding.sentence, bold=True, **finding._asdict())
    if not found.findings:
        output.say("Nothing is wrong: units, gradients and steps are as they usually are.")
    figure = run / "figures" / "doctor.svg"
    write_text(figure, standalone_svg(layer_chart(found)))
    cli.announce(output, "figure", f"The figure is {figure}.", path=str(figure))
