"""Where the trials of a search are kept, and what they have found: a data base that Optuna opens.

What a trial's end was is told by its state and its attributes there:

  complete, pruned    trained to the end, or stopped early by the pruner
  fail with ERROR     it failed, and is not tried again
  fail without        its driver was interrupted or killed; a later one does it again
"""

import contextlib
import hashlib
import re
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import NullPool, create_engine, text

from tenfold.errors import HeldError, TenfoldError, first_line
from tenfold.results.searches import Plan, SearchFile, SearchSummary
from tenfold.results.searches import Trial as SearchedTrial

BASELINE, ERROR, RUN = "baseline", "error", "run"
EPOCHS, NUM_VALIDATION = "epochs", "num_validation"
"""Attributes of a trial: the epochs that it was to train, and the images that it is judged by."""

ENOUGH_FOR_IMPORTANCES = 12
"""Complete trials; with fewer, the shares change from trial to trial."""

BUSY_SECONDS, SQLITE_SECONDS = 120.0, 60.0
"""How long to wait for another process that takes a trial, and for one that writes to SQLite."""

BEAT_SECONDS, GRACE_SECONDS = 5, 20
"""Between two signs of life of a trial, and how long it may give none until it counts as dead."""

SERVER_LOCKS = {
    "postgresql": "SELECT pg_advisory_lock(10)",
    **dict.fromkeys(("mysql", "mariadb"), "SELECT GET_LOCK('tenfold', -1)"),
}
"""What lets one driver at a time take a trial from a server; its connection's end is the lock's."""

STARTUP_TRIALS = 3
"""Trials drawn at random before the sampler learns from them; few, since a trial takes minutes
and the recipe itself, which is the first one, is a good place to look around."""

PRUNING_AFTER = 5
"""Complete trials that there must be before any other is compared with their median."""

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(
        seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True
    ),
    "random": lambda seed: RandomSampler(seed=seed),
    "gp": lambda seed: GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
}
"""How values are drawn, with a seed."""

PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    "median": lambda _: MedianPruner(n_startup_trials=PRUNING_AFTER),
    "halving": lambda epochs: SuccessiveHalvingPruner(min_resource=max(epochs // 4, 1)),
    "hyperband": lambda epochs: HyperbandPruner(
        min_resource=max(epochs // 4, 1), max_resource=epochs
    ),
    "none": lambda _: optuna.pruners.NopPruner(),
}
"""What decides whether a trial of so many epochs is stopped early."""


def open_storage(url: str) -> RDBStorage:
    """The storage at a URL such as `sqlite:///trials.db`, or the SQLite file at a path.

    Raises TenfoldError where it can't be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    address = url if "://" in url else f"sqlite:///{Path(url).resolve()}"
    wait = {"connect_args": {"timeout": SQLITE_SECONDS}} if address.startswith("sqlite") else {}
    with _opening(url), quiet():
        return RDBStorage(
            address,
            engine_kwargs=wait,
            heartbeat_interval=BEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        )


@contextlib.contextmanager
def _opening(url: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Every data base has its own exceptions, and none of them may show the password.
        reason = first_line(error).replace(url, "the URL")
        remedy = "check it, or leave it out for a data base in the folder"
        if re.match(r"postgres\b", url):
            remedy = "write postgresql instead of postgres, which SQLAlchemy does not know"
        raise TenfoldError(
            f"--storage {without_password(url)} can't be opened ({reason}); {remedy}."
        ) from None


def without_password(url: str) -> str:
    """A storage's URL as it may be shown and kept; the absolute path of a file."""
    if "://" not in url:
        return str(Path(url).resolve())
    return re.sub(r"(?<=://)([^:/@]*):[^@]*@", r"\1:***@", url)


def sqlite_file(url: str) -> Path | None:
    """The file of a storage at a path, or at a URL of SQLite; None of others, and in memory.

    Raises TenfoldError where it is a folder.
    """
    kind, separator, place = url.partition("://")
    file = place.partition("?")[0].removeprefix("/") if separator else url
    is_elsewhere = separator and not kind.startswith("sqlite")
    if not file or is_elsewhere or file == ":memory:" or file.startswith("file:"):
        return None
    if Path(file).is_dir():
        raise TenfoldError(f"--storage {url} is a folder; name a file in it.")
    return Path(file).resolve()


@contextlib.contextmanager
def alone(folder: Path, url: str = "") -> Iterator[None]:
    """What is done in this context, no other process does at the same time with the same folder,
    nor with the storage at `url`, which drivers with other folders may share."""
    file = sqlite_file(url)
    with contextlib.ExitStack() as stack:
        for path in (folder / "search.lock", file and file.with_name(f"{file.name}.lock")):
            if path is not None and path.parent.is_dir():
                try:
                    stack.enter_context(FileLock(path, timeout=BUSY_SECONDS))
                except Timeout:
                    raise HeldError(
                        f"Another process has held {path} for {BUSY_SECONDS:.0f} seconds; end "
                        "that process and run the same command again."
                    ) from None
        if url and file is None:
            with _opening(url):
                engine = create_engine(url, poolclass=NullPool)
                if lock := SERVER_LOCKS.get(engine.dialect.name):
                    stack.enter_context(engine.connect()).execute(text(lock))
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's remarks on features that may change, which no user can act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="optuna")
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Turn a storage that has gone, or whose disk is full, into a sentence."""
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        raise TenfoldError(
            f"The storage of the trials failed ({first_line(error)}); mend that and run the same "
            "command again, which goes on from here."
        ) from error


class Store:
    """The trials of a study, as one driver takes them; what it has taken gives signs of life."""

    def __init__(self, study: optuna.Study, *, seed: int, sampler: str) -> None:
        self.study, self._seed, self._sampler = study, seed, sampler
        self._taken: dict[int, Trial] = {}
        self._over = threading.Event()

    def __enter__(self) -> "Store":
        threading.Thread(target=self._beat_on, daemon=True, name="tenfold-trials").start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for trial in list(self._taken.values()):
            self.put_back(trial)

    def take(self, num_trials: float) -> Trial | None:
        """The next trial: one that was interrupted, or a new one; None when `num_trials` are taken.

        A sampler's draws depend on the seed and on how many trials there are. So a search by one
        driver is the same each time, and drivers don't draw the same. Call it `alone`.
        """
        trials = self._trials()
        if _num_taken(trials) >= num_trials:
            return None
        words = f"{self._seed} {len(trials)} "  # As ever: other words would draw other values.
        seed = int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "big")
        with quiet():
            self.study.sampler = SAMPLERS[self._sampler](seed)
            trial = self.study.ask()
        self._taken[trial.number] = trial
        self._beat()
        if RUN not in trial.user_attrs:
            trial.set_user_attr(RUN, f"trial-{trial.number}")
        return trial

    def tell(
        self, trial: Trial, value: float | None = None, *, state: TrialState | None = None
    ) -> bool:
        """How a trial ended; False where another driver has taken it for dead meanwhile."""
        self._taken.pop(trial.number, None)
        try:
            self.study.tell(trial, value, state=state)
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            return False
        return True

    def put_back(self, trial: Trial) -> None:
        """Let the trial, which this driver can't finish now, be done again by any."""
        if self.tell(trial, state=TrialState.FAIL):
            with quiet():
                RetryHeartbeatStaleTrialCallback()(self.study, self.study.trials[trial.number])

    def has_more(self, num_trials: float) -> bool:
        """Whether a trial is left to take; waits for those of others that may be dead.

        Call it when no trial of this driver is under way.
        """
        deadline = time.monotonic() + GRACE_SECONDS + BEAT_SECONDS
        while True:
            trials = self._trials()
            if _num_taken(trials) < num_trials:
                return True
            is_running = any(trial.state == TrialState.RUNNING for trial in trials)
            if not is_running or time.monotonic() > deadline:
                return False
            time.sleep(0.5)

    def _trials(self) -> list[FrozenTrial]:
        """All of them, once those are put back that have given no sign of life for long."""
        self._beat()
        with quiet():
            fail_stale_trials(self.study)
        return self.study.get_trials(deepcopy=False)

    def _beat_on(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            # Where the data base has gone, the next trial that is told says so.
            with contextlib.suppress(Exception):
                self._beat()

    def _beat(self) -> None:
        storage: Any = self.study._storage  # Of trials that are asked for, nobody else takes care.
        for trial in list(self._taken.values()):
            storage.record_heartbeat(trial._trial_id)


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether the trial's driver ended before the trial did."""
    return trial.state == TrialState.FAIL and ERROR not in trial.user_attrs


def _num_taken(trials: list[FrozenTrial]) -> int:
    """How many of those that were asked for are done or under way."""
    return sum(t.state != TrialState.WAITING and not is_interrupted(t) for t in trials)


def resumes(trial: FrozenTrial) -> int | None:
    """The number of the interrupted trial that this one does again."""
    return next(reversed(trial.system_attrs.get("retry_history", [])), None)


def summarise(
    study: optuna.Study, plan: SearchFile, *, with_importances: bool = False
) -> SearchSummary:
    """All that the storage knows; the importances, which take a second, only if asked for."""
    trials = study.get_trials(deepcopy=False)
    records = records_of(trials, plan)
    complete = [record for record in records if record.state == "complete"]
    known = {key: value for trial in trials for key, value in trial.user_attrs.items()}
    best = max(complete, key=lambda r: (r.accuracy or 0.0, -r.number), default=None)
    own = next((record for record in complete if record.is_baseline), None)
    return SearchSummary(
        name=plan.recipe["name"],
        source=plan.source,
        epochs=known.get(EPOCHS),
        num_validation=known.get(NUM_VALIDATION),
        counts=dict(Counter(record.state for record in records)),
        best=best.number if best else None,
        baseline=own.number if own else None,
        importances=_importances(study, plan) if with_importances else None,
        trials=tuple(records),
        objective=plan.objective,
        recipe=plan.recipe,
        space=plan.space,
    )


def records_of(trials: Sequence[FrozenTrial], plan: Plan) -> list[SearchedTrial]:
    """The record of each trial, in their order."""
    successors = {resumes(trial): trial.number for trial in trials}
    records = []
    for trial in trials:
        attributes, epochs = trial.user_attrs, trial.intermediate_values
        state: Any = trial.state.name.lower()
        if trial.state == TrialState.FAIL:
            state = "interrupted" if is_interrupted(trial) else "failed"
        # It has drawn them, or waits to be given them.
        stored = trial.system_attrs.get("fixed_params", {}) | trial.params
        drawn = {s.key: s.restored(stored[s.key]) for s in plan.space if s.key in stored}
        record = SearchedTrial(
            number=trial.number,
            state=state,
            is_baseline=BASELINE in attributes,
            params=plan.own_values if BASELINE in attributes else drawn,
            accuracy=trial.value if state == "complete" else None,
            values=tuple(epochs.get(n) for n in range(1, max(epochs, default=0) + 1)),
            seconds=trial.duration.total_seconds() if trial.duration is not None else None,
            error=attributes.get(ERROR),
            run=f"runs/{attributes[RUN]}" if RUN in attributes else None,
            resumes=resumes(trial),
            resumed_as=successors.get(trial.number),
        )
        records.append(record)
    return records


def _importances(study: optuna.Study, plan: Plan) -> dict[str, float] | None:
    """The share of each field in the spread of the accuracies (fANOVA, Hutter et al. 2014)."""
    keys = [setting.key for setting in plan.space]
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = [trial.value for trial in complete if set(keys) <= trial.params.keys()]
    if len(values) < ENOUGH_FOR_IMPORTANCES or len(set(values)) < 2:
        return None
    with quiet():
        shares = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0), params=keys
        )
    return dict(shares)
