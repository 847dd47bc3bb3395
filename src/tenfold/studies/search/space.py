"""The ranges that a search draws a recipe's fields from, read from TOML as strictly as recipes."""

import importlib.resources
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tenfold.errors import TenfoldError
from tenfold.recipe import Recipe, recipe_from_dict
from tenfold.recipe.dotted import flatten
from tenfold.recipe.load import parse_toml, read_text
from tenfold.validation import nearest

if TYPE_CHECKING:
    from optuna.trial import Trial

SHIPPED = "space.toml"
FORMS = "{low, high}, {low, high, log}, {low, high, step}, {choices}, {factor} or {times}"
_WORDS = {"low", "high", "log", "step", "choices", "factor", "times"}

FIXED = {
    "name": "is a name",
    "description": "is a description",
    "seed": "is luck, which is no setting",
    "data.name": "decides what is judged on",
    "data.split_seed": "decides what is judged on",
    "data.validation_size": "decides what is judged on",
    "data.test_size": "decides what is judged on",
    "training.early_stopping": "would choose an epoch by the accuracy that trials are compared by",
    "training.time_limit_seconds": "would make a trial's result depend on what else the machine "
    "does",
    "training.milestones": "changes nothing of what is trained",
}
"""Fields that are not searched, and why."""


@dataclass(frozen=True)
class Range:
    """What a field may be: numbers from `low` to `high`, or one of `choices`.

    log: spread evenly over the orders of magnitude. step: only `low`, `low + step` and so on.

    A trial's record keeps the place of a choice, not the choice: a sampler that knows of neighbours
    leaves the recipe's own choice far more often (in a simulation with a better choice beside it,
    30 trials found it in 84 of 100 searches, against 16 with categories).
    """

    key: str
    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    def suggest(self, trial: "Trial") -> Any:
        """The trial's value of this field, as a recipe has it."""
        low, high, step = int(self.low), int(self.high), int(self.step or 1)
        if self.kind == "choice":
            return self.restored(trial.suggest_int(self.key, 0, len(self.choices) - 1))
        if self.kind == "int":
            return trial.suggest_int(self.key, low, high, step=step, log=self.log)
        return self.restored(
            trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)
        )

    def restored(self, value: Any) -> Any:
        """A stored value as a recipe has it; a drawn number is cut to three digits that tell."""
        if self.kind == "choice":
            return self.choices[int(value)]
        if self.kind == "int":
            return int(value)
        if self.step is not None:
            return float(round(value, 10))
        if self.log:
            short = float(f"{value:.3g}")
        else:
            short = round(value, 2 - math.floor(math.log10(self.high - self.low)))
        return float(min(max(short, self.low), self.high))

    def stored(self, value: Any) -> Any:
        """How a trial's record keeps `value`; None where it is outside.

        No logarithmic range reaches 0, so its lowest value stands for it.
        """
        if self.kind == "choice":
            return self.choices.index(value) if value in self.choices else None
        if self.log and value == 0:
            return self.low
        steps = (value - self.low) / self.step if self.step else 0.0
        inside = self.low <= value <= self.high and abs(steps - round(steps)) < 1e-8
        return value if inside else None

    def edges(self) -> tuple[Any, ...]:
        """The values that are most likely to break a rule: the outermost, or every choice."""
        if self.kind == "choice":
            return self.choices
        return tuple(int(v) if self.kind == "int" else v for v in (self.low, self.high))

    def to_dict(self) -> dict[str, Any]:
        """The range as JSON values."""
        if self.kind == "choice":
            return {"key": self.key, "kind": self.kind, "choices": list(self.choices)}
        low, high = self.edges()
        step = int(self.step) if self.kind == "int" and self.step else self.step
        numbers = {"low": low, "high": high, "log": self.log, "step": step}
        return {"key": self.key, "kind": self.kind, **numbers}

    def to_spec(self) -> dict[str, Any]:
        """The range as the TOML file has it."""
        left_out = ("key", "kind", *(() if self.log else ("log",)))
        return {k: v for k, v in self.to_dict().items() if k not in left_out and v is not None}


Space = tuple[Range, ...]


