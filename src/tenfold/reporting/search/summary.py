"""The numbers of a search, read from `trials.json` in its folder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenfold.errors import TenfoldError
from tenfold.files import read_json
from tenfold.formatting import short_key

STATES = ("complete", "pruned", "failed", "interrupted", "running", "waiting")


@dataclass(frozen=True)
class Setting:
    """A field that was searched: between `low` and `high`, or among `choices` where there are any.

    step: between two values, None for any number. own: its value in the recipe as it is.
    """

    key: str
    low: float
    high: float
    log: bool
    step: float | None
    choices: tuple[Any, ...]
    own: Any

    def place(self, value: Any) -> float:
        """Where in the range `value` is, from 0 to 1."""
        if self.choices:
            return self.choices.index(value) / (len(self.choices) - 1)
        low, high, at = self.low, self.high, float(value)
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(at, low))
        return min(max((at - low) / (high - low), 0.0), 1.0)


@dataclass(frozen=True)
class Trial:
    """A trial; accuracies are shares of the validation pictures.

    accuracy: after the last epoch, None where it was not reached. values: after each epoch.
    """

    number: int
    state: str
    is_baseline: bool
    params: Mapping[str, Any]
    accuracy: float | None
    values: tuple[float | None, ...]
    seconds: float | None
    error: str | None
    run: str | None
    resumes: int | None
    resumed_as: int | None

    @property
    def last_value(self) -> float | None:
        """Its accuracy after the last epoch that it had."""
        return self.values[-1] if self.values else None


@dataclass(frozen=True)
class Search:
    """A search as its folder has it. importances: shares by key, largest first; or None."""

    folder: Path
    name: str
    source: str
    seed: int
    settings: tuple[Setting, ...]
    epochs: int | None
    num_validation: int | None
    importances: Mapping[str, float] | None
    best: Trial | None
    baseline: Trial | None
    trials: tuple[Trial, ...]

    def of_state(self, *states: str) -> tuple[Trial, ...]:
        """The trials in these states, in their order."""
        return tuple(trial for trial in self.trials if trial.state in states)

    def short_name(self, key: str) -> str:
        """The last part of a key, where no other setting has the same."""
        return short_key(key, [setting.key for setting in self.settings])

    @property
    def ranked(self) -> tuple[Trial, ...]:
        """The complete trials, best first; of equals the earlier one."""
        complete = self.of_state("complete")
        return tuple(sorted(complete, key=lambda t: (-(t.accuracy or 0.0), t.number)))

    @property
    def gain(self) -> float | None:
        """What the best trial has more than the recipe as it is; None where one is missing."""
        if self.best is None or self.baseline is None:
            return None
        return (self.best.accuracy or 0.0) - (self.baseline.accuracy or 0.0)

    @property
    def chance(self) -> float | None:
        """A difference of two accuracies that chance alone exceeds once in twenty times.

        Twice a standard error of a difference of two binomial shares, as if the pictures were
        others each time; for the same pictures it is an upper estimate.
        """
        if self.best is None or not self.num_validation:
            return None
        share = self.best.accuracy or 0.0
        return 1.96 * math.sqrt(2 * share * (1 - share) / self.num_validation)


def read_search(folder: Path) -> Search:
    """The search in `folder`.

    Raises TenfoldError where there is none, and where its numbers are damaged.
    """
    path = folder / "trials.json"
    if not path.exists():
        raise TenfoldError(f"There is no search in {folder}; `tenfold tune` makes one.")
    values = read_json(path)
    try:
        return _search(folder, values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TenfoldError(
            f"{path} does not hold the trials of a search ({type(error).__name__}: {error}); the "
            "`tenfold tune` that made it writes it again."
        ) from error


def _search(folder: Path, values: Mapping[str, Any]) -> Search:
    trials = tuple(
        Trial(
            number=int(entry["number"]),
            state=_state(entry["state"]),
            is_baseline=bool(entry["is_baseline"]),
            params=dict(entry["params"]),
            accuracy=entry["accuracy"],
            values=tuple(entry["values"]),
            seconds=entry["seconds"],
            error=entry["error"],
            run=entry["run"],
            resumes=entry["resumes"],
            resumed_as=entry["resumed_as"],
        )
        for entry in values["trials"]
    )
    by_number = {trial.number: trial for trial in trials}
    shares = values["importances"]
    return Search(
        folder=folder,
        name=str(values["name"]),
        source=str(values["source"]),
        seed=int(values["recipe"]["seed"]),
        settings=tuple(_setting(entry, values["recipe"]) for entry in values["space"]),
        epochs=values["epochs"],
        num_validation=values["num_validation"],
        importances=dict(sorted(shares.items(), key=lambda item: -item[1])) if shares else None,
        best=by_number[values["best"]] if values["best"] is not None else None,
        baseline=by_number[values["baseline"]] if values["baseline"] is not None else None,
        trials=trials,
    )


def _setting(entry: Mapping[str, Any], recipe: Mapping[str, Any]) -> Setting:
    own: Any = recipe
    for part in entry["key"].split("."):
        own = own[part]
    return Setting(
        key=str(entry["key"]),
        low=float(entry.get("low", 0)),
        high=float(entry.get("high", 0)),
        log=bool(entry.get("log", False)),
        step=float(entry.get("step") or 1) if entry["kind"] == "int" else entry.get("step"),
        choices=tuple(entry.get("choices", ())),
        own=own,
    )


def _state(text: str) -> str:
    if text not in STATES:
        raise ValueError(f"there is no state {text!r}")
    return text
