"""What a search is going to do, `search.json`, and what it found, `trials.json`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from tenfold.errors import TenfoldError
from tenfold.formatting import percent, points, short_key
from tenfold.results.facts import Fact, read_fact

if TYPE_CHECKING:
    import optuna

OBJECTIVE = "validation accuracy after the last epoch"
State = Literal["complete", "pruned", "failed", "interrupted", "running", "waiting"]


class Setting(Fact):
    """A field that is searched: between `low` and `high`, or among `choices` where there are any.

    log: spread evenly over the orders of magnitude. step: only `low`, `low + step` and so on; None
    for any number.

    A trial's record keeps the place of a choice, not the choice: a sampler that knows of neighbours
    leaves the recipe's own choice far more often (in a simulation with a better choice beside it,
    30 trials found it in 84 of 100 searches, against 16 with categories).
    """

    key: str
    kind: str
    low: int | float = 0
    high: int | float = 0
    log: bool = False
    step: int | float | None = None
    choices: tuple[Any, ...] = ()
    _own: Any = PrivateAttr(None)

    @property
    def own(self) -> Any:
        """Its value in the recipe as it is."""
        return self._own

    def place(self, value: Any) -> float:
        """Where in the range `value` is, from 0 to 1."""
        if self.choices:
            known = value in self.choices
            return self.choices.index(value) / (len(self.choices) - 1) if known else 0.0
        low, high, at = float(self.low), float(self.high), float(value)
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(at, low))
        return min(max((at - low) / (high - low), 0.0), 1.0)

    @property
    def edges(self) -> tuple[Any, ...]:
        """The values that are most likely to break a rule: the outermost, or every choice."""
        return self.choices or (self.low, self.high)

    def suggest(self, trial: "optuna.Trial") -> Any:
        """The trial's value of this field, as a recipe has it."""
        if self.choices:
            return self.restored(trial.suggest_int(self.key, 0, len(self.choices) - 1))
        draw: Any = trial.suggest_int if self.kind == "int" else trial.suggest_float
        step = self.step or (1 if self.kind == "int" else None)
        return self.restored(draw(self.key, self.low, self.high, step=step, log=self.log))

    def restored(self, value: Any) -> Any:
        """A stored value as a recipe has it; a drawn number is cut to three digits that tell."""
        if self.choices:
            return self.choices[int(value)]
        if self.kind == "int":
            return int(value)
        if self.step is not None:
            return float(round(value, 10))
        digits = 2 - math.floor(math.log10(value if self.log else self.high - self.low))
        return float(min(max(round(value, digits), self.low), self.high))

    def stored(self, value: Any) -> Any:
        """How a trial's record keeps `value`; None where it is outside.

        No logarithmic range reaches 0, so its lowest value stands for it.
        """
        if self.choices:
            return self.choices.index(value) if value in self.choices else None
        if self.log and value == 0:
            return self.low
        steps = (value - self.low) / self.step if self.step else 0.0
        inside = self.low <= value <= self.high and abs(steps - round(steps)) < 1e-8
        return value if inside else None


class Plan(Fact):
    """What must be the same when a search goes on. checksums: of the data; code: of the files that
    parts of one's own are from, empty in searches of older versions."""

    objective: str
    recipe: dict[str, Any]
    space: tuple[Setting, ...]
    checksums: dict[str, str] = Field(default_factory=dict)
    code: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _with_own_values(self) -> Self:
        for setting in self.space:
            own: Any = self.recipe
            for part in setting.key.split("."):
                if not isinstance(own, dict) or part not in own:
                    raise ValueError(f"a search whose recipe has {setting.key}")
                own = own[part]
            setting._own = own
        return self

    @property
    def own_values(self) -> dict[str, Any]:
        """What the recipe has in the fields that are searched."""
        return {setting.key: setting.own for setting in self.space}


class SearchFile(Plan):
    """The plan as it is in a search's folder.

    source: the name or path that the recipe was given by. storage: where the trials are, without
    its password; empty until it is known.
    """

    source: str
    storage: str = ""


class Trial(Fact):
    """A trial; accuracies are shares of the validation images.

    accuracy: after the last epoch, None where it was not reached. values: after each epoch. run:
    its folder, seen from the search's. resumes, resumed_as: the number of the interrupted trial
    that it does again, and of the one that did it again.
    """

    number: int
    state: State
    is_baseline: bool
    params: dict[str, Any]
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

    @property
    def reached(self) -> float | None:
        """Its accuracy at the end, or where it was stopped."""
        return self.last_value if self.accuracy is None else self.accuracy