def read_space(path: Path, recipe: Recipe) -> Space:
    """The ranges in the TOML file at `path`, for `recipe`.

    Raises TenfoldError, naming file and key, for a field that the recipe hasn't, for a range that
    is none, and for a value that the recipe's rules refuse.
    """
    if not path.is_file():
        raise TenfoldError(f"There is no file {path}; give --space a TOML file of ranges.")
    values = parse_toml(read_text(path), str(path))
    specs = _flat_specs(values, flatten(recipe.to_dict()), source=str(path))
    if not specs:
        raise TenfoldError(
            f'{path} has no ranges; write some, such as "optimizer.lr" = {{factor = 10.0}}.'
        )
    space = tuple(_parse_range(k, spec, recipe, source=str(path)) for k, spec in specs.items())
    _require_fitting(space, recipe, source=str(path))
    return space


def default_space(recipe: Recipe) -> Space:
    """The shipped ranges of the fields that `recipe` has."""
    text = (importlib.resources.files("tenfold.studies.search") / SHIPPED).read_text(
        encoding="utf-8"
    )
    values = parse_toml(text, SHIPPED)
    conditions = values.pop("when")
    for variant in (recipe.optimizer.name, recipe.schedule.name, recipe.model.name):
        values |= conditions.get(variant, {})
    fields = flatten(recipe.to_dict())
    space = []
    for key, spec in values.items():
        is_relative = not {"factor", "times"}.isdisjoint(spec)
        if key in fields and not (is_relative and fields[key] <= 0):
            chosen = _parse_range(key, spec, recipe, source=SHIPPED)
            if _fits(chosen, recipe):
                space.append(chosen)
    _require_fitting(space, recipe, source=SHIPPED)
    return tuple(space)


def with_values(recipe: Recipe, values: Mapping[str, Any], *, source: str = "recipe") -> Recipe:
    """`recipe` with the fields at dotted keys set.

    Another variant (`optimizer.name`) brings its own defaults with it. Raises TenfoldError where a
    value breaks the recipe's rules; source: how the sentence calls the place they came from.
    """
    tables = recipe.to_dict()
    for key in sorted(values, key=lambda key: not key.endswith(".name")):
        *path, field = key.split(".")
        table = tables
        for name in path:
            table = table[name]
        if path and field == "name" and table[field] != values[key]:
            table.clear()
        table[field] = values[key]
    return recipe_from_dict(tables, source=source)


def _flat_specs(
    values: Mapping[str, Any], fields: Mapping[str, Any], *, source: str, prefix: str = ""
) -> dict[str, Mapping[str, Any]]:
    """The ranges by dotted key, whether the file has quoted keys or nested tables."""
    specs: dict[str, Mapping[str, Any]] = {}
    for key, value in values.items():
        place = prefix + key
        if not isinstance(value, Mapping) or not value:
            raise TenfoldError(f"{source}: {place} must be a range, {FORMS}, not {value!r}.")
        is_table = place not in fields and _WORDS.isdisjoint(value)
        more: dict[str, Mapping[str, Any]] = {place: value}
        if is_table:
            more = _flat_specs(value, fields, source=source, prefix=f"{place}.")
        for twice in specs.keys() & more.keys():
            raise TenfoldError(f"{source}: {twice} has two ranges; leave one of them out.")
        specs |= more
    return specs


def _parse_range(key: str, spec: Mapping[str, Any], recipe: Recipe, *, source: str) -> Range:
    fields = flatten(recipe.to_dict())
    if key not in fields:
        raise TenfoldError(
            f"{source}: the recipe has no field {key!r}{nearest(key, fields)}; name one that it "
            "has, such as optimizer.lr."
        )
    if key in FIXED:
        raise TenfoldError(f"{source}: {key} {FIXED[key]}, so it is not searched; leave it out.")
    for word in spec:
        if word not in _WORDS:
            raise TenfoldError(
                f"{source}: {key} has an unknown word {word!r}{nearest(word, _WORDS)}; a range is "
                f"{FORMS}."
            )
    place = f"{source}: {key}"
    words = set(spec)
    if words == {"choices"}:
        return _choices(key, spec["choices"], place=place)
    if words == {"times"}:
        return _multiples(key, spec["times"], fields[key], place=place)
    if words == {"factor"}:
        return _around(key, spec["factor"], fields[key], place=place)
    if {"low", "high"} <= words <= {"low", "high", "log", "step"}:
        return _between(key, spec, fields[key], place=place)
    raise TenfoldError(f"{place} must be a range, {FORMS}, not {dict(spec)!r}.")


