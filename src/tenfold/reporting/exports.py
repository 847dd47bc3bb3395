"""What a run's exported files say and how fast they are, as a section of its page."""

from pathlib import Path

from markupsafe import Markup

from tenfold.errors import TenfoldError
from tenfold.files import read_json
from tenfold.reporting.section import Section
from tenfold.reporting.templating import environment

NAMES = {"float": "in floats", "int8": "in eight bits"}


def exports_section(folder: Path) -> Section | None:
    """The section for the run in `folder`; None where nothing was exported, or its figures can't
    be read."""
    from jinja2 import UndefinedError

    path = folder / "export" / "exports.json"
    try:
        known = read_json(path) if path.exists() else {}
        exports = {NAMES[kind]: known[kind] for kind in NAMES if kind in known}
        body = environment().get_template("exports.html").render(exports=exports)
    except (TenfoldError, TypeError, UndefinedError):
        return None
    question = "What does it take to use it?"
    return Section("exports", question, Markup(body)) if exports else None  # It is escaped there.
