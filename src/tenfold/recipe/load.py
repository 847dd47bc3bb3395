"""Recipes from TOML files, run folders and overrides; anything that doesn't fit is an error.

An unknown key, a wrong type or an impossible value is named with its file, its key and the
nearest match. There are no includes and no interpolation.
"""

import contextlib
import importlib.resources
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tenfold.errors import TenfoldError
from tenfold.files import read_json
from tenfold.own_parts import code_of_run, recipe_in
from tenfold.recipe.models import DEFAULTS, KINDS, Recipe
from tenfold.registry import SHIPPED, Options, PartOptions, find_part, frozen
from tenfold.validation import nearest, sentence_of

M = TypeVar("M", bound=Options)


def load_recipe(
    recipe: str | Path | Recipe | None, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> Recipe:
    """A shipped recipe by name, or one from a `.toml` file or a run's `recipe.json`, changed; None
    stands for the defaults of every field.

    overrides: `key=value` with dotted keys, such as `optimizer.lr=0.1`, values written as in TOML
    and a bare word being a string; or a mapping of such keys. A description of the recipe as it was
    is dropped where they change more than its name and seed. Raises TenfoldError for anything that
    doesn't fit.

    >>> load_recipe("cnn", {"training.epochs": 3, "optimizer.lr": 0.01}).training.epochs
    3
    """
    came_with: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if recipe is None:
        values, source = _overridden({}, overrides), "--set"
        network = str(values.get("model", {}).get("name", "custom"))
        return recipe_from_dict({"name": network.rpartition(":")[2]} | values, source=source)
    if isinstance(recipe, Recipe):
        values, source = recipe.to_dict(), f"recipe {recipe.name}"
    else:
        path = Path(recipe)
        values, source = _read_values(path, str(recipe))
        values.setdefault("name", path.stem)
        is_of_run = path.suffix == ".json"
        came_with = code_of_run(path.parent) if is_of_run else recipe_in(path.parent)
    with came_with:
        return recipe_from_dict(_overridden(values, overrides), source=source)


def _read_values(path: Path, given: str) -> tuple[dict[str, Any], str]:
    """The tables of the recipe that `given` names, and what errors call the place."""
    shipped = shipped_recipes()
    if given in shipped:
        return parse_toml(shipped[given], f"{given}.toml"), f"{given}.toml"
    if path.suffix == ".toml" and path.is_file():
        return parse_toml(read_text(path), given), given
    if path.suffix == ".json" and path.is_file():
        values = read_json(path)
        if not isinstance(values, dict):
            raise TenfoldError(f"{given} must hold a table of recipe fields.")
        return values, given
    raise TenfoldError(
        f"There is no recipe {given!r}{nearest(given, shipped)}; check the path of a .toml file, "
        f"or name one of: {', '.join(shipped)}."
    )


def require_effect(recipe: Recipe, **changed: float | None) -> None:
    """Raise TenfoldError where every stage of `recipe` overrules what was changed in it for all."""
    for name, value in changed.items():
        own = [getattr(stage, name) for stage in recipe.stages]
        if value is not None and own and all(own):
            raise TenfoldError(
                f"Each stage of {recipe.name} has {name} of its own, so another {name} for all "
                "would change nothing; change them in a copy of the recipe."
            )


def shipped_recipes() -> dict[str, str]:
    """The text of every recipe that comes with tenfold, by name."""
    folder = importlib.resources.files("tenfold") / "recipes"
    files = [entry for entry in folder.iterdir() if entry.name.endswith(".toml")]
    texts = {e.name.removesuffix(".toml"): e.read_text(encoding="utf-8") for e in files}
    return dict(sorted(texts.items()))


def _overridden(
    values: Mapping[str, Any], overrides: Iterable[str] | Mapping[str, Any]
) -> dict[str, Any]:
    if isinstance(overrides, Mapping):
        changes = [(key.split("."), value) for key, value in overrides.items()]
    else:
        changes = list(map(_parse_override, overrides))
    others = [change for change in changes if change[0] not in (["name"], ["seed"])]
    as_it_was = with_keys(values, others) == values
    return with_keys({**values, **({} if as_it_was else {"description": ""})}, changes)


def with_keys(
    values: Mapping[str, Any], changes: Sequence[tuple[list[str], Any]]
) -> dict[str, Any]:
    """A copy of nested `values` with the value at each path of keys set.

    Choosing another variant (`optimizer.name=adamw`) drops the table's other keys, which belonged
    to the old one; the new one's fields may be set before or after it. So does another
    `data.normalisation` with the mean and deviation that were given, and fewer epochs with the
    milestones after them.
    """
    result = {
        key: dict(value) if isinstance(value, dict) else value for key, value in values.items()
    }
    first = ("name", "normalisation")
    for keys, value in sorted(changes, key=lambda item: item[0][-1] not in first):
        table = result
        for key in keys[:-1]:
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                raise TenfoldError(f"--set {'.'.join(keys)}: {key} is a value, not a table.")
        *place, last = keys
        is_variant = last == "name" and place and place[0] != "data"
        if is_variant and table.get("name", DEFAULTS.get(place[0])) != value:
            table.clear()
        if keys == ["data", "normalisation"] and table.get("normalisation") != value:
            table.pop("mean", None)
            table.pop("std", None)
        table[last] = value
    changed = {".".join(keys) for keys, _ in changes}
    if "training.epochs" in changed and "training.milestones" not in changed:
        epochs, milestones = map(result["training"].get, ("epochs", "milestones"))
        if isinstance(epochs, int) and isinstance(milestones, list | tuple):
            within = [n for n in milestones if not (isinstance(n, int) and n > epochs)]
            result["training"]["milestones"] = within
    return result


def from_keywords(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys of Python's keywords, `optimizer__lr` being `optimizer.lr`; NumPy's numbers as
    Python's."""
    return {
        key.replace("__", "."): value.tolist() if hasattr(value, "tolist") else value
        for key, value in keywords.items()
    }


def recipe_from_dict(values: Mapping[str, Any], *, source: str = "recipe") -> Recipe:
    """The recipe that nested plain values describe; missing fields take their defaults.

    source: how errors call the place that the values came from. Raises TenfoldError for whatever
    doesn't fit.
    """
    return checked(Recipe, values, source=source)


def checked(kind: type[M], values: Any, *, source: str) -> M:
    """Plain `values`, such as those of a TOML file, as the model `kind`.

    Raises TenfoldError with a sentence that names `source`, the key and the nearest match.
    """
    values = frozen(values)

    def options_of(location: tuple[int | str, ...]) -> type[PartOptions]:
        table, found = str(location[-1]), values
        for key in location:
            found = found[key]
        name = found.get("name", DEFAULTS.get(table))
        return find_part(KINDS.get(table, "augmentation"), name).options

    try:
        return kind.model_validate(values)
    except ValidationError as error:
        elsewhere = _places() if kind is Recipe else {}
        sentence = sentence_of(error, source, kind=kind, options_of=options_of, elsewhere=elsewhere)
        raise TenfoldError(sentence) from None


def _places() -> dict[str, set[str]]:
    """Every key of a recipe, with the tables that may have it."""
    tables: dict[str, list[type[Options]]] = {"": [Recipe]}
    for name, field in Recipe.model_fields.items():
        if name in KINDS:
            kind = KINDS[name]
            tables[name] = [find_part(kind, part).options for part in SHIPPED[kind]]
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Options):
            tables[name] = [field.annotation]
    found: dict[str, set[str]] = {}
    for table, kinds in tables.items():
        for key in {key for kind in kinds for key in kind.model_fields} - {"name"}:
            found.setdefault(key, set()).add(table)
    return found


def without_places(recipe: Recipe) -> Recipe:
    """`recipe` to give away: of the files and folders in it no more than their names."""
    data, model, taught = recipe.data, recipe.model, recipe.distillation
    if not data.name.startswith("hf:"):
        data = data.but(name=Path(data.name).resolve().name or data.name)
    if model.name == "pretrained":
        model = model.but(weights=Path(model.weights).name)
    recipe = recipe.but(
        data=data,
        model=model,
        distillation=taught.but(teacher=Path(taught.teacher).name),
        augmentation=recipe.augmentation.but(also=tuple(map(_by_file, recipe.augmentation.also))),
    )
    return recipe.but(**{table: _by_file(getattr(recipe, table)) for table in KINDS})


def _by_file(part: PartOptions) -> PartOptions:
    return part if part.part.code is None else part.but(name=Path(part.name).name)


def read_text(path: Path) -> str:
    """The text of a TOML file. Raises TenfoldError where it can't be read as UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")  # Windows editors put a mark at the start.
    except (OSError, UnicodeDecodeError) as error:
        raise TenfoldError(f"{path} can't be read ({error}); save it as UTF-8 text.") from error


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """The tables of `text`. Raises TenfoldError, naming `source`, where it is no TOML."""
    # Bytes of a path that are no UTF-8, as `files.write_text` has written them.
    text = re.sub(r"(?<!\\)\\u(d[c-f][0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"at line (\d+)", str(error))
        line = text.splitlines()[int(place[1]) - 1] if place else ""
        hint = ""
        if re.search(r"\"(\w:)?\\", line):
            hint = "; put a Windows path into single quotes, or write / for each backslash"
        raise TenfoldError(f"{source} is not valid TOML: {error}{hint}.") from error


def _parse_override(override: str) -> tuple[list[str], Any]:
    key, equals, text = override.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise TenfoldError(
            f"--set {override!r} must have the form key=value, such as optimizer.lr=0.1."
        )
    try:
        return keys, tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return keys, text.strip()
