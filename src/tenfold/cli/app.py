"""The `tenfold` command: thin commands over the library, which each imports only when it runs."""

import contextlib
import dataclasses
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold import __version__
from tenfold.cli.audit import (
    CorruptedOption,
    HumanOption,
    NewTestSetOption,
    PicturesOption,
    StrangeOption,
    audit,
    audit_run,
    explain,
)
from tenfold.cli.bench import bench
from tenfold.cli.data import data_app
from tenfold.cli.deployment import export, pull, push, serve
from tenfold.cli.heads import heads
from tenfold.cli.imports import quick_imports
from tenfold.cli.options import (
    DataOption,
    JsonOption,
    NoCacheOption,
    PlaceOption,
    RunArgument,
    RunsOption,
    SetOption,
    SkipBrokenOption,
    ThreadsOption,
    data_override,
    require_data,
    require_split,
    seconds_of,
)
from tenfold.cli.predictions import predict, score
from tenfold.cli.studies import studies, study
from tenfold.cli.tune import tune
from tenfold.console.output import Output
from tenfold.console.summaries import (
    show_comparison,
    show_metrics,
    show_result,
)
from tenfold.errors import InterruptedRunError, TenfoldError, sentence_of
from tenfold.formatting import duration
from tenfold.waiting import sharing_cores

if TYPE_CHECKING:
    from tenfold.data import Dataset
    from tenfold.recipe import Recipe

