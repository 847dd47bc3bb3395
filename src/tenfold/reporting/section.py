"""A section of a page that is made apart from it."""

from typing import NamedTuple

from markupsafe import Markup


class Section(NamedTuple):
    """A question that a page answers, the name by which links find it, and the answer as HTML."""

    name: str
    question: str
    body: Markup
