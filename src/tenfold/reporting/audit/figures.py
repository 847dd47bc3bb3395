"""The charts of an audit."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tenfold.formatting import plain
from tenfold.reporting.figures import draw_curve, new_chart, percent_ticks, short
from tenfold.reporting.svg import ACCENT, MUTED, SERIES, styled

Bins = Sequence[Mapping[str, Any]]

FEWEST_IN_BIN = 10
"""Answers that a dot of a reliability diagram stands for; fewer say nothing."""


@styled
def reliability(before: Bins, after: Bins) -> Figure:
    """Share of right answers against confidence; the diagonal is what it should be."""
    figure, axes = _reliability_axes()
    for label, bins, colour, dashed in (
        ("as trained", before, SERIES[1], bool(after)),
        ("with temperature", after, SERIES[0], False),
    ):
        _draw_bins(axes, bins, label=label, colour=colour, dashed=dashed)
    figure.legend(loc="outside upper left", ncols=3, handlelength=1.4, borderpad=0)
    return figure


@styled
def compared_reliability(runs: Sequence[tuple[str, str, Bins]]) -> Figure:
    """The same of several runs: label, colour and bins of each."""
    figure, axes = _reliability_axes()
    for label, colour, bins in runs:
        _draw_bins(axes, bins, label=short(label), colour=colour)
    figure.legend(loc="outside upper left", ncols=3, handlelength=1.4, borderpad=0)
    return figure


def _reliability_axes() -> tuple[Figure, Axes]:
    figure, axes = new_chart()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":", label="as it should be")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_formatter(percent_ticks())
    axes.yaxis.set_major_formatter(percent_ticks())
    axes.set_xlabel("confidence")
    axes.set_ylabel("right answers")
    axes.grid(axis="both")
    axes.tick_params(length=0)
    return figure, axes


def _draw_bins(axes: Axes, bins: Bins, *, label: str, colour: str, dashed: bool = False) -> None:
    enough = [each for each in bins if each["num_images"] >= FEWEST_IN_BIN]
    if enough:
        x = [each["confidence"] for each in enough]
        y = [each["accuracy"] for each in enough]
        draw_curve(axes, x, y, label=label, colour=colour, dashed=dashed)
        axes.plot(x, y, "o", color=colour, markersize=4)


@styled
def selective(points: Sequence[Sequence[float]]) -> Figure:
    """Accuracy of the surest answers against the share of pictures that is answered."""
    figure, axes = new_chart()
    draw_curve(axes, [p[0] for p in points], [p[1] for p in points], label=None, colour=SERIES[0])
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(percent_ticks())
    axes.yaxis.set_major_formatter(percent_ticks())
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("pictures answered, the surest first")
    axes.set_ylabel("right answers")
    axes.grid(axis="y")
    axes.tick_params(length=0)
    return figure


@styled
def corruptions(results: Sequence[Mapping[str, Any]], *, clean: float) -> Figure:
    """Accuracy against severity, a line for the mean of each family."""
    families: dict[str, list[Sequence[float]]] = {}
    for result in results:
        families.setdefault(result["family"], []).append(result["accuracies"])
    return _against_severity(
        (family, colour, [clean, *_means(rows)])
        for colour, (family, rows) in zip(SERIES, families.items(), strict=False)
    )


@styled
def compared_damage(runs: Sequence[tuple[str, str, Mapping[str, Any]]]) -> Figure:
    """The mean over all corruptions against severity: label, colour and findings of each run."""
    return _against_severity(
        (
            short(label),
            colour,
            [found["clean"], *_means([each["accuracies"] for each in found["corruptions"]])],
        )
        for label, colour, found in runs
    )


def _means(rows: Sequence[Sequence[float]]) -> list[float]:
    return [sum(values) / len(rows) for values in zip(*rows, strict=True)]


def _against_severity(lines: Iterable[tuple[str, str, Sequence[float]]]) -> Figure:
    figure, axes = new_chart()
    for label, colour, values in lines:
        draw_curve(axes, list(range(6)), values, label=label, colour=colour)
        axes.plot(range(6), values, "o", color=colour, markersize=4)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(percent_ticks())
    axes.set_xticks(range(6), ["clean", "1", "2", "3", "4", "5"])
    axes.set_xlabel("severity")
    axes.set_ylabel("right answers")
    axes.grid(axis="y")
    axes.tick_params(length=0)
    figure.legend(loc="outside upper left", ncols=4, handlelength=1.2, borderpad=0)
    return figure


@styled
def by_corruption(results: Sequence[Mapping[str, Any]], *, clean: float) -> Figure:
    """The mean accuracy over severities of each corruption, the worst on top."""
    ordered = sorted(results, key=lambda result: -sum(result["accuracies"]))
    figure, axes = new_chart(height=330)
    names = [plain(result["corruption"]) for result in ordered]
    values = [sum(result["accuracies"]) / 5 for result in ordered]
    axes.barh(range(len(names)), values, height=0.62, color=SERIES[0])
    axes.axvline(clean, color=MUTED, linewidth=1, linestyle=":")
    for row, value in enumerate(values):
        axes.annotate(
            f"{100 * value:.0f}", (value, row), xytext=(4, 0), textcoords="offset points",
            va="center", ha="left", fontsize=9, color=MUTED,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.set_xlim(0, 1.06)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.xaxis.set_major_formatter(percent_ticks())
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(axis="x")
    return figure


@styled
def novelty(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """How often a known picture has the higher score of two, by kind of strange picture."""
    figure, axes = new_chart(height=60 + 78 * len(results))
    kinds = list(results)
    scores = [entry["score"] for entry in next(iter(results.values()))]
    height = 0.8 / len(scores)
    for number, score in enumerate(scores):
        rows = [len(kinds) - 1 - k + 0.4 - (number + 0.5) * height for k in range(len(kinds))]
        values = [results[kind][number]["auroc"] for kind in kinds]
        axes.barh(rows, values, height=0.85 * height, color=SERIES[number], label=score)
    axes.axvline(0.5, color=ACCENT, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(kinds)), [short(kind) for kind in reversed(kinds)])
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(percent_ticks())
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(axis="x")
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.2, borderpad=0)
    return figure
