"""matplotlib figures as SVG: inlined into a page in the page's own colours, or as plain files.

Figures are drawn with the stand-in colours below. In a page each becomes a CSS variable of
style.css, so that one drawing follows light and dark; in a file it becomes that variable's
light value.
"""

import functools
import io
import re
import warnings
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK = "#fe0a01"
MUTED = "#fe0a02"
LINE = "#fe0a03"
SURFACE = "#fe0a04"
ACCENT = "#fe0a05"
GOOD = "#fe0a06"
BAD = "#fe0a07"
SERIES = tuple(f"#fe0b0{number}" for number in range(1, 9))

_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    SURFACE: "--surface",
    ACCENT: "--accent",
    GOOD: "--good",
    BAD: "--bad",
} | {colour: f"--s{number}" for number, colour in enumerate(SERIES, start=1)}

_SETTINGS: Any = {
    "font.size": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "legend.borderpad": 0,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.4,
    "text.color": INK,
    "text.parse_math": False,  # a class may be named `$5 notes`
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "xtick.color": LINE,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,  # the first label would touch that of the other axis
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "tenfold",  # the same figure gives the same bytes
}

_Arguments = ParamSpec("_Arguments")
_Drawn = TypeVar("_Drawn")


def styled(draw: Callable[_Arguments, _Drawn]) -> Callable[_Arguments, _Drawn]:
    """Let `draw` work under the report's settings, which matplotlib reads while drawing."""

    @functools.wraps(draw)
    def wrapper(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Drawn:
        with rc_context(_SETTINGS), warnings.catch_warnings():
            # The reader's browser draws the text; that matplotlib's own font lacks a letter of a
            # class name is nothing to tell anybody.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
            warnings.filterwarnings("ignore", message="constrained_layout not applied")
            return draw(*args, **kwargs)

    return wrapper


def inline_svg(figure: Figure, *, prefix: str, description: str) -> str:
    """`figure` as an SVG element for a page that includes style.css.

    prefix: goes before every id, so that several figures can stand in one page.
    description: what a screen reader says in the figure's place.
    """
    text = _render(figure)
    text = text[text.index("<svg") :]
    width, height = figure.get_size_inches() * 72
    head = (
        f'<svg class="chart" role="img" aria-label="{escape(description)}" '
        f'viewBox="0 0 {width:g} {height:g}" style="--width: {width:g}px" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    text = head + re.sub(r"^<svg[^>]*>", "", text)
    text = _with_own_ids(text, prefix)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text


def standalone_svg(figure: Figure) -> str:
    """`figure` as an SVG file of its own, in light colours on a plain ground."""
    palette = light_palette()
    text = _render(figure)
    ground = f'<rect width="100%" height="100%" style="fill: {palette["--surface"]}"/>'
    text = re.sub(r"(<svg[^>]*>)", rf"\1{ground}", text, count=1)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, palette[variable])
    return text


@functools.cache
def light_palette() -> dict[str, str]:
    """The colours of style.css in light mode, by variable name, as `#rrggbb`."""
    sheet = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    palette: dict[str, str] = {}
    for name, colour in re.findall(r"(--[\w-]+):\s*(#[0-9a-fA-F]{6})\b", sheet):
        palette.setdefault(name, colour)
    return palette


@styled
def _render(figure: Figure) -> str:
    content = io.StringIO()
    # Not by savefig, which lays the figure out in a drawing of its own and then draws again.
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(content, metadata={"Date": None, "Creator": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", content.getvalue(), flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    # Coordinates only; the text between the tags says what it says.
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), text)
    return re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)


def _with_own_ids(text: str, prefix: str) -> str:
    """Drop the ids that nothing refers to, and put `prefix` before the others."""
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text))

    def renamed(match: re.Match[str]) -> str:
        return f' id="{prefix}{match[1]}"' if match[1] in used else ""

    text = re.sub(r'\sid="([^"]*)"', renamed, text)
    return re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}", text)
