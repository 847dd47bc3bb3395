"""What stands for a variant in every figure: a colour, a marker and a dash."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.markers import MarkerStyle
from matplotlib.transforms import Affine2D

from tenfold.reporting.svg import SERIES

PUBLISHED = "D"
"""The marker of published numbers, which is no variant's."""

_MARKERS = ("o", "s", "^", "v", "X", "P", "<", "p", "*", ">", "h", "8")
# In multiples of the line's width. Three of them and eight colours are together 24 pairs.
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (1.2, 1.4))
_LINE_WIDTH = 1.8


@dataclass(frozen=True)
class Mark:
    """A colour (a stand-in of `tenfold.reporting.svg`), a matplotlib marker and dashes."""

    number: int

    @property
    def colour(self) -> str:
        """The colour that a figure is drawn with."""
        return SERIES[self.number % len(SERIES)]

    @property
    def marker(self) -> str:
        """One of twelve shapes."""
        return _MARKERS[self.number % len(_MARKERS)]

    @property
    def line(self) -> dict[str, Any]:
        """The settings of a line."""
        dashes = _DASHES[self.number % len(_DASHES)]
        return {
            "color": self.colour,
            "linewidth": _LINE_WIDTH,
            "linestyle": (0, dashes) if dashes else "-",
        }

    @property
    def key(self) -> Markup:
        """The piece of line with its marker that goes before the variant's name in text."""
        dashes = " ".join(f"{_LINE_WIDTH * d:g}" for d in _DASHES[self.number % len(_DASHES)])
        colour = f"var(--s{self.number % len(SERIES) + 1})"
        return Markup(
            f'<svg class="key" viewBox="-15 -6 30 12" aria-hidden="true">'
            f'<path d="M-15 0H15" style="stroke: {colour}; stroke-width: {_LINE_WIDTH}" '
            f'stroke-dasharray="{dashes}"/>'
            f'<path d="{_outline(self.marker)}" style="fill: {colour}"/></svg>'
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
