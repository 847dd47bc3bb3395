"""Curves as SVG in a fraction of a millisecond, in the colours and sizes of `reporting.figures`.

Matplotlib takes a second of processor time to import and a tenth for each chart, which is more than
a page that is drawn every second may cost the training beside it.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from markupsafe import Markup

from tenfold.formatting import percent
from tenfold.reporting.templating import Chart

WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 26, 40
"""Around the axes, in points."""

MOST_POINTS = 400
"""Of a line; of more, as many neighbours are averaged."""

LETTER = 6.4
"""The width of one in a legend, on average."""


class Curve(NamedTuple):
    """A line through points (x, y) in a colour of style.css; one without a name is thin."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]


def draw(
    heading: str,
    curves: Sequence[Curve],
    *,
    names: tuple[str, str],
    caption: str = "",
    is_share: bool = False,
    width: int = WIDTH,
) -> Chart:
    """A chart of `curves`, the first on top. names: of x and y. is_share: y is in percent."""
    points = [point for curve in curves for point in curve.points if math.isfinite(point[1])]
    box = _Box(points, width)
    if len({x for x, _ in points}) == 1:  # Lone dots would look like a precise measurement.
        box.y = (0.0, 1.0 if is_share else 1.1 * max(y for _, y in points) or 1.0)
    parts = [*box.grid(is_share=is_share), *box.names(*names)]
    parts += [box.line(curve) for curve in reversed(curves)]
    parts += _legend([curve for curve in curves if curve.name])
    text = (
        f'<svg class="chart" role="img" aria-label="{escape(heading)}" '
        f'viewBox="0 0 {width} {HEIGHT}" style="--width: {width}px" font-size="10">'
        f"{''.join(parts)}</svg>"
    )
    # Safe: the names in it are escaped, and all else is numbers.
    return Chart(heading, Markup(text), caption, width > WIDTH, False)


class _Box:
    """Axes that hold all points, with a little room."""

    def __init__(self, points: Sequence[tuple[float, float]], width: int) -> None:
        self.width = width
        xs, ys = zip(*points, strict=True) if points else ((0.0, 1.0), (0.0, 1.0))
        self.x = _widened(min(xs), max(xs), 0.03)
        self.y = _widened(min(ys), max(ys), 0.08)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where in the drawing a point is."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        right, low = self.width - RIGHT, HEIGHT - BOTTOM
        return LEFT + across * (right - LEFT), low - up * (low - TOP)

    def grid(self, *, is_share: bool) -> list[str]:
        """Lines and numbers."""
        found, low, right = [], HEIGHT - BOTTOM, self.width - RIGHT
        step = _step(*self.y)
        digits = max(0, -math.floor(math.log10(step) + 1e-9) - 2 * is_share)
        for value in _ticks(*self.y, step):
            y = self.place(0, value)[1]
            name = percent(value, digits) if is_share else f"{value:.{digits}f}"
            found.append(
                f'<path d="M{LEFT} {y:.1f}H{right}" stroke="var(--line)" stroke-width="0.6"/>'
                f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end" fill="var(--muted)">'
                f"{name}</text>"
            )
        for value in _ticks(*self.x, max(_step(*self.x), 1)):
            x = self.place(value, 0)[0]
            found.append(
                f'<text x="{x:.1f}" y="{low + 16}" text-anchor="middle" fill="var(--muted)">'
                f"{value:,.0f}</text>"
            )
        frame = f'<path d="M{LEFT} {TOP}V{low}H{right}" stroke="var(--line)" fill="none"/>'
        return [*found, frame]

    def names(self, x_name: str, y_name: str) -> list[str]:
        """Of the axes."""
        low, middle = HEIGHT - BOTTOM, (LEFT + self.width - RIGHT) / 2
        y = (TOP + low) / 2
        return [
            f'<text x="{middle:.1f}" y="{HEIGHT - 6}" text-anchor="middle" font-size="10.5" '
            f'fill="var(--muted)">{escape(x_name)}</text>',
            f'<text x="9" y="{y}" text-anchor="middle" font-size="10.5" fill="var(--muted)" '
            f'transform="rotate(-90 9 {y})">{escape(y_name)}</text>',
        ]

    def line(self, curve: Curve) -> str:
        """A line, and dots where it would be too short to see."""
        known = [point for point in _thinned(curve.points) if math.isfinite(point[1])]
        places = [self.place(*point) for point in known]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        size = 1.8 if curve.name else 1.0
        dots = [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{curve.colour}"/>'
            for x, y in (places if len(places) < 3 else ())
        ]
        return (
            f'<polyline points="{path}" fill="none" stroke="{curve.colour}" '
            f'stroke-width="{size}" stroke-linejoin="round"/>{"".join(dots)}'
        )


def _legend(curves: Sequence[Curve]) -> list[str]:
    found, x = [], float(LEFT)
    for curve in curves:
        found.append(
            f'<path d="M{x:.0f} 11h16" stroke="{curve.colour}" stroke-width="2"/>'
            f'<text x="{x + 21:.0f}" y="14.5" font-size="10.5" fill="var(--ink)">'
            f"{escape(curve.name)}</text>"
        )
        x += 21 + LETTER * len(curve.name) + 14
    return found


def _widened(low: float, high: float, share: float) -> tuple[float, float]:
    room = share * (high - low) or max(abs(high) * 0.1, 0.05)
    return low - room, high + room


def _step(low: float, high: float) -> float:
    """A round distance of some five ticks."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def _ticks(low: float, high: float, step: float) -> list[float]:
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    group = -(-len(points) // MOST_POINTS) or 1
    parts = [points[start : start + group] for start in range(0, len(points), group)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]
