"""What the page about a search shows: sentences, tables and charts."""

from pathlib import Path
from typing import Any, get_args

from tenfold.errors import counted
from tenfold.formatting import duration, in_words, listed, percent, points, signed_points
from tenfold.reporting.charts import Chart, Charts
from tenfold.reporting.search import figures
from tenfold.reporting.story import Notice
from tenfold.reporting.views import Tile
from tenfold.results.searches import SearchSummary, Setting, State, Trial

NUM_RANKED = 10


def view_search(search: SearchSummary, folder: Path) -> dict[str, Any]:
    """The values of the template for the search in `folder`."""
    charts = Charts()
    judged = any(t.last_value is not None for t in search.of_state("complete", "pruned"))
    return {
        "search": search,
        "title": f"A better {search.name}?",
        "lead": _lead(search),
        "notices": _notices(search),
        "tiles": _tiles(search),
        "searched": _range,
        "commands": _commands(search, folder),
        "course": _course(search, charts) if judged else (),
        "importances": _importances(search, charts),
        "slices": _slices(search, charts) if judged else (),
        "ranked": search.ranked[:NUM_RANKED],
        "note": _note,
        "counts": _counts(search),
        "limits": _limits(search),
    }


def _lead(search: SearchSummary) -> str:
    if search.best_trial is None:
        return "No trial has come to its end yet."
    found = f"right on {percent(search.best_trial.accuracy, digits=2)} of the validation pictures"
    if search.gain is None:
        return f"Trial {search.best_trial.number} is {found}; the recipe itself has no result yet."
    if search.best_trial is search.own_trial:
        return f"No trial was better than the recipe as it is, which is {found}."
    own = percent(search.own_trial.accuracy if search.own_trial else None, digits=2)
    return (
        f"Trial {search.best} is {found}, {points(search.gain, digits=2)} more than the recipe "
        f"as it is, which has {own}."
    )


def _notices(search: SearchSummary) -> tuple[Notice, ...]:
    found = []
    unfinished = [t for t in search.trials if t.state in ("running", "waiting")]
    if unfinished:
        found.append(
            Notice(
                f"The search was not over when this page was written: "
                f"{counted(len(unfinished), 'trial')} had not come to an end. The same command "
                "goes on with it."
            )
        )
    if search.gain and search.chance is not None and 0 < search.gain < search.chance:
        found.append(
            Notice(
                f"With {counted(search.num_validation or 0, 'validation picture')} two equal "
                f"recipes can differ by {points(search.chance)} by chance, and the best of many "
                "is helped by it. So this gain may be none; new seeds will tell."
            )
        )
    return tuple(found)


def _tiles(search: SearchSummary) -> tuple[Tile, ...]:
    tiles = []
    if search.best_trial is not None:
        number = f"trial {search.best_trial.number}"
        tiles.append(
            Tile(percent(search.best_trial.accuracy, digits=2), "best on validation", number)
        )
    if search.own_trial is not None:
        own = percent(search.own_trial.accuracy, digits=2)
        tiles.append(Tile(own, "the recipe as it is", "validation"))
    if search.gain is not None:
        tiles.append(Tile(signed_points(search.gain, digits=2), "gain", "percentage points"))
    ended = search.of_state("complete", "pruned", "failed")
    tiles.append(Tile(str(len(ended)), "trials", _counts(search)))
    seconds = sum(trial.seconds or 0.0 for trial in search.trials)
    tiles.append(Tile(duration(seconds), "time in trials", "all processes together"))
    return tuple(tiles)


def _counts(search: SearchSummary) -> str:
    numbers = {state: len(search.of_state(state)) for state in get_args(State)}
    return ", ".join(f"{number} {state}" for state, number in numbers.items() if number)


def _range(setting: Setting) -> str:
    if setting.choices:
        return listed([in_words(choice) for choice in setting.choices]).replace(" and ", " or ")
    log = ", logarithmic" if setting.log else ""
    return f"{in_words(setting.low)} to {in_words(setting.high)}{log}"


def _commands(search: SearchSummary, folder: Path) -> tuple[str, ...]:
    if search.best_trial is None:
        return ()
    path = (folder / "best.toml").as_posix()
    quoted = f'"{path}"' if " " in path else path
    return tuple(f"tenfold train {quoted} --seed {search.seed + n}" for n in (1, 2, 3))


def _course(search: SearchSummary, charts: Charts) -> tuple[Chart, ...]:
    return (
        charts.chart(
            "Trial by trial",
            figures.history(search),
            "The dashed line is the recipe as it is. A pruned trial is shown at its last epoch. "
            "Triangles at the bottom are trials that fell below the chart.",
        ),
        charts.chart(
            "Epoch by epoch",
            figures.curves(search),
            "Each line is a trial. One that ends early was pruned: its best epoch was below the "
            "median of the complete ones.",
        ),
    )


def _importances(search: SearchSummary, charts: Charts) -> Chart | None:
    if search.importances is None:
        return None
    return charts.chart(
        "How much each setting matters",
        figures.importances(search),
        "The share of each setting in the spread of the complete trials’ accuracies, within the "
        "ranges that were searched (fANOVA, Hutter et al. 2014).",
    )


def _slices(search: SearchSummary, charts: Charts) -> tuple[Chart, ...]:
    order = list(search.importances or ())
    settings = sorted(
        search.space, key=lambda s: order.index(s.key) if s.key in order else len(order)
    )
    return tuple(
        charts.chart(
            setting.key,
            figures.slice_of(search, setting),
            _slice_note(setting),
            description=f"validation accuracy over {setting.key}",
        )
        for setting in settings
    )


def _slice_note(setting: Setting) -> str:
    if not setting.log:
        return ""
    edge = "; the recipe’s 0 is drawn at the left edge" if setting.own == 0 else ""
    return f"logarithmic{edge}"


def _note(trial: Trial) -> str:
    notes = []
    if trial.is_baseline:
        notes.append("the recipe as it is")
    if trial.resumes is not None:
        notes.append(f"goes on with trial {trial.resumes}")
    if trial.resumed_as is not None:
        notes.append(f"its process ended; done again as trial {trial.resumed_as}")
    if trial.error is not None:
        notes.append(trial.error)
    return "; ".join(notes)


def _limits(search: SearchSummary) -> tuple[str, ...]:
    epochs = f" for {counted(search.epochs, 'epoch')}" if search.epochs else ""
    found = [
        f"Every trial trained{epochs} with seed {search.seed} on the same pictures, and is judged "
        "by its accuracy on the same validation pictures after its last epoch; no epoch is chosen.",
        "The best trial was chosen by the accuracy that is shown here, so that figure is "
        "optimistic, the more so the more trials there were. What the recipe is worth, new seeds "
        "and the test pictures have to say.",
        "No trial has looked at the test pictures.",
        "One seed says nothing of how much a result changes from seed to seed.",
        "A pruned trial was stopped in the last quarter of its epochs because its best accuracy so "
        "far was below the median of the complete ones at that epoch. It might have caught up.",
        "A slice shows one setting while all the others vary too, and the search looks more "
        "closely where it was good before, so its dots are no fair sample.",
    ]
    if search.chance is not None:
        found.insert(
            2,
            f"By chance alone, two equal recipes differ by up to {points(search.chance)} on "
            f"{counted(search.num_validation or 0, 'validation picture')} in 95 of 100 cases, or "
            "less, since they are the same pictures.",
        )
    return tuple(found)
