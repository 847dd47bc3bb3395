"""The commands about studies: `tenfold study` carries one out, `tenfold studies` lists them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from tenfold.cli.options import (
    Changes,
    Jobs,
    Machine,
    PartOption,
    ReportOption,
    SkipBrokenOption,
    chosen_part,
    require_data,
)
from tenfold.cli.pages import show_page
from tenfold.console.output import Output
from tenfold.console.studies import StudyDisplay, showing_runs
from tenfold.console.summaries import show_study


@dataclass(frozen=True)
class StudyFlags:
    """How a study is carried out."""

    reuse: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Take over equal finished runs from this study or run; repeatable.",
        ),
    ] = None
    retry_failed: Annotated[bool, "Try failed runs again."] = False
    part: PartOption = None


def study(
    output: Output,
    study: Annotated[
        str,
        "A shipped study (see `tenfold studies`), a recipe, or a path to a .toml file of either.",
    ],
    grid: Annotated[
        list[str] | None,
        typer.Option("--grid", metavar="KEY=A,B", help="Values to try; several are crossed."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs of each variant; more can be added later.")
    ] = None,
    *,
    changes: Changes,
    folder: Annotated[Path | None, "The study's folder; studies/<name> if not given."] = None,
    flags: StudyFlags,
    jobs: Jobs,
    machine: Machine,
    skip_broken: SkipBrokenOption = False,
    report: ReportOption = True,
) -> None:
    """Train every variant with several seeds and compare; run again, it does what is missing."""
    from tenfold.studies.definition import adjust, choose_study
    from tenfold.studies.running import StudyOptions, run_study

    require_data(changes.data)
    chosen = adjust(choose_study(study, grid or []), seeds=seeds, overrides=changes.listed())
    where = folder or Path("studies") / chosen.name
    part = chosen_part(flags.part)
    placed = jobs.place(machine.threads)
    options = StudyOptions(
        num_jobs=placed.num_jobs,
        threads=placed.threads,
        retry_failed=flags.retry_failed,
        skip_broken=skip_broken,
        reuse=tuple(flags.reuse or ()),
        part=part,
    )
    with showing_runs(output) as bars:
        display = StudyDisplay(output, bars)
        outcome = run_study(
            chosen, folder=where, options=options, reporter=display, place=placed.place
        )
    for record in outcome.records:
        output.record("trial", **asdict(record))
    from tenfold.studies.analysis import summarise_study

    show_study(output, summarise_study(where))
    if report:
        from tenfold.reporting.study.page import write_study_page

        show_page(output, write_study_page(where))
    if outcome.num_failed:
        raise typer.Exit(1)


def studies(output: Output) -> None:
    """List the shipped studies."""
    from tenfold.studies.definition import choose_study, shipped_studies

    rows = []
    for name in shipped_studies():
        shipped = choose_study(name)
        labels = [variant.label for variant in shipped.variants]
        num_runs = sum(variant.seeds or shipped.seeds for variant in shipped.variants)
        output.record(
            "study", name=name, question=shipped.question, variants=labels, num_runs=num_runs
        )
        rows.append([name, shipped.question, "; ".join(labels), str(num_runs)])
    output.table(
        "Studies: carry one out with `tenfold study NAME`",
        ["study", "question", "variants", "runs"],
        rows,
    )
