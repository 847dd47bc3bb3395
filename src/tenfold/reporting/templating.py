"""The templates and style sheets of all pages: `render_page`."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenfold import __version__
from tenfold.files import without_folders
from tenfold.reporting import words

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


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
    """The templates, which escape what they are given and know the words of numbers."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: without_folders(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "percent": words.percent,
        "count": words.count,
        "counted": words.counted,
        "duration": words.duration,
        "in_words": words.in_words,
        "interval": words.interval,
        "points": words.points,
        "rate": words.rate,
        "signed_points": words.signed_points,
    }
    return templates
