"""`tenfold train`: one run, from a recipe, from images alone, or in a given time; and `live`."""

import atexit
import contextlib
import gc
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tenfold.cli import options as cli
from tenfold.cli.pages import write_page
from tenfold.console.output import Output
from tenfold.console.summaries import show_result
from tenfold.errors import TenfoldError
from tenfold.formatting import duration, percent
from tenfold.run import RunFolder, finished_run, runs_of

if TYPE_CHECKING:
    from tenfold.data import Dataset
    from tenfold.engine import Child
    from tenfold.recipe import Recipe
    from tenfold.training.plan import Planned
    from tenfold.training.train import TrainOptions


PORT = 8001

END_SECONDS = 5.0
"""For the page's process to say how it ended, and to go."""

logger = logging.getLogger("tenfold")


LiveOption = Annotated[
    int | None,
    "Serve a page that grows meanwhile to this machine, on 8001 if no port is named.",
    "[PORT]",
    cli.A_PORT,
]


def live(
    output: Output,
    folder: Annotated[Path, "A run, a study, a search, or the folder of all runs."],
    *,
    port: Annotated[int, "0 takes any free one.", cli.A_PORT] = PORT,
) -> None:
    """Serve a page that shows runs while they go on, to this machine alone."""
    from tenfold.reporting.live.server import serve

    def ready(address: str) -> None:
        said = f"The live page is at {address}; Ctrl-C ends it."
        cli.announce(output, "serving", said, address=address)

    serve(folder, port, ready=ready)
    output.record("ended", cpu_seconds=time.process_time())


@contextlib.contextmanager
def live_page(output: Output, port: int | None) -> Iterator[Callable[[RunFolder], None] | None]:
    """What starts to serve the page about a run until the block ends; None where `port` is.

    It is served by a process of its own, which does nothing while no browser asks. Raises
    TenfoldError where the port is taken.
    """
    if port is None:
        yield None
        return
    from tenfold.engine import Child, Item
    from tenfold.reporting.live.server import require_port

    free = require_port(port)
    with contextlib.ExitStack() as stack:

        def show_address(event: dict[str, Any]) -> None:
            if event["event"] == "serving":
                address = event["address"]
                said = f"The live page is at {address}"
                cli.announce(output, "live", said, bold=True, address=address)

        def start(run: RunFolder) -> None:
            arguments = ("live", str(run.path.resolve()), "--port", str(free), "--json")
            # It has no compute threads that would have to be looked after.
            item = Item("live", arguments, run.path, environment={"OMP_WAIT_POLICY": "PASSIVE"})
            stack.callback(_end, Child(item, show_address))

        yield start


def _end(child: "Child") -> None:
    """Let the page's process end; say so if it did before, for a reason of its own."""
    if (ended := child.poll()) is None:
        child.stop()
        deadline = time.monotonic() + END_SECONDS
        while (ended := child.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.02)
    if ended is None:
        child.kill()
    elif ended.error is not None:
        logger.warning("The live page could not be served: %s", ended.error)


def with_port(arguments: Sequence[str]) -> list[str]:
    """`--live` without a port as `--live 8001`, since no option may go without its value."""
    found: list[str] = []
    for each, after in itertools.pairwise([*arguments, ""]):
        found += ["--live", str(PORT)] if each == "--live" and not after.isdigit() else [each]
    return found


def _require_teacher(teacher: Path) -> None:
    if teacher.suffix != ".safetensors":
        finished_run(teacher.expanduser())


@dataclass(frozen=True)
class Where:
    """Where a run goes, as TrainOptions has it."""

    resume: Annotated[bool, "Go on with the newest unfinished run, or fail."] = False
    new: Annotated[bool, "Start afresh, even beside an unfinished run."] = False
    allow_changes: Annotated[bool, "Resume although something has changed."] = False
    folder: Annotated[Path | None, "Train in this run folder, or resume it."] = None
    runs: cli.RunsOption = Path("runs")
    strict: cli.StrictOption = False


