"""Which trial a process takes next, when several share a search and any of them may be killed.

What a trial's end was is told by its state and its attributes in the storage:

  complete, pruned    trained to the end, or stopped early by the pruner
  fail with ERROR     it failed, and is not tried again
  fail with SURPLUS   taken by two machines at the same moment; it doesn't count
  fail, neither       its process was interrupted or killed; one with RESUMES does it again
"""

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from tenfold.locks import hold, is_held
from tenfold.studies.search.storage import alone, quiet

BASELINE, ERROR, RESUMES, RUN, SURPLUS = "baseline", "error", "resumes", "run", "surplus"
FOLDER, WORKER, BEAT = "folder", "worker", "beat"

BEAT_SECONDS = 30.0
SILENCE_SECONDS = 600.0
"""How long a trial on another machine may give no sign of life before it counts as dead."""

STARTUP_TRIALS = 3
"""Trials drawn at random before the sampler learns from them; few, since a trial takes minutes
and the recipe itself, which is the first one, is a good place to look around."""


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[str]:
    """Take part in the search in `folder`, visibly to other processes for as long as this lives.

    Yields the name of this process among them.
    """
    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    place = folder / "workers" / name
    with contextlib.ExitStack() as stack:
        with alone(folder):
            stack.enter_context(hold(place))
        yield name
    shutil.rmtree(place, ignore_errors=True)


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether the trial's process ended before the trial did."""
    return trial.state == TrialState.FAIL and not {ERROR, SURPLUS} & trial.user_attrs.keys()


def requested(trial: FrozenTrial) -> dict[str, Any]:
    """The values of a trial, whether it has drawn them or only waits to be given them."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def counts(trial: FrozenTrial) -> bool:
    """Whether the trial is one of those that were asked for."""
    return not is_interrupted(trial) and SURPLUS not in trial.user_attrs


@dataclass
class Queue:
    """The trials of `study`, as the process `worker` sees them from its search folder.

    identity: the folder's own id, by which its processes know that they share it.
    """

    study: optuna.Study
    folder: Path
    identity: str
    worker: str
    seed: int
    _signs: dict[int, tuple[Any, float]] = field(default_factory=dict)

    def begin(self, baseline: Mapping[str, Any]) -> None:
        """Queue the recipe as it is as the first trial, unless that has been done."""
        with alone(self.folder):
            self.study.set_user_attr(FOLDER + self.identity, True)
            if not any(BASELINE in trial.user_attrs for trial in self._trials()):
                self.study.enqueue_trial(dict(baseline), user_attrs={BASELINE: True})

    def take(self, num_trials: float) -> Trial | None:
        """The next trial: one that was interrupted, or a new one; None when `num_trials` are taken.

        Trials whose processes are dead are put back before.
        """
        while True:
            with alone(self.folder):
                self._put_back_dead()
                trials = self._trials()
                taken = [t for t in trials if counts(t) and t.state != TrialState.WAITING]
                if len(taken) >= num_trials:
                    return None
                with quiet():
                    self.study.sampler = self._sampler(len(trials))
                    trial = self.study.ask()
                trial.set_user_attr(FOLDER, self.identity)
                trial.set_user_attr(WORKER, self.worker)
                if RUN not in trial.user_attrs:
                    trial.set_user_attr(RUN, f"trial-{trial.number}")
            if not self._is_surplus(trial, num_trials):
                return trial
            trial.set_user_attr(SURPLUS, True)
            self.study.tell(trial, state=TrialState.FAIL)

    def put_back(self, trial: Trial) -> None:
        """Let the trial, which this process can't finish now, be done again by any process."""
        with alone(self.folder):
            self._put_back(self._trials()[trial.number])

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _is_surplus(self, trial: Trial, num_trials: float) -> bool:
        """Whether others took the last of `num_trials` at the same moment.

        Only machines that share a storage but no folder can do so. The numbers of trials are in
        one order for all of them.
        """
        earlier = [t for t in self._trials() if t.number < trial.number and counts(t)]
        twice = BASELINE in trial.user_attrs and RESUMES not in trial.user_attrs
        if twice and any(BASELINE in t.user_attrs for t in earlier):
            return True
        return sum(t.state != TrialState.WAITING for t in earlier) >= num_trials

    def _put_back_dead(self) -> None:
        for trial in self._trials():
            if trial.state == TrialState.RUNNING and self._is_dead(trial):
                self._put_back(trial)
        # A process may have died between the two halves of putting a trial back.
        trials = self._trials()
        redone = resumed_by(trials)
        for trial in trials:
            is_ours = trial.user_attrs.get(FOLDER, self.identity) == self.identity
            if is_interrupted(trial) and is_ours and trial.number not in redone:
                self._queue_again(trial)
        for place in (self.folder / "workers").iterdir():
            if not is_held(place):
                shutil.rmtree(place, ignore_errors=True)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get(WORKER)
        if worker is not None and trial.user_attrs.get(FOLDER) == self.identity:
            return not is_held(self.folder / "workers" / worker)
        if worker is None and self._is_only_folder():
            return True  # Its process ended while it took the trial, or it would still be alone.
        # On another machine. By this process's own clock, since those of machines differ.
        sign = (trial.user_attrs.get(BEAT), len(trial.intermediate_values))
        before, since = self._signs.get(trial.number, (None, 0.0))
        if before != sign:
            self._signs[trial.number] = (sign, time.monotonic())
            return False
        return time.monotonic() - since > SILENCE_SECONDS

    def _is_only_folder(self) -> bool:
        """Whether no other folder, which may be on another machine, shares the storage."""
        folders = [name for name in self.study.user_attrs if name.startswith(FOLDER)]
        return folders == [FOLDER + self.identity]

    def _put_back(self, trial: FrozenTrial) -> None:
        try:
            self.study.tell(trial.number, state=TrialState.FAIL)
        except ValueError:
            return  # Another process was faster, or it has ended after all.
        self._queue_again(trial)

    def _queue_again(self, trial: FrozenTrial) -> None:
        kept = {key: trial.user_attrs[key] for key in (BASELINE, RUN) if key in trial.user_attrs}
        if (values := requested(trial)) or BASELINE in kept:
            self.study.enqueue_trial(values, user_attrs={**kept, RESUMES: trial.number})

    def _sampler(self, num_trials: int) -> optuna.samplers.BaseSampler:
        """A sampler whose draws depend on the seed and on how many trials there are.

        So a search by one process is the same each time, and processes don't draw the same. Those
        of another machine, where the same number may be seen at the same moment, add their folder.
        """
        owner = next((t.user_attrs[FOLDER] for t in self._trials() if FOLDER in t.user_attrs), None)
        place = "" if owner in (None, self.identity) else self.identity
        text = f"{self.seed} {num_trials} {place}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True
        )


def resumed_by(trials: Sequence[FrozenTrial]) -> dict[int, int]:
    """The number of the trial that did an interrupted one again, by the number of that one."""
    return {
        trial.user_attrs[RESUMES]: trial.number for trial in trials if RESUMES in trial.user_attrs
    }
