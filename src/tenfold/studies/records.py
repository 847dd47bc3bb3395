"""How the trials of a study ended, read from their run folders."""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tenfold.errors import TenfoldError
from tenfold.files import read_json
from tenfold.results.runs import read_result
from tenfold.results.studies import PlannedTrial
from tenfold.run import RunFolder
from tenfold.studies.takeover import origin_of

FAILURE = "failure.json"
"""The file in a run folder that says why its run failed."""


@dataclass(frozen=True)
class Record:
    """How a trial ended.

    run: its run folder, seen from the study's folder. error: why it failed. splits: the accuracy on
    each split that was evaluated, as `{"test": {"accuracy": 0.75}}`; empty where it failed. reused:
    the run folder that it was taken over from, None where it was trained here.
    """

    trial: str
    overrides: tuple[str, ...]
    seed: int
    run: str
    status: Literal["finished", "failed"]
    error: str | None = None
    splits: dict[str, dict[str, float]] = field(default_factory=dict)
    training_seconds: float | None = None
    reused: str | None = None


def run_of(folder: Path, trial: str) -> RunFolder:
    """The run folder of the trial of that name in the study in `folder`."""
    return RunFolder(folder / "runs" / trial)


def read_records(folder: Path, trials: Iterable[PlannedTrial]) -> dict[str, Record]:
    """The record of each of the `trials` that is over, by its name; a damaged result is a failure,
    and a damaged note of a failure nothing."""
    failures, found = _failures_of_older_versions(folder), {}
    for trial in trials:
        run, name = run_of(folder, trial.trial), trial.trial
        with contextlib.suppress(TenfoldError, KeyError, TypeError):
            failures[name] = str(read_json(run.path / FAILURE)["error"])
        where = (name, trial.overrides, trial.seed, f"runs/{name}")
        try:
            result = read_result(run.result) if run.is_finished() else None
        except TenfoldError as damaged:
            result, failures[name] = None, str(damaged)
        if result is not None:
            splits = {key: {"accuracy": m.accuracy} for key, m in result.splits.items()}
            seconds, origin = result.training.training_seconds, origin_of(run)
            found[name] = Record(*where, "finished", None, splits, seconds, origin)
        elif name in failures:
            found[name] = Record(*where, "failed", failures[name])
    return found


def _failures_of_older_versions(folder: Path) -> dict[str, str]:
    """Why trials failed, from the log that studies once had; torn lines say nothing."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in (folder / "results.jsonl").read_bytes().splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                record = json.loads(line)
                found.pop(record["trial"], None)
                if record["status"] == "failed":
                    found[record["trial"]] = str(record["error"])
    return found
