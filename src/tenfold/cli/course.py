"""`tenfold course`: chapters as notebooks, and the tests of their exercises."""

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from tenfold.cli import options as cli
from tenfold.console.output import Output
from tenfold.errors import TenfoldError, install_command


def course(
    output: Output,
    chapter: Annotated[
        str | None,
        "A chapter to make a notebook of in this folder, all of them, or check, to test the "
        "exercises in the notebooks that are here.",
        "[NUMBER|all|check]",
    ] = None,
    *,
    opens: Annotated[
        bool, "Open it in Jupyter, where that is installed.", "--open/--no-open"
    ] = True,
) -> None:
    """List the chapters of the course, make the notebook of one, or test your exercises."""
    from tenfold.course.notebooks import Chapter, chapters, find_chapter, write_notebook

    def make(chapter: Chapter) -> Path:
        """The notebook of a chapter in this folder, as it is if it is there already."""
        path, said = Path(f"{chapter.path.stem}.ipynb"), "Made {}."
        if path.exists():
            said = "{} is here already, and stays as it is; rename it to have it made anew."
        else:
            write_notebook(chapter, Path())
        cli.announce(output, "notebook", said.format(path), path=str(path))
        return path

    if chapter is None:
        _list_chapters(output)
    elif chapter == "check":
        _check_exercises(output)
    elif chapter == "all":
        for each in chapters():
            make(each)
    else:
        notebook = make(find_chapter(chapter))
        if opens and output.style == "rich":  # Somebody sits there.
            _open_notebook(output, notebook)


def _list_chapters(output: Output) -> None:
    from tenfold.course.notebooks import chapters, solved_in

    solved, rows = solved_in(Path.cwd()), []
    for chapter in chapters():
        number, title, minutes = chapter.number, chapter.title, chapter.minutes
        names = chapter.exercises
        done = [name for name in names if name in solved]
        facts = {"number": number, "title": title, "minutes": minutes}
        output.record("chapter", **facts, exercises=names, solved=done)
        rows.append([str(number), title, f"{minutes} min", f"{len(done)} of {len(names)}"])
    output.table("The course", ["chapter", "title", "time", "exercises solved"], rows)
    output.say("Start with `tenfold course 0`, which makes its notebook in this folder.")


def _open_notebook(output: Output, path: Path) -> None:
    """Run Jupyter on it until it is ended, and leave with its status."""
    if importlib.util.find_spec("jupyterlab") is None:
        output.say(
            f"Open it in Jupyter or in an editor that knows notebooks; in a clone of tenfold, "
            f"{install_command('course')} brings Jupyter."
        )
        return
    # Ctrl-C reaches Jupyter too, which asks whether to end; it is to have the time for the answer.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        ended = subprocess.run([sys.executable, "-m", "jupyterlab", str(path)], check=False)
    finally:
        signal.signal(signal.SIGINT, before)
    if ended.returncode:
        raise typer.Exit(ended.returncode)


def _check_exercises(output: Output) -> None:
    """Test every exercise in the notebooks of this folder; leave with 1 unless all are solved."""
    from tenfold.course.notebooks import note_solved, notebooks_in, read_cells, run_exercises

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
    if any(result != "right" for _, _, result in rows):
        raise typer.Exit(1)
