"""The ranges that a search draws a recipe's fields from, read from TOML as strictly as recipes."""

import contextlib
import importlib.resources
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import Field, TypeAdapter, ValidationError, ValidationInfo, model_validator

from tenfold.errors import TenfoldError
from tenfold.own_parts import code_of_run, is_own, recipe_in
from tenfold.recipe import Recipe, recipe_from_dict
from tenfold.recipe.dotted import flatten
from tenfold.recipe.load import parse_toml, read_text, with_keys
from tenfold.registry import Options, PartOptions
from tenfold.results.searches import Setting
from tenfold.validation import bounds_of, expected, nearest, sentence_of

SHIPPED = "space.toml"
FORMS = "{low, high}, {low, high, log}, {low, high, step}, {choices}, {factor} or {times}"
Above0 = Annotated[float, Field(gt=0)]

FIXED = {
    "name": "is a name",
    "description": "is a description",
    "seed": "is luck, which is no setting",
    "data.name": "decides what is judged on",
    "data.split_seed": "decides what is judged on",
    "data.validation_size": "decides what is judged on",
    "data.test_size": "decides what is judged on",
    "training.early_stopping": "would choose an epoch by the accuracy that trials are compared by",
    "training.time_limit_seconds": "would make a result depend on what else the machine does",
    "training.milestones": "changes nothing of what is trained",
}
"""Fields that are not searched, and why."""


Space = tuple[Setting, ...]


class Spec(Options):
    """A range as it is written, in one of FORMS, for a field that has the value of the context."""

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: Above0 | None = None
    choices: Sequence[Any] = ()
    factor: Annotated[float, Field(gt=1)] = 2.0
    times: Sequence[Above0] = ()

    @model_validator(mode="after")
    def _has_a_form(self, info: ValidationInfo) -> Self:
        words, found = self.model_fields_set, self.choices or self.times
        between = {"low", "high"} <= words <= {"low", "high", "log", "step"}
        if not between and words not in ({"choices"}, {"factor"}, {"times"}):
            raise expected(f"a range, {FORMS}")
        differ = len(set(map(json.dumps, found))) == len(found) > 1
        if words in ({"choices"}, {"times"}) and not differ:
            raise expected("a list of two or more different values", key=min(words), found=found)
        value: Any = info.context
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if words != {"choices"} and not (is_number and (between or value > 0)):
            other = "low and high, or choices" if is_number else "choices"
            raise expected(f"given by {other}, since the recipe has {value!r}")
        return self

    @model_validator(mode="after")
    def _is_in_order(self, info: ValidationInfo) -> Self:
        for key in self.model_fields_set & {"low", "high", "step"}:
            if isinstance(info.context, int) and getattr(self, key) % 1:
                raise expected("a whole number, as the field is", key=key, found=getattr(self, key))
        if "low" in self.model_fields_set and not self.low < self.high:
            raise expected(f"below high, which is {self.high:g}", key="low", found=self.low)
        if self.log and (self.low <= 0 or self.step):
            raise expected("false unless low is above 0 and without a step", key="log", found=True)
        if self.step and self.step > self.high - self.low:
            raise expected("at most high less low", key="step", found=self.step)
        return self

    def of(self, key: str, value: Any) -> Setting:
        """The range of the field `key`, which has `value` in the recipe."""
        number = round if isinstance(value, int) else float
        kind = "int" if isinstance(value, int) else "float"
        if choices := self.choices or {number(float(f"{m * value:.6g}")) for m in self.times}:
            is_ordered = all(isinstance(each, int | float) for each in choices)
            ordered = sorted(choices) if is_ordered else choices
            return Setting(key=key, kind="choice", choices=tuple(ordered))
        low, high, log, step = self.low, self.high, self.log, self.step
        if "factor" in self.model_fields_set:
            low, high, log = value / self.factor, value * self.factor, True
            if kind == "int":
                low = max(round(low), 1)
            else:
                low, high = float(f"{low:.3g}"), float(f"{high:.3g}")
        if step is not None:
            # Where the steps don't meet it, the last value is the one below `high`.
            high = round(low + step * math.floor((high - low) / step + 1e-9), 10)
            step = number(step)
        return Setting(key=key, kind=kind, low=number(low), high=number(high), log=log, step=step)


_SPECS = TypeAdapter(dict[str, Spec])


