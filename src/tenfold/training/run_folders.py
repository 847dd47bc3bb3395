"""The folder that a run is trained in: chosen, and held as long as it is written."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tenfold.errors import HeldError, TenfoldError
from tenfold.files import read_json
from tenfold.locks import LOCK_FILES
from tenfold.recipe import Recipe, recipe_from_dict
from tenfold.run import RunFolder, create_run, open_run, runs_of

if TYPE_CHECKING:
    from tenfold.training.train import TrainOptions


def take_folder(recipe: Recipe, options: "TrainOptions", stack: contextlib.ExitStack) -> RunFolder:
    """Choose a run folder and hold it until `stack` ends."""
    while True:
        run = choose_folder(recipe, options)
        try:
            stack.enter_context(_held(run, is_new=not (options.folder and options.folder.exists())))
        except HeldError:
            # Another command may have taken it in this moment; there are more folders.
            if options.folder is not None or options.resume:
                raise
        else:
            return run


@contextlib.contextmanager
def _held(run: RunFolder, *, is_new: bool) -> Iterator[None]:
    """Hold `run`, and leave nothing of it where it is refused before anything was written.

    is_new: whether the folder itself was made for it.
    """
    with run.writer():
        try:
            yield
        except BaseException:
            if _is_blank(run):
                with contextlib.suppress(OSError):
                    for path in run.path.iterdir():
                        if not path.is_dir():  # A lease, which goes when it is given back.
                            path.unlink()
                    if is_new:
                        run.path.rmdir()
            raise


def choose_folder(recipe: Recipe, options: "TrainOptions") -> RunFolder:
    """The run folder to train in: the one asked for, an unfinished one to resume, or a new one.

    Raises TenfoldError where the folder asked for is finished or belongs to something else, and
    where --resume finds nothing to resume.
    """
    if options.folder is not None:
        return _open_or_make(options.folder)
    earlier = runs_of(options.runs, recipe.name)
    if options.resume:
        return _newest_unfinished(earlier, recipe, options)
    if not options.new:
        if (same := _newest_of_same_recipe(earlier, recipe)) and not same.is_finished():
            return same
        if earlier and _is_blank(earlier[0]) and not earlier[0].is_held():
            return earlier[0]
    return create_run(options.runs, recipe.name)


def _newest_unfinished(
    earlier: Sequence[RunFolder], recipe: Recipe, options: "TrainOptions"
) -> RunFolder:
    """What --resume goes on with, whatever its recipe; one that is held only if there is no other.

    Raises TenfoldError where there is none.
    """
    unfinished = [run for run in earlier if not run.is_finished() and not _is_blank(run)]
    if not unfinished:
        raise TenfoldError(
            f"There is no unfinished run of {recipe.name} in {options.runs}; leave out "
            "--resume to start one."
        )
    return next((run for run in unfinished if not run.is_held()), unfinished[0])


def _newest_of_same_recipe(earlier: Sequence[RunFolder], recipe: Recipe) -> RunFolder | None:
    """The newest run that the same command made, whatever was trained since; not one now held."""
    for run in earlier:
        with contextlib.suppress(TenfoldError):  # It has no recipe yet, or a damaged one.
            if recipe_from_dict(read_json(run.recipe)) == recipe and not run.is_held():
                return run
    return None


def _is_blank(run: RunFolder) -> bool:
    """Whether an earlier session ended before it wrote anything about the run."""
    return all(entry.name in LOCK_FILES or entry.suffix == ".tmp" for entry in run.path.iterdir())


def _open_or_make(path: Path) -> RunFolder:
    if path.is_dir() and any(path.iterdir()):
        run = RunFolder(path)
        if run.is_finished():
            raise TenfoldError(
                f"The run in {path} is finished; evaluate it, or give another --folder to train."
            )
        return run if _is_blank(run) else open_run(path)
    return RunFolder(path)
