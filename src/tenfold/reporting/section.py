"""What a section of a page is made of."""

from typing import NamedTuple

from markupsafe import Markup

from tenfold.reporting.charts import Chart


class Source(NamedTuple):
    """Where a method comes from."""

    words: str
    address: str


class Table(NamedTuple):
    """Rows of text under column names; the columns after the first are numbers."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Section(NamedTuple):
    """The answer to a question: HTML that is ready, or sentences, charts, tables, and where to read
    more."""

    name: str
    question: str
    body: Markup = Markup()
    answer: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    sources: tuple[Source, ...] = ()
