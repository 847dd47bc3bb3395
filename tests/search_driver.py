"""A search whose trials take no time, killed ahead of each of its writes and then resumed."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from tenfold.studies.search.queue import BASELINE, Queue, counts, working_in
from tenfold.studies.search.storage import open_storage

NUM_TRIALS = 3


def drive(folder: Path) -> None:
    """The search of these tests, in `folder`, from where it is to its end."""
    folder.mkdir(exist_ok=True)
    with working_in(folder) as worker:
        storage = open_storage(str(folder / "trials.journal"))
        study = optuna.create_study(
            storage=storage, study_name="driven", direction="maximize", load_if_exists=True
        )
        queue = Queue(study, folder, identity="one", worker=worker, seed=0)
        queue.begin({"x": 0.5})
        while (trial := queue.take(NUM_TRIALS)) is not None:
            study.tell(trial, trial.suggest_float("x", 0, 1))


def sweep(root: Path) -> list[dict[str, Any]]:
    """Searches in `root`, each killed ahead of another write; the last one was not killed."""
    findings: list[dict[str, Any]] = []
    while not findings or findings[-1]["killed"]:
        findings.append(_kill_and_resume(root / str(len(findings)), len(findings)))
    return findings


def _kill_and_resume(folder: Path, number: int) -> dict[str, Any]:
    status = _fork(lambda: _drive_until(folder, number))
    resumed = _fork(lambda: drive(folder))
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return {"killed": killed, "resumed": resumed, **_look(folder)}


def _look(folder: Path) -> dict[str, Any]:
    study = optuna.load_study(
        study_name="driven", storage=open_storage(str(folder / "trials.journal"))
    )
    trials = study.get_trials()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return {
        "num_counted": sum(counts(trial) for trial in trials),
        "num_complete": len(complete),
        "baselines": [trial.params for trial in complete if BASELINE in trial.user_attrs],
        "num_values": len({trial.params["x"] for trial in complete}),
    }


def _fork(work: Callable[[], None]) -> int:
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
    """Drive the search, and kill the process ahead of its write to the disk of this number."""
    left, flush = number, os.fsync

    def counted(descriptor: int) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        flush(descriptor)

    os.fsync = counted
    drive(folder)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(sweep(Path(sys.argv[1]))))
