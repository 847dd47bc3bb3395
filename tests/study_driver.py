"""A study whose training takes no time, in a process of its own that can be killed anywhere."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tenfold.files import write_json
from tenfold.recipe import Recipe
from tenfold.run import RunFolder
from tenfold.studies.grid import StudyOutcome, expand, run_study

GRID = ["optimizer.lr=0.1,0.2"]
NUM_SEEDS = 2
NAMES = [f"optimizer.lr={lr},seed={seed}" for lr in (0.1, 0.2) for seed in (0, 1)]


def accuracy_of(recipe: Recipe) -> float:
    """What a run of `recipe` is said to reach, a different figure for every trial."""
    return 0.5 + recipe.optimizer.lr + recipe.seed / 100


def train_at_once(recipe: Recipe, path: Path) -> RunFolder:
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
                "training": {"training_seconds": 1.5},
                "splits": {
                    "validation": {"accuracy": accuracy, "loss": 1.0},
                    "test": {"accuracy": accuracy - 0.01, "loss": 1.0},
                },
            },
        )
    return run


def drive(folder: Path, train_trial: Callable[[Recipe, Path], RunFolder]) -> StudyOutcome:
    """The study of these tests, in `folder`."""
    return run_study("cnn", expand(GRID, NUM_SEEDS), folder=folder, train_trial=train_trial)


def calls_of(folder: Path) -> dict[str, int]:
    """How often training was begun, by trial."""
    return {p.parent.name: len(p.read_text().split()) for p in folder.glob("runs/*/calls")}


def sweep(root: Path) -> list[dict[str, Any]]:
    """Studies in `root`, each killed ahead of another operation on the disk and then resumed.

    The last but one had two records when it was killed, and the last was not killed.
    """
    findings: list[dict[str, Any]] = []
    while not findings or len(findings[-1]["recorded"]) < 2:
        findings.append(_kill_and_resume(root / str(len(findings)), len(findings)))
    return [*findings, _kill_and_resume(root / "whole", sys.maxsize)]


def _kill_and_resume(folder: Path, number: int) -> dict[str, Any]:
    status = _fork(lambda: _drive_until(folder, number))
    results = folder / "results.jsonl"
    recorded = results.read_text().splitlines() if results.exists() else []
    calls = calls_of(folder)
    return {
        "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
        "recorded": [json.loads(line)["trial"] for line in recorded],
        "calls_before": calls,
        "resumed": _fork(lambda: drive(folder, train_at_once)),
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


def _drive_until(folder: Path, number: int) -> None:
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
    drive(folder, train_at_once)


def _wait_in_second_trial(recipe: Recipe, path: Path) -> RunFolder:
    if path.name == NAMES[1]:
        path.mkdir(parents=True)
        (path / "calls").write_text(f"{os.getpid()}\n")
        time.sleep(600)
    return train_at_once(recipe, path)


if __name__ == "__main__":
    if sys.argv[1] == "sweep":
        sys.stdout.write(json.dumps(sweep(Path(sys.argv[2]))))
    else:
        drive(Path(sys.argv[2]), _wait_in_second_trial)
