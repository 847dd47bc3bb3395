"""`tenfold study` and `studies`, `tune` and `heads`: many trainings, side by side."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tenfold.cli import options as cli
from tenfold.cli.pages import write_page
from tenfold.console.output import Output
from tenfold.console.studies import Epochs, RunBars, StudyDisplay, showing_runs
from tenfold.console.summaries import show_study
from tenfold.errors import TenfoldError, counted, require_packages
from tenfold.formatting import duration, in_words, percent

if TYPE_CHECKING:
    from tenfold.results.searches import SearchFile, SearchSummary, Trial


def study(
    output: Output,
    study: Annotated[
        str,
        "A shipped study (see `tenfold studies`), a recipe, or a path to a .toml file of either.",
    ],
    *,
    grid: Annotated[list[str] | None, "Values to try; several are crossed.", "KEY=A,B"] = None,
    seeds: Annotated[
        int | None, "Runs of each variant; more can be added later.", cli.POSITIVE
    ] = None,
    changes: cli.Changes,
    folder: Annotated[Path | None, "The study's folder; studies/<name> if not given."] = None,
    reuse: Annotated[
        list[Path] | None, "Take over equal finished runs from here; repeatable.", "FOLDER"
    ] = None,
    retry_failed: Annotated[bool, "Try failed runs again."] = False,
    part: cli.PartOption = None,
    jobs: cli.Jobs,
    machine: cli.Machine,
    skip_broken: cli.SkipBrokenOption = False,
    report: cli.ReportOption = True,
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
        part=cli.chosen_part(part),
    )
    with showing_runs(output) as bars:
        display = StudyDisplay(output, bars)
        outcome = run_study(chosen, folder=where, options=options, reporter=display, place=place)
    for record in outcome.records:
        output.record("trial", **asdict(record))
    from tenfold.studies.analysis import summarise_study

    show_study(output, summarise_study(where))
    if report:
        write_page(output, [where])
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
    data: cli.DataOption = None,
    overrides: cli.SetOption = None,
    machine: cli.Machine,
    skip_broken: cli.SkipBrokenOption = False,
    test: Annotated[bool, "Score the test split too, once a head.", "--test/--no-test"] = False,
) -> None:
    """Compare a linear head, an MLP, nearest neighbours and logistic regression on features."""
    changes = cli.Changes(data=data, overrides=overrides)
    chosen = changes.applied_to(recipe, changes.listed())

    from tenfold.data.splits import training_data
    from tenfold.evaluation.evaluate import split_of, splitting
    from tenfold.evaluation.loading import load_data
    from tenfold.training.devices import make_accelerator
    from tenfold.training.heads import compare_heads, require_pretrained

    require_pretrained(chosen)
    rows, images = [], None
    with cli.computing(output, machine.threads) as progress:
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


DEFAULT_TRIALS = 30
NUM_SHOWN = 5


def tune(
    output: Output,
    recipe: cli.RecipeArgument,
    *,
    space: Annotated[Path | None, "Ranges to search, as TOML.", "FILE"] = None,
    folder: Annotated[Path | None, "The search's folder; tunes/<recipe> if not given."] = None,
    changes: cli.Changes,
    seed: Annotated[
        int | None, "Seed of every trial, and of what is tried.", cli.NOT_NEGATIVE
    ] = None,
    trials: Annotated[
        int | None, "Trials in all, over all processes; 30 where --time is not given.", cli.POSITIVE
    ] = None,
    time: Annotated[
        str | None, "Stop this process after a time: 90s, 60m, 2h.", cli.seconds_of
    ] = None,
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
    jobs: cli.Jobs,
    machine: cli.Machine,
    skip_broken: cli.SkipBrokenOption = False,
    report: cli.ReportOption = True,
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
        seconds=cli.seconds_of(time) if time else math.inf,
        sampler=sampler,
        pruner=pruner,
        skip_broken=skip_broken,
    )
    with showing_runs(output) as bars:
        display = _Display(output, options.num_trials, bars)
        outcome = run_search(plan, options=options, watcher=display, progress=bars, place=place)
    _show_end(output, where, outcome.summary, is_out_of_time=outcome.is_out_of_time)
    if report:
        write_page(output, [where])
    if outcome.summary.best is None and not outcome.is_out_of_time:
        raise typer.Exit(1)


def _plan(recipe: str, space: Path | None, changes: cli.Changes, seed: int | None) -> "SearchFile":
    """What is searched. Raises TenfoldError for what is wrong, and where Optuna is missing."""
    from tenfold.studies.search.space import default_space, in_its_folder, read_space

    # Milestones say nothing of a search, and would keep it from fewer epochs.
    chosen = changes.applied_to(recipe, ["training.milestones=[]", *changes.listed(seed)])
    with in_its_folder(recipe):
        ranges = read_space(space, chosen) if space is not None else default_space(chosen)
    require_packages(
        "optuna", "tomli_w", what="`tenfold tune` needs Optuna and tomli-w", extra="search"
    )
    from tenfold.results.searches import OBJECTIVE, SearchFile

    values = chosen.to_dict()
    return SearchFile(objective=OBJECTIVE, recipe=values, space=ranges, source=recipe)


class _Display:
    """Trials as they start and end: bars on a terminal, lines in a pipe, or JSON."""

    def __init__(self, output: Output, num_trials: float, bars: RunBars) -> None:
        self._output, self._bars = output, bars
        self._of = "" if num_trials == math.inf else f" of {num_trials}"
        self._epochs = Epochs({})

    def began(self, record: "Trial", summary: "SearchSummary") -> None:
        kind = "the recipe as it is" if record.is_baseline else _values(record, summary)
        again = f", which goes on with trial {record.resumes}" if record.resumes is not None else ""
        taken = ("complete", "pruned", "failed", "running")
        number = sum(summary.counts.get(state, 0) for state in taken)
        said = f"trial {record.number} ({number}{self._of}){again}: {kind}"
        cli.announce(self._output, "trial_started", said, **record.to_dict())
        self._bars.show(f"trial {record.number}", done=0, total=0, note="starting")

    def received(self, record: "Trial", event: Mapping[str, Any]) -> None:
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
        cli.announce(self._output, "trial", said, **record.to_dict(), best=summary.best)


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
