"""The templates and style sheets of all pages: `render_page`."""

import inspect
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from tenfold import __version__, formatting
from tenfold.errors import counted
from tenfold.files import without_folders, write_text

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"
_FALLBACK = re.compile(r"could not be reached|fall(s|ing)?[ -]?back|instead of|in place of", re.I)
_MARKUP = re.compile(r"([\\`*_\[\]<>#|&])")  # Of Markdown, in names of classes and folders.
_WITHIN = re.compile(  # A number and its unit, `73.1 to 74.9`, `2 min 5`.
    r"(?<=\d) (?=%|(?:s|min|h|MB|GB|points?|times|images/s)\b|to \d)"
    r"|((?<=\d to)|(?<=\d min)|(?<=\d h)) (?=\d)"
)


class Chart(NamedTuple):
    """A figure with its heading and one sentence on how to read it.

    explore: what a click on it chooses in the explorer. area: where its axes lie in it, and what
    values they have there, as JSON. order: which classes or corruptions its rows are of, as JSON,
    where not in the order of the run.
    """

    heading: str
    svg: Markup
    caption: str
    is_wide: bool
    is_tall: bool
    explore: str = ""
    area: str = ""
    order: str = ""


class Card(NamedTuple):
    """An image of a gallery with its true class, and by the label of each run the likeliest
    classes, each with its probability and whether it is the true one."""

    id: str
    uri: str | None
    true: str
    predictions: Mapping[str, list[tuple[str, float, bool]]]


def render_page(template: str, *, style_sheets: tuple[str, ...], **values: Any) -> str:
    """A page as HTML that refers to nothing outside itself.

    style_sheets: files beside the templates, in this order. values: what the template names;
    `chart` is there always, and makes a Chart of a figure.
    """
    styles = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in style_sheets)
    page = environment().get_template(template)
    return page.render(styles=styles, version=__version__, chart=_chart_maker(), **values)


def write_page(path: Path, template: str, style_sheets: tuple[str, ...], **values: Any) -> Path:
    """Write such a page to `path`, whole or not at all, and return `path`.

    Raises TenfoldError where it can't be written.
    """
    write_text(path, render_page(template, style_sheets=style_sheets, **values))
    return path


def block_of(template: str, block: str, **values: Any) -> str:
    """One block of a page's template; values as in `render_page`."""
    page = environment().get_template(template)
    context = page.new_context({"version": __version__, **values})
    return "".join(page.blocks[block](context))


def render_markdown(template: str, **values: Any) -> str:
    """The template as Markdown, where its filter `markdown` marks what is shown as it is."""
    templates = environment().overlay(autoescape=False, finalize=str, keep_trailing_newline=True)
    return templates.get_template(template).render(version=__version__, **values)


def _chart_maker() -> Callable[..., Chart]:
    """What turns the figures of one page into charts, whose ids all differ."""
    numbers = itertools.count(1)

    def chart(
        heading: str,
        figure: "Figure | Markup",
        caption: str = "",
        *,
        wide: bool = False,
        description: str = "",
        explore: str = "",
        order: Sequence[int] = (),
    ) -> Chart:
        """figure: drawn, or in HTML. wide: it scrolls inside its own frame on a phone. description:
        what a screen reader says in the figure's place, where the heading is not enough. explore,
        order: see Chart."""
        from tenfold.reporting.svg import inline_svg

        if isinstance(figure, Markup):
            return Chart(heading, figure, caption, wide, False)
        width, height = figure.get_size_inches()
        prefix = f"c{next(numbers)}-"
        svg = inline_svg(figure, prefix=prefix, description=description or heading)
        # The SVG is safe: matplotlib and inline_svg escape the names in it.
        is_tall = not wide and height > 0.9 * width
        area = _area(figure) if explore else ""
        numbers_of_rows = json.dumps(list(order)) if order else ""
        return Chart(heading, Markup(svg), caption, wide, is_tall, explore, area, numbers_of_rows)

    return chart


def _area(figure: "Figure") -> str:
    """Left, top, right and bottom of the axes of a figure that was drawn, in points, and the values
    there."""
    [axes] = figure.axes
    (width, height), box = 72 * figure.get_size_inches(), axes.get_position()
    ends = [box.x0 * width, (1 - box.y1) * height, box.x1 * width, (1 - box.y0) * height]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    values = [left, top, right, bottom]
    return json.dumps([[round(float(each), 3) for each in four] for four in (ends, values)])


@cache
def environment() -> "Environment":
    """The templates, which escape what they are given and format numbers."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from tenfold.data.encoding import png_data_uri
    from tenfold.reporting.clusters import class_order, most_confused_block
    from tenfold.reporting.contents import with_contents
    from tenfold.reporting.thumbnails import thumbnail_uri

    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: _for_page(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    named = {name: value for name, value in vars(formatting).items() if inspect.isfunction(value)}
    templates.filters |= named | {
        "class_order": class_order,
        "counted": counted,
        "image_uri": thumbnail_uri,
        "markdown": lambda text: _MARKUP.sub(r"\\\1", text),
        "png_uri": png_data_uri,
        "most_confused_block": most_confused_block,
        "quoted": json.dumps,
        "with_contents": with_contents,
    }
    templates.globals["zip"] = zip
    templates.tests["fallback"] = lambda note: _FALLBACK.search(note) is not None
    return templates


def _for_page(text: str) -> str:
    """`text` without folders of this machine; numbers with a unit and ranges stay on one line."""
    return _WITHIN.sub("\N{NO-BREAK SPACE}", without_folders(text))
