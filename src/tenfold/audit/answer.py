"""What a question of an audit finds: typed values, what is drawn of them, and said in a line.

The page says it by a template of the question's name, which has the answer as `it`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from numpy.typing import NDArray
from pydantic import PrivateAttr

from tenfold.errors import TenfoldError, counted
from tenfold.results.facts import Fact

Arrays = dict[str, NDArray[Any]]


class Answer(Fact):
    """The answer to a question about a run: values, arrays of images and maps beside them, and
    files of text by name."""

    question: ClassVar[str] = ""
    template: ClassVar[str]

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


class Unanswerable(TenfoldError):
    """A question is none for this run, and never will be."""


class Missing(Answer):
    """Why a question can't be answered; for_good: of this run, ever."""

    template = "missing"

    missing: str
    for_good: bool = False

    def is_worth_another_try(self, *, named: bool) -> bool:
        return named and not self.for_good

    def summary(self) -> str:
        return self.missing


class Own(Answer):
    """What a question of one's own found: a table, and perhaps a figure as an image."""

    template = "own"

    own: str
    title: str
    rows: tuple[dict[str, Any], ...]

    @property
    def heading(self) -> str:
        return self.title

    def summary(self) -> str:
        return f"{self.title} {counted(len(self.rows), 'row')}"

    def cells(self) -> list[list[str]]:
        """The table's rows as text, in the order of the first row's columns."""
        values = [[row.get(name, "") for name in self.rows[0]] for row in self.rows]
        return [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row] for row in values]
