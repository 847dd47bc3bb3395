"""Numbers -> matplotlib Figure: the charts of a search."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    Locator,
    LogLocator,
    MaxNLocator,
    NullFormatter,
)

from tenfold.formatting import in_words
from tenfold.reporting.figures import (
    finish_curves,
    name_rows,
    new_chart,
    percent_ticks,
    short,
    value_beside_bar,
)
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


@styled
def history(search: SearchSummary) -> Figure:
    """Each trial's accuracy in the order of the trials, the best so far, and the recipe's own."""
    figure, axes = new_chart()
    floor = _floor(search)
    _draw_trials(axes, [(float(t.number), t) for t in _judged(search)], search, floor=floor)
    failed = search.of_state("failed")
    if failed:
        numbers = [t.number for t in failed]
        axes.plot(numbers, [floor] * len(failed), "x", color=BAD, label="failed", clip_on=False)
    complete = search.of_state("complete")
    if complete:
        best = list(accumulate((t.accuracy or 0.0 for t in complete), max))
        end = max(t.number for t in search.trials)
        x = [*(t.number for t in complete), end]
        axes.step(x, [*best, best[-1]], where="post", color=INK, linewidth=1.4, label="best so far")
    own = search.own_trial
    if own is not None and own.accuracy is not None:
        axes.axhline(own.accuracy, color=OWN, linewidth=1.2, linestyle="--", zorder=1.5)
    _finish_accuracy(axes, floor)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True, min_n_ticks=1))
    figure.legend(loc="outside upper left", ncols=3)
    return figure


@styled
def curves(search: SearchSummary) -> Figure:
    """Accuracy by epoch of every trial; the best and the recipe's own stand out."""
    figure, axes = new_chart()
    drawn = [t for t in search.trials if any(value is not None for value in t.values)]
    for trial in drawn:
        if trial not in (search.best_trial, search.own_trial):
            colour = MUTED if trial.state == "pruned" else ACCENT
            _draw_line(axes, trial, color=colour, linewidth=0.9, alpha=0.7, zorder=2)
    if search.own_trial is not None and search.own_trial is not search.best_trial:
        _draw_line(axes, search.own_trial, color=OWN, linewidth=2.0, label="the recipe", zorder=4)
    if search.best_trial is not None:
        label = "the best, the recipe as it is" if search.best_trial.is_baseline else "the best"
        _draw_line(axes, search.best_trial, color=GOOD, linewidth=2.2, label=label, zorder=4)
    axes.plot([], [], color=ACCENT, linewidth=0.9, alpha=0.7, label="complete")
    axes.plot([], [], color=MUTED, linewidth=0.9, alpha=0.7, label="pruned")
    finish_curves(axes, quantity="accuracy")
    axes.set_ylabel("validation accuracy")
    axes.set_xlabel("epoch")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def importances(search: SearchSummary) -> Figure:
    """The share of each setting in the spread of the accuracies, as bars, largest first."""
    assert search.importances is not None
    items = list(search.importances.items())[::-1]
    figure, axes = new_chart(height=46 + 20 * len(items), grid="x", percent="x")
    rows = name_rows(axes, [search.short_name(key) for key, _ in items])
    axes.barh(rows, [share for _, share in items], 0.62, color=ACCENT, alpha=0.55)
    for row, (_, share) in zip(rows, items, strict=True):
        value_beside_bar(axes, row, share, f"{100 * share:.0f} %")
    axes.set_xlim(0, 1.12 * max(search.importances.values()))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure


@styled
def slice_of(search: SearchSummary, setting: Setting) -> Figure:
    """The accuracy of each trial over its value of one setting."""
    figure, axes = new_chart(height=190, grid="both")
    floor = _floor(search)
    tried = [(_x(setting, t), t) for t in _judged(search) if setting.key in t.params]
    _draw_trials(axes, tried, search, floor=floor)
    if setting.choices:
        axes.set_xlim(-0.5, len(setting.choices) - 0.5)
        axes.set_xticks(range(len(setting.choices)), [short(in_words(c)) for c in setting.choices])
    elif setting.log:
        axes.set_xscale("log")
        axes.set_xlim(setting.low / 1.25, setting.high * 1.25)
        axes.xaxis.set_major_locator(LogLocator(subs=_subs(setting), numticks=12))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: in_words(float(value))))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
    else:
        span = setting.high - setting.low
        axes.set_xlim(setting.low - 0.05 * span, setting.high + 0.05 * span)
        axes.xaxis.set_major_locator(_linear_ticks(setting))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: in_words(float(value))))
    _finish_accuracy(axes, floor)
    return figure