@dataclass(frozen=True)
class Around:
    """What is done besides the training."""

    track: Annotated[
        list[str] | None, "Curves for tensorboard, wandb, mlflow or trackio; repeatable.", "NAME"
    ] = None
    tensorboard: Annotated[bool, "Short for --track tensorboard."] = False
    live: LiveOption = None
    find_lr: Annotated[bool, "Try learning rates on a copy, name one, and leave."] = False
    test: Annotated[bool, "Evaluate on the test split at the end.", "--test/--no-test"] = True

    @property
    def trackers(self) -> tuple[str, ...]:
        """Each once."""
        return tuple(dict.fromkeys([*(self.track or []), *["tensorboard"] * self.tensorboard]))


def train(
    output: Output,
    recipe: Annotated[
        str | None,
        "A shipped recipe (see `tenfold recipes`) or a path to a .toml file; with --data, --time "
        "or --set model.name= it may be left out.",
    ] = None,
    *,
    changes: cli.Changes,
    seed: Annotated[int | None, "Seed of the run.", cli.NOT_NEGATIVE] = None,
    time: Annotated[
        str | None, "Be done, evaluation and all, in 90s, 5m or 2h.", cli.seconds_of
    ] = None,
    teacher: Annotated[
        Path | None,
        "Learn from this run's predictions too; short for --set distillation.teacher=RUN.",
        "RUN",
        _require_teacher,
    ] = None,
    where: Where,
    machine: cli.Machine,
    reading: cli.Reading,
    around: Around,
    report: cli.ReportOption = True,
) -> None:
    """Train a recipe, evaluate it and write its report; run again, it resumes where it was."""
    wanted = [*changes.listed(seed), *_from_teacher(teacher)]
    is_named = recipe is not None or changes.names_network
    chosen = changes.applied_to(recipe, wanted) if is_named else None
    with quick_imports():
        from tenfold.training.train import TrainOptions
        from tenfold.training.train import train as train_recipe
    options = TrainOptions(
        **vars(where),
        threads=machine.threads,
        skip_broken=reading.skip_broken,
        track=around.trackers,
        evaluate_test=around.test,
    )
    dataset = None
    if time is not None:
        chosen, options, dataset = _in_time(output, time, chosen, wanted, options, page=report)
    elif chosen is None:
        chosen, dataset = _for_images(output, wanted, changes.data, reading.skip_broken)
    if around.find_lr:
        _find_rate(output, chosen, dataset, threads=machine.threads)
        return
    with live_page(output, around.live) as start, output.training() as reporter:
        outcome = train_recipe(
            chosen,
            options=options,
            dataset=dataset,
            began=start,
            reporter=reporter,
            progress=reporter,
        )
    if outcome.writes:
        show_result(output, outcome.run.path)
        if report:
            write_page(output, [outcome.run.path])


