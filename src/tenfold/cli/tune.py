"""The `tenfold tune` command: search for better values of a recipe, and show how it goes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tenfold.cli.options import (
    Changes,
    Jobs,
    JsonOption,
    Machine,
    RecipeArgument,
    ReportOption,
    SkipBrokenOption,
    require_data,
    seconds_of,
)
from tenfold.cli.pages import show_page
from tenfold.console.output import Output
from tenfold.console.studies import Epochs, RunBars, showing_runs
from tenfold.errors import counted, require_packages
from tenfold.formatting import duration, in_words, percent

if TYPE_CHECKING:
    from tenfold.results.searches import SearchFile, SearchSummary, Trial
    from tenfold.studies.search.running import SearchOptions

DEFAULT_TRIALS = 30
NUM_SHOWN = 5
FEW_TRIALS = 10
"""So few trials of a process find something only by luck."""


Sampler = Literal["tpe", "random", "gp"]
Pruner = Literal["median", "halving", "hyperband", "none"]


@dataclass(frozen=True)
class SearchFlags:
    """How a search is carried out."""

    trials: Annotated[
        int | None,
        typer.Option(
            "--trials",
            min=1,
            help="Trials in all, over all processes and sessions; 30 where --time is not given.",
        ),
    ] = None
    time: Annotated[
        str | None, typer.Option("--time", help="Stop this process after a time: 90s, 60m, 2h.")
    ] = None
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL|FILE",
            help="Where the trials are kept: an Optuna URL such as postgresql://..., which "
            "several machines can share, or an SQLite file; one in the folder if not given.",
        ),
    ] = None
    sampler: Annotated[Sampler, typer.Option(help="How Optuna draws values.")] = "tpe"
    pruner: Annotated[Pruner, typer.Option(help="How Optuna stops trials early.")] = "median"


def tune(
    recipe: RecipeArgument,
    space: Annotated[
        Path | None,
        typer.Option("--space", metavar="FILE", help="Ranges to search, as TOML."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="The search's folder; tunes/<recipe> if not given.")
    ] = None,
    *,
    changes: Changes,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of every trial, and of what is tried.")
    ] = None,
    flags: SearchFlags,
    jobs: Jobs,
    machine: Machine,
    skip_broken: SkipBrokenOption = False,
    report: ReportOption = True,
    as_json: JsonOption = False,
) -> None:
    """Search for a better recipe; started several times, the processes share the trials.

    Every trial trains the recipe with other values and is judged by its validation accuracy after
    the last epoch; the first is the recipe as it is. Run again, the command goes on.
    """
    limit = seconds_of(flags.time) if flags.time is not None else math.inf
    plan, output = _plan(recipe, space, changes, seed), Output(as_json=as_json)

    from tenfold.studies.search.running import SearchOptions, run_search

    where = folder or Path("tunes") / plan.recipe["name"]
    placed = jobs.place(machine.threads)
    options = SearchOptions(
        folder=where,
        storage=flags.storage,
        num_trials=flags.trials or (DEFAULT_TRIALS if limit == math.inf else math.inf),
        seconds=limit,
        num_jobs=placed.num_jobs,
        sampler=flags.sampler,
        pruner=flags.pruner,
        threads=placed.threads,
        skip_broken=skip_broken,
    )
    with showing_runs(output) as bars:
        display = _Display(output, options, bars)
        outcome = run_search(
            plan, options=options, watcher=display, progress=bars, place=placed.place
        )
    _show_end(output, where, outcome.summary, is_out_of_time=outcome.is_out_of_time)
    if report:
        from tenfold.reporting.search.page import write_search_page

        show_page(output, write_search_page(where))
    if outcome.summary.best is None and not outcome.is_out_of_time:
        raise typer.Exit(1)


def _plan(recipe: str, space: Path | None, changes: Changes, seed: int | None) -> "SearchFile":
    """What is searched. Raises TenfoldError for what is wrong, and where Optuna is missing."""
    from tenfold.recipe import load_recipe, require_effect
    from tenfold.studies.search.space import default_space, in_its_folder, read_space

    require_data(changes.data)
    # Milestones say nothing of a search, and would keep it from fewer epochs.
    chosen = load_recipe(recipe, ["training.milestones=[]", *changes.listed(seed)])
    require_effect(chosen, epochs=changes.epochs, lr=changes.lr)
    require_data(chosen.data.name)
    with in_its_folder(recipe):
        ranges = read_space(space, chosen) if space is not None else default_space(chosen)
    require_packages(
        "optuna", "tomli_w", what="`tenfold tune` needs Optuna and tomli-w", extra="search"
    )
    from tenfold.results.searches import OBJECTIVE, SearchFile

    values = chosen.to_dict()
    return SearchFile(objective=OBJECTIVE, recipe=values, space=ranges, source=recipe)


class _Display:
    """Trials as they begin and end: bars on a terminal, lines in a pipe, or JSON."""

    def __init__(self, output: Output, options: "SearchOptions", bars: RunBars) -> None:
        self._output, self._bars = output, bars
        self._of = "" if options.num_trials == math.inf else f" of {options.num_trials}"
        self._seconds = options.seconds
        self._epochs = Epochs(0)

    def began(self, record: "Trial", summary: "SearchSummary") -> None:
        kind = "the recipe as it is" if record.is_baseline else _values(record, summary)
        again = f", which goes on with trial {record.resumes}" if record.resumes is not None else ""
        states = summary.counts
        num_taken = sum(states.get(s, 0) for s in ("complete", "pruned", "failed", "running"))
        self._output.record("trial_started", **record.to_dict())
        self._output.say(f"trial {record.number} ({num_taken}{self._of}){again}: {kind}")
        self._bars.show(f"trial {record.number}", done=0, total=0, note="starting")

    def told(self, record: "Trial", event: Mapping[str, Any]) -> None:
        name = f"trial {record.number}"
        done = self._epochs.take(name, event)
        self._bars.tell(name, event, done=done, total=self._epochs.of(name))

    def ended(self, record: "Trial", summary: "SearchSummary") -> None:
        self._bars.end(f"trial {record.number}")
        self._output.record("trial", **record.to_dict(), best=summary.best)
        best = ""
        first = summary.best_trial
        if first is not None and first.number != record.number:
            best = f"; best {percent(first.accuracy or 0.0, 2)} (trial {first.number})"
        elif record.accuracy is not None:
            best = "; the best so far"
        self._output.say(f"trial {record.number}: {_outcome(record)}{best}")
        taken = record.seconds or 0.0
        if record.is_baseline and self._seconds < FEW_TRIALS * taken:
            self._output.say(
                f"A trial takes {duration(taken)}, so there will be few in "
                f"{duration(self._seconds)}; a search with fewer epochs, by "
                "--set training.epochs=..., has more."
            )


def _show_end(
    output: Output, folder: Path, summary: "SearchSummary", *, is_out_of_time: bool
) -> None:
    """What the search has found, and what to do with it."""
    counts = summary.counts
    states = ", ".join(f"{number} {state}" for state, number in counts.items())
    output.say(f"{counted(sum(counts.values()), 'trial')}: {states}.")
    if is_out_of_time:
        output.say("The time is up; the same command goes on from here.")
    best = summary.best_trial
    if best is None:
        output.say("No trial has come to its end, so there is no best one yet.")
    else:
        rows = [
            [str(r.number), percent(r.accuracy or 0.0, 2), _values(r, summary)]
            for r in summary.ranked[:NUM_SHOWN]
        ]
        output.table("Best trials", ["trial", "validation", "values"], rows)
        output.say(summary.gain_in_words, bold=True)
        output.say(
            f"The best recipe is {folder / 'best.toml'}; the best of many trials is partly luck, "
            f"so measure it with new seeds: {summary.commands(folder)[0]}"
        )
    output.record(
        "search",
        folder=str(folder),
        is_out_of_time=is_out_of_time,
        counts=summary.counts,
        best=summary.best,
        baseline=summary.baseline,
        importances=summary.importances,
        best_accuracy=best.accuracy if best is not None else None,
        recipe=str(folder / "best.toml") if best is not None else None,
    )


def _outcome(record: "Trial") -> str:
    seconds = f" in {duration(record.seconds)}" if record.seconds is not None else ""
    if record.state == "complete":
        return f"{percent(record.accuracy or 0.0, 2)} right on validation{seconds}"
    if record.state == "pruned":
        last = record.values[-1] or 0.0
        return f"pruned after epoch {len(record.values)} with {percent(last, 2)}{seconds}"
    if record.state == "failed":
        return f"failed: {record.error}"
    return "left to another process"


def _values(record: "Trial", summary: "SearchSummary") -> str:
    """The trial's values in short: the last part of each key, unless two keys share it."""
    return ", ".join(
        f"{summary.short_name(key)} {in_words(value)}" for key, value in record.params.items()
    )
