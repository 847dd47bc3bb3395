"""The `tenfold tune` command: search for better values of a recipe, and show how it goes."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from annotated_types import Ge

from tenfold.cli.commands import announce
from tenfold.cli.options import (
    Changes,
    Jobs,
    Machine,
    RecipeArgument,
    ReportOption,
    SkipBrokenOption,
    seconds_of,
)
from tenfold.cli.pages import show_page
from tenfold.console.output import Output
from tenfold.console.studies import Epochs, RunBars, showing_runs
from tenfold.errors import counted, require_packages
from tenfold.formatting import duration, in_words, percent

if TYPE_CHECKING:
    from tenfold.results.searches import SearchFile, SearchSummary, Trial

DEFAULT_TRIALS = 30
NUM_SHOWN = 5


def tune(
    output: Output,
    recipe: RecipeArgument,
    *,
    space: Annotated[Path | None, "Ranges to search, as TOML.", "FILE"] = None,
    folder: Annotated[Path | None, "The search's folder; tunes/<recipe> if not given."] = None,
    changes: Changes,
    seed: Annotated[int | None, "Seed of every trial, and of what is tried.", Ge(0)] = None,
    trials: Annotated[
        int | None,
        "Trials in all, over all processes and sessions; 30 where --time is not given.",
        Ge(1),
    ] = None,
    time: Annotated[str | None, "Stop this process after a time: 90s, 60m, 2h.", seconds_of] = None,
    storage: Annotated[
        str | None,
        "Where the trials are kept: an Optuna URL such as postgresql://..., which several machines "
        "can share, or an SQLite file; one in the folder if not given.",
        "URL|FILE",
    ] = None,
    sampler: Annotated[Literal["tpe", "random", "gp"], "How Optuna draws values."] = "tpe",
    pruner: Annotated[
        Literal["median", "halving", "hyperband", "none"], "How Optuna stops trials early."
    ] = "median",
    jobs: Jobs,
    machine: Machine,
    skip_broken: SkipBrokenOption = False,
    report: ReportOption = True,
) -> None:
    """Search for a better recipe; started several times, the processes share the trials.

    Every trial trains the recipe with other values and is judged by its validation accuracy after
    the last epoch; the first is the recipe as it is. Run again, the command goes on.
    """
    plan = _plan(recipe, space, changes, seed)

    from tenfold.studies.search.running import SearchOptions, run_search

    where = folder or Path("tunes") / plan.recipe["name"]
    place, placed = jobs.placed(machine.threads)
    options = SearchOptions(
        **placed,
        folder=where,
        storage=storage,
        num_trials=trials or (math.inf if time else DEFAULT_TRIALS),
        seconds=seconds_of(time) if time else math.inf,
        sampler=sampler,
        pruner=pruner,
        skip_broken=skip_broken,
    )
    with showing_runs(output) as bars:
        display = _Display(output, options.num_trials, bars)
        outcome = run_search(plan, options=options, watcher=display, progress=bars, place=place)
    _show_end(output, where, outcome.summary, is_out_of_time=outcome.is_out_of_time)
    if report:
        from tenfold.reporting.search.page import write_search_page

        show_page(output, write_search_page(where))
    if outcome.summary.best is None and not outcome.is_out_of_time:
        raise typer.Exit(1)


def _plan(recipe: str, space: Path | None, changes: Changes, seed: int | None) -> "SearchFile":
    """What is searched. Raises TenfoldError for what is wrong, and where Optuna is missing."""
    from tenfold.studies.search.space import default_space, read_space

    # Milestones say nothing of a search, and would keep it from fewer epochs.
    chosen = changes.applied_to(recipe, ["training.milestones=[]", *changes.listed(seed)])
    ranges = read_space(space, chosen) if space is not None else default_space(chosen)
    require_packages(
        "optuna", "tomli_w", what="`tenfold tune` needs Optuna and tomli-w", extra="search"
    )
    from tenfold.results.searches import OBJECTIVE, SearchFile

    values = chosen.to_dict()
    return SearchFile(objective=OBJECTIVE, recipe=values, space=ranges, source=recipe)


class _Display:
    """Trials as they begin and end: bars on a terminal, lines in a pipe, or JSON."""

    def __init__(self, output: Output, num_trials: float, bars: RunBars) -> None:
        self._output, self._bars = output, bars
        self._of = "" if num_trials == math.inf else f" of {num_trials}"
        self._epochs = Epochs(0)

    def began(self, record: "Trial", summary: "SearchSummary") -> None:
        kind = "the recipe as it is" if record.is_baseline else _values(record, summary)
        again = f", which goes on with trial {record.resumes}" if record.resumes is not None else ""
        taken = ("complete", "pruned", "failed", "running")
        number = sum(summary.counts.get(state, 0) for state in taken)
        said = f"trial {record.number} ({number}{self._of}){again}: {kind}"
        announce(self._output, "trial_started", said, **record.to_dict())
        self._bars.show(f"trial {record.number}", done=0, total=0, note="starting")

    def told(self, record: "Trial", event: Mapping[str, Any]) -> None:
        name = f"trial {record.number}"
        done = self._epochs.take(name, event)
        self._bars.tell(name, event, done=done, total=self._epochs.of(name))

    def ended(self, record: "Trial", summary: "SearchSummary") -> None:
        self._bars.end(f"trial {record.number}")
        best, first = "", summary.best_trial
        if first is not None and first.number != record.number:
            best = f"; best {percent(first.accuracy, 2)} (trial {first.number})"
        elif record.accuracy is not None:
            best = "; the best so far"
        said = f"trial {record.number}: {_outcome(record)}{best}"
        announce(self._output, "trial", said, **record.to_dict(), best=summary.best)


def _outcome(record: "Trial") -> str:
    seconds = f" in {duration(record.seconds)}" if record.seconds is not None else ""
    if record.state == "complete":
        return f"validation accuracy {percent(record.accuracy, 2)}{seconds}"
    if record.state == "pruned":
        last = percent(record.last_value, 2)
        return f"pruned after epoch {len(record.values)} with {last}{seconds}"
    return f"failed: {record.error}" if record.state == "failed" else "left to another process"


def _values(record: "Trial", summary: "SearchSummary") -> str:
    """The trial's values in short: the last part of each key, unless two keys share it."""
    return ", ".join(
        f"{summary.short_name(key)} {in_words(value)}" for key, value in record.params.items()
    )


