"""Numbers -> matplotlib Figure: the charts of a study.

Lengths are in points, one to a CSS pixel.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import EngFormatter, MaxNLocator
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray

from tenfold.formatting import duration, points
from tenfold.reporting.figures import (
    draw_curve,
    finish_curves,
    new_chart,
)
from tenfold.reporting.svg import BAD, MUTED, SERIES, styled
from tenfold.results.studies import Band, Curves, Estimate, StudySummary

_MARKERS = ("o", "s", "^", "v", "X", "P", "<", "p", "*", ">", "h", "8")
# In multiples of the line's width. Three of them and eight colours are together 24 pairs.
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (1.2, 1.4))
_LINE_WIDTH = 1.8

_SHORTEST_AXIS = 0.02  # a narrower one would make noise look like a result
_MANY_LINES = 6
_SMALL_GAP = 0.03
_WIDE_RATIO = 20  # costs that differ by more than this go on a logarithmic axis
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_ROUND_TIMES = (
    *(1, 2, 5, 10, 20, 30),
    *(_MINUTE * number for number in (1, 2, 5, 10, 20, 30)),
    *(_HOUR * number for number in (1, 2, 5, 10)),
    *(_DAY * number for number in (1, 2, 5, 10, 20, 50, 100)),
)


@dataclass(frozen=True)
class Mark:
    """What stands for a variant in every figure: a colour (a stand-in of `tenfold.reporting.svg`),
    a marker and dashes."""

    number: int

    @property
    def colour(self) -> str:
        """The colour that a figure is drawn with."""
        return SERIES[self.number % len(SERIES)]

    @property
    def marker(self) -> str:
        """One of twelve shapes, none of which is that of published numbers."""
        return _MARKERS[self.number % len(_MARKERS)]

    @property
    def dashes(self) -> tuple[float, ...]:
        """Lengths of strokes and gaps; none for a whole line."""
        return _DASHES[self.number % len(_DASHES)]

    @property
    def variable(self) -> str:
        """The same colour in a page."""
        return f"var(--s{self.number % len(SERIES) + 1})"

    @property
    def symbol(self) -> Markup:
        """The marker as a path of SVG around (0, 0), nine points across."""
        return Markup(f'<path d="{_outline(self.marker)}" style="fill: {self.variable}"/>')

    @property
    def key(self) -> Markup:
        """The piece of line with its marker that goes before the variant's name in text."""
        dashes = " ".join(f"{_LINE_WIDTH * length:g}" for length in self.dashes)
        return Markup(
            f'<svg class="key" viewBox="-15 -6 30 12" aria-hidden="true">'
            f'<path d="M-15 0H15" style="stroke: {self.variable}; stroke-width: {_LINE_WIDTH}" '
            f'stroke-dasharray="{dashes}"/>{self.symbol}</svg>'
        )


@cache
def _outline(marker: str) -> str:
    """matplotlib's shape of `marker` as an SVG path of about nine points around (0, 0)."""
    style = MarkerStyle(marker)
    # SVG's y grows downwards. Stars and crosses look smaller than they measure.
    size = 10.5 if marker in "*XP" else 9
    path = style.get_path().transformed(style.get_transform() + Affine2D().scale(size, -size))
    polygons = [np.asarray(points, dtype=np.float64) for points in path.to_polygons()]
    return "".join(
        "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in polygon[:-1]) + "Z" for polygon in polygons
    )


Marks = Mapping[str, Mark]


class Line(NamedTuple):
    """A quantity over epochs with its band, and published numbers as (epoch, share)."""

    mark: Mark
    epochs: Sequence[int]
    band: Band
    published: Sequence[tuple[int, float]] = ()


