"""What a section of a page is made of."""

from typing import NamedTuple

from tenfold.reporting.charts import Chart


class Source(NamedTuple):
    """Where a method comes from."""

    words: str
    address: str


class Shown(NamedTuple):
    """Images in a row that belong together, and what a screen reader says of each, with lines of
    text under them."""

    uris: tuple[str, ...]
    labels: tuple[str, ...]
    lines: tuple[str, ...]


class Strip(NamedTuple):
    """Rows of images under a heading, with a sentence on how to read them."""

    heading: str
    caption: str
    rows: tuple[Shown, ...]


class Table(NamedTuple):
    """Rows of text under column names; the columns after the first are numbers."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Section(NamedTuple):
    """The answer to a question: sentences, charts, tables, images, and where to read more.

    name, question: given by whoever puts sections on a page.
    """

    answer: tuple[str, ...]
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    strips: tuple[Strip, ...] = ()
    sources: tuple[Source, ...] = ()
    name: str = ""
    question: str = ""