def _show_end(
    output: Output, folder: Path, summary: "SearchSummary", *, is_out_of_time: bool
) -> None:
    """What the search has found, and what to do with it."""
    counts, best, file = summary.counts, summary.best_trial, folder / "best.toml"
    states = ", ".join(f"{number} {state}" for state, number in counts.items())
    output.say(f"{counted(sum(counts.values()), 'trial')}: {states}.")
    if is_out_of_time:
        output.say("The time is up; the same command goes on from here.")
    if best is None:
        output.say("No trial has come to its end, so there is no best one yet.")
    else:
        rows = [
            [str(trial.number), percent(trial.accuracy, 2), _values(trial, summary)]
            for trial in summary.ranked[:NUM_SHOWN]
        ]
        output.table("Best trials", ["trial", "validation", "values"], rows)
        output.say(summary.gain_in_words, bold=True)
        output.say(
            f"The best recipe is {file}; the best of many trials is partly luck, so measure it "
            f"with new seeds: {summary.commands(folder)[0]}"
        )
    output.record(
        "search",
        folder=str(folder),
        is_out_of_time=is_out_of_time,
        counts=counts,
        best=summary.best,
        baseline=summary.baseline,
        importances=summary.importances,
        best_accuracy=best.accuracy if best is not None else None,
        recipe=str(file) if best is not None else None,
    )
