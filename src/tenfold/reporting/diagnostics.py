"""Figures about how a network trains: loss against learning rate, and gradients by layer."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from tenfold.reporting.figures import draw_curve, new_chart
from tenfold.reporting.svg import ACCENT, GOOD, LINE, MUTED, styled
from tenfold.training.doctor import Diagnosis
from tenfold.training.rate_finder import FoundRate

ROW_HEIGHT = 17


@styled
def rate_curve(found: FoundRate) -> Figure:
    """Loss against learning rate on a logarithmic axis; lines at the lowest and the named one."""
    figure, axes = new_chart(width=480, height=280)
    draw_curve(axes, found.rates, found.losses, label="loss of each batch", colour=LINE)
    draw_curve(axes, found.rates, found.smoothed, label="smoothed", colour=ACCENT)
    axes.axvline(found.lowest, color=MUTED, linestyle=":", label=f"lowest at {found.lowest:.2g}")
    axes.axvline(found.lr, color=GOOD, linestyle="--", label=f"rate to use: {found.lr:g}")
    _logarithmic(axes)
    low, high = min(found.smoothed), max(found.smoothed[0], found.losses[0])
    axes.set_ylim(max(low - 0.3 * (high - low), 0), high + 0.5 * (high - low))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def layer_chart(found: Diagnosis) -> Figure:
    """Gradient and update of each layer, from the input on top to the output, and dead units."""
    figure, _ = new_chart(width=720, height=90 + ROW_HEIGHT * max(len(found.layers), 3))
    figure.clear()
    panels = figure.subplots(1, 3, width_ratios=[3, 3, 2])
    layers, dead = found.layers, {each.name: 100 * each.dead for each in found.activations}
    values: tuple[tuple[str, dict[str, float]], ...] = (
        ("gradient (root mean square)", {layer.name: layer.gradient for layer in layers}),
        ("update over weight", {layer.name: layer.update for layer in layers}),
        ("dead units, %", dead),
    )
    for axes, (title, numbers) in zip(panels, values, strict=True):
        places = range(len(numbers))
        if numbers is dead:
            axes.barh(places, [*numbers.values()], 0.66, color=ACCENT)
            axes.set_xlim(0, 100)
            axes.xaxis.set_major_locator(MaxNLocator(3))
        else:
            axes.plot([*numbers.values()], places, "o", color=ACCENT, markersize=5)
            _logarithmic(axes)
        axes.set_yticks(places, [*numbers] if axes is not panels[1] else [""] * len(numbers))
        axes.set_ylim(len(numbers) - 0.5, -0.5)
        axes.set_xlabel(title)
        axes.grid(axis="x")
    return figure


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log", nonpositive="mask")
    axes.minorticks_off()
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
