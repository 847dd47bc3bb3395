"""The templates and style sheets of all pages: `render_page`."""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenfold import __version__, formatting
from tenfold.errors import counted
from tenfold.files import without_folders

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=%|(?:s|min|h|MB|GB|points?|times)\b)")


def render_page(template: str, *, style_sheets: tuple[str, ...], **values: Any) -> str:
    """A page as HTML that refers to nothing outside itself.

    style_sheets: files beside the templates, in this order. values: what the template names;
    `more_styles` among them follows the style sheets.
    """
    sheets = [(TEMPLATES / name).read_text(encoding="utf-8") for name in style_sheets]
    styles = "".join([*sheets, values.pop("more_styles", "")])
    page = environment().get_template(template)
    return page.render(styles=styles, version=__version__, **values)


@cache
def environment() -> "Environment":
    """The templates, which escape what they are given and format numbers."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from tenfold.data.encoding import png_data_uri
    from tenfold.reporting.pictures import picture_uri

    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: _for_page(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "percent": formatting.percent,
        "count": formatting.count,
        "counted": counted,
        "duration": formatting.duration,
        "in_words": formatting.in_words,
        "image_uri": picture_uri,
        "interval": formatting.interval,
        "listed": formatting.listed,
        "plain": formatting.plain,
        "png_uri": png_data_uri,
        "memory": formatting.memory,
        "moment": formatting.moment,
        "points": formatting.points,
        "rate": formatting.rate,
        "signed_points": formatting.signed_points,
    }
    return templates


def _for_page(text: str) -> str:
    """`text` without folders of this machine; a number and its unit stay on one line."""
    return _BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", without_folders(text))
