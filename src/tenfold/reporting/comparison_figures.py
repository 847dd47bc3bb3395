"""Numbers -> matplotlib Figure: the charts that compare runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from tenfold.reporting.figures import (
    draw_curve,
    finish_curves,
    new_chart,
    percent_ticks,
    short,
)
from tenfold.reporting.svg import INK, MUTED, styled
from tenfold.results.runs import Epoch

_LETTER_WIDTH = 6.2
_LABEL_HEIGHT = 12.0
_ROUND_TIMES = (1, 3, 10, 30, 60, 180, 600, 1800, 3600, 10_800, 36_000, 86_400, 259_200, 864_000)
# Costs that differ by more than this go on a logarithmic axis.
_WIDE_RATIO = 20


@dataclass(frozen=True)
class Series:
    """One run's epochs and the colour that stands for it."""

    epochs: Sequence[Epoch]
    colour: str


@dataclass(frozen=True)
class Point:
    """One run's accuracy with its interval, against some cost; label may be empty."""

    label: str
    colour: str
    cost: float
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class ClassGain:
    """The share of a class's pictures that each of two runs gets right."""

    name: str
    before: float
    after: float

    @property
    def gain(self) -> float:
        """How much more of the class the second gets right; negative where it gets less."""
        return self.after - self.before


@styled
def compared_curves(
    series: Sequence[Series], *, quantity: str, against_time: bool = False
) -> Figure:
    """Validation `quantity` (`loss` or `accuracy`) of every run on the same axes.

    Runs that had no validation pictures show their training value, dashed. The x axis is the
    epoch, or the training time in seconds.
    """
    figure, axes = new_chart()
    for one in series:
        x = [epoch.training_seconds if against_time else epoch.number for epoch in one.epochs]
        y = [getattr(epoch, f"validation_{quantity}") for epoch in one.epochs]
        dashed = all(value is None for value in y)
        if dashed:
            y = [getattr(epoch, f"train_{quantity}") for epoch in one.epochs]
        known = [(a, b) for a, b in zip(x, y, strict=True) if a is not None]
        if known:
            draw_curve(
                axes,
                [a for a, _ in known],
                [b for _, b in known],
                label=None,
                colour=one.colour,
                dashed=dashed,
            )
    finish_curves(axes, quantity=quantity)
    if against_time:
        if _is_wide([one.epochs[-1].training_seconds or 0.0 for one in series if one.epochs]):
            axes.set_xscale("log")
        time_axis(axes)
    else:
        axes.set_xlabel("epoch")
    return figure


@styled
def accuracy_against(points: Sequence[Point], *, cost: str) -> Figure:
    """Accuracy with its interval against `cost`: `training time` in seconds or `parameters`."""
    figure, axes = new_chart()
    for point in points:
        low, high = point.interval
        axes.plot([point.cost] * 2, [low, high], color=point.colour, linewidth=1.4)
        axes.plot([point.cost], [point.accuracy], "o", color=point.colour, markersize=7)
    costs = [point.cost for point in points]
    if _is_wide(costs):
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.margins(x=0.12, y=0.12)
    if axes.get_xscale() == "linear":
        axes.set_xlim(left=0, right=max(costs) * 1.15 or 1)
    axes.grid()
    axes.tick_params(length=0)
    axes.set_ylabel("right answers")
    axes.yaxis.set_major_formatter(percent_ticks())
    if cost == "parameters":
        axes.set_xlabel("parameters")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if axes.get_xscale() == "linear":
            axes.xaxis.set_major_locator(MaxNLocator(5))
    else:
        time_axis(axes)
    _label_points(figure, axes, points)
    return figure


@styled
def class_gains(
    gains: Sequence[ClassGain], *, labels: tuple[str, str], colours: tuple[str, str]
) -> Figure:
    """For each class a line from the share that the first run gets right to the second's."""
    ordered = sorted(gains, key=lambda gain: gain.gain)
    row_height = 20 if len(ordered) <= 30 else 13
    figure, axes = new_chart(height=64 + row_height * len(ordered))
    rows = np.arange(len(ordered))
    before = np.array([gain.before for gain in ordered])
    after = np.array([gain.after for gain in ordered])
    axes.hlines(rows, before, after, color=MUTED, linewidth=1.6, zorder=1.5)
    for values, colour, label in zip((before, after), colours, labels, strict=True):
        axes.plot(
            values, rows, "o", color=colour, label=_legend_label(label), markersize=7, clip_on=False
        )
    axes.set_yticks(rows, [short(gain.name) for gain in ordered])
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(percent_ticks())
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    figure.legend(loc="outside upper left", ncols=2, handlelength=1, borderpad=0, reverse=True)
    return figure


def _legend_label(label: str) -> str:
    """A label that shows even where it begins with an underscore, which matplotlib hides."""
    return "\N{ZERO WIDTH SPACE}" + short(label) if label.startswith("_") else short(label)


def _is_wide(costs: Sequence[float]) -> bool:
    return bool(costs) and min(costs) > 0 and max(costs) > _WIDE_RATIO * min(costs)


def time_axis(axes: Axes) -> None:
    """Ticks at round seconds, minutes and hours."""
    low, high = axes.get_xlim()
    if axes.get_xscale() == "log":
        chosen = [second for second in _ROUND_TIMES if low <= second <= high]
        axes.set_xticks(chosen, [_short_time(second) for second in chosen])
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


def _short_time(seconds: int) -> str:
    size, unit = next(
        (size, unit)
        for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
        if seconds >= size
    )
    return f"{seconds // size} {unit}"


def _label_points(figure: Figure, axes: Axes, points: Sequence[Point]) -> None:
    """Each label beside its point, at the first of eight places that is free of the others."""
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    marks = [axes.transData.transform((point.cost, point.accuracy)) for point in points]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in marks]
    for point, (x, y) in zip(points, marks, strict=True):
        if not point.label:
            continue
        text = short(point.label)
        width = _LETTER_WIDTH * len(text)
        places = [
            (x + 8, y - _LABEL_HEIGHT / 2),
            (x - 8 - width, y - _LABEL_HEIGHT / 2),
            (x + 6, y + 3),
            (x + 6, y - 3 - _LABEL_HEIGHT),
            (x - 6 - width, y + 3),
            (x - 6 - width, y - 3 - _LABEL_HEIGHT),
            (x - width / 2, y + 8),
            (x - width / 2, y - 8 - _LABEL_HEIGHT),
        ]
        boxes = [(a, b, a + width, b + _LABEL_HEIGHT) for a, b in places]
        free = (
            box
            for box in boxes
            if frame.x0 <= box[0]
            and box[2] <= frame.x1 + 4
            and not any(_overlap(box, other) for other in taken)
        )
        box = next(free, None)
        if box is None:
            continue  # a label on top of another helps nobody; the table has them all
        taken.append(box)
        axes.annotate(
            text,
            (box[0], box[1] + 2),
            xycoords="figure pixels",
            color=INK,
            annotation_clip=False,
        ).set_in_layout(False)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
