"""The `tenfold` command: thin commands over the library, which each imports only when it runs."""

import contextlib
import io
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from tenfold import __version__
from tenfold.cli.audit import AuditFlags, audit, audit_run, explain
from tenfold.cli.bench import bench
from tenfold.cli.commands import add_commands, by_fields, new_app
from tenfold.cli.course import course
from tenfold.cli.data import data_app
from tenfold.cli.deployment import export, pull, push, serve
from tenfold.cli.doctor import doctor
from tenfold.cli.heads import heads
from tenfold.cli.live import live, with_port
from tenfold.cli.options import (
    DataOption,
    PlaceOption,
    Reading,
    RunArgument,
    RunsOption,
    ThreadsOption,
    require_data,
    require_split,
)
from tenfold.cli.pages import show_page, write_page
from tenfold.cli.predictions import predict, score
from tenfold.cli.recipes import recipes
from tenfold.cli.runs import runs
from tenfold.cli.studies import studies, study
from tenfold.cli.train import train
from tenfold.cli.tune import tune
from tenfold.console import output as console
from tenfold.console.output import Output
from tenfold.console.summaries import show_classes, show_metrics, show_operating_point
from tenfold.errors import InterruptedRunError, TenfoldError, sentence_of
from tenfold.interruption import leave_with_driver
from tenfold.waiting import sharing_cores

UsageError: Any = typer.BadParameter.__bases__[0]
"""Of Click, or of the copy of it that newer versions of Typer bring."""

app = new_app(
    name="tenfold",
    help="Train, compare and explain classifiers of small images, fast and with honest numbers.",
)


@app.callback(invoke_without_command=True)
@by_fields
def _options(
    version: Annotated[bool, "Show the version and leave."] = False,
    debug: Annotated[bool, "Show the traceback of an error."] = False,
    trust_code: Annotated[
        bool,
        "Import the code that a run came with, such as a network of its author's; may stand "
        "anywhere in the command.",
    ] = False,
) -> None:
    if version:
        print(f"tenfold {__version__}")
        raise typer.Exit


def demo(
    output: Output,
    seed: Annotated[int, typer.Option(min=0, help="Seed of both runs.")] = 0,
    runs: RunsOption = Path("runs"),
) -> None:
    """Train a dense and a convolutional network on CIFAR-10 and write a page about both."""
    output.say("A dense and a convolutional network on CIFAR-10: some two minutes on two cores.")

    from tenfold.demo import run_demo

    show_page(output, run_demo(runs, seed=seed, output=output))


def evaluate(
    output: Output,
    run: RunArgument,
    split: Annotated[str, "test, validation or train."] = "test",
    data: DataOption = None,
    sensitivity: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT",
            help="Choose the threshold, by validation, from which on an image counts as one of a "
            "class so that so many of its images are found; exports and the service keep it.",
        ),
    ] = None,
    class_name: Annotated[
        str | None,
        typer.Option("--class", help="That class; the second of two where not given."),
    ] = None,
    *,
    reading: Reading,
    threads: ThreadsOption = None,
) -> None:
    """Score a finished run on a split; every use of the test split is written down."""
    from tenfold.run import command_line, finished_run

    if class_name is not None and sensitivity is None:
        raise TenfoldError("--class goes with --sensitivity; add --sensitivity 95.")
    if sensitivity is not None and not 50 <= sensitivity < 100:
        raise TenfoldError(
            f"--sensitivity {sensitivity:g} must be a percentage from 50 to below 100, such as 95."
        )
    require_split(split)
    require_data(data)
    folder = finished_run(run)

    from tenfold.evaluation.evaluate import evaluate_split
    from tenfold.evaluation.operating_points import choose_operating_point
    from tenfold.training.process import prepare_process

    prepare_process(threads)
    point = None
    with output.progress() as progress:
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


def report(
    output: Output,
    folders: Annotated[
        list[Path], "A run, several runs to compare, a study, or a search of `tune`."
    ],
    out: Annotated[Path | None, "The HTML file to write."] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    full: Annotated[bool, "Audit each run first, so that the page holds it too."] = False,
    *,
    flags: AuditFlags,
    data: PlaceOption = None,
) -> None:
    """Write one self-contained HTML page about a run, a comparison, a study or a search."""
    from tenfold.files import require_place
    from tenfold.run import finished_run, open_run

    require_place(out)
    for folder in folders:
        if not any((folder / name).exists() for name in ("study.json", "search.json")):
            open_run(folder)
    if full:
        from tenfold.audit import AuditOptions

        for folder in folders:
            finished_run(folder)
        options = AuditOptions(**vars(flags))
        for folder in folders:
            audit_run(folder, output=output, options=options, data=data)
    elif any(vars(flags).values()):
        raise TenfoldError("These options are for an audit; add --full.")
    page = write_page(output, folders, out, data=data)
    if open_page:
        typer.launch(str(page))


