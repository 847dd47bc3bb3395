"""`tenfold study` and `studies`, and `tenfold heads`: several trainings side by side."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from annotated_types import Ge

from tenfold.cli.commands import computing
from tenfold.cli.options import (
    Changes,
    DataOption,
    Jobs,
    Machine,
    PartOption,
    ReportOption,
    SetOption,
    SkipBrokenOption,
    chosen_part,
)
from tenfold.cli.pages import show_page
from tenfold.console.output import Output
from tenfold.console.studies import StudyDisplay, showing_runs
from tenfold.console.summaries import show_study
from tenfold.errors import TenfoldError
from tenfold.formatting import duration, percent


def study(
    output: Output,
    study: Annotated[
        str,
        "A shipped study (see `tenfold studies`), a recipe, or a path to a .toml file of either.",
    ],
    *,
    grid: Annotated[list[str] | None, "Values to try; several are crossed.", "KEY=A,B"] = None,
    seeds: Annotated[int | None, "Runs of each variant; more can be added later.", Ge(1)] = None,
    changes: Changes,
    folder: Annotated[Path | None, "The study's folder; studies/<name> if not given."] = None,
    reuse: Annotated[
        list[Path] | None,
        "Take over equal finished runs from this study or run; repeatable.",
        "FOLDER",
    ] = None,
    retry_failed: Annotated[bool, "Try failed runs again."] = False,
    part: PartOption = None,
    jobs: Jobs,
    machine: Machine,
    skip_broken: SkipBrokenOption = False,
    report: ReportOption = True,
) -> None:
    """Train every variant with several seeds and compare; run again, it does what is missing."""
    from tenfold.studies.definition import adjust, choose_study
    from tenfold.studies.running import StudyOptions, run_study

    chosen = adjust(choose_study(study, grid or []), seeds=seeds, overrides=changes.listed())
    where = folder or Path("studies") / chosen.name
    place, placed = jobs.placed(machine.threads)
    options = StudyOptions(
        **placed,
        retry_failed=retry_failed,
        skip_broken=skip_broken,
        reuse=tuple(reuse or ()),
        part=chosen_part(part),
    )
    with showing_runs(output) as bars:
        display = StudyDisplay(output, bars)
        outcome = run_study(chosen, folder=where, options=options, reporter=display, place=place)
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
        facts = {"question": shipped.question, "variants": labels, "num_runs": num_runs}
        output.record("study", name=name, **facts)
        rows.append([name, shipped.question, "; ".join(labels), str(num_runs)])
    title = "Studies: carry one out with `tenfold study NAME`"
    output.table(title, ["study", "question", "variants", "runs"], rows)


def heads(
    output: Output,
    recipe: Annotated[str, "A recipe with a pretrained network, such as transfer-lite0."],
    *,
    data: DataOption = None,
    overrides: SetOption = None,
    machine: Machine,
    skip_broken: SkipBrokenOption = False,
    test: Annotated[bool, "Score the test split too, once a head.", "--test/--no-test"] = False,
) -> None:
    """Compare a linear head, an MLP, nearest neighbours and logistic regression on features."""
    changes = Changes(data=data, overrides=overrides)
    chosen = changes.applied_to(recipe, changes.listed())

    from tenfold.data.splits import training_data
    from tenfold.evaluation.evaluate import split_of, splitting
    from tenfold.evaluation.loading import load_data
    from tenfold.training.devices import make_accelerator
    from tenfold.training.heads import compare_heads, require_pretrained

    require_pretrained(chosen)
    rows, images = [], None
    with computing(output, machine.threads) as progress:
        dataset = load_data(chosen, skip_broken=skip_broken, progress=progress)
        if test:
            try:
                images = split_of(dataset, "test", chosen.data)
            except TenfoldError as error:
                output.say(str(error))
        train = training_data(dataset, **splitting(chosen.data))
        accelerator = make_accelerator(chosen)
        for found in compare_heads(
            chosen, train, images, accelerator=accelerator, progress=progress
        ):
            output.record("head", **found._asdict())
            accuracies = percent(found.validation), percent(found.test)
            rows.append([found.head, found.chosen, *accuracies, duration(found.seconds)])
    columns = ["head", "chosen", "validation", "test", "time"]
    output.table(f"Heads on the features of {chosen.name}", columns, rows)