def _from_teacher(run: Path | None) -> list[str]:
    quoted = json.dumps(str(run), ensure_ascii=False)
    return [] if run is None else [f"distillation.teacher={quoted}"]


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Look for no garbage until the block ends, and never among what is there by then.

    Importing PyTorch makes some hundred thousand objects that stay until the process ends, and
    Python looks through them again and again for some that don't: a fifth of four seconds.
    """
    # Extension modules that are never freed complain of leaks when the process ends.
    atexit.register(gc.unfreeze)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _for_images(
    output: Output, changes: list[str], data: str | None, skip_broken: bool
) -> "tuple[Recipe, Dataset | None]":
    """A recipe that fits the images, and those where they are loaded already."""
    if data is None:
        raise TenfoldError(
            "Name a recipe, such as `tenfold train cnn` (see `tenfold recipes`), images of your "
            "own with --data, a network with --set model.name=my.py:net, or the time that there "
            "is, such as `tenfold train --time 5m`."
        )
    from tenfold.training.choice import choose_recipe

    with output.progress() as progress:
        choice = choose_recipe(changes, skip_broken=skip_broken, progress=progress)
    recipe = choice.recipe.to_dict()
    cli.announce(output, "choice", choice.reason, reason=choice.reason, recipe=recipe)
    return choice.recipe, choice.dataset


def _in_time(
    output: Output,
    time: str,
    asked: "Recipe | None",
    changes: list[str],
    options: "TrainOptions",
    *,
    page: bool,
) -> "tuple[Recipe, TrainOptions, Dataset | None]":
    """The recipe `asked`, or the best for the images, so that its run ends within `time`.

    An unfinished run that the same command began keeps its plan, unless `options` ask for a new
    one. Raises TenfoldError under a launcher.
    """
    import torch

    from tenfold.evaluation.loading import load_data
    from tenfold.recipe import load_recipe
    from tenfold.training.choice import SCRATCH, TRANSFER, has_pretrained, says
    from tenfold.training.plan import plan_run, unfinished_plan
    from tenfold.training.process import num_launched, seconds_since_start

    if num_launched() > 1:
        raise TenfoldError(
            "--time plans for one process, and the launcher started several; start tenfold without "
            "it, or give epochs."
        )
    named = f"{asked.name if asked is not None else 'best'}-in-{time}"
    may_transfer = asked is None and not says("model.", changes) and has_pretrained()
    wanted = asked or load_recipe(TRANSFER if may_transfer else SCRATCH, changes)
    if not options.new:
        folder = options.folder
        earlier = [RunFolder(folder)] if folder is not None else runs_of(options.runs, named)
        begun = unfinished_plan(earlier, wanted, changes, own_network=asked is None)
        if begun is not None:
            return begun, options, None
    has_gpu = torch.cuda.is_available() and not options.cpu
    with cli.computing(output, options.threads) as progress:
        load = partial(load_data, skip_broken=options.skip_broken, progress=progress)
        planned = plan_run(
            asked,
            load(wanted),
            seconds=cli.seconds_of(time),
            spent=seconds_since_start(),
            overrides=changes,
            device=torch.device("cuda" if has_gpu else "cpu"),
            evaluates_test=options.evaluate_test,
            writes_page=page,
            may_set_threads=options.threads is None and "OMP_NUM_THREADS" not in os.environ,
            load=load if may_transfer else None,
        )
    _announce_plan(output, planned, time, page=page)
    options = replace(options, threads=options.threads or torch.get_num_threads())
    return planned.recipe.but(name=named), options, planned.dataset


def _announce_plan(output: Output, planned: "Planned", time: str, *, page: bool) -> None:
    training, closing = planned.recipe.training.time_limit_seconds, planned.closing_seconds
    stages = planned.recipe.stages
    is_head = bool(stages) and all(stage.trains == "head" for stage in stages)
    what = f"the head of {planned.recipe.name}" if is_head else planned.recipe.name
    said = (
        f"Within {time}: {what}, {duration(training)} of training and "
        f"{duration(closing)} for evaluation{' and page' if page else ''}."
    )
    if planned.expected is not None:
        said += f" A test accuracy of about {percent(planned.expected, 0)} may be expected."
    facts: dict[str, Any] = {"recipe": planned.recipe.to_dict(), "expected": planned.expected}
    facts |= {"training_seconds": training, "closing_seconds": closing}
    cli.announce(output, "plan", said, **facts)


def _find_rate(
    output: Output, recipe: "Recipe", dataset: "Dataset | None", *, threads: int | None
) -> None:
    """Try learning rates, draw them, and say which to use and how."""
    from tenfold.files import write_text
    from tenfold.reporting.diagnostics import rate_curve
    from tenfold.reporting.svg import standalone_svg
    from tenfold.training.rate_finder import find_lr

    figure = Path("lr.svg")
    with cli.computing(output, threads) as progress:
        found = find_lr(recipe, dataset, progress=progress)
    write_text(figure, standalone_svg(rate_curve(found)))
    how = f"--lr {found.lr:g}"
    if recipe.stages and recipe.stages[0].lr:
        how = f"lr = {found.lr:g} in the first of the stages, in a copy of the recipe"
    said = (
        f"The loss is lowest at {found.lowest:.2g}; a tenth of that is a good rate: {how}. The "
        f"curve is in {figure}."
    )
    cli.announce(output, "rate", said, bold=True, **vars(found), figure=str(figure))