def in_its_folder(source: str) -> contextlib.AbstractContextManager[None]:
    """Within this, files of parts are found as seen from the recipe `source`, as when it was read.

    source: the name or path that the recipe was given by.
    """
    path = Path(source)
    return code_of_run(path.parent) if path.suffix == ".json" else recipe_in(path.parent)


def read_space(path: Path, recipe: Recipe) -> Space:
    """The ranges in the TOML file at `path`, for `recipe`.

    Raises TenfoldError, naming file and key, for a field that the recipe hasn't, for a range that
    is none, and for a value that the recipe's rules refuse.
    """
    if not path.is_file():
        raise TenfoldError(f"There is no file {path}; give --space a TOML file of ranges.")
    values = parse_toml(read_text(path), str(path))
    fields = flatten(recipe.to_dict())
    specs: dict[str, Any] = {}  # By dotted key, whether those are quoted or nested tables.
    for place, value in flatten(values).items():
        key, _, word = place.rpartition(".")
        if place in fields:
            specs[place] = value
        else:
            specs.setdefault(key or place, {})[word] = value
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
    values |= dict(_of_signatures(recipe))
    fields = flatten(recipe.to_dict())
    space = []
    for key, spec in values.items():
        if key in fields and not ({"factor", "times"} & spec.keys() and fields[key] <= 0):
            chosen = _parse_range(key, spec, recipe, source=SHIPPED)
            with contextlib.suppress(TenfoldError):
                _require_fitting([chosen], recipe, source="")
                space.append(chosen)
    _require_fitting(space, recipe, source=SHIPPED)
    return tuple(space)


def with_values(
    recipe: Recipe | Mapping[str, Any], values: Mapping[str, Any], *, source: str = "recipe"
) -> Recipe:
    """`recipe` with the fields at dotted keys set.

    Another variant (`optimizer.name`) brings its own defaults with it. Raises TenfoldError where a
    value breaks the recipe's rules; source: how the sentence calls the place they came from.
    """
    before = recipe.to_dict() if isinstance(recipe, Recipe) else recipe
    changes = [(key.split("."), value) for key, value in values.items()]
    return recipe_from_dict(with_keys(before, changes), source=source)


def _parse_range(key: str, spec: Any, recipe: Recipe, *, source: str) -> Setting:
    fields = flatten(recipe.to_dict())
    if key not in fields:
        raise TenfoldError(
            f"{source}: the recipe has no field {key!r}{nearest(key, fields)}; name one that it "
            "has, such as optimizer.lr."
        )
    if key in FIXED:
        raise TenfoldError(f"{source}: {key} {FIXED[key]}, so it is not searched; leave it out.")
    try:
        found = _SPECS.validate_python({key: spec}, context=fields[key])[key]
    except ValidationError as error:
        raise TenfoldError(sentence_of(error, source, kind=dict[str, Spec])) from None
    return found.of(key, fields[key])


def _of_signatures(recipe: Recipe) -> Iterator[tuple[str, dict[str, Any]]]:
    """The ranges of options that the signatures of parts of one's own give."""
    for table, part in recipe:
        own = isinstance(part, PartOptions) and is_own(part.name)
        for key, field in type(part).model_fields.items() if own else ():
            bounds, kind = bounds_of(field), field.annotation
            if get_origin(kind) is Literal and key != "name":
                yield f"{table}.{key}", {"choices": list(get_args(kind))}
            elif kind is bool:
                yield f"{table}.{key}", {"choices": [False, True]}
            elif len(bounds) == 2 and kind in (int, float):
                low: Any = bounds.get("ge", bounds.get("gt"))
                high: Any = bounds.get("le", bounds.get("lt"))
                inset = 1 if kind is int else (high - low) / 100  # From an open end.
                low, high = low + inset * ("gt" in bounds), high - inset * ("lt" in bounds)
                yield f"{table}.{key}", {"low": low, "high": high, "log": 0 < 100 * low <= high}


def _require_fitting(space: Sequence[Setting], recipe: Recipe, *, source: str) -> None:
    """Raise TenfoldError where outermost values of one field or of two together break a rule."""
    for some in (*itertools.combinations(space, 1), *itertools.combinations(space, 2)):
        for edges in itertools.product(*(each.edges for each in some)):
            values = {each.key: value for each, value in zip(some, edges, strict=True)}
            words = " and ".join(f"{key} = {json.dumps(v)}" for key, v in values.items())
            with_values(recipe, values, source=f"{source}, {words}")
