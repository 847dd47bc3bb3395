"""What a question of an audit finds: typed values, and how they are said and shown."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from markupsafe import Markup
from numpy.typing import NDArray
from pydantic import PrivateAttr

from tenfold.data.formats.encoding import png_data_uri
from tenfold.errors import TenfoldError, counted
from tenfold.reporting.charts import Chart, Charts
from tenfold.reporting.section import Section, Source, Table
from tenfold.results.facts import Fact

Arrays = dict[str, NDArray[Any]]


class Answer(Fact):
    """The answer to a question about a run: values, arrays of images and maps beside them, and
    files of text by name."""

    question: ClassVar[str] = ""
    sources: ClassVar[tuple[Source, ...]] = ()

    _arrays: Arrays = PrivateAttr(default_factory=dict)
    _texts: dict[str, str] = PrivateAttr(default_factory=dict)

    def having(self, arrays: Arrays, texts: Mapping[str, str] | None = None) -> Self:
        """Itself, with `arrays` and `texts` beside its values."""
        self._arrays.update(arrays)
        self._texts.update(texts or {})
        return self

    @property
    def arrays(self) -> Arrays:
        """Images, (N, H, W, 3) uint8, and maps of what mattered, (N, H, W)."""
        return self._arrays

    @property
    def texts(self) -> dict[str, str]:
        """Files of the folder `audit/` that are written with it."""
        return self._texts

    @property
    def heading(self) -> str:
        """The question that it answers."""
        return self.question

    def is_worth_another_try(self, *, named: bool) -> bool:
        """Whether it would be another now: something that it lacked may be there.

        named: whether somebody asks for it by its name.
        """
        return False

    def summary(self) -> str:
        """What it came to, in a line for the terminal."""
        raise NotImplementedError

    def section(self, charts: Charts) -> Section:
        """What the page says and shows of it."""
        raise NotImplementedError


class Unanswerable(TenfoldError):
    """A question is none for this run, and never will be."""


class Missing(Answer):
    """Why a question can't be answered; for_good: of this run, ever."""

    missing: str
    for_good: bool = False

    def is_worth_another_try(self, *, named: bool) -> bool:
        return named and not self.for_good

    def summary(self) -> str:
        return self.missing


class Own(Answer):
    """What a question of one's own found: a table, and perhaps a figure as an image."""

    own: str
    title: str
    rows: tuple[dict[str, Any], ...]

    @property
    def heading(self) -> str:
        return self.title

    def summary(self) -> str:
        return f"{self.title} {counted(len(self.rows), 'row')}"

    def section(self, charts: Charts) -> Section:
        columns = tuple(self.rows[0])
        rows = tuple(tuple(_cell(row.get(name, "")) for name in columns) for row in self.rows)
        drawn: tuple[Chart, ...] = ()
        if "figure" in self.arrays:
            image = Markup('<img src="{}" alt="">').format(png_data_uri(self.arrays["figure"]))
            drawn = (Chart("", image, ""),)
        return Section((f"As {self.own} measures it.",), drawn, (Table("", columns, rows),))


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
