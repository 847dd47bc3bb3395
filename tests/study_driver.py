"""A study whose training takes no time, in a process of its own that can be killed anywhere."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from bare_results import BARE_RESULT, bare_metrics
from tenfold import engine
from tenfold.errors import InterruptedRunError, TenfoldError, sentence_of
from tenfold.files import read_json, write_json
from tenfold.interruption import Interruption, leave_with_driver
from tenfold.run import RunFolder

if TYPE_CHECKING:  # Of which the processes that train need nothing.
    from tenfold.recipe import Recipe
    from tenfold.studies.definition import Study
    from tenfold.studies.running import Record, StudyOutcome

GRID = ["optimizer.lr=0.1,0.2"]
NUM_SEEDS = 2
NAMES = [f"lr-{lr},seed={seed}" for lr in (0.1, 0.2) for seed in (0, 1)]


def accuracy_of(recipe: "Recipe") -> float:
    """What a run of `recipe` is said to reach, a different figure for every trial."""
    return 0.5 + recipe.optimizer.lr + recipe.seed / 100


def study_of(recipe: str, grid: Sequence[str] = (), num_seeds: int = 1) -> "Study":
    """A recipe with a grid, as the command line makes it."""
    from tenfold.studies.definition import adjust, grid_study

    return adjust(grid_study(recipe, grid), seeds=num_seeds)


def train_at_once(recipe: "Recipe", path: Path, **others: object) -> None:
    """A run folder as training leaves it, with one line of `calls` more for each call."""
    run = RunFolder(path)
    with run.writer():
        with open(path / "calls", "a") as calls:
            calls.write(f"{os.getpid()}\n")
        write_json(run.recipe, recipe.to_dict())
        accuracy = accuracy_of(recipe)
        write_json(
            run.result,
            {
                **BARE_RESULT,
                "training": {"epochs": 1, "steps": 1, "wall_seconds": 2.0, "training_seconds": 1.5},
                "splits": {
                    "validation": bare_metrics(accuracy),
                    "test": bare_metrics(accuracy - 0.01),
                },
            },
        )


TrainTrial = Callable[[Any, Path], object]


@dataclass
class Within:
    """Trains in this process, at once, instead of by a command."""

    train: TrainTrial = train_at_once

    def start(self, item: engine.Item, post: engine.Post) -> engine.Running:
        """See engine.Place."""
        from tenfold.recipe import recipe_from_dict

        path = Path(item.arguments[1])
        try:
            self.train(recipe_from_dict(read_json(path)), path.parent)
        except Exception as error:
            status = error.exit_status if isinstance(error, TenfoldError) else 1
            return Over(engine.Ended(status, sentence_of(error)))
        return Over(engine.Ended(0))


@dataclass
class Over:
    """What is over before it can be stopped."""

    ended: engine.Ended

    def poll(self) -> engine.Ended:
        """See engine.Running."""
        return self.ended

    def stop(self) -> None:
        """See engine.Running."""

    def kill(self) -> None:
        """See engine.Running."""


def drive(folder: Path, train: TrainTrial = train_at_once, **options: Any) -> "StudyOutcome":
    """The study of these tests, in `folder`."""
    from tenfold.studies.running import StudyOptions, run_study

    study = study_of("cnn", GRID, NUM_SEEDS)
    return run_study(study, folder=folder, place=Within(train), options=StudyOptions(**options))


def processes(kind: str) -> engine.Here:
    """A place whose processes train as `kind` says."""
    return engine.Here([sys.executable, __file__, "worker", kind])


def drive_jobs(folder: Path, kind: str, **options: Any) -> "StudyOutcome":
    """The same with two processes at once, which train as `kind` says."""
    from tenfold.studies.running import StudyOptions, run_study

    return run_study(
        study_of("cnn", GRID, NUM_SEEDS),
        folder=folder,
        options=StudyOptions(num_jobs=2, **options),
        place=processes(kind),
    )


def records_of(folder: Path) -> "list[Record]":
    """The record of each trial of the study in `folder` that is over, in their order."""
    from tenfold.results.studies import read_plan
    from tenfold.studies.running import read_records

    return [*read_records(folder, read_plan(folder).trials).values()]


def callers_of(folder: Path) -> dict[str, list[int]]:
    """The processes in which training was begun, by trial, in their order."""
    texts = {path.parent.name: path.read_text() for path in folder.glob("runs/*/calls")}
    # A file that was made this moment may have no line yet.
    return {name: [int(pid) for pid in text.split()] for name, text in texts.items() if text}


def calls_of(folder: Path) -> dict[str, int]:
    """How often training was begun, by trial."""
    return {name: len(pids) for name, pids in callers_of(folder).items()}


def _wait_in_second_trial(recipe: "Recipe", path: Path, **others: object) -> None:
    if path.name == NAMES[1]:
        (path / "calls").write_text(f"{os.getpid()}\n")
        time.sleep(600)
    train_at_once(recipe, path)


def wait_and_save(recipe: "Recipe", path: Path, **others: object) -> None:
    """Train until a signal comes, and save then; the first trial ends at once, and so do others
    that were saved before."""
    run = RunFolder(path)
    if path.name != NAMES[0] and not (path / "saved").exists():
        with run.writer(), Interruption() as interruption:
            write_json(run.recipe, recipe.to_dict())
            (path / "calls").write_text(f"{os.getpid()}\n")
            while interruption.signal is None:
                time.sleep(0.01)
            time.sleep(float(os.environ.get("SECONDS_TO_SAVE", "0.1")))
            (path / "saved").touch()
            raise InterruptedRunError("Saved.")
    train_at_once(recipe, path)


def fail_somehow(recipe: "Recipe", path: Path, **others: object) -> None:
    """Fail in another way in each trial but the last."""
    if path.name == NAMES[0]:
        raise TenfoldError("The loss is nan in epoch 1; lower optimizer.lr.")
    if path.name == NAMES[1]:
        raise ZeroDivisionError("division by zero")
    if path.name == NAMES[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    train_at_once(recipe, path)


def leave_at_once(recipe: "Recipe", path: Path, **others: object) -> None:
    """End as a process does that a library ends."""
    sys.stderr.write("the library is of another version\n")
    sys.stderr.flush()
    os._exit(7)


def chatter(recipe: "Recipe", path: Path, **others: object) -> None:
    """Train, beside a library that prints, and some words for the log."""
    os.write(1, b'{"status": "failed"}\n[1]\n\0\xff such as a C++ library does\n')
    notice = {"event": "warning", "message": f"a notice from {path.name}"}
    os.write(1, json.dumps(notice).encode() + b"\n")
    train_at_once(recipe, path)


def note_gpu(recipe: "Recipe", path: Path, **others: object) -> None:
    """Train, and write down which GPU is there."""
    train_at_once(recipe, path)
    (path / "gpu").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))


def never_end(recipe: "Recipe", path: Path, **others: object) -> None:
    """Hear every signal and heed none."""
    with Interruption():
        (path / "calls").write_text(f"{os.getpid()}\n")
        while True:
            time.sleep(0.1)


WAYS: dict[str, TrainTrial] = {
    "chatter": chatter,
    "never end": never_end,
    "note GPU": note_gpu,
    "train at once": train_at_once,
    "wait and save": wait_and_save,
    "fail somehow": fail_somehow,
    "leave at once": leave_at_once,
}


def _light(values: dict[str, Any]) -> Any:
    """What these ways of training need of a recipe, without the import of PyTorch."""
    optimizer = SimpleNamespace(lr=values["optimizer"]["lr"])
    return SimpleNamespace(seed=values["seed"], optimizer=optimizer, to_dict=lambda: values)


def work(kind: str, path: Path) -> None:
    """As `tenfold train` of the recipe at `path` ends, with `kind` in the place of training."""
    leave_with_driver()
    try:
        WAYS[kind](_light(read_json(path)), path.parent)
    except TenfoldError as error:
        ending = {"event": "error", "message": str(error), "kind": type(error).__name__}
        sys.stdout.write(json.dumps(ending) + "\n")
        sys.exit(error.exit_status)


def main(command: str, argument: str, *more: str) -> None:
    """`wait FOLDER`, `worker KIND train RECIPE`; with two processes `jobs FOLDER KIND`."""
    if command == "wait":
        drive(Path(argument), _wait_in_second_trial)
    elif command == "jobs":
        drive_jobs(Path(argument), more[0])
    else:
        work(argument, Path(more[1]))


@dataclass(frozen=True)
class Instead:
    """Let a command of `commands.start` be `main` of these arguments."""

    arguments: tuple[str, ...]

    def __call__(self) -> None:
        """Carry it out and leave."""
        try:
            main(*self.arguments)
        except InterruptedRunError as error:
            sys.stderr.write(str(error))
            sys.exit(error.exit_status)
        except KeyboardInterrupt:
            sys.exit(130)
        sys.exit(0)


if __name__ == "__main__":
    Instead(tuple(sys.argv[1:]))()
