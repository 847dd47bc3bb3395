"""Figures as a page shows them: a heading, a sentence on how to read them, ids of their own."""

import itertools
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

from tenfold.reporting.svg import inline_svg


@dataclass(frozen=True)
class Chart:
    """A figure with its heading and one sentence on how to read it."""

    heading: str
    svg: Markup
    caption: str
    is_wide: bool = False
    is_tall: bool = False


class Charts:
    """Turns figures into charts whose ids differ within one page."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def chart(
        self,
        heading: str,
        figure: Figure,
        caption: str,
        *,
        wide: bool = False,
        description: str = "",
    ) -> Chart:
        """`figure` under `heading`; a wide one scrolls inside its own frame on a phone.

        description: what a screen reader says in the figure's place, where the heading is not
            enough.
        """
        width, height = figure.get_size_inches()
        svg = inline_svg(
            figure, prefix=f"c{next(self._numbers)}-", description=description or heading
        )
        tall = not wide and height > 0.9 * width
        # The SVG is safe: matplotlib and inline_svg escape the names in it.
        return Chart(heading, Markup(svg), caption, is_wide=wide, is_tall=tall)
