"""`tenfold audit` and `tenfold explain`: what one should know before trusting a model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold.cli.options import (
    PlaceOption,
    RunArgument,
    ThreadsOption,
    require_data,
)
from tenfold.console.output import Output
from tenfold.errors import TenfoldError, counted

if TYPE_CHECKING:
    from tenfold.audit import AuditOptions
    from tenfold.run import RunFolder


@dataclass(frozen=True)
class AuditFlags:
    """What an audit may be told, as AuditOptions has it."""

    human: Annotated[
        Path | None, "cifar10h-probs.npy, people's answers to CIFAR-10's test set."
    ] = None
    corrupted: Annotated[
        Path | None,
        typer.Option("--cifar-10-c", help="A folder with the published files of CIFAR-10-C."),
    ] = None
    new_test_set: Annotated[
        Path | None,
        typer.Option("--cifar-10-1", help="A folder with the files of CIFAR-10.1, version 6."),
    ] = None
    strange: Annotated[str | None, "A data set or folder of other things than it knows."] = None
    pictures: Annotated[
        int | None,
        typer.Option(min=1, help="How many are damaged and attacked; 1000 by default."),
    ] = None
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Judge the training images' labels by as many trainings."),
    ] = None


def audit(
    output: Output,
    run: RunArgument,
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            help="calibration, explanation, errors, robustness, new-pictures, novelty, agreement, "
            "labels, all where none is named; or one of your own, such as my.py:question."
        ),
    ] = None,
    *,
    flags: AuditFlags,
    data: PlaceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Find out what one should know before trusting a run; `tenfold report` shows it."""
    from tenfold.audit import AuditOptions

    options = AuditOptions(**vars(flags))
    audit_run(run, parts, output=output, options=options, data=data, threads=threads)


def audit_run(
    folder: Path,
    parts: Sequence[str] | None = None,
    *,
    output: Output,
    options: "AuditOptions",
    data: str | None = None,
    threads: int | None = None,
) -> None:
    """Compute the parts that are not known yet, and say what is known."""
    from tenfold.audit import PARTS, require_parts
    from tenfold.run import finished_run

    run, wanted = finished_run(folder), parts or None
    require_parts(wanted or ())
    for place in (options.human, options.corrupted, options.new_test_set):
        if place is not None and not place.exists():
            raise TenfoldError(f"{place} does not exist; check the path.")
    require_data(options.strange)

    from tenfold.audit.store import kept_answers

    answers = kept_answers(run, wanted, options)
    if len(answers) < len(wanted or PARTS):
        from tenfold.audit import audit as compute
        from tenfold.training.process import prepare_process

        prepare_process(threads)
        with output.progress() as progress:
            answers = compute(run, wanted, options=options, data=data, progress=progress)
    for name, answer in answers.items():
        output.record("part", part=name, **answer.to_dict())
    rows = [[name, answer.summary()] for name, answer in answers.items()]
    output.table("What is known of it", ["part", "found"], rows)


def explain(
    output: Output,
    run: RunArgument,
    pictures: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders, or ids of the measured split such as test/17; the ones most "
            "worth a look where none is named."
        ),
    ] = None,
    out: Annotated[Path | None, "The HTML file to write."] = None,
    data: PlaceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Show where a run looked on images, and which training images are most like them."""
    from tenfold.files import require_place
    from tenfold.run import finished_run

    folder = finished_run(run)
    require_place(out)
    _require_pictures(folder, pictures or [])

    from tenfold.audit.explanation import explain_pictures, explanation, write_explanation
    from tenfold.audit.subject import Subject
    from tenfold.training.process import prepare_process

    prepare_process(threads)
    with output.progress() as progress:
        subject = Subject(folder, seed=0, progress=progress, data=data)
        found = explain_pictures(subject, pictures) if pictures else explanation(subject)
    if not pictures or any(picture.true for picture in found.pictures):
        with folder.writer():
            subject.record_use("tenfold explain")
    page = write_explanation(folder.path, found, out or folder.path / "explanation.html")
    for picture in found.pictures:
        output.record("picture", **picture.to_dict())
    output.say(f"{page} shows {counted(len(found.pictures), 'picture')}.")
    output.record("page", path=str(page))


def _require_pictures(run: "RunFolder", wanted: Sequence[str]) -> None:
    """Raise TenfoldError for what is neither a path nor an id that the run has predicted."""
    from tenfold.data.image_sources import find_pictures
    from tenfold.evaluation.predictions import load_predictions

    split = next((s for s in ("test", "validation") if run.predictions(s).exists()), None)
    if split is None or not wanted:
        return  # Only the pictures themselves tell which ids there are.
    ids = set(load_predictions(run.predictions(split)).ids.tolist())
    find_pictures(
        name
        for name in wanted
        if name not in ids and not re.fullmatch(r"(train|validation|test)/-?\d+", name)
    )
