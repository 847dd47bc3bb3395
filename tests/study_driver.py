"""A study whose training takes no time, in a process of its own that can be killed anywhere."""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fabricated_runs import BARE_RESULT, bare_metrics
from tenfold.errors import InterruptedRunError, TenfoldError
from tenfold.files import write_json
from tenfold.recipe import Recipe, load_recipe
from tenfold.results.studies import read_plan
from tenfold.run import RunFolder
from tenfold.studies.definition import Study, adjust, grid_study
from tenfold.studies.grid import StudyOptions, StudyOutcome, run_study
from tenfold.studies.results import Record, read_log
from tenfold.studies.running import TrainTrial
from tenfold.training.interruption import Interruption

GRID = ["optimizer.lr=0.1,0.2"]
NUM_SEEDS = 2
NAMES = [f"lr-{lr},seed={seed}" for lr in (0.1, 0.2) for seed in (0, 1)]


def accuracy_of(recipe: Recipe) -> float:
    """What a run of `recipe` is said to reach, a different figure for every trial."""
    return 0.5 + recipe.optimizer.lr + recipe.seed / 100


def study_of(recipe: str, grid: Sequence[str] = (), num_seeds: int = 1) -> Study:
    """A recipe with a grid, as the command line makes it."""
    return adjust(grid_study(recipe, grid), seeds=num_seeds)


def train_at_once(recipe: Recipe, path: Path, **others: object) -> None:
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


def drive(folder: Path, train: TrainTrial = train_at_once, **options: Any) -> StudyOutcome:
    """The study of these tests, in `folder`."""
    study = study_of("cnn", GRID, NUM_SEEDS)
    return run_study(study, folder=folder, train=train, options=StudyOptions(**options))


def drive_jobs(folder: Path, kind: str, **options: Any) -> StudyOutcome:
    """The same with two workers at once, which train as `kind` says."""
    worker = [sys.executable, __file__, "worker", kind]
    return run_study(
        study_of("cnn", GRID, NUM_SEEDS),
        folder=folder,
        options=StudyOptions(num_jobs=2, **options),
        worker=worker,
    )


def records_of(folder: Path) -> list[Record]:
    """The latest record of each trial of the study in `folder`, in their order."""
    latest = {record["trial"]: record for record in read_log(folder / "results.jsonl").records}
    return [latest[t.trial] for t in read_plan(folder).trials if t.trial in latest]


def callers_of(folder: Path) -> dict[str, list[int]]:
    """The processes in which training was begun, by trial, in their order."""
    texts = {path.parent.name: path.read_text() for path in folder.glob("runs/*/calls")}
    # A file that was made this moment may have no line yet.
    return {name: [int(pid) for pid in text.split()] for name, text in texts.items() if text}


def calls_of(folder: Path) -> dict[str, int]:
    """How often training was begun, by trial."""
    return {name: len(pids) for name, pids in callers_of(folder).items()}


def sweep(root: Path, drive: Callable[[Path], object]) -> list[dict[str, Any]]:
    """Studies in `root`, each killed ahead of another operation on the disk and then resumed.

    The last but one had two records when it was killed, and the last was not killed.
    """
    load_recipe("cnn")  # imports PyTorch once, and not in each fork
    findings: list[dict[str, Any]] = []
    while not findings or len(findings[-1]["recorded"]) < 2:
        findings.append(_kill_and_resume(root / str(len(findings)), len(findings), drive))
    return [*findings, _kill_and_resume(root / "whole", sys.maxsize, drive)]


def _kill_and_resume(folder: Path, number: int, drive: Callable[[Path], object]) -> dict[str, Any]:
    status = _fork(lambda: _drive_until(folder, number, drive))
    results = folder / "results.jsonl"
    recorded = results.read_text().splitlines() if results.exists() else []
    calls = calls_of(folder)
    return {
        "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
        "recorded": [json.loads(line)["trial"] for line in recorded],
        "calls_before": calls,
        "resumed": _fork(lambda: drive(folder)),
        "calls_after": calls_of(folder),
        "results": results.read_text(),
        "plan": (folder / "study.json").read_text(),
    }


def _fork(work: Callable[[], object]) -> int:
    """Do `work` in a fork of this process, and return its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def _drive_until(folder: Path, number: int, drive: Callable[[Path], object]) -> None:
    """Drive the study, and kill the process ahead of its flush or rename of this number."""
    left = number

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return operation(*arguments)

        return call

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    drive(folder)


def _wait_in_second_trial(recipe: Recipe, path: Path, **others: object) -> None:
    if path.name == NAMES[1]:
        path.mkdir(parents=True)
        (path / "calls").write_text(f"{os.getpid()}\n")
        time.sleep(600)
    train_at_once(recipe, path)


def wait_and_save(recipe: Recipe, path: Path, **others: object) -> None:
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


def fail_somehow(recipe: Recipe, path: Path, **others: object) -> None:
    """Fail in another way in each trial but the last."""
    if path.name == NAMES[0]:
        raise TenfoldError("The loss is nan in epoch 1; lower optimizer.lr.")
    if path.name == NAMES[1]:
        raise ZeroDivisionError("division by zero")
    if path.name == NAMES[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    train_at_once(recipe, path)


def leave_at_once(recipe: Recipe, path: Path, **others: object) -> None:
    """End as a process does that a library ends."""
    sys.stderr.write("the library is of another version\n")
    sys.stderr.flush()
    os._exit(7)


def chatter(recipe: Recipe, path: Path, **others: object) -> None:
    """Train, beside a library that prints, and some words for the log."""
    os.write(1, b'{"event": "end", "status": "failed", "message": "never said"}\n\0')
    sys.stdout.write("such as a C++ library does")
    logging.getLogger("tenfold").warning("a notice from %s", path.name)
    train_at_once(recipe, path)


def note_gpu(recipe: Recipe, path: Path, **others: object) -> None:
    """Train, and write down which GPU is there."""
    train_at_once(recipe, path)
    (path / "gpu").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))


def never_end(recipe: Recipe, path: Path, **others: object) -> None:
    """Hear every signal and heed none."""
    with Interruption():
        path.mkdir(parents=True)
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


def main(command: str, argument: str, kind: str = "") -> None:
    """`sweep FOLDER`, `wait FOLDER`, `worker KIND`; with two workers `sweep-jobs FOLDER` and
    `jobs FOLDER KIND`."""
    if command == "sweep":
        sys.stdout.write(json.dumps(sweep(Path(argument), drive)))
    elif command == "sweep-jobs":
        jobs = sweep(Path(argument), lambda folder: drive_jobs(folder, "train at once"))
        sys.stdout.write(json.dumps(jobs))
    elif command == "wait":
        drive(Path(argument), _wait_in_second_trial)
    elif command == "jobs":
        drive_jobs(Path(argument), kind)
    else:
        from tenfold.studies.worker import serve

        serve(WAYS[argument])


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except InterruptedRunError as error:
        sys.stderr.write(str(error))
        sys.exit(error.exit_status)