class SearchSummary(Plan):
    """A whole search. best, baseline: numbers of trials.

    importances: shares that add up to 1, largest first.
    """

    name: str
    source: str
    epochs: int | None
    num_validation: int | None
    counts: dict[str, int]
    best: int | None
    baseline: int | None
    importances: dict[str, float] | None
    trials: tuple[Trial, ...]

    @field_validator("importances")
    @classmethod
    def _largest_first(cls, shares: dict[str, float] | None) -> dict[str, float] | None:
        return dict(sorted(shares.items(), key=lambda item: -item[1])) if shares else None

    @model_validator(mode="after")
    def _has_its_best(self) -> Self:
        numbers = {trial.number for trial in self.trials}
        if not {self.best, self.baseline} - {None} <= numbers:
            raise ValueError("a search that has its best trial and its baseline")
        return self

    def trial(self, number: int | None) -> Trial | None:
        """The trial of that number."""
        return next((trial for trial in self.trials if trial.number == number), None)

    @property
    def best_trial(self) -> Trial | None:
        """The complete trial with the highest accuracy."""
        return self.trial(self.best)

    @property
    def own_trial(self) -> Trial | None:
        """The recipe as it is."""
        return self.trial(self.baseline)

    @property
    def seed(self) -> int:
        """What every trial was trained with."""
        return int(self.recipe["seed"])

    @property
    def seconds(self) -> float:
        """What all trials took together."""
        return sum(trial.seconds or 0.0 for trial in self.trials)

    def of_state(self, *states: State) -> tuple[Trial, ...]:
        """The trials in these states, in their order."""
        return tuple(trial for trial in self.trials if trial.state in states)

    def short_name(self, key: str) -> str:
        """The last part of a key, where no other setting has the same."""
        return short_key(key, [setting.key for setting in self.space])

    @property
    def ranked(self) -> tuple[Trial, ...]:
        """The complete trials, best first; of equals the earlier one."""
        complete = self.of_state("complete")
        return tuple(sorted(complete, key=lambda t: (-(t.accuracy or 0.0), t.number)))

    @property
    def gain(self) -> float | None:
        """What the best trial has more than the recipe as it is; None where one is missing."""
        best, own = self.best_trial, self.own_trial
        return (best.accuracy or 0.0) - (own.accuracy or 0.0) if best and own else None

    @property
    def gain_in_words(self) -> str:
        """What the best trial has reached, and how much more that is."""
        best, own = self.best_trial, self.own_trial
        if best is None:
            return "No trial has come to its end yet."
        reached = percent(best.accuracy, 2)
        if own is best:
            words = "No trial was better than the recipe as it is, with a validation accuracy of"
            return f"{words} {reached}."
        found = f"Trial {best.number} has a validation accuracy of {reached}"
        if own is None or self.gain is None:
            return f"{found}; the recipe itself has no result yet."
        more, before = points(self.gain, digits=2), percent(own.accuracy, 2)
        return f"{found}, {more} more than the recipe as it is, which has {before}."

    def commands(self, folder: Path) -> tuple[str, ...]:
        """What measures the best recipe with seeds that the search in `folder` has not used."""
        path = (folder / "best.toml").as_posix()
        quoted = f'"{path}"' if " " in path else path
        return tuple(f"tenfold train {quoted} --seed {self.seed + n}" for n in (1, 2, 3))

    @property
    def chance(self) -> float | None:
        """A difference of two accuracies that chance alone exceeds once in twenty times.

        Twice a standard error of a difference of two binomial shares, as if the images were
        others each time; for the same images it is an upper estimate.
        """
        if self.best_trial is None or not self.num_validation:
            return None
        share = self.best_trial.accuracy or 0.0
        return 1.96 * math.sqrt(2 * share * (1 - share) / self.num_validation)


def read_plan(folder: Path) -> SearchFile:
    """What `folder/search.json` says. Raises TenfoldError where it is missing or damaged."""
    remedy = "it is not the plan of a search: give another --folder"
    return read_fact(folder / "search.json", SearchFile, remedy=remedy)


def read_search(folder: Path) -> SearchSummary:
    """What `folder/trials.json` says. Raises TenfoldError where it is missing or damaged."""
    path = folder / "trials.json"
    if not path.exists():
        raise TenfoldError(f"There is no search in {folder}; `tenfold tune` makes one.")
    remedy = (
        "it does not hold the trials of a search: the `tenfold tune` that made it writes it again"
    )
    return read_fact(path, SearchSummary, remedy=remedy)
