"""Numbers -> matplotlib Figure: the charts of one run.

Lengths are in points, one to a CSS pixel: a chart is about as wide as a phone, and pages set
several side by side where there is room.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from tenfold.reporting.svg import ACCENT, BAD, GOOD, INK, LINE, MUTED, light_palette, styled
from tenfold.results.runs import ClassScore, Epoch, Metrics

WIDTH = 360
HEIGHT = 240
# Beyond this many classes a confusion matrix shows colours without figures, as a bitmap.
MAX_CLASSES_WITH_FIGURES = 12
_MAX_NAME_LETTERS = 18
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
    """Rows are true classes, columns predicted ones, cells shares of the row.

    confusion: `(C, C)` int64 counts. Correct predictions are in the accent colour; errors in the
    colour of bad news, the stronger the commoner, on a scale of their own. order: the classes that
    are drawn, if not all as they come; shares are of all images of a row all the same.
    """
    totals = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(totals, 1)
    if order:
        shares = shares[np.ix_(order, order)]
        class_names = [class_names[place] for place in order]
    if len(class_names) <= MAX_CLASSES_WITH_FIGURES:
        return _matrix_with_figures(shares, class_names)
    return _matrix_as_bitmap(shares, class_names)


@styled
def per_class_bars(scores: Sequence[ClassScore]) -> Figure:
    """F1 of each class as a bar, best first, with its precision and recall as marks; classes
    without images come last, and have neither."""
    ordered = best_last(scores)
    row_height = 17 if len(ordered) <= 30 else 13
    figure, axes = new_chart(height=70 + row_height * len(ordered), grid="x", percent="x")
    rows = name_rows(axes, [score.name for score in ordered])
    axes.barh(
        rows, [score.f1 or 0.0 for score in ordered], 0.66, color=ACCENT, alpha=0.3, label="F1"
    )
    for name, marker, fill in (("precision", "D", "none"), ("recall", "o", INK)):
        values = [getattr(score, name) if score.num_images else None for score in ordered]
        axes.plot(
            [math.nan if value is None else value for value in values],
            rows,
            marker,
            label=name,
            markersize=4.5,
            markerfacecolor=fill,
            markeredgecolor=INK,
            markeredgewidth=1,
            clip_on=False,
        )
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
    widths = np.diff(edges) * 0.86
    axes.bar(edges[:-1], right, widths, align="edge", color=GOOD, alpha=0.75, label="correct")
    axes.bar(
        edges[:-1], wrong, widths, bottom=right, align="edge", color=BAD, alpha=0.85, label="wrong"
    )
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


def value_beside_bar(axes: Axes, row: int, length: float, text: str) -> None:
    """`text` after the bar of that length in that row."""
    axes.annotate(
        text, (length, row), (4, 0), textcoords="offset points", va="center", fontsize=9,
        color=MUTED,
    )  # fmt: skip


def draw_curve(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float | None],
    *,
    label: str | None,
    colour: str,
    dashed: bool = False,
) -> None:
    """A line where there are values; a dot as well where a line would be too short to see."""
    known = [math.nan if value is None or not math.isfinite(value) else value for value in y]
    axes.plot(
        x,
        known,
        color=colour,
        label=label,
        linewidth=1.8,
        linestyle="--" if dashed else "-",
        marker="o" if len(known) < 3 else None,
        markersize=5,
    )


def finish_curves(axes: Axes, *, quantity: str) -> None:
    """Whole epochs, and percentages for accuracies."""
    axes.margins(x=0.03, y=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True, min_n_ticks=1))
    if quantity == "accuracy":
        axes.set_ylabel("accuracy")
        axes.yaxis.set_major_formatter(percent_ticks())
        mark_cut(axes)
    else:
        axes.set_ylabel(quantity)
        axes.yaxis.set_major_locator(MaxNLocator(6))


def mark_cut(axes: Axes) -> None:
    """Two strokes across the foot of an axis that does not begin at zero."""
    if axes.get_ylim()[0] <= 0:
        return
    axes.plot(
        [0, 0],
        [0.03, 0.06],
        transform=axes.transAxes,
        linestyle="none",
        marker=[(-1, -0.5), (1, 0.5)],
        markersize=9,
        color=MUTED,
        clip_on=False,
        scalex=False,
        scaley=False,
    )


def percent_ticks() -> FuncFormatter:
    """0.5 as `50 %`, with a decimal only where neighbouring ticks need it."""

    def text(value: float, _: int | None) -> str:
        return f"{round(100 * value, 1):g} %"

    return FuncFormatter(text)


def short(name: str) -> str:
    """A class name that fits beside a chart; odd characters become question marks."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in name)
    if len(printable) <= _MAX_NAME_LETTERS:
        return printable
    return printable[: _MAX_NAME_LETTERS - 1] + "…"


def _matrix_axes(axes: Axes, class_names: Sequence[str], *, size: float) -> None:
    places = np.arange(len(class_names))
    names = [short(name) for name in class_names]
    axes.set_xticks(places, names, rotation=90, fontsize=size)
    axes.set_yticks(places, names, fontsize=size)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.spines[:].set_visible(False)


def _mistakes_scale(shares: NDArray[np.float64]) -> float:
    mistakes = shares[~np.eye(len(shares), dtype=bool)]
    return max(float(mistakes.max(initial=0.0)), 1e-9)


def _matrix_with_figures(shares: NDArray[np.float64], class_names: Sequence[str]) -> Figure:
    figure, axes = new_chart(height=WIDTH, grid="")
    commonest = _mistakes_scale(shares)
    for row, column in np.argwhere(shares > 0):
        share = float(shares[row, column])
        right = row == column
        strength = share if right else share / commonest
        cell = Rectangle(
            (column - 0.47, row - 0.47),
            0.94,
            0.94,
            facecolor=ACCENT if right else BAD,
            alpha=round(_STRONGEST * strength, 3),
            linewidth=0,
        )
        text = f"{100 * share:.0f}" if share >= 0.005 else "·"
        number = axes.text(column, row, text, ha="center", va="center_baseline", fontsize=9.5)
        # What lies within the axes moves nothing; to measure it would take half of the time.
        axes.add_artist(cell).set_in_layout(False)
        number.set_in_layout(False)
    axes.set_xlim(-0.5, len(shares) - 0.5)
    axes.set_ylim(len(shares) - 0.5, -0.5)
    _matrix_axes(axes, class_names, size=10)
    return figure


def _matrix_as_bitmap(shares: NDArray[np.float64], class_names: Sequence[str]) -> Figure:
    """Thousands of cells as one bitmap; opacity alone varies, so that it suits light and dark."""
    cell = 14 if len(shares) <= 40 else 9
    side = 130 + cell * len(shares)
    figure, axes = new_chart(width=side, height=side, grid="")
    diagonal = np.eye(len(shares), dtype=bool)
    palette = light_palette()
    pixels = np.empty((*shares.shape, 4))
    pixels[..., :3] = to_rgb(palette["--bad"])
    pixels[diagonal, :3] = to_rgb(palette["--accent"])
    # Rare mistakes stay visible: opacity grows with the root of the share.
    pixels[..., 3] = np.sqrt(np.minimum(shares / _mistakes_scale(shares), 1.0))
    pixels[diagonal, 3] = np.diag(shares)
    axes.imshow(pixels, interpolation="none")
    _matrix_axes(axes, class_names, size=9 if cell > 9 else 7)
    axes.spines[:].set(visible=True, color=LINE)
    return figure