def round_ticks(values: Sequence[float], *, is_difference: bool) -> list[float]:
    """Some five round numbers, between the first and last of which all of `values` lie: shares, or
    differences of shares."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = max(0.02 * (high - low), (_SHORTEST_AXIS - (high - low)) / 2)
    least = -1.0 if is_difference else 0.0
    locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
    ticks = locator.tick_values(max(low - margin, least), min(high + margin, 1.0))
    return [float(tick) for tick in ticks]


def milestone_lines(study: StudySummary, marks: Marks) -> list[Line]:
    """Accuracy at each milestone, of the variants that were measured on the way."""
    lines = []
    for variant in study.followed:
        known = {point.epoch: point.ours for point in variant.points if point.ours}
        sides = [(one.mean, one.low, one.high) for one in known.values()]
        mean, low, high = zip(*sides, strict=True) if sides else ((), (), ())
        band = Band(mean=mean, low=low, high=high)
        published = [(p.epoch, p.published.accuracy) for p in variant.points if p.published]
        if known or published:
            lines.append(Line(marks[variant.label], list(known), band, published))
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


@styled
def lines_with_bands(lines: Sequence[Line]) -> Figure:
    """Accuracy of several variants over epochs.

    Each has its colour, dash and markers, and a hollow diamond where a number was published.
    """
    figure, axes = new_chart(height=270)
    strength = 0.14 if len(lines) <= _MANY_LINES else 0.07
    for mark, epochs, band, published in lines:
        step = max(1, round(len(epochs) / 10))
        axes.fill_between(
            epochs, band.low, band.high, color=mark.colour, alpha=strength, linewidth=0
        )
        axes.plot(
            epochs,
            band.mean,
            color=mark.colour,
            linewidth=_LINE_WIDTH,
            linestyle=(0, mark.dashes) if mark.dashes else "-",
            marker=mark.marker,
            markersize=5.5,
            # Where every line has its markers at other epochs, none hides another's.
            markevery=slice(mark.number % step, None, step),
        )
        ours = dict(zip(epochs, band.mean, strict=True))
        for epoch, share in published:
            # A stem to our value tells whose diamond it is without its colour.
            stem = [ours.get(epoch, share), share]
            axes.plot([epoch] * 2, stem, color=mark.colour, linewidth=1.2)
            axes.plot(
                epoch, share, "D", markerfacecolor="none", markeredgecolor=mark.colour,
                markeredgewidth=1.6, markersize=8.5, zorder=4, clip_on=False,
            )  # fmt: skip
    axes.set_xlabel("epochs of training")
    finish_curves(axes, quantity="accuracy", num_ticks=7)
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
    over = overfits(curves, quantity=quantity)
    axes.fill_between(
        epochs, train.mean, validation.mean, where=over.tolist(), color=BAD, alpha=0.12, linewidth=0
    )
    for band, colour, style in ((train, MUTED, (0, (4, 1.6))), (validation, mark.colour, "-")):
        axes.fill_between(epochs, band.low, band.high, color=colour, alpha=0.2, linewidth=0)
        draw_curve(axes, epochs, band.mean, label=None, colour=colour, linestyle=style)
    finish_curves(axes, quantity=quantity, num_ticks=5)
    axes.set(xlabel="epoch", ylabel="", ylim=limits)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    gap = train.mean[-1] - validation.mean[-1]
    if quantity == "accuracy" and gap >= _SMALL_GAP:
        end, words = epochs[-1], points(gap)
        axes.plot([end, end], [train.mean[-1], validation.mean[-1]], color=BAD, linewidth=1.2)
        axes.annotate(
            words, (end, validation.mean[-1]), (0, -5), textcoords="offset points", ha="right",
            va="top", color=BAD, fontsize=10.5,
        )  # fmt: skip
    return figure


def overfits(curves: Curves, *, quantity: str) -> NDArray[np.bool_]:
    """Of each epoch, whether training does better than validation."""
    train, validation = (np.array(band.mean) for band in curves.of(quantity))
    return np.asarray(train > validation if quantity == "accuracy" else train < validation)


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
def accuracy_against(marked: Sequence[tuple[Mark, float, Estimate]], *, cost: str) -> Figure:
    """Accuracy with its interval against `cost`: `training time` in seconds or `parameters`."""
    figure, axes = new_chart(height=270, grid="both", percent="y")
    values = [value for _, value, _ in marked]
    for mark, value, found in marked:
        axes.plot([value] * 2, [found.low, found.high], color=mark.colour, linewidth=1.4)
        axes.plot([value], [found.mean], mark.marker, color=mark.colour, markersize=8)
    axes.margins(x=0.12, y=0.12)
    if max(values) > _WIDE_RATIO * min(values):
        axes.set_xscale("log")
        axes.minorticks_off()
    else:
        axes.set_xlim(left=0, right=max(values) * 1.15)
    axes.set(xlabel=cost, ylabel="accuracy")
    if cost == "parameters":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    else:
        time_axis(axes)
    return figure


def time_axis(axes: Axes) -> None:
    """At most seven ticks at round times of training."""
    low, high = axes.get_xlim()
    if axes.get_xscale() == "log":
        ticks = [second for second in _ROUND_TIMES if low <= second <= high]
        ticks = ticks[:: math.ceil(len(ticks) / 7) or 1]
    else:
        step = next(step for step in _ROUND_TIMES if high / step <= 7 or step == _ROUND_TIMES[-1])
        ticks = list(range(0, math.floor(high) + 1, step))
    axes.set_xticks(ticks, [duration(second) if second else "0" for second in ticks])
    axes.minorticks_off()
    axes.set_xlabel("training time")
