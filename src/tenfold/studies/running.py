"""What it takes to run one trial, in this process or in a worker, and who is told of it."""

import contextlib
import functools
import logging
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tenfold.errors import TenfoldError
from tenfold.files import read_json
from tenfold.progress import Progress
from tenfold.recipe import Recipe
from tenfold.run import RunFolder
from tenfold.studies.pace import Pace
from tenfold.studies.results import Record
from tenfold.studies.trials import Trial
from tenfold.training.reporters import Reporter

logger = logging.getLogger("tenfold")

HELD_SECONDS = 60.0
"""How long a run folder may still be held by what a killed study left behind, while that saves."""


@dataclass(frozen=True)
class Job:
    """A trial that is to be trained, the `number`-th of `total`, with so many threads.

    threads: None takes what the environment says. skip_broken: leave out pictures that can't be
    read.
    """

    trial: Trial
    recipe: Recipe
    run: RunFolder
    number: int
    total: int
    threads: int | None
    skip_broken: bool = False


class TrialReporter(Reporter, Progress, Protocol):
    """Told of the training of one trial, and of the reading and evaluating around it."""


class StudyReporter(Protocol):
    """Told how a study goes, in the thread that runs it."""

    def study_started(self, pace: Pace, *, jobs: Sequence[Job], total: int) -> None:
        """`jobs` of all `total` trials are to be trained; `pace` always says how far they are."""

    def trial_started(self, job: Job) -> TrialReporter:
        """A trial is about to be trained; the answer is told of its training."""

    def trial_ended(self, job: Job, record: Record) -> None:
        """A trial is over, finished or failed."""


class TrainTrial(Protocol):
    """Trains a recipe to its end in a run folder, or goes on with what is there."""

    def __call__(
        self,
        recipe: Recipe,
        folder: Path,
        *,
        threads: int | None,
        skip_broken: bool,
        reporter: TrialReporter | None,
    ) -> object:
        """Raises as `tenfold.training.train.train` does."""


def run_trial(
    recipe: Recipe,
    run: RunFolder,
    *,
    threads: int | None,
    skip_broken: bool,
    reporter: TrialReporter | None,
    train: TrainTrial,
) -> None:
    """Bring the run of a trial to its end, whatever an earlier session left of it.

    Raises as `train` does.
    """
    _wait_until_free(run)
    if run.is_finished():
        return
    if run.path.is_dir() and not run.recipe.exists() and not run.is_held():
        # What a kill left before the run had its recipe: temporary files and a lock.
        shutil.rmtree(run.path)
    train(recipe, run.path, threads=threads, skip_broken=skip_broken, reporter=reporter)


def train_trial(
    recipe: Recipe,
    folder: Path,
    *,
    threads: int | None,
    skip_broken: bool,
    reporter: TrialReporter | None,
) -> None:
    """Train `recipe` in `folder`, or resume it there; see `TrainTrial`."""
    from tenfold.training.train import TrainOptions, train

    at_first = _threads_at_first()
    options = TrainOptions(
        folder=folder,
        threads=threads if threads is not None else at_first,
        skip_broken=skip_broken,
    )
    train(recipe, options=options, reporter=reporter, progress=reporter)


def threads_for(run: RunFolder, *, asked: int | None, num_jobs: int) -> int | None:
    """How many threads the run of a trial is to compute with, if `num_jobs` run at once.

    asked: by the user, if at all. None stands for what the environment says. Raises TenfoldError
    where the run was begun with another number than is asked for.
    """
    begun_with = None
    if any(run.checkpoints.glob("*.json")):
        with contextlib.suppress(TenfoldError, KeyError, TypeError, ValueError):
            begun_with = int(read_json(run.provenance)["threads"])
    if asked is not None and begun_with not in (None, asked):
        raise TenfoldError(
            f"{run.path} was begun with --threads {begun_with}, on which its result depends; leave "
            f"out --threads {asked}, or remove that folder."
        )
    if asked is not None or begun_with is not None:
        return asked or begun_with
    if num_jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return None
    return max(_num_cores() // num_jobs, 1)


def note_other_threads(jobs: Sequence[Job], runs: Sequence[RunFolder]) -> None:
    """Tell of it where `jobs` will compute with other threads than finished `runs` of the study."""
    finished = set()
    for run in runs if jobs else ():
        if run.is_finished():
            with contextlib.suppress(TenfoldError, KeyError, TypeError, ValueError):
                finished.add(int(read_json(run.provenance)["threads"]))
    if not finished:
        return
    to_come = {job.threads or _threads_at_first() for job in jobs}
    if len(finished | to_come) > 1:
        before, now = (" or ".join(map(str, sorted(numbers))) for numbers in (finished, to_come))
        logger.warning(
            "Finished runs of this study were computed with --threads %s, and the others will be "
            "with %s, on which their results depend a little; repeat the command with --threads "
            "%s to have all alike.",
            before,
            now,
            before,
        )


def _num_cores() -> int:
    """The physical cores that this process may use."""
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(psutil.cpu_count(logical=False) or sys.maxsize, usable or 1)


@functools.cache
def _threads_at_first() -> int:
    """The threads of this process before any trial had its own."""
    import torch

    return torch.get_num_threads()


def _wait_until_free(run: RunFolder) -> None:
    deadline = time.monotonic() + HELD_SECONDS
    while run.is_held() and time.monotonic() < deadline:
        time.sleep(0.1)
