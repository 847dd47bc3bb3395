"""The charts of the live page: curves as SVG in about a millisecond, as `reporting.figures` has
them.

Matplotlib takes a second of processor time to import and a tenth for each chart, which is more than
a page that is drawn every second may cost the training beside it.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from tenfold.formatting import percent
from tenfold.reporting.live.runs import LiveRun
from tenfold.reporting.templating import Chart, environment

WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 26, 40
"""Around the axes, in points."""

MOST_POINTS = 400
"""Of a line; of more, as many neighbours are averaged."""

MOST_NAMED = 5
"""Runs with a colour and a name; the others are lines in the background."""

MOST_LETTERS = 22
"""Of a name in a legend; its end says more."""


class Curve(NamedTuple):
    """A line through points (x, y) in a colour of style.css; one without a name is thin."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]


class Axis(NamedTuple):
    """Values from low to high, and where in the drawing they start and end."""

    name: str
    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[tuple[float, str]] = ()

    def place(self, value: float) -> float:
        """Where in the drawing a value is."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def with_ticks(self, least: float, text: Callable[[float, float], str]) -> "Axis":
        """The same with some five round values, `least` apart or more; text: of a value and their
        distance."""
        rough = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
        step = max(step, least)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = [number * step for number in range(first, last + 1)]
        return self._replace(ticks=[(self.place(value), text(value, step)) for value in values])


def of_run(run: LiveRun) -> list[Chart]:
    """Accuracy and loss by epoch, and loss by step, as far as there are any."""
    found = []
    for quantity, caption in (
        ("accuracy", "Training accuracy is that of augmented images while weights still change."),
        ("loss", "A validation line that turns upwards means ever more confident errors."),
    ):
        lines = [
            _by_epoch(run, f"validation_{quantity}", "validation", "var(--accent)"),
            _by_epoch(run, f"train_{quantity}", "training", "var(--muted)"),
        ]
        if lines := [line for line in lines if line.points]:
            found.append(
                draw(f"{quantity.capitalize()} by epoch", lines, "epoch", quantity, caption)
            )
    if len(run.steps) > 1:
        steps = Curve("training", "var(--muted)", [(step, loss) for step, loss, _ in run.steps])
        caption = "As the optimiser sees it, with smoothing and mixing where the recipe has them."
        found.append(draw("Training loss by step", [steps], "step", "loss", caption))
    return found


def of_runs(runs: Sequence[LiveRun]) -> Chart:
    """Validation accuracy by epoch of all runs, of which the first have colours."""
    lines = []
    for place, run in enumerate(runs, start=1):
        short = run.name if len(run.name) <= MOST_LETTERS else f"…{run.name[1 - MOST_LETTERS :]}"
        name, colour = (short, f"s{place}") if place <= MOST_NAMED else ("", "line")
        lines.append(_by_epoch(run, "validation_accuracy", name, f"var(--{colour})"))
    caption = "The first runs of the table have colours and names"
    caption += "; the others are thin lines." if len(runs) > MOST_NAMED else "."
    return draw("By epoch", lines, "epoch", "validation accuracy", caption, width=2 * WIDTH)


def draw(
    heading: str, curves: Sequence[Curve], x: str, y: str, caption: str, *, width: int = WIDTH
) -> Chart:
    """A chart of `curves`, the first on top; x, y: names of the axes."""
    points = [point for curve in curves for point in curve.points if math.isfinite(point[1])]
    is_share = y.endswith("accuracy")
    xs, ys = zip(*points, strict=True) if points else ((0.0, 1.0), (0.0, 1.0))
    low, high = _widened(min(ys), max(ys), 0.08)
    if len(set(xs)) == 1:  # Lone dots would look like a precise measurement.
        low, high = 0.0, 1.0 if is_share else 1.1 * max(ys) or 1.0

    def number(value: float, step: float) -> str:
        digits = max(0, -math.floor(math.log10(step) + 1e-9) - 2 * is_share)
        return percent(value, digits) if is_share else f"{value:.{digits}f}"

    across = Axis(x, *_widened(min(xs), max(xs), 0.03), LEFT, width - RIGHT)
    across = across.with_ticks(1, lambda value, _: f"{value:,.0f}")
    up = Axis(y, low, high, HEIGHT - BOTTOM, TOP).with_ticks(0, number)
    lines = []
    for curve in curves:
        known = [point for point in _thinned(curve.points) if math.isfinite(point[1])]
        lines.append((curve, [(across.place(one), up.place(other)) for one, other in known]))
    values = {"heading": heading, "width": width, "height": HEIGHT, "lines": lines}
    text = environment().get_template("curves.svg").render(x=across, y=up, **values)
    return Chart(heading, Markup(text), caption, width > WIDTH, False)  # The template escapes.


def _by_epoch(run: LiveRun, quantity: str, name: str, colour: str) -> Curve:
    points = [(float(each.number), getattr(each, quantity)) for each in run.epochs]
    return Curve(name, colour, [(x, y) for x, y in points if y is not None])


def _widened(low: float, high: float, share: float) -> tuple[float, float]:
    room = share * (high - low) or max(abs(high) * 0.1, 0.05)
    return low - room, high + room


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    group = -(-len(points) // MOST_POINTS) or 1
    parts = [points[start : start + group] for start in range(0, len(points), group)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]
