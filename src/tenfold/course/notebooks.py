"""Chapters: percent scripts that become notebooks, and the exercises in either."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tenfold.course import reduced
from tenfold.errors import TenfoldError
from tenfold.files import read_json, write_bytes, write_json

PROGRESS = "course.json"
"""The file beside the notebooks that `tenfold course` made: which exercises are solved."""

_CELL = re.compile(r"^# %%(?P<text> \[markdown\])?(?: tags=(?P<tags>\[.*\]))?$", re.MULTILINE)
_CHECKED = re.compile(r"""check\(["']([\w-]+)["']""")
_WIDGETS = re.compile(r"\(widgets/([\w-]+\.html)\)")
_KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class Cell(NamedTuple):
    """A cell of a notebook. tags: `setup`, `exercise`, `check` or `solution` have a meaning here,
    `raises-exception` lets a notebook go on behind it."""

    is_code: bool
    tags: tuple[str, ...]
    source: str

    @property
    def checked(self) -> list[str]:
        """Names of the exercises that it tests."""
        return _CHECKED.findall(self.source) if "check" in self.tags else []


class Chapter(NamedTuple):
    """A chapter: its file, and what is in it."""

    path: Path
    cells: tuple[Cell, ...]

    @property
    def number(self) -> int:
        return int(self.path.stem.partition("-")[0])

    @property
    def title(self) -> str:
        return self.cells[0].source.partition("\n")[0].partition("·")[2].strip()

    @property
    def minutes(self) -> int:
        """What working it through takes, as its first cell says."""
        found = re.search(r"(\d+) minutes to work through", self.cells[0].source)
        return int(found[1]) if found else 0

    @property
    def exercises(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(name for cell in self.cells for name in cell.checked)


class Tried(NamedTuple):
    """An exercise in a notebook. wrong: what is, in a sentence; None of one that is solved."""

    exercise: str
    wrong: str | None


def course_folder() -> Path:
    """Where the chapters are: in the installed package, or in the clone that this runs from."""
    inside, clone = Path(__file__).parent / "chapters", Path(__file__).parents[3] / "course"
    for folder in (inside, clone):
        if (folder / "widgets").is_dir():
            return folder
    raise TenfoldError(f"The course is missing from {inside.parent}; install tenfold again.")


def chapters() -> list[Chapter]:
    """All of them, by number."""
    paths = sorted(course_folder().glob("[0-9][0-9]-*.py"))
    return [Chapter(path, tuple(read_cells(path))) for path in paths]


def find_chapter(text: str) -> Chapter:
    """The chapter of a number, such as `5`. Raises TenfoldError where there is none."""
    known = {str(chapter.number): chapter for chapter in chapters()}
    number = text.lstrip("0") or "0"  # Files are named 02-...
    if number not in known:
        choices = ", ".join(known)
        raise TenfoldError(f"There is no chapter {text!r}; choose {choices}, all, or check.")
    return known[number]


def read_cells(path: Path) -> list[Cell]:
    """The cells of a percent script or of a notebook.

    Raises TenfoldError where a notebook can't be read.
    """
    if path.suffix == ".ipynb":
        try:
            return [
                Cell(
                    cell["cell_type"] == "code",
                    tuple(cell.get("metadata", {}).get("tags", [])),
                    "".join(cell["source"]),
                )
                for cell in read_json(path)["cells"]
            ]
        except (AttributeError, KeyError, TypeError) as error:
            raise TenfoldError(
                f"{path} is no notebook; move it away, and have it made anew with `tenfold course`."
            ) from error
    text = path.read_text(encoding="utf-8")
    marks = list(_CELL.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    cells = []
    for mark, end in zip(marks, ends, strict=True):
        source = text[mark.end() : end].strip("\n")
        if mark["text"]:
            source = re.sub(r"^# ?", "", source, flags=re.MULTILINE)
        cells.append(Cell(not mark["text"], tuple(json.loads(mark["tags"] or "[]")), source))
    return cells


def write_notebook(chapter: Chapter, folder: Path) -> Path:
    """Make the chapter's notebook in `folder`, with the widgets that it links to, and the file in
    which progress is noted. Raises TenfoldError where the folder can't be written.
    """
    cells = []
    for number, cell in enumerate(chapter.cells):
        made: dict[str, Any] = {
            "cell_type": "code" if cell.is_code else "markdown",
            "id": f"cell-{number}",
            "metadata": {"tags": list(cell.tags)} if cell.tags else {},
            "source": cell.source.splitlines(keepends=True),
        }
        cells.append(made | ({"execution_count": None, "outputs": []} if cell.is_code else {}))
        for widget in _WIDGETS.findall(cell.source):
            place = Path("widgets", widget)
            write_bytes(folder / place, (course_folder() / place).read_bytes())
    path = folder / f"{chapter.path.stem}.ipynb"
    about = _KERNEL | {"tenfold": {"form": reduced("full", "reduced")}}
    write_json(path, {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5})
    if not (folder / PROGRESS).exists():
        write_json(folder / PROGRESS, {"solved": []})
    return path


def notebooks_in(folder: Path) -> list[Path]:
    """The notebooks of chapters that somebody works through in `folder`."""
    names = {chapter.path.stem for chapter in chapters()}
    return [path for path in sorted(folder.glob("*.ipynb")) if path.stem in names]


def solved_in(folder: Path) -> frozenset[str]:
    """Names of the exercises that were solved in the notebooks of `folder`."""
    path = folder / PROGRESS
    if not path.exists():
        return frozenset()
    try:
        return frozenset(map(str, read_json(path)["solved"]))
    except (KeyError, TypeError) as error:
        raise TenfoldError(f"{path} holds no progress of the course; remove it.") from error


def note_solved(exercise: str, *, solved: bool = True) -> None:
    """Write down that an exercise is solved, where the working folder keeps progress."""
    folder = Path.cwd()
    before = solved_in(folder)
    after = before | {exercise} if solved else before - {exercise}
    if after != before and (folder / PROGRESS).exists():
        write_json(folder / PROGRESS, {"solved": sorted(after)})


def run_exercises(cells: Sequence[Cell]) -> Iterator[Tried]:
    """Run the cells that set up, and those of exercises with their tests, and nothing else.

    What happens in a cell happens in this process. Raises TenfoldError where a cell that sets up
    fails.
    """
    space: dict[str, Any] = {"__name__": "__main__"}
    failed = None
    for cell in cells:
        if not {"setup", "exercise", "check"}.intersection(cell.tags):
            continue
        error: Exception | None = None
        try:
            exec(compile(cell.source, "<cell>", "exec"), space)
        except Exception as raised:  # Of code that a learner is writing: any.
            error = raised
        if "setup" in cell.tags and error is not None:
            raise TenfoldError(f"The first cells of a notebook can't be run: {_said(error)}")
        if "exercise" in cell.tags:
            failed = error
        for name in cell.checked:
            wrong = failed or error
            yield Tried(name, None if wrong is None else _said(wrong))


def _said(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words if isinstance(error, AssertionError) else f"{type(error).__name__}: {words}"