def _draw_trials(
    axes: Axes, placed: Sequence[tuple[float, Trial]], search: SearchSummary, *, floor: float
) -> None:
    """Trials as marks by their state; those below `floor` as triangles on it."""

    def labels(trial: Trial) -> list[str]:
        own = ["the recipe"] if trial is search.own_trial else []
        return own + (["best"] if trial is search.best_trial else []) or [trial.state]

    for label, marker, size, colour, edge in _MARKS:
        chosen = [(x, trial.reached or 0.0) for x, trial in placed if label in labels(trial)]
        marks: Any = {"markersize": size, "markerfacecolor": colour, "markeredgecolor": edge}
        marks |= {"markeredgewidth": 0.9, "alpha": 0.8 if label == "complete" else 1}
        marks |= {"linestyle": "", "clip_on": False, "zorder": 2 if marker == "o" else 4}
        inside = [(x, y) for x, y in chosen if y >= floor]
        below = [x for x, y in chosen if y < floor]
        if inside:
            axes.plot(*zip(*inside, strict=True), marker, label=label, **marks)
        if below:
            hidden = None if inside else label
            axes.plot(below, [floor] * len(below), "v", label=hidden, **marks)


def _draw_line(axes: Axes, trial: Trial, **style: Any) -> None:
    y = [math.nan if value is None else value for value in trial.values]
    marker = "o" if len(y) < 2 else None
    axes.plot(range(1, len(y) + 1), y, marker=marker, markersize=3, **style)


def _finish_accuracy(axes: Axes, floor: float) -> None:
    _, high = axes.get_ylim()
    axes.set_ylim(floor, max(high, floor + _SMALLEST_SPAN))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(percent_ticks())
    axes.set_ylabel("validation accuracy")


def _judged(search: SearchSummary) -> list[Trial]:
    """The trials that have an accuracy to show."""
    return [t for t in search.of_state("complete", "pruned") if t.last_value is not None]


def _floor(search: SearchSummary) -> float:
    """The lowest accuracy that is drawn to scale: a few bad trials must not press the good ones
    together."""
    heights = [trial.reached or 0.0 for trial in _judged(search)]
    if not heights:
        return 0.0
    top, quarter = max(heights), float(np.quantile(heights, 0.25))
    low = max(min(heights), top - 2.5 * max(top - quarter, _SMALLEST_SPAN / 2))
    return max(0.0, low - 0.06 * max(top - low, _SMALLEST_SPAN))


def _x(setting: Setting, trial: Trial) -> float:
    value = trial.params[setting.key]
    if setting.choices:
        # The same place beside the middle for the same trial in every chart.
        aside = (trial.number * _GOLDEN) % 1 - 0.5
        index = setting.choices.index(value) if value in setting.choices else -0.45
        return index + 0.5 * aside
    return max(float(value), setting.low) if setting.log else float(value)


def _linear_ticks(setting: Setting) -> Locator:
    """At the values themselves where there are few, else at round numbers."""
    step = setting.step or (1 if setting.kind == "int" else None)
    if step and (setting.high - setting.low) / step < _MOST_TICKS:
        values = np.arange(setting.low, setting.high + step / 2, step)
        return FixedLocator(values.tolist())
    return MaxNLocator(_MOST_TICKS - 1, steps=[1, 2, 5, 10])


def _subs(setting: Setting) -> tuple[float, ...]:
    """Ticks at powers of ten, and between them where the range has few of those."""
    decades = math.log10(setting.high / setting.low)
    return (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.6 else (1.0, 2.0, 5.0)