def _choices(key: str, values: Any, *, place: str) -> Range:
    texts = [json.dumps(value) for value in values] if isinstance(values, list) else []
    if len(set(texts)) < max(len(texts), 2):
        raise TenfoldError(
            f"{place}: choices must be a list of two or more different values, not {values!r}."
        )
    is_ordered = all(isinstance(value, int | float) for value in values)
    return Range(key, "choice", choices=tuple(sorted(values) if is_ordered else values))


def _multiples(key: str, multiples: Any, value: Any, *, place: str) -> Range:
    _require_positive(value, place=place)
    if not isinstance(multiples, list) or not all(_is_number(m) and m > 0 for m in multiples):
        raise TenfoldError(f"{place}: times must be a list of numbers above 0, not {multiples!r}.")
    scaled = [m * value for m in multiples]
    is_int = isinstance(value, int)
    values = [round(v) if is_int else float(f"{v:.6g}") for v in scaled]
    return _choices(key, list(dict.fromkeys(values)), place=place)


def _around(key: str, factor: Any, value: Any, *, place: str) -> Range:
    _require_positive(value, place=place)
    if not _is_number(factor) or factor <= 1:
        raise TenfoldError(f"{place}: factor must be a number above 1, not {factor!r}.")
    low, high = value / factor, value * factor
    if isinstance(value, int):
        return Range(key, "int", low=max(round(low), 1), high=round(high), log=True)
    return Range(key, "float", low=float(f"{low:.3g}"), high=float(f"{high:.3g}"), log=True)


def _between(key: str, spec: Mapping[str, Any], value: Any, *, place: str) -> Range:
    if not _is_number(value):
        raise TenfoldError(f"{place} is {value!r} in the recipe, not a number; give its choices.")
    low, high, log, step = (spec.get(word) for word in ("low", "high", "log", "step"))
    for word, number in (("low", low), ("high", high), ("step", step)):
        if number is not None and not (_is_number(number) and math.isfinite(number)):
            raise TenfoldError(f"{place}: {word} must be a number, not {number!r}.")
        if isinstance(value, int) and isinstance(number, float):
            raise TenfoldError(
                f"{place} is a whole number, so {word} must be one too, not {number!r}."
            )
    assert low is not None
    assert high is not None
    if not low < high:
        raise TenfoldError(f"{place}: low must be below high, and they are {low} and {high}.")
    if log not in (None, False, True):
        raise TenfoldError(f"{place}: log must be true or false, not {log!r}.")
    if log and (low <= 0 or step is not None):
        found = f"low is {low}" if low <= 0 else "there is a step"
        raise TenfoldError(f"{place}: log needs a low above 0 and no step, and {found}.")
    if step is not None:
        if not 0 < step <= high - low:
            raise TenfoldError(
                f"{place}: step must be above 0 and at most high less low, not {step}."
            )
        # Where the steps don't meet it, the last value is the one below `high`.
        high = round(low + step * math.floor((high - low) / step + 1e-9), 10)
    kind: Literal["int", "float"] = "int" if isinstance(value, int) else "float"
    return Range(key, kind, low=low, high=high, log=bool(log), step=step)


def _require_positive(value: Any, *, place: str) -> None:
    if not _is_number(value) or value <= 0:
        raise TenfoldError(
            f"{place} is {value!r} in the recipe, of which there are no multiples; give low and "
            "high, or choices."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fits(chosen: Range, recipe: Recipe) -> bool:
    try:
        _require_fitting([chosen], recipe, source="")
    except TenfoldError:
        return False
    return True


def _require_fitting(space: Sequence[Range], recipe: Recipe, *, source: str) -> None:
    """Raise TenfoldError where outermost values of one field or of two together break a rule."""
    alone = [({r.key: value},) for r in space for value in r.edges()]
    pairs = [
        tuple({r.key: value} for r, value in zip(two, values, strict=True))
        for two in itertools.combinations(space, 2)
        for values in itertools.product(*(r.edges() for r in two))
    ]
    for combination in (*alone, *pairs):
        values = {key: value for one in combination for key, value in one.items()}
        words = " and ".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
        with_values(recipe, values, source=f"{source}, {words}")
