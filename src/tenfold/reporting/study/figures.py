"""Numbers -> matplotlib Figure: the charts of a study.

Lengths are in points, one to a CSS pixel.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from tenfold.formatting import duration, percent, signed_points
from tenfold.reporting.figures import finish_curves, name_rows, new_chart, percent_ticks, short
from tenfold.reporting.study.marks import PUBLISHED, Mark
from tenfold.reporting.svg import BAD, INK, LINE, MUTED, styled
from tenfold.results.studies import Band, Comparison, Curves, Estimate, StudySummary

Marks = Mapping[str, Mark]

_LINE_HEIGHT = 14
_ROW_HEIGHT = 42  # of a row whose label takes one line
_LABEL_LETTERS = 34
_INTERVAL_WIDTH = 90
_DIFFERENCES_WIDTH = 104
_SHORTEST_AXIS = 0.02  # a narrower one would make noise look like a result
_MANY_LINES = 6
_SMALL_GAP = 0.03
_HOLLOW: Any = {"markerfacecolor": "none", "markeredgewidth": 1.6, "markersize": 8.5}
_ROUND_TIMES = (1, 3, 10, 30, 60, 180, 600, 1800, 3600, 10_800, 36_000, 86_400, 259_200, 864_000)
_WIDE_RATIO = 20  # costs that differ by more than this go on a logarithmic axis
_ROOM_FOR_TEXT = 0.28  # of a small chart's height; a smaller gap is named below its lines


class Row(NamedTuple):
    """A line of an interval plot: a mean with its interval and the values it is made of.

    Shares, or differences of shares. mean is None where nothing was run.
    """

    label: str
    mark: Mark
    mean: float | None
    interval: tuple[float, float] | None = None
    values: tuple[float, ...] = ()
    published: tuple[float, ...] = ()


class Line(NamedTuple):
    """A quantity over epochs with its band, and published numbers as (epoch, share)."""

    mark: Mark
    epochs: Sequence[int]
    band: Band
    published: tuple[tuple[int, float], ...] = ()


def results(study: StudySummary, marks: Marks) -> Figure:
    """The accuracy of each variant at the end of training."""
    rows = []
    for variant in study.variants:
        row, end, found = (
            Row(variant.label, marks[variant.label], None),
            variant.end,
            variant.result,
        )
        if found:
            interval = (found.low, found.high)
            row = row._replace(mean=found.mean, interval=interval, values=found.values)
        if end and end.published:
            row = row._replace(published=(end.published.accuracy,))
        rows.append(row)
    return _interval_plot(rows, axis=f"{study.split} accuracy")


def differences(comparisons: Sequence[Comparison], marks: Marks) -> Figure:
    """The differences from the one baseline of all `comparisons`."""
    rows = [
        Row(one.variant, marks.get(one.variant, Mark(0)), one.difference, (one.low, one.high))
        for one in comparisons
    ]
    axis = f"points above or below {comparisons[0].baseline}"
    return _interval_plot(rows, axis=axis, is_difference=True)


def milestone_lines(study: StudySummary, marks: Marks) -> list[Line]:
    """Accuracy at each milestone, of the variants that were measured on the way."""
    lines = []
    for variant in study.followed:
        known = [(point.epoch, point.ours) for point in variant.points if point.ours]
        means, lows, highs = (
            [getattr(p, side) for _, p in known] for side in ("mean", "low", "high")
        )
        band = Band(mean=tuple(means), low=tuple(lows), high=tuple(highs))
        published = tuple((p.epoch, p.published.accuracy) for p in variant.points if p.published)
        if known or published:
            epochs = [epoch for epoch, _ in known]
            lines.append(Line(marks[variant.label], epochs, band, published))
    return lines


def validation_lines(study: StudySummary, marks: Marks) -> list[Line]:
    """Validation accuracy by epoch; none where every variant has milestones, since the curve
    through those says the same of better images."""
    if len(study.followed) == len(study.variants):
        return []
    return [
        Line(marks[v.label], v.curves.epochs, v.curves.validation_accuracy)
        for v in study.variants
        if v.curves and len(v.curves.epochs) > 1 and not v.curves.validation_accuracy.is_empty
    ]


def costs(study: StudySummary, marks: Marks, cost: str) -> list[tuple[Mark, float, Estimate]]:
    """The variants by `cost`, for `accuracy_against`; none unless they differ by a tenth."""
    placed = []
    for variant in study.variants:
        seconds = variant.training_seconds.mean if variant.training_seconds else None
        value = variant.num_parameters if cost == "parameters" else seconds
        if value and variant.result:
            placed.append((marks[variant.label], float(value), variant.result))
    known = [value for _, value, _ in placed]
    return placed if len(placed) > 1 and max(known) > 1.1 * min(known) else []


@styled
def _interval_plot(rows: Sequence[Row], *, axis: str, is_difference: bool = False) -> Figure:
    """Each row's mean as a dot on its interval, its label above, in the order of `rows`.

    axis: the name of the x axis. is_difference: the values are differences, and a line is drawn at
    zero.
    """
    labels = [_wrapped(row.label) for row in rows]
    heights = [_ROW_HEIGHT + _LINE_HEIGHT * label.count("\n") for label in labels]
    figure, axes = new_chart(height=60 + sum(heights), grid="")
    _fit_values(axes, rows, is_difference=is_difference)
    top = 6.0
    for row, label, height in zip(rows, labels, heights, strict=True):
        _draw_label(axes, row, label=label, y=top, is_difference=is_difference)
        _draw_row(axes, row, y=top + height - 18, zero=is_difference)
        top += height
    axes.set_ylim(top, 0)
    axes.set_xlabel("\n".join(textwrap.wrap(axis, 52, max_lines=2, placeholder=" …")))
    _explain_marks(figure, rows)
    return figure


@styled
def lines_with_bands(lines: Sequence[Line]) -> Figure:
    """Accuracy of several variants over epochs.

    Each has its colour, dash and markers, and a hollow diamond where a number was published.
    """
    figure, axes = new_chart(height=270)
    strength = 0.14 if len(lines) <= _MANY_LINES else 0.07
    for line in lines:
        step = max(1, round(len(line.epochs) / 10))
        shade: Any = {"color": line.mark.colour, "alpha": strength, "linewidth": 0}
        axes.fill_between(line.epochs, line.band.low, line.band.high, **shade)
        axes.plot(
            line.epochs,
            line.band.mean,
            **line.mark.line,
            marker=line.mark.marker,
            markersize=5.5,
            # Where every line has its markers at other epochs, none hides another's.
            markevery=slice(line.mark.number % step, None, step),
        )
        for epoch, share in line.published:
            # A stem to our value tells whose diamond it is without its colour.
            ours = dict(zip(line.epochs, line.band.mean, strict=True)).get(epoch, share)
            axes.plot([epoch] * 2, [ours, share], color=line.mark.colour, linewidth=1.2)
            _draw_published(axes, epoch, share, colour=line.mark.colour)
    axes.set_xlabel("epochs of training")
    finish_curves(axes, quantity="accuracy")
    axes.xaxis.set_major_locator(_epoch_ticks(7))
    return figure


@styled
def train_against_validation(
    curves: Curves, *, mark: Mark, quantity: str, limits: tuple[float, float]
) -> Figure:
    """How one variant does on what it learns from (dashed) and on images held back.

    The gap between the two is shaded and measured at the end. limits: of the y axis, the same for
    all variants.
    """
    epochs, (train, validation) = curves.epochs, curves.of(quantity)
    figure, axes = new_chart(width=280, height=190)
    for band, colour in ((train, MUTED), (validation, mark.colour)):
        axes.fill_between(epochs, band.low, band.high, color=colour, alpha=0.2, linewidth=0)
    over = np.array(train.mean) > np.array(validation.mean)
    if quantity == "loss":
        over = ~over
    axes.fill_between(
        epochs, train.mean, validation.mean, where=over, color=BAD, alpha=0.12, linewidth=0
    )
    dot: Any = {"marker": "o", "markersize": 5} if len(epochs) == 1 else {}
    axes.plot(epochs, train.mean, color=MUTED, linewidth=1.5, linestyle=(0, (4, 1.6)), **dot)
    axes.plot(epochs, validation.mean, color=mark.colour, linewidth=2, **dot)
    finish_curves(axes, quantity=quantity)
    axes.set_ylabel("")
    axes.xaxis.set_major_locator(_epoch_ticks(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("epoch")
    axes.set_ylim(limits)
    if quantity == "accuracy":
        _measure_gap(axes, epochs[-1], train.mean[-1], validation.mean[-1])
    return figure


@styled
def accuracy_against(marked: Sequence[tuple[Mark, float, Estimate]], *, cost: str) -> Figure:
    """Accuracy with its interval against `cost`: `training time` in seconds or `parameters`."""
    figure, axes = new_chart(height=270, grid="both", percent="y")
    costs = [value for _, value, _ in marked]
    for mark, value, found in marked:
        axes.plot([value] * 2, [found.low, found.high], color=mark.colour, linewidth=1.4)
        axes.plot([value], [found.mean], mark.marker, color=mark.colour, markersize=8)
    axes.margins(x=0.12, y=0.12)
    if max(costs) > _WIDE_RATIO * min(costs):
        axes.set_xscale("log")
        axes.minorticks_off()
    else:
        axes.set_xlim(left=0, right=max(costs) * 1.15)
    axes.set_ylabel("accuracy")
    if cost == "parameters":
        axes.set_xlabel("parameters")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    else:
        time_axis(axes)
    return figure


@styled
def class_gains(
    gains: Sequence[tuple[str, float, float]], sides: Sequence[tuple[str, Mark]]
) -> Figure:
    """For each class (name, before, after) a line from one recall to the other."""
    ordered = sorted(gains, key=lambda gain: gain[2] - gain[1])
    row_height = 20 if len(ordered) <= 30 else 13
    figure, axes = new_chart(height=64 + row_height * len(ordered), grid="x", percent="x")
    rows = name_rows(axes, [gain[0] for gain in ordered])
    ends = np.array([gain[1:] for gain in ordered])
    axes.hlines(rows, ends[:, 0], ends[:, 1], color=MUTED, linewidth=1.6, zorder=1.5)
    for values, (label, mark), fill in zip(ends.T, sides, ("none", None), strict=True):
        # matplotlib hides labels that begin with an underscore.
        label = "\N{ZERO WIDTH SPACE}" + short(label)
        axes.plot(
            values, rows, mark.marker, color=mark.colour, markerfacecolor=fill, label=label,
            markersize=7, clip_on=False,
        )  # fmt: skip
    axes.set_xlim(0, 1)
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def time_axis(axes: Axes) -> None:
    """Ticks at round seconds, minutes and hours."""
    low, high = axes.get_xlim()
    if axes.get_xscale() == "log":
        chosen = [second for second in _ROUND_TIMES if low <= second <= high]
        axes.set_xticks(chosen, [duration(second) for second in chosen])
        axes.minorticks_off()
        axes.set_xlabel("training time")
        return
    unit, seconds = next(
        (unit, seconds)
        for unit, seconds in (("hours", 3600), ("minutes", 60), ("seconds", 1))
        if high >= 3 * seconds or seconds == 1
    )
    ticks = MaxNLocator(6).tick_values(max(low, 0) / seconds, high / seconds)
    shown = [tick for tick in ticks if low <= tick * seconds <= high]
    axes.set_xticks([tick * seconds for tick in shown], [f"{tick:g}" for tick in shown])
    axes.set_xlabel(f"training time in {unit}")


def common_limits(curves: Sequence[Curves], *, quantity: str) -> tuple[float, float]:
    """Limits of a y axis that holds all of `curves`."""
    bands = [band for each in curves for band in each.of(quantity)]
    values = np.array([value for band in bands for value in (*band.low, *band.high)])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * max(high - low, 0.05)
    highest = 1.0 if quantity == "accuracy" else math.inf
    return max(0.0, low - margin), min(highest, high + margin)


def _epoch_ticks(number: int) -> MaxNLocator:
    """Ticks at whole and round epochs."""
    return MaxNLocator(number, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])


def _wrapped(label: str) -> str:
    """A label on at most two lines; odd characters become question marks."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in label)
    return "\n".join(
        textwrap.wrap(printable, _LABEL_LETTERS, max_lines=2, placeholder=" …") or ["?"]
    )


