"""Numbers -> matplotlib Figure: the charts of a search."""

import math
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, LogLocator, MaxNLocator

from tenfold.formatting import in_words
from tenfold.reporting.figures import draw_curve, finish_curves, new_chart, short
from tenfold.reporting.svg import ACCENT, BAD, GOOD, INK, MUTED, SERIES, SURFACE, styled
from tenfold.results.searches import SearchSummary, Setting, Trial

OWN = SERIES[1]
"""The colour of the recipe as it is."""

_MARKS = (
    ("pruned", "o", 5, SURFACE, MUTED),
    ("complete", "o", 6.5, ACCENT, SURFACE),
    ("the recipe", "D", 7, OWN, SURFACE),
    ("best", "*", 14, GOOD, SURFACE),
)
"""What stands for a trial: label, marker and its size, colours of its face and edge."""

_GOLDEN = 0.618
_MOST_TICKS = 7
_SMALLEST_SPAN = 0.02  # a narrower axis would make noise look like a result


def judged(search: SearchSummary) -> list[Trial]:
    """The trials that have an accuracy to show."""
    return [t for t in search.of_state("complete", "pruned") if t.last_value is not None]


@styled
def history(search: SearchSummary) -> Figure:
    """Each trial's accuracy in the order of the trials, the best so far, and the recipe's own."""
    figure, axes = new_chart()
    floor = _draw_trials(axes, search, lambda trial: trial.number)
    if failed := [trial.number for trial in search.of_state("failed")]:
        axes.plot(failed, [floor] * len(failed), "x", color=BAD, label="failed", clip_on=False)
    if complete := search.of_state("complete"):
        best = list(accumulate((t.accuracy or 0.0 for t in complete), max))
        x = [*(t.number for t in complete), max(t.number for t in search.trials)]
        axes.step(x, [*best, best[-1]], where="post", color=INK, linewidth=1.4, label="best so far")
    if (own := search.own_trial) is not None and own.accuracy is not None:
        axes.axhline(own.accuracy, color=OWN, linewidth=1.2, linestyle="--", zorder=1.5)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True, min_n_ticks=1))
    figure.legend(loc="outside upper left", ncols=3)
    return figure


@styled
def curves(search: SearchSummary) -> Figure:
    """Accuracy by epoch of every trial; the best and the recipe's own stand out."""
    figure, axes = new_chart()
    best, own = search.best_trial, search.own_trial
    thin: Any = {"linewidth": 0.9, "alpha": 0.7}
    for trial in search.trials:
        if trial not in (best, own):
            colour = MUTED if trial.state == "pruned" else ACCENT
            _draw_line(axes, trial, colour=colour, zorder=2, **thin)
    if own is not None and own is not best:
        _draw_line(axes, own, colour=OWN, linewidth=2.0, label="the recipe", zorder=4)
    if best is not None:
        label = "the best, the recipe as it is" if best.is_baseline else "the best"
        _draw_line(axes, best, colour=GOOD, linewidth=2.2, label=label, zorder=4)
    for label, colour in (("complete", ACCENT), ("pruned", MUTED)):
        axes.plot([], [], color=colour, label=label, **thin)
    finish_curves(axes, quantity="accuracy")
    axes.set(xlabel="epoch", ylabel="validation accuracy")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def slice_of(search: SearchSummary, setting: Setting) -> Figure:
    """The accuracy of each trial over its value of one setting."""
    figure, axes = new_chart(height=190, grid="both")
    _draw_trials(axes, search, lambda trial: _place(setting, trial))
    if setting.choices:
        axes.set_xlim(-0.5, len(setting.choices) - 0.5)
        axes.set_xticks(range(len(setting.choices)), [short(in_words(c)) for c in setting.choices])
        return figure
    if setting.log:
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xlim(setting.low / 1.25, setting.high * 1.25)
    else:
        span = setting.high - setting.low
        axes.set_xlim(setting.low - 0.05 * span, setting.high + 0.05 * span)
    axes.xaxis.set_major_locator(_ticks(setting))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: in_words(float(value))))
    return figure


def _draw_trials(
    axes: Axes, search: SearchSummary, place: Callable[[Trial], float | None]
) -> float:
    """The accuracy of each trial that has a place as a mark by its state.

    Returns the floor of the axis: a few bad trials must not press the good ones together, so they
    are triangles on it.
    """
    heights = [trial.reached or 0.0 for trial in judged(search)] or [0.0]
    top, quarter = max(heights), float(np.quantile(heights, 0.25))
    low = max(min(heights), top - 2.5 * max(top - quarter, _SMALLEST_SPAN / 2))
    floor = max(0.0, low - 0.06 * max(top - low, _SMALLEST_SPAN)) if top else 0.0
    named = {id(search.own_trial): ["the recipe"]}
    named[id(search.best_trial)] = [*named.get(id(search.best_trial), []), "best"]
    for label, marker, size, colour, edge in _MARKS:
        placed = [
            (x, trial.reached or 0.0)
            for trial in judged(search)
            if label in named.get(id(trial), [trial.state]) and (x := place(trial)) is not None
        ]
        marks: Any = {"markersize": size, "markerfacecolor": colour, "markeredgecolor": edge}
        marks |= {"markeredgewidth": 0.9, "alpha": 0.8 if label == "complete" else 1}
        marks |= {"linestyle": "", "clip_on": False, "zorder": 2 if marker == "o" else 4}
        inside = [point for point in placed if point[1] >= floor]
        below = [x for x, y in placed if y < floor]
        if inside:
            axes.plot(*zip(*inside, strict=True), marker, label=label, **marks)
        if below:
            hidden = None if inside else label
            axes.plot(below, [floor] * len(below), "v", label=hidden, **marks)
    finish_curves(axes, quantity="accuracy")
    axes.set_ylim(floor, max(axes.get_ylim()[1], floor + _SMALLEST_SPAN))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylabel("validation accuracy")
    return floor


def _draw_line(
    axes: Axes, trial: Trial, *, colour: str, label: str | None = None, **style: Any
) -> None:
    epochs = range(1, len(trial.values) + 1)
    draw_curve(axes, epochs, trial.values, label=label, colour=colour, **style)


def _place(setting: Setting, trial: Trial) -> float | None:
    """Where on the axis of its setting a trial is; None where it hasn't that."""
    value = trial.params.get(setting.key)
    if value is None:
        return None
    if not setting.choices:
        return max(float(value), setting.low) if setting.log else float(value)
    # The same place beside the middle for the same trial in every chart.
    aside = (trial.number * _GOLDEN) % 1 - 0.5
    return (setting.choices.index(value) if value in setting.choices else -0.45) + 0.5 * aside


def _ticks(setting: Setting) -> Locator:
    """At the values themselves where there are few, else at round numbers."""
    if setting.log:
        decades = math.log10(setting.high / setting.low)
        between = () if decades > 3 else (3.0,) if decades > 1.6 else (2.0, 5.0)
        return LogLocator(subs=(1.0, *between), numticks=12)
    step = setting.step or (1 if setting.kind == "int" else None)
    if step and (setting.high - setting.low) / step < _MOST_TICKS:
        return FixedLocator(np.arange(setting.low, setting.high + step / 2, step).tolist())
    return MaxNLocator(_MOST_TICKS - 1, steps=[1, 2, 5, 10])
