"""The `tenfold` command: thin commands over the library, which each imports only when it runs."""

import contextlib
import io
import json
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from tenfold import __version__
from tenfold.cli.course import course
from tenfold.cli.data import data_app, demo
from tenfold.cli.deployment import export, pull, push, serve
from tenfold.cli.options import add_commands, by_fields, new_app
from tenfold.cli.pages import audit, explain, report
from tenfold.cli.predictions import predict, score
from tenfold.cli.recipes import bench, models, recipes
from tenfold.cli.runs import doctor, evaluate, runs
from tenfold.cli.studies import heads, studies, study, tune
from tenfold.cli.train import live, train, with_port
from tenfold.console import output as console
from tenfold.errors import InterruptedRunError, TenfoldError, sentence_of
from tenfold.interruption import leave_with_driver
from tenfold.waiting import sharing_cores

UsageError: Any = typer.BadParameter.__bases__[0]
"""Of Click, or of the copy of it that newer versions of Typer bring."""

INTERRUPTED = 130

app = new_app(
    name="tenfold",
    help="Train, compare and explain classifiers of small images, fast and with honest numbers.",
)


@app.callback(invoke_without_command=True)
@by_fields
def _options(
    *,
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
    # Nor is what Pillow has to say of damaged files, which are named as such.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="PIL")
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
        try:
            os.getcwd()
        except FileNotFoundError:
            raise TenfoldError(
                "The working folder has been deleted; change to one that exists, and run the "
                "command there."
            ) from None
        status = app(args=with_port(arguments), standalone_mode=False) or 0
        if status == INTERRUPTED:  # Typer has caught Ctrl-C.
            raise KeyboardInterrupt
        sys.exit(status)


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
        elif ending["kind"] == "NoArgsIsHelpError":
            error.show()  # type: ignore[union-attr]
        else:
            prefix = "error: " if ending["event"] == "error" else ""
            print(f"{prefix}{ending['message']}", file=sys.stderr)
        sys.exit(ending["status"])


def _ending(error: BaseException) -> dict[str, Any] | None:
    """What is said of an error that has a sentence; None for a fault of the program."""
    status = getattr(error, "exit_status", TenfoldError.exit_status)
    if isinstance(error.__cause__, EOFError):  # Typer takes it for the end of a dialogue.
        return None
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        message, status = "Stopped.", INTERRUPTED
    elif isinstance(error, UsageError):
        message, status = error.format_message().replace("Value error, ", ""), error.exit_code
    elif isinstance(error, UnicodeEncodeError):
        if not re.search("[\udc80-\udcff]", str(error.object)):
            return None
        name = str(error.object)[max(error.start - 80, 0) : error.end + 80]
        message = f"{name!a} is not UTF-8, as a library wants it; rename it."
    elif isinstance(error, TenfoldError | OSError):
        message = sentence_of(error)
    else:
        return None
    # Whoever stops a run knows that it is no error.
    is_stopped = isinstance(error, KeyboardInterrupt | typer.Abort | InterruptedRunError)
    event, kind = "interrupted" if is_stopped else "error", type(error).__name__
    return {"event": event, "kind": kind, "message": message, "status": status}