def _draw_label(axes: Axes, row: Row, *, label: str, y: float, is_difference: bool) -> None:
    """The variant's name on the left, above its dot, and its numbers on the right."""
    across = axes.get_yaxis_transform()
    common: Any = {"textcoords": "offset points", "xycoords": across, "va": "top", "fontsize": 10.5}
    texts = [axes.annotate(label, (0, y), (0, 0), ha="left", **common)]
    if row.mean is None:
        texts.append(axes.annotate("not run", (1, y), (0, 0), ha="right", color=MUTED, **common))
    else:
        mean = signed_points(row.mean) if is_difference else percent(row.mean)
        offset = 0
        if row.interval is not None:
            offset = -(_DIFFERENCES_WIDTH if is_difference else _INTERVAL_WIDTH)
            ends = [signed_points(e) if is_difference else f"{100 * e:.1f}" for e in row.interval]
            text = f"({ends[0]} to {ends[1]})"
            texts.append(axes.annotate(text, (1, y), (0, 0), ha="right", color=MUTED, **common))
        texts.append(axes.annotate(mean, (1, y), (offset, 0), ha="right", weight="bold", **common))
    for one in texts:
        one.set_in_layout(False)


def _draw_row(axes: Axes, row: Row, *, y: float, zero: bool) -> None:
    """The marks, on a grid that leaves the labels alone."""
    axes.axhline(y, color=LINE, linewidth=0.6, zorder=0.5)
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    axes.vlines(ticks, y - 9, y + 12, color=LINE, linewidth=0.6, zorder=0.5)
    if zero:
        axes.vlines([0], y - 9, y + 12, color=MUTED, linewidth=1.4, zorder=1)
    colour = row.mark.colour
    if row.mean is not None:
        if row.interval is not None:
            axes.plot(row.interval, [y, y], color=colour, linewidth=2)
            axes.plot(row.interval, [y, y], "|", color=colour, markersize=9, markeredgewidth=2)
        axes.plot([row.mean], [y], row.mark.marker, color=colour, markersize=8)
        if len(row.values) > 1:
            below = [y + 9] * len(row.values)
            axes.plot(row.values, below, "o", color=colour, markersize=3, alpha=0.75)
    for share in row.published:
        _draw_published(axes, share, y, colour=INK)


