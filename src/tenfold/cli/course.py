"""`tenfold course`: chapters as notebooks, and the tests of their exercises."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from tenfold.console.output import Output
from tenfold.errors import install_command


def course(
    output: Output,
    chapter: Annotated[
        str | None,
        typer.Argument(
            metavar="[NUMBER|all|check]",
            help="A chapter to make a notebook of in this folder, all of them, or check, to test "
            "the exercises in the notebooks that are here.",
        ),
    ] = None,
    opens: Annotated[
        bool, typer.Option("--open/--no-open", help="Open it in Jupyter, where that is installed.")
    ] = True,
) -> None:
    """List the chapters of the course, make the notebook of one, or test your exercises."""
    from tenfold.course.notebooks import chapters, find_chapter

    if chapter is None:
        _list_chapters(output)
    elif chapter == "check":
        _check_exercises(output)
    elif chapter == "all":
        for each in chapters():
            _make_notebook(output, each.path.stem)
    else:
        notebook = _make_notebook(output, find_chapter(chapter).path.stem)
        if opens:
            _open_notebook(output, notebook)


def _list_chapters(output: Output) -> None:
    from tenfold.course.notebooks import chapters, solved_in

    solved, rows = solved_in(Path.cwd()), []
    for chapter in chapters():
        names = chapter.exercises
        done = [name for name in names if name in solved]
        found = {"number": chapter.number, "title": chapter.title, "minutes": chapter.minutes}
        output.record("chapter", **found, exercises=names, solved=done)
        progress = f"{len(done)} of {len(names)}"
        rows.append([str(chapter.number), chapter.title, f"{chapter.minutes} min", progress])
    output.table("The course", ["chapter", "title", "time", "exercises solved"], rows)
    output.say("Start with `tenfold course 0`, which makes its notebook in this folder.")


def _make_notebook(output: Output, name: str) -> Path:
    """The notebook of a chapter in this folder, as it is if it is there already."""
    from tenfold.course.notebooks import find_chapter, write_notebook

    path = Path(f"{name}.ipynb")
    if path.exists():
        output.say(f"{path} is here already, and stays as it is; rename it to have it made anew.")
    else:
        write_notebook(find_chapter(name.partition("-")[0]), Path())
        output.say(f"Made {path}.")
    output.record("notebook", path=str(path))
    return path


def _open_notebook(output: Output, path: Path) -> None:
    """Run Jupyter on it until it is ended; where nobody sits at a terminal, nothing."""
    if output.style != "rich":
        return
    if importlib.util.find_spec("jupyterlab") is None:
        output.say(
            f"Open it in Jupyter or in an editor that knows notebooks; in a clone of tenfold, "
            f"{install_command('course')} brings Jupyter."
        )
        return
    subprocess.run([sys.executable, "-m", "jupyterlab", str(path)], check=False)


def _check_exercises(output: Output) -> None:
    """Test every exercise in the notebooks of this folder; leave with 1 unless all are solved."""
    from tenfold.course.notebooks import note_solved, notebooks_in, read_cells, run_exercises
    from tenfold.errors import TenfoldError

    paths, rows = notebooks_in(Path()), []
    if not paths:
        raise TenfoldError(
            "No notebook of the course is in this folder; make one with `tenfold course 0`, or "
            "change to the folder where they are."
        )
    for path in paths:
        for exercise, wrong in run_exercises(read_cells(path)):
            note_solved(exercise, solved=wrong is None)
            output.record("exercise", notebook=str(path), name=exercise, wrong=wrong)
            rows.append([path.stem, exercise, wrong or "right"])
    output.table("Exercises", ["notebook", "exercise", "result"], rows)
    if any(wrong != "right" for _, _, wrong in rows):
        raise typer.Exit(1)