def models(output: Output) -> None:
    """List the networks, with their parameters for ten classes of 32x32 images."""
    from tenfold.models import count_parameters
    from tenfold.registry import SHIPPED, find_part

    rows = []
    for name in sorted(SHIPPED["network"]):
        options = find_part("network", name).options
        count = None
        with contextlib.suppress(TenfoldError):  # What it needs may not be installed.
            count = count_parameters(options()(num_classes=10, image_size=(32, 32)))
        names = ", ".join(key for key in options.model_fields if key != "name")
        purpose = (options.__doc__ or "").partition("\n")[0]
        output.record("model", name=name, num_parameters=count, options=names)
        rows.append([name, "–" if count is None else f"{count:,}", purpose, names])
    output.table("Models", ["model", "parameters", "what it is", "options"], rows)


add_commands(app, demo, course, recipes, train, report, panel="Start here")
app.add_typer(data_app, name="data", rich_help_panel="Start here")
add_commands(app, study, studies, tune, heads, models, bench, panel="Train and compare")
add_commands(
    app, live, runs, evaluate, predict, score, audit, explain, doctor, panel="Look at runs"
)
add_commands(app, export, serve, push, pull, panel="Deploy")


def main() -> None:
    """Run the command line; errors become a sentence and an exit status."""
    _open_streams()
    leave_with_driver()
    # A home that can't be written is no fault of the command; what matplotlib says of it is noise.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Names of classes may not be in its alphabet.
            stream.reconfigure(errors="backslashreplace")
    # Both may stand anywhere, since they are thought of after the rest has been typed.
    arguments = [each for each in sys.argv[1:] if each not in ("--debug", "--trust-code")]
    if "--trust-code" in sys.argv:
        os.environ["TENFOLD_TRUST_CODE"] = "1"  # Of processes that this one starts, too.
    debug, as_json = "--debug" in sys.argv, "--json" in arguments
    if as_json:  # What libraries print, such as Ray's notices of lost nodes, is no line of ours.
        console.json_stream, sys.stdout = sys.stdout, sys.stderr
    with _exit_status(debug=debug, as_json=as_json), sharing_cores():
        _require_working_folder()
        sys.exit(app(args=with_port(arguments), standalone_mode=False) or 0)


def _open_streams() -> None:
    """Open to nowhere what was closed by whoever started this, as services and cron do.

    The next file that is opened would otherwise get its number, and what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _require_working_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise TenfoldError(
            "The working folder has been deleted; change to one that exists, and run the command "
            "there."
        ) from None


@contextlib.contextmanager
def _exit_status(*, debug: bool, as_json: bool) -> Iterator[None]:
    """Turn what ends a command into its exit status and a sentence, or with --json an object."""
    try:
        yield
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except (Exception, KeyboardInterrupt) as error:
        ending = _ending(error)
        if ending is None or (debug and isinstance(error, UnicodeEncodeError)):
            raise
        if debug:
            traceback.print_exc()
        if as_json:
            print(json.dumps(ending), flush=True, file=console.json_stream)
        elif isinstance(error, UsageError):
            error.show()
        else:
            prefix = "error: " if ending["event"] == "error" else ""
            print(f"{prefix}{ending['message']}", file=sys.stderr)
        sys.exit(ending["status"])


def _ending(error: BaseException) -> dict[str, Any] | None:
    """What is said of an error that has a sentence; None for a fault of the program."""
    event, message, status = "error", "", TenfoldError.exit_status
    if isinstance(error, TenfoldError):
        # Whoever stops a run knows that it is no error.
        event = "interrupted" if isinstance(error, InterruptedRunError) else "error"
        message, status = str(error), error.exit_status
    elif isinstance(error, KeyboardInterrupt | typer.Abort):
        event, message, status = "interrupted", "Stopped.", 130
    elif isinstance(error, UsageError):
        message, status = error.format_message(), error.exit_code
    elif isinstance(error, UnicodeEncodeError):
        if not re.search("[\udc80-\udcff]", str(error.object)):
            return None
        name = str(error.object)[max(error.start - 80, 0) : error.end + 80]
        message = f"{name!a} is not UTF-8, as a library wants it; rename it."
    elif isinstance(error, OSError):
        message = sentence_of(error)
    else:
        return None
    kind = type(error).__name__
    return {"event": event, "kind": kind, "message": message, "status": status}