def _draw_published(axes: Axes, x: float, y: float, *, colour: str) -> None:
    axes.plot(x, y, PUBLISHED, markeredgecolor=colour, zorder=4, clip_on=False, **_HOLLOW)


def _fit_values(axes: Axes, rows: Sequence[Row], *, is_difference: bool) -> None:
    """An x axis that holds every interval and every published number, and isn't too short."""
    values = [0.0] if is_difference else []
    for row in rows:
        values += [*(row.interval or ()), *row.values, *row.published]
        values += [] if row.mean is None else [row.mean]
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = max(0.06 * (high - low), (_SHORTEST_AXIS - (high - low)) / 2)
    bounds = (-1.0, 1.0) if is_difference else (0.0, 1.0)
    axes.set_xlim(max(low - margin, bounds[0]), min(high + margin, bounds[1]))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(_points_ticks() if is_difference else percent_ticks())
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _explain_marks(figure: Figure, rows: Sequence[Row]) -> None:
    """A legend of what occurs."""
    axes = figure.axes[0]
    if any(row.mean is not None for row in rows):
        axes.plot([], [], "o-", color=INK, linewidth=2, markersize=7, label="mean, 95 % interval")
    if any(len(row.values) > 1 for row in rows):
        axes.plot([], [], "o", color=INK, markersize=3, label="one seed")
    if any(row.published for row in rows):
        axes.plot([], [], PUBLISHED, markeredgecolor=INK, label="published", **_HOLLOW)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper left", ncols=3)


def _measure_gap(axes: Axes, epoch: int, train: float, validation: float) -> None:
    """A bracket at the last epoch with the number of points between both lines."""
    gap = train - validation
    if math.isnan(gap) or gap < _SMALL_GAP:
        return
    low, high = axes.get_ylim()
    has_room = gap > _ROOM_FOR_TEXT * (high - low)
    arrow = {"arrowstyle": "<->" if has_room else "-", "color": BAD, "linewidth": 1.2}
    arrow |= {"shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (epoch, train), (epoch, validation), arrowprops=arrow)
    axes.annotate(
        f"{100 * gap:.0f} points",
        (epoch, (train + validation) / 2 if has_room else validation),
        (-6, 0) if has_room else (0, -5),
        textcoords="offset points",
        ha="right",
        va="center" if has_room else "top",
        color=BAD,
        fontsize=10.5,
    )


def _points_ticks() -> FuncFormatter:
    """A difference of shares as points: `+0.5`."""

    def text(value: float, _: int | None) -> str:
        number = round(100 * value, 2)
        return f"{number:+g}".replace("-", "\N{MINUS SIGN}") if number else "0"

    return FuncFormatter(text)
