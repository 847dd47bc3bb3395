"""`tenfold train`: one run, from a recipe, from images alone, or from the time that there is."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold.cli.imports import quick_imports
from tenfold.cli.live import LiveOption, live_page
from tenfold.cli.options import (
    Changes,
    Machine,
    Reading,
    ReportOption,
    RunsOption,
    SeedOption,
    StrictOption,
    TimeOption,
    require_data,
    seconds_of,
)
from tenfold.cli.pages import write_page
from tenfold.console.output import Output
from tenfold.console.summaries import show_result
from tenfold.errors import TenfoldError
from tenfold.run import finished_run

if TYPE_CHECKING:
    from tenfold.data import Dataset
    from tenfold.recipe import Recipe


@dataclass(frozen=True)
class Where:
    """Where a run goes, as TrainOptions has it."""

    resume: Annotated[bool, "Go on with the newest unfinished run, or fail."] = False
    new: Annotated[bool, "Start afresh, even beside an unfinished run."] = False
    allow_changes: Annotated[bool, "Resume although something has changed."] = False
    folder: Annotated[Path | None, "Train in this run folder, or resume it."] = None
    runs: RunsOption = Path("runs")
    strict: StrictOption = False


@dataclass(frozen=True)
class Around:
    """What is done besides the training."""

    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Curves for tensorboard, wandb, mlflow or trackio; repeatable."
        ),
    ] = None
    tensorboard: Annotated[bool, "Short for --track tensorboard."] = False
    live: LiveOption = None
    find_lr: Annotated[bool, "Try learning rates on a copy, name one, and leave."] = False
    test: Annotated[
        bool, typer.Option("--test/--no-test", help="Evaluate on the test split at the end.")
    ] = True

    def __post_init__(self) -> None:
        """Raises TenfoldError where the live page can't be served, or there is nothing to show."""
        if self.live is None:
            return
        from tenfold.reporting.live.server import require_port

        require_port(self.live)
        if self.find_lr:
            raise TenfoldError("--live shows a training, and --find-lr has none; leave one out.")

    def trackers(self) -> tuple[str, ...]:
        """Where curves go, each place once."""
        return tuple(dict.fromkeys([*(self.track or []), *["tensorboard"] * self.tensorboard]))


def train(
    output: Output,
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A shipped recipe (see `tenfold recipes`) or a path to a .toml file; with --data, "
            "--time or --set model.name= it may be left out."
        ),
    ] = None,
    *,
    changes: Changes,
    seed: SeedOption = None,
    time: TimeOption = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Learn from this run's predictions too; short for --set distillation.teacher=RUN.",
        ),
    ] = None,
    where: Where,
    machine: Machine,
    reading: Reading,
    around: Around,
    report: ReportOption = True,
) -> None:
    """Train a recipe, evaluate it and write its report; run again, it resumes where it was."""
    wanted = changes.listed(seed) + _taught_by(teacher)
    chosen, dataset = _named(recipe, changes, wanted, time), None
    with quick_imports():
        from tenfold.training.train import TrainOptions
        from tenfold.training.train import train as train_recipe

    options = TrainOptions(
        **vars(where),
        threads=machine.threads,
        skip_broken=reading.skip_broken,
        track=around.trackers(),
        evaluate_test=around.test,
    )
    if time is not None:
        from tenfold.cli.timed import recipe_within

        timed = recipe_within(time, chosen, wanted, output=output, options=options, page=report)
        chosen, dataset, options = timed.recipe, timed.dataset, timed.options
    elif chosen is None:
        chosen, dataset = _fitting(output, wanted, changes.data, reading.skip_broken)
    if chosen.model.name == "pretrained":
        _import_timm()
    if around.find_lr:
        _find_rate(output, chosen, dataset, threads=machine.threads)
        return
    with live_page(output, around.live) as began, output.training() as told:
        outcome = train_recipe(
            chosen, options=options, dataset=dataset, began=began, reporter=told, progress=told
        )
    if outcome.writes:
        show_result(output, outcome.run.path)
        if report:
            write_page(output, [outcome.run.path], None)


def _import_timm() -> None:
    with quick_imports():
        from tenfold.models.pretrained import import_timm

        import_timm()


def _taught_by(teacher: Path | None) -> list[str]:
    """`--teacher` as an override. Raises TenfoldError where it is no finished run."""
    if teacher is None:
        return []
    if teacher.suffix != ".safetensors":
        finished_run(teacher.expanduser())
    return [f"distillation.teacher={json.dumps(str(teacher), ensure_ascii=False)}"]


def _named(
    recipe: str | None, changes: Changes, wanted: list[str], time: str | None
) -> "Recipe | None":
    """The recipe that is named, or made by naming a network.

    Raises TenfoldError for what is wrong however long one waits, before torch is imported.
    """
    if time is not None:
        seconds_of(time)
    named, data = None, changes.data
    if data is not None:
        require_data(data)
    if recipe is not None or changes.names_network:
        from tenfold.recipe import load_recipe, require_effect

        named = load_recipe(recipe, wanted)
        require_effect(named, epochs=changes.epochs, lr=changes.lr)
        data = named.data.name
    require_data(data)
    return named


def _fitting(
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
    output.record("choice", reason=choice.reason, recipe=choice.recipe.to_dict())
    output.say(choice.reason)
    return choice.recipe, choice.dataset


def _find_rate(
    output: Output, recipe: "Recipe", dataset: "Dataset | None", *, threads: int | None
) -> None:
    """Try learning rates, draw them, and say which to use and how."""
    from tenfold.files import write_text
    from tenfold.reporting.diagnostics import rate_curve
    from tenfold.reporting.svg import standalone_svg
    from tenfold.training.process import prepare_process
    from tenfold.training.rate_finder import find_lr

    figure = Path("lr.svg")
    prepare_process(threads)
    with output.progress() as progress:
        found = find_lr(recipe, dataset, progress=progress)
    write_text(figure, standalone_svg(rate_curve(found)))
    output.record("rate", **vars(found), figure=str(figure))
    output.say(
        f"The loss is lowest at {found.lowest:.2g}; a tenth of that is a good rate: --lr "
        f"{found.lr:g}. The curve is in {figure}.",
        bold=True,
    )
