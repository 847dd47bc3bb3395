"""`tenfold report`, `audit` and `explain`: pages, and what to know before trusting a model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold.cli import options as cli
from tenfold.console.output import Output
from tenfold.errors import TenfoldError, counted
from tenfold.run import RunFolder, finished_run, open_run

if TYPE_CHECKING:
    from tenfold.audit import AuditOptions


def show_page(output: Output, page: Path) -> Path:
    """Say where a page is."""
    cli.announce(output, "page", f"The page is {page.resolve()}", bold=True, path=str(page))
    return page


def write_page(
    output: Output, folders: list[Path], out: Path | None = None, *, data: str | None = None
) -> Path:
    """Write the page about a study, a search, a run or several, and say where it is."""
    first, is_alone = folders[0], len(folders) == 1
    if is_alone and data is not None and not (first / "recipe.json").exists():
        raise TenfoldError(f"{first} is no run, whose images --data could name; leave it out.")
    if is_alone and (first / "study.json").exists():
        from tenfold.reporting.study import write_study_page
        from tenfold.studies.analysis import summarise_study

        summarise_study(first)  # Runs may have been added since, or the study cut short.
        return show_page(output, write_study_page(first, out))
    if is_alone and (first / "search.json").exists():
        from tenfold.reporting.search import write_search_page

        return show_page(output, write_search_page(first, out))
    from tenfold.reporting.galleries import load_dataset
    from tenfold.reporting.page import write_figures, write_report

    out = out or (None if is_alone else Path("report.html"))
    page = write_report(folders, out, loader=partial(load_dataset, place=data))
    if is_alone:
        write_figures(first)
    return show_page(output, page)


@dataclass(frozen=True)
class AuditFlags:
    """What an audit may be told, as AuditOptions has it."""

    human: Annotated[
        Path | None, "cifar10h-probs.npy, people's labels of CIFAR-10's test set.", cli.EXISTS
    ] = None
    corrupted: Annotated[
        Path | None, "A folder with the published CIFAR-10-C.", "--cifar-10-c", cli.EXISTS
    ] = None
    new_test_set: Annotated[
        Path | None, "A folder with CIFAR-10.1, version 6.", "--cifar-10-1", cli.EXISTS
    ] = None
    strange: Annotated[
        str | None, "A data set or folder of other things than it knows.", cli.require_data
    ] = None
    pictures: Annotated[
        int | None, "How many are damaged and attacked; 1000 by default.", cli.POSITIVE
    ] = None
    folds: Annotated[
        int | None, "Judge the training images' labels by as many trainings.", {"min": 2}
    ] = None


def report(
    output: Output,
    folders: Annotated[
        list[Path], "A run, several runs to compare, a study, or a search of `tune`."
    ],
    *,
    out: cli.PageOption = None,
    open_page: Annotated[bool, "Open it in a browser.", "--open"] = False,
    full: Annotated[bool, "Audit each run first, so that the page holds it too."] = False,
    flags: AuditFlags,
    data: cli.PlaceOption = None,
) -> None:
    """Write one self-contained HTML page about a run, a comparison, a study or a search."""
    for folder in folders:
        if full:
            finished_run(folder)
        elif not any((folder / name).exists() for name in ("study.json", "search.json")):
            open_run(folder)
    if full:
        from tenfold.audit import AuditOptions

        options = AuditOptions(**vars(flags))
        for folder in folders:
            _audit_run(output, RunFolder(folder), options=options, data=data)
    elif any(vars(flags).values()):
        raise TenfoldError("These options are for an audit; add --full.")
    page = write_page(output, folders, out, data=data)
    if open_page:
        typer.launch(str(page))


def audit(
    output: Output,
    run: cli.RunArgument,
    parts: Annotated[
        list[str] | None,
        "calibration, explanation, errors, robustness, new-pictures, novelty, agreement, labels, "
        "all where none is named; or one of your own, such as my.py:question.",
    ] = None,
    *,
    flags: AuditFlags,
    data: cli.PlaceOption = None,
    threads: cli.ThreadsOption = None,
) -> None:
    """Find out what one should know before trusting a run; `tenfold report` shows it."""
    from tenfold.audit import AuditOptions, require_parts

    require_parts(parts or ())
    options = AuditOptions(**vars(flags))
    _audit_run(output, RunFolder(run), parts, options=options, data=data, threads=threads)


def _audit_run(
    output: Output,
    run: RunFolder,
    parts: Sequence[str] | None = None,
    *,
    options: "AuditOptions",
    data: str | None,
    threads: int | None = None,
) -> None:
    """Compute the parts that are not known yet, and say what is known."""
    from tenfold.audit import PARTS
    from tenfold.audit.store import kept_answers

    wanted = parts or None
    answers = kept_answers(run, wanted, options)
    if len(answers) < len(wanted or PARTS):
        from tenfold.audit import audit as compute

        with cli.computing(output, threads) as progress:
            answers = compute(run, wanted, options=options, data=data, progress=progress)
    for name, answer in answers.items():
        output.record("part", part=name, **answer.to_dict())
    rows = [[name, answer.summary()] for name, answer in answers.items()]
    output.table("What is known of it", ["part", "found"], rows)


def explain(
    output: Output,
    run: cli.RunArgument,
    images: Annotated[
        list[str] | None,
        "Files, folders, or ids of the measured split such as test/17; the ones most worth a look "
        "where none is named.",
    ] = None,
    *,
    out: cli.PageOption = None,
    data: cli.PlaceOption = None,
    threads: cli.ThreadsOption = None,
) -> None:
    """Show where a run looked on images, and which training images are most like them."""
    folder = RunFolder(run)
    _require_images(folder, images or [])

    from tenfold.audit.explanation import explain_pictures, explanation, write_explanation
    from tenfold.audit.subject import Subject

    with cli.computing(output, threads) as progress:
        subject = Subject(folder, seed=0, progress=progress, data=data)
        found = explain_pictures(subject, images) if images else explanation(subject)
    if not images or any(image.true for image in found.pictures):
        with folder.writer():
            subject.record_use("tenfold explain")
    page = write_explanation(run, found, out or run / "explanation.html")
    for image in found.pictures:
        output.record("image", **image.to_dict())
    shown = f"{page} shows {counted(len(found.pictures), 'image')}."
    cli.announce(output, "page", shown, path=str(page))


def _require_images(run: RunFolder, wanted: Sequence[str]) -> None:
    """Raise TenfoldError for what is neither a path nor an id that the run has predicted."""
    from tenfold.data.image_sources import find_images
    from tenfold.evaluation.predictions import load_predictions

    split = next((s for s in ("test", "validation") if run.predictions(s).exists()), None)
    if split is None or not wanted:
        return  # Only the images themselves tell which ids there are.
    ids = set(load_predictions(run.predictions(split)).ids.tolist())
    is_id = re.compile(r"(train|validation|test)/-?\d+").fullmatch
    find_images(name for name in wanted if name not in ids and not is_id(name))
