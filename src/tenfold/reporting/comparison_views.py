"""What the templates show of several runs: tables, common charts and disputed pictures."""

from pathlib import Path
from typing import Any

from tenfold.audit.comparison import compare_trust
from tenfold.evaluation.runs import Run
from tenfold.formatting import count, percent
from tenfold.reporting import comparison_figures, explanation, story
from tenfold.reporting.charts import Chart, Charts
from tenfold.reporting.comparison import Comparison, Disagreement, class_gains, compare
from tenfold.reporting.comparison_figures import ClassGain, Point, Series
from tenfold.reporting.galleries import Loader, Pictures, disputed_cards
from tenfold.reporting.svg import SERIES
from tenfold.reporting.views import Gallery, view_run


def view_comparison(runs: tuple[Run, ...], *, loader: Loader) -> dict[str, Any]:
    """The values of the template for several runs."""
    charts = Charts()
    comparison = compare(runs)
    colours = {
        run.folder: number % len(SERIES)
        for number, group in enumerate(comparison.groups)
        for run in group.runs
    }
    pair = comparison.pair
    gains = class_gains(pair.first, pair.second) if pair else ()
    pictures = Pictures(pair.first, loader) if pair else None
    return {
        "title": explanation.title(comparison),
        "lead": story.compare_in_words(comparison),
        "notices": _notices(comparison),
        "groups": [(group, _variable(n)) for n, group in enumerate(comparison.groups)],
        "same_data": len({run.data_name for run in runs}) == 1,
        "explanation": explanation.explain(comparison),
        "curves": _curves(comparison, colours, charts),
        "costs": _costs(comparison, colours, charts),
        "gains": _gains(pair, gains, colours, charts) if pair and gains else None,
        "class_gains": gains,
        "pair": pair,
        "pair_text": _pair_text(pair) if pair else "",
        "disputed": _disputed(pair, pictures) if pair and pictures else (),
        "pictures_note": (pictures.problem or "") if pictures else "",
        "matrix": comparison.matrix if len(comparison.runs) > 2 else (),
        "settings": comparison.settings,
        "runs": [
            view_run(run, charts=charts, loader=None, with_curves=not run.finished)
            for run in comparison.runs
        ],
        "trust": compare_trust(
            comparison.runs, [SERIES[colours[run.folder]] for run in comparison.runs], charts
        ),
    }


def _variable(number: int) -> str:
    return f"var(--s{number % len(SERIES) + 1})"


def _notices(comparison: Comparison) -> tuple[story.Notice, ...]:
    """Each notice once, though every run may have it."""
    found = (notice for run in comparison.runs for notice in story.notices(run))
    return tuple(dict.fromkeys(found))


def _curves(comparison: Comparison, colours: dict[Path, int], charts: Charts) -> tuple[Chart, ...]:
    runs = [run for run in comparison.runs if run.epochs]
    if not runs:
        return ()
    series = [Series(run.epochs, SERIES[colours[run.folder]]) for run in runs]
    dashed = (
        " Dashed: training pictures, where none were held back for validation."
        if any(run.epochs[-1].validation_accuracy is None for run in runs)
        else ""
    )
    return (
        charts.chart(
            "Right answers by epoch",
            comparison_figures.compared_curves(series, quantity="accuracy"),
            "The share of validation pictures that each run has right after each pass over its "
            f"training pictures; higher is better.{dashed}",
        ),
        charts.chart(
            "Loss by epoch",
            comparison_figures.compared_curves(series, quantity="loss"),
            "Lower is better. A line that turns upwards belongs to a run that grows too sure of "
            "its mistakes.",
        ),
    )


def _costs(comparison: Comparison, colours: dict[Path, int], charts: Charts) -> tuple[Chart, ...]:
    found = []
    runs = [run for run in comparison.runs if run.epochs]
    if runs and all(epoch.training_seconds is not None for run in runs for epoch in run.epochs):
        series = [Series(run.epochs, SERIES[colours[run.folder]]) for run in runs]
        found.append(
            charts.chart(
                "Right answers by time",
                comparison_figures.compared_curves(series, quantity="accuracy", against_time=True),
                "Validation against the clock: whoever is higher at a given time has learned more "
                "by then.",
            )
        )
    for cost, heading in (
        ("training time", "What the time buys"),
        ("parameters", "What size buys"),
    ):
        placed = _points(comparison, colours, cost)
        if placed:
            found.append(
                charts.chart(
                    heading,
                    comparison_figures.accuracy_against(placed, cost=cost),
                    "Best is top left: many right answers for little. The strokes are 95 % "
                    "intervals.",
                )
            )
    return tuple(found)


def _points(comparison: Comparison, colours: dict[Path, int], cost: str) -> tuple[Point, ...]:
    placed = []
    for group in comparison.groups:
        for run in group.runs:
            value = (
                run.num_parameters
                if cost == "parameters"
                else run.training and run.training.wall_seconds
            )
            if run.shown_scores and value:
                placed.append(
                    Point(
                        group.label if run is group.typical else "",
                        SERIES[colours[run.folder]],
                        float(value),
                        run.shown_scores.accuracy,
                        run.shown_scores.accuracy_interval,
                    )
                )
    return tuple(placed)


def _gains(
    pair: Disagreement, gains: tuple[ClassGain, ...], colours: dict[Path, int], charts: Charts
) -> Chart:
    first, second = SERIES[colours[pair.first.folder]], SERIES[colours[pair.second.folder]]
    if first == second:
        second = SERIES[(colours[pair.second.folder] + 1) % len(SERIES)]
    return charts.chart(
        f"Where {pair.first.label} gains on {pair.second.label}",
        comparison_figures.class_gains(
            gains, labels=(pair.second.label, pair.first.label), colours=(second, first)
        ),
        "Each line is a class and runs from the share that one has right to the share of the "
        "other: the longer, the bigger the difference.",
    )


def _pair_text(pair: Disagreement) -> str:
    return (
        f"{pair.first.label} and {pair.second.label} give different answers to "
        f"{percent(pair.share)} of the pictures. {pair.first.label} alone is right on "
        f"{count(len(pair.only_first))}, {pair.second.label} alone on "
        f"{count(len(pair.only_second))}; both are right on {count(pair.both_right)} and neither "
        f"on {count(pair.both_wrong)}."
    )


def _disputed(pair: Disagreement, pictures: Pictures) -> tuple[Gallery, ...]:
    sides = (
        (pair.first, pair.second, pair.only_first),
        (pair.second, pair.first, pair.only_second),
    )
    return tuple(
        Gallery(
            f"Only {winner.label} is right",
            f"Those first that {loser.label} was surest of, at most two of a class while there are "
            "others.",
            disputed_cards(ids, winner, loser, pictures),
            f"There is no picture that only {winner.label} gets right.",
        )
        for winner, loser, ids in sides
    )
