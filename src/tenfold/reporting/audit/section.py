"""What a section of the page is made of."""

from dataclasses import dataclass

from tenfold.reporting.charts import Chart


@dataclass(frozen=True)
class Source:
    """Where a method comes from."""

    words: str
    address: str


@dataclass(frozen=True)
class Shown:
    """Pictures in a row that belong together, with lines of text under them."""

    uris: tuple[str, ...]
    labels: tuple[str, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Strip:
    """Rows of pictures under a heading, with a sentence on how to read them."""

    heading: str
    caption: str
    items: tuple[Shown, ...]


@dataclass(frozen=True)
class Table:
    """Rows of text under column names; the columns after the first are numbers."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """The answer to a question: sentences, charts, tables, pictures, and where to read more.

    name, question: given by whoever puts sections on a page.
    """

    answer: tuple[str, ...]
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    strips: tuple[Strip, ...] = ()
    sources: tuple[Source, ...] = ()
    name: str = ""
    question: str = ""
