"""How Sphinx builds the site, from the sources that make_site.py gathers."""

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

import tenfold

HERE = Path(__file__).parent

project = "tenfold"
version = release = tenfold.__version__
copyright = "the tenfold authors"
language = "en"

extensions = ["myst_nb", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
# `make course` executes the chapters.
nb_execution_mode = "off"
nb_merge_streams = True

linkcheck_ignore = [r"http://(127\.0\.0\.1|localhost)"]
linkcheck_timeout = 20

# A block without a language is a command.
highlight_language = "none"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

pygments_dark_style = "github-dark"

html_theme = "furo"
html_title = "tenfold"
html_static_path = [str(HERE / "static")]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_favicon = str(HERE / "static/favicon.svg")
html_copy_source = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#1f5fbf",
        "color-brand-content": "#1f5fbf",
        "color-brand-visited": "#1f5fbf",
    },
    "dark_css_variables": {
        "color-brand-primary": "#8ab4f8",
        "color-brand-content": "#8ab4f8",
        "color-brand-visited": "#8ab4f8",
    },
}
html_math_renderer = "mathml"


def setup(app: Any) -> None:
    """Formulas are written as MathML, which browsers show without a script."""
    app.add_html_math_renderer("mathml", (visit_formula, None), (visit_formula_block, None))


def visit_formula(self: Any, node: Any) -> None:
    """A formula within a line."""
    from docutils.nodes import SkipNode

    self.body.append(mathml(node.astext()))
    raise SkipNode


def visit_formula_block(self: Any, node: Any) -> None:
    """A formula on a line of its own."""
    from docutils.nodes import SkipNode

    self.body.append(f'<div class="formula">{mathml(node.astext(), display="block")}</div>')
    raise SkipNode


def mathml(latex: str, *, display: str = "inline") -> str:
    """A formula as MathML, with a thin space behind the names of functions."""
    thin = '<mspace width="0.167em"></mspace>'
    return re.sub(
        r"<mi>(log|exp)</mi>(?!<mo)", rf"<mi>\1</mi>{thin}", convert(latex, display=display)
    )
