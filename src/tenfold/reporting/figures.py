"""Numbers -> matplotlib Figure: the charts of one run.

Lengths are in points, one to a CSS pixel: a chart is about as wide as a phone, and pages set
several side by side where there is room.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from tenfold.reporting.svg import (
    ACCENT,
    BAD,
    GOOD,
    INK,
    LINE,
    MUTED,
    SURFACE,
    light_palette,
    styled,
)
from tenfold.results.runs import ClassScore, Epoch, Metrics

WIDTH = 360
HEIGHT = 240
# Beyond this many classes a confusion matrix shows colours without figures.
MAX_CLASSES_WITH_FIGURES = 12
_MOST_LETTERS = 18
_STRONGEST = 0.7


@styled
def learning_curves(
    epochs: Sequence[Epoch], *, quantity: str, stage_ends: Sequence[int] = (), measured: str = ""
) -> Figure:
    """Training and, where there is any, validation `quantity` (`loss` or `accuracy`) by epoch.

    measured: how training was, where not as validation. stage_ends: epochs after which another part
    of the network began to learn; lines mark them.
    """
    figure, axes = new_chart()
    numbers = [epoch.number for epoch in epochs]
    named = (
        (f"training{measured}", f"train_{quantity}", MUTED),
        ("validation", f"validation_{quantity}", ACCENT),
    )
    for name, field, colour in named:
        values = [getattr(epoch, field) for epoch in epochs]
        if any(value is not None for value in values):
            draw_curve(axes, numbers, values, label=name, colour=colour)
    for end in stage_ends:
        axes.axvline(end + 0.5, color=MUTED, linewidth=0.8, linestyle=":")
    axes.set_xlabel("epoch")
    if len(epochs) == 1:
        # A single dot on an axis made for it would look like a precise measurement of nothing.
        axes.set_ylim(0, 1 if quantity == "accuracy" else None)
    finish_curves(axes, quantity=quantity)
    if epochs:
        figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def confusion_matrix(
    confusion: NDArray[np.int64], class_names: Sequence[str], order: Sequence[int] = ()
) -> Figure:
    """Rows are true classes, columns predictions, cells shares of the row.

    confusion: `(C, C)` int64 counts. Correct predictions are in the accent colour; errors in the
    colour of bad news, the stronger the commoner, on a scale of their own. Opacity alone varies, so
    that it suits light and dark. order: the classes that are drawn, if not all as they come; shares
    are of all images of a row all the same.
    """
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    if order:
        shares = shares[np.ix_(order, order)]
        class_names = [class_names[place] for place in order]
    number, diagonal = len(shares), np.eye(len(shares), dtype=bool)
    has_figures = number <= MAX_CLASSES_WITH_FIGURES
    side = WIDTH if has_figures else 130 + (14 if number <= 40 else 9) * number
    figure, axes = new_chart(width=side, height=side, grid="")
    strength = np.minimum(shares / max(float(shares[~diagonal].max(initial=0.0)), 1e-9), 1.0)
    palette, pixels = light_palette(), np.empty((number, number, 4))
    pixels[..., :3] = to_rgb(palette["--bad"])
    pixels[diagonal, :3] = to_rgb(palette["--accent"])
    # Among many classes rare errors stay visible: opacity grows with the root of the share.
    pixels[..., 3] = _STRONGEST * strength if has_figures else np.sqrt(strength)
    pixels[diagonal, 3] = np.diag(shares) * (_STRONGEST if has_figures else 1)
    axes.imshow(pixels, interpolation="none", aspect="auto" if has_figures else "equal")
    if has_figures:
        between = np.arange(1, number) - 0.5
        axes.vlines(between, -0.5, number - 0.5, color=SURFACE, linewidth=2)
        axes.hlines(between, -0.5, number - 0.5, color=SURFACE, linewidth=2)
        for row, column in np.argwhere(shares > 0):
            share = round(100 * float(shares[row, column]), 6)  # 14.5, not 14.499999999999998.
            text = f"{math.floor(share + 0.5)}" if share >= 0.5 else "·"
            words = axes.text(column, row, text, ha="center", va="center_baseline", fontsize=10)
            # What lies within the axes moves nothing; to measure it would take half of the time.
            words.set_in_layout(False)
    names = [short(name) for name in class_names]
    size = 11 if has_figures else 9 if number <= 40 else 7
    axes.set_xticks(range(number), names, rotation=90, fontsize=size)
    axes.set_yticks(range(number), names, fontsize=size)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.spines[:].set(visible=not has_figures, color=LINE)
    return figure


@styled
def per_class_bars(scores: Sequence[ClassScore]) -> Figure:
    """F1 of each class as a bar, best first, with its precision and recall as marks; classes
    without images come last, and have neither."""
    ordered = best_last(scores)
    row_height = 17 if len(ordered) <= 30 else 13
    figure, axes = new_chart(height=70 + row_height * len(ordered), grid="x", percent="x")
    rows = name_rows(axes, [score.name for score in ordered])
    f1 = [score.f1 or 0.0 for score in ordered]
    axes.barh(rows, f1, 0.66, color=ACCENT, alpha=0.3, label="F1")
    # One a little above the middle and one below, so that equal ones can both be seen.
    for name, marker, fill, up in (("precision", "D", "none", 0.17), ("recall", "o", INK, -0.17)):
        values = [getattr(score, name) if score.num_images else None for score in ordered]
        known = [math.nan if value is None else value for value in values]
        style: Any = {"markersize": 4.5, "markerfacecolor": fill, "markeredgecolor": INK}
        style |= {"markeredgewidth": 1, "clip_on": False}
        axes.plot(known, rows + up, marker, label=name, **style)
    for row in range(sum(not score.num_images for score in ordered)):
        axes.text(0.01, row, "no images", va="center_baseline", color=INK)
    axes.set_xlim(0, 1)
    figure.legend(loc="outside upper left", ncols=3)
    return figure


def best_last(scores: Sequence[ClassScore]) -> list[ClassScore]:
    """In the order of the bars from below: those without images, then by F1."""
    return sorted(scores, key=lambda score: (score.num_images > 0, score.f1 or 0.0))


@styled
def confidence_histogram(scores: Metrics) -> Figure:
    """How many predictions have which confidence: correct ones below, wrong ones on top."""
    figure, axes = new_chart(percent="x")
    edges = np.array(scores.confidence.bin_edges)
    right, wrong = np.array(scores.confidence.right), np.array(scores.confidence.wrong)
    common: Any = {"x": edges[:-1], "width": np.diff(edges) * 0.86, "align": "edge"}
    axes.bar(height=right, color=GOOD, alpha=0.75, label="correct", **common)
    axes.bar(height=wrong, bottom=right, color=BAD, alpha=0.85, label="wrong", **common)
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("confidence")
    axes.set_ylabel("images")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def new_chart(
    *,
    width: float = WIDTH,
    height: float = HEIGHT,
    grid: Literal["x", "y", "both", ""] = "y",
    percent: Literal["x", "y", "xy", ""] = "",
) -> tuple[Figure, Axes]:
    """An empty figure of this size in points, with one set of axes that fits itself in.

    grid: whose ticks have lines. percent: the axes that show shares.
    """
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=3 / 72, h_pad=3 / 72))
    axes = figure.add_subplot()
    if grid:
        axes.grid(axis=grid)
    for name in percent:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_formatter(percent_ticks())
    return figure, axes


def name_rows(axes: Axes, names: Sequence[str]) -> NDArray[np.int64]:
    """Where the rows of a chart of bars lie, the last on top, once each has its name."""
    rows = np.arange(len(names))
    axes.set_yticks(rows, [short(name) for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.spines["left"].set_visible(False)
    return rows


def draw_curve(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float | None],
    *,
    label: str | None,
    colour: str,
    **style: Any,
) -> None:
    """A line where there are values; a dot as well where a line would be too short to see.

    style: further settings of matplotlib's.
    """
    known = [math.nan if value is None or not math.isfinite(value) else value for value in y]
    marker = "o" if len(known) < 3 else None
    style = {"linewidth": 1.8, "marker": marker, "markersize": 5, **style}
    axes.plot(x, known, color=colour, label=label, **style)


def finish_curves(axes: Axes, *, quantity: str, num_ticks: int = 7) -> None:
    """At most `num_ticks` whole and round epochs, and percentages for accuracies."""
    axes.margins(x=0.03, y=0.08)
    epochs = MaxNLocator(num_ticks, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])
    axes.xaxis.set_major_locator(epochs)
    axes.set_ylabel(quantity)
    if quantity == "accuracy":
        axes.yaxis.set_major_formatter(percent_ticks())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6))
    mark_cut(axes)


def mark_cut(axes: Axes) -> None:
    """Two strokes across the foot of an axis that does not begin at zero."""
    if axes.get_ylim()[0] <= 0:
        return
    axes.tick_params(axis="y", pad=6)
    axes.plot(
        [0, 0],
        [0.03, 0.06],
        transform=axes.transAxes,
        linestyle="none",
        marker=[(-1, -0.5), (1, 0.5)],
        markersize=5,  # Short of the labels on the left and of the curves on the right.
        color=MUTED,
        clip_on=False,
        scalex=False,
        scaley=False,
    )


def percent_ticks() -> FuncFormatter:
    """0.5 as `50 %`, with a decimal only where neighbouring ticks need it."""
    return FuncFormatter(lambda value, _: f"{round(100 * value, 1):g} %")


def short(name: str) -> str:
    """A class name that fits beside a chart; odd characters become question marks."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in name)
    return printable if len(printable) <= _MOST_LETTERS else f"{printable[: _MOST_LETTERS - 1]}…"