app = typer.Typer(
    name="tenfold",
    help="Train, compare and explain classifiers of small images, fast and with honest numbers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Show the version and leave.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    _: Annotated[
        bool,
        typer.Option(
            "--trust-code",
            help="Import the code that a run came with, such as a network of its author's; may "
            "stand anywhere in the command.",
        ),
    ] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def demo(
    seed: Annotated[int, typer.Option(min=0, help="Seed of both runs.")] = 0,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Train a dense and a convolutional network on CIFAR-10 and write a page about both."""
    output = Output(as_json=as_json)
    output.say("A dense and a convolutional network on CIFAR-10: some two minutes on two cores.")

    from tenfold.demo import run_demo

    outcome = run_demo(runs, seed=seed, output=output)
    show_comparison(output, outcome.runs)
    output.say(f"Training and evaluating both took {duration(outcome.seconds)}.")
    _show_page(output, outcome.page)


@app.command()
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A shipped recipe (see `tenfold recipes`) or a path to a .toml file; with --data "
            "or --time it may be left out."
        ),
    ] = None,
    data: DataOption = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the run.")] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", help="Be done, evaluation and all, within this time: 90s, 5m, 2h."),
    ] = None,
    overrides: SetOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest unfinished run, or fail.")
    ] = False,
    new: Annotated[
        bool, typer.Option("--new", help="Start afresh, even beside an unfinished run.")
    ] = False,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Resume although something has changed.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Train in this run folder, or resume it.")
    ] = None,
    runs: RunsOption = Path("runs"),
    threads: ThreadsOption = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave GPUs alone.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if a picture is in two splits.")
    ] = False,
    skip_broken: SkipBrokenOption = False,
    no_cache: NoCacheOption = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write curves for TensorBoard too.")
    ] = False,
    test: Annotated[
        bool, typer.Option("--test/--no-test", help="Evaluate on the test split at the end.")
    ] = True,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html at the end.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Train a recipe, evaluate it and write its report; run again, it resumes where it was."""
    changes = [*(overrides or []), *data_override(data)]
    if seed is not None:
        changes.append(f"seed={seed}")
    _require_arguments(recipe, changes, data=data, time=time)
    with quick_imports():
        from tenfold.models.pretrained import import_timm
        from tenfold.training.train import TrainOptions
        from tenfold.training.train import train as train_recipe

    output = Output(as_json=as_json)
    options = TrainOptions(
        runs=runs,
        folder=folder,
        resume=resume,
        new=new,
        allow_changes=allow_changes,
        threads=threads,
        cpu=cpu,
        strict=strict,
        skip_broken=skip_broken,
        tensorboard=tensorboard,
        evaluate_test=test,
    )
    dataset = None
    if time is not None:
        from tenfold.cli.timed import recipe_within

        timed = recipe_within(
            time, recipe, changes, output=output, runs=runs, options=options, writes_page=report
        )
        chosen, dataset = timed.recipe, timed.dataset
        options = dataclasses.replace(options, threads=timed.threads)
    else:
        chosen, dataset = _chosen(
            output, recipe, changes, has_data=data is not None, skip=skip_broken
        )
    if chosen.model.name == "pretrained":
        with quick_imports():
            import_timm()
    with output.training() as reporter:
        outcome = train_recipe(
            chosen, options=options, dataset=dataset, reporter=reporter, progress=reporter
        )
    if not outcome.writes:
        return
    show_result(output, outcome.run.path)
    if report:
        _write_report(output, [outcome.run.path], None)


def _require_arguments(
    recipe: str | None, changes: list[str], *, data: str | None, time: str | None
) -> None:
    """Raise TenfoldError for what is wrong however long one waits, before torch is imported."""
    if time is not None:
        seconds_of(time)
    if recipe is not None:
        from tenfold.recipe import load_recipe

        data = load_recipe(recipe, changes).data.name
    require_data(data)


def _chosen(
    output: Output, recipe: str | None, changes: list[str], *, has_data: bool, skip: bool
) -> "tuple[Recipe, Dataset | None]":
    """The recipe named, or one that fits the pictures, and those where they are loaded already.

    Raises TenfoldError without either.
    """
    if recipe is not None:
        from tenfold.recipe import load_recipe

        return load_recipe(recipe, changes), None
    if not has_data:
        raise TenfoldError(
            "Name a recipe, such as `tenfold train cnn` (see `tenfold recipes`), pictures of your "
            "own with --data, or the time that there is, such as `tenfold train --time 5m`."
        )
    from tenfold.training.choice import choose_recipe

    with output.progress() as progress:
        choice = choose_recipe(changes, skip_broken=skip, progress=progress)
    output.record("choice", reason=choice.reason, recipe=choice.recipe.to_dict())
    output.say(choice.reason)
    return choice.recipe, choice.dataset


@app.command()
def evaluate(
    run: RunArgument,
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    data: DataOption = None,
    skip_broken: SkipBrokenOption = False,
    no_cache: NoCacheOption = False,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a finished run on a split; every use of the test split is written down."""
    from tenfold.run import command_line, finished_run

    require_split(split)
    require_data(data)
    folder = finished_run(run)

    from tenfold.evaluation.evaluate import evaluate_run
    from tenfold.training.process import prepare_process

    output = Output(as_json=as_json)
    prepare_process(threads)
    with output.progress() as progress:
        metrics = evaluate_run(
            folder,
            split=split,
            data=data,
            skip_broken=skip_broken,
            purpose=command_line(),
            progress=progress,
        )
    output.record("metrics", split=split, **metrics.to_dict())
    show_metrics(output, split, metrics)


@app.command()
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="A run, several runs to compare, a study, or a search of `tune`."),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="The HTML file to write.")] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Audit each run first, so that the page holds it too.")
    ] = False,
    human: HumanOption = None,
    corrupted: CorruptedOption = None,
    new_test_set: NewTestSetOption = None,
    strange: StrangeOption = None,
    pictures: PicturesOption = None,
    data: PlaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one self-contained HTML page about a run, a comparison, a study or a search."""
    from tenfold.files import require_place
    from tenfold.run import finished_run, open_run

    require_place(out)
    for folder in folders:
        if not any((folder / name).exists() for name in ("study.json", "search.json")):
            open_run(folder)
    output = Output(as_json=as_json)
    if full:
        from tenfold.audit import AuditOptions

        for folder in folders:
            finished_run(folder)
        options = AuditOptions(pictures, human, corrupted, new_test_set, strange)
        for folder in folders:
            audit_run(folder, output=output, options=options, data=data)
    elif any((human, corrupted, new_test_set, strange, pictures)):
        raise TenfoldError("These options are for an audit; add --full.")
    page = _write_report(output, folders, out, data=data)
    if open_page:
        typer.launch(str(page))


app.command()(predict)
app.command()(score)
app.command()(study)
app.command()(studies)
app.command()(tune)
app.command()(heads)
app.command()(export)
app.command()(serve)
app.command()(push)
app.command()(pull)
app.command()(audit)
app.command()(explain)
app.command()(bench)


@app.command()
def recipes(as_json: JsonOption = False) -> None:
    """List the shipped recipes, with what was published and measured of each."""
    from tenfold.recipe import load_recipe, read_header, shipped_recipes

    output = Output(as_json=as_json)
    rows = []
    for name, text in shipped_recipes().items():
        recipe, header = load_recipe(name), read_header(text)
        output.record("recipe", **recipe.to_dict(), header=header)
        rows.append([name, recipe.description, header["measured"], header["time"]])
    output.table(
        "Recipes: train one with `tenfold train NAME`",
        ["recipe", "description", "measured", "time"],
        rows,
    )


@app.command()
def models(as_json: JsonOption = False) -> None:
    """List the networks, with their parameters for ten classes of 32x32 pictures."""
    from tenfold.models import count_parameters
    from tenfold.registry import SHIPPED, find_part

    output = Output(as_json=as_json)
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


def main() -> None:
    """Run the command line; errors become a sentence and an exit status."""
    _open_streams()
    # A home that can't be written is no fault of the command; what matplotlib says of it is noise.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Names of classes may not be in its alphabet.
            stream.reconfigure(errors="backslashreplace")
    # Both may stand anywhere, since they are thought of after the rest has been typed.
    arguments = [each for each in sys.argv[1:] if each not in ("--debug", "--trust-code")]
    if "--trust-code" in sys.argv:
        os.environ["TENFOLD_TRUST_CODE"] = "1"  # Of processes that this one starts, too.
    with _exit_status(debug="--debug" in sys.argv), sharing_cores():
        _require_working_folder()
        app(args=arguments)


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
def _exit_status(*, debug: bool) -> Iterator[None]:
    try:
        yield
    except TenfoldError as error:
        if debug:
            traceback.print_exc()
        # Whoever stops a run knows that it is no error.
        prefix = "" if isinstance(error, InterruptedRunError) else "error: "
        print(f"{prefix}{error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except UnicodeEncodeError as error:
        if debug or not re.search("[\udc80-\udcff]", str(error.object)):
            raise
        name = str(error.object)[max(error.start - 80, 0) : error.end + 80]
        print(f"error: {name!a} is not UTF-8, as a library wants it; rename it.", file=sys.stderr)
        sys.exit(TenfoldError.exit_status)
    except OSError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {sentence_of(error)}", file=sys.stderr)
        sys.exit(TenfoldError.exit_status)


def _write_report(
    output: Output, folders: list[Path], out: Path | None, *, data: str | None = None
) -> Path:
    several = len(folders) > 1
    page = _page_of_runs(folders, out, data) if several else _page_of(folders[0], out, data)
    _show_page(output, page)
    return page


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


def _show_page(output: Output, page: Path) -> None:
    output.record("page", path=str(page))
    output.say(f"The page is {page.resolve()}", bold=True)
