"""The folder that a run is trained in: chosen, and held as long as it is written."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tenfold.errors import HeldError, TenfoldError
from tenfold.locks import LOCK_FILES
from tenfold.recipe import Recipe, load_recipe
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

    Raises TenfoldError where the folder asked for is finished or belongs to something else, where
    --resume finds nothing to resume, and where --new would go on with a run.
    """
    if options.resume and options.new:
        raise TenfoldError(
            "--resume goes on with a run and --new begins one; leave out one of them."
        )
    if options.folder is not None:
        return _asked_for(options.folder, options)
    earlier = runs_of(options.runs, recipe.name)
    if options.resume:  # Whatever its recipe; one that is held only if there is no other.
        unfinished = [run for run in earlier if not run.is_finished() and not _is_blank(run)]
        if not unfinished:
            raise TenfoldError(
                f"There is no unfinished run of {recipe.name} in {options.runs}; leave out "
                "--resume to start one."
            )
        return next((run for run in unfinished if not run.is_held()), unfinished[0])
    if not options.new:
        for run in earlier:  # The newest of the same recipe, whatever was trained since.
            with contextlib.suppress(TenfoldError):  # It has no recipe yet, or a damaged one.
                if load_recipe(run.recipe) == recipe and not run.is_held():
                    if not run.is_finished():
                        return run
                    break
        if earlier and _is_blank(earlier[0]) and not earlier[0].is_held():
            return earlier[0]
    return create_run(options.runs, recipe.name)


def _asked_for(path: Path, options: "TrainOptions") -> RunFolder:
    """The run folder at `path`; raises TenfoldError as `choose_folder` does."""
    run = RunFolder(path)
    if run.is_finished():
        raise TenfoldError(
            f"The run in {path} is finished; evaluate it, or give another --folder to train."
        )
    is_new = not path.is_dir() or _is_blank(run)
    if options.resume and is_new:
        raise TenfoldError(
            f"There is no run in {path} to go on with; leave out --resume to start one."
        )
    if options.new and not is_new:
        raise TenfoldError(
            f"There is something in {path} already; give another --folder, or leave out --new to "
            "go on with its run."
        )
    return run if is_new else open_run(path)


def _is_blank(run: RunFolder) -> bool:
    """Whether an earlier session ended before it wrote anything about the run."""
    return all(entry.name in LOCK_FILES or entry.suffix == ".tmp" for entry in run.path.iterdir())
