"""Recipes from TOML files, run folders and overrides; anything that doesn't fit is an error.

An unknown key, a wrong type or an impossible value is named with its file, its key and the
nearest match. There are no includes and no interpolation.
"""

import difflib
import importlib.resources
import itertools
import re
import sys
import tomllib
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tenfold.errors import TenfoldError
from tenfold.files import read_json
from tenfold.recipe.rules import broken_rule
from tenfold.recipe.schema import PretrainedOptions, Recipe
from tenfold.validation import nearest


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A shipped recipe by name, or one from a `.toml` file or a run's `recipe.json`.

    overrides: `key=value` with dotted keys, such as `optimizer.lr=0.1`; values are written as in
    TOML, and a bare word is a string. Raises TenfoldError for anything that doesn't fit.
    """
    path = Path(name_or_path)
    shipped = shipped_recipes()
    if str(name_or_path) in shipped:
        source, text = f"{name_or_path}.toml", shipped[str(name_or_path)]
        values, name = parse_toml(text, source), str(name_or_path)
    elif path.suffix == ".toml" and path.is_file():
        source, name = str(path), path.stem
        values = parse_toml(read_text(path), source)
    elif path.suffix == ".json" and path.is_file():
        source, name = str(path), path.stem
        values = read_json(path)
    else:
        known = ", ".join(sorted(shipped))
        given = str(name_or_path)
        wanted = "check the path, or name" if path.suffix == ".toml" else "give a .toml file, or"
        raise TenfoldError(
            f"There is no recipe {given!r}{nearest(given, shipped)}; {wanted} one of: {known}."
        )
    if not isinstance(values, dict):
        raise TenfoldError(f"{source} must hold a table of recipe fields.")
    values.setdefault("name", name)
    return recipe_from_dict(apply_overrides(values, overrides), source=source)


def shipped_recipes() -> dict[str, str]:
    """The text of every recipe that comes with tenfold, by name."""
    folder = importlib.resources.files("tenfold") / "recipes"
    return {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    }


def read_header(text: str) -> dict[str, str]:
    """What the header of a shipped recipe's `text` states: command, machine, time and so on.

    Those are comments of the form `#   measured   80.9 % on test`.
    """
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    facts = (re.fullmatch(r"# {3}(\w+) +(.+)", line) for line in lines)
    return {fact[1]: fact[2] for fact in facts if fact}


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of nested `values` with `key=value` overrides set.

    Choosing another variant (`optimizer.name=adamw`) drops the table's other keys, which belonged
    to the old one; overrides of the new one's fields may stand before or after it. So does another
    `data.normalisation` with the mean and deviation that were given.
    """
    result = {
        key: dict(value) if isinstance(value, dict) else value for key, value in values.items()
    }
    parsed = [_parse_override(override) for override in overrides]
    first = ("name", "normalisation")
    for keys, value in sorted(parsed, key=lambda item: item[0][-1] not in first):
        table = result
        for key in keys[:-1]:
            inner = table.setdefault(key, {})
            if not isinstance(inner, dict):
                raise TenfoldError(f"--set {'.'.join(keys)}: {key} is a value, not a table.")
            table = inner
        if (
            keys[-1] == "name"
            and len(keys) > 1
            and keys[0] != "data"
            and table.get("name", _default_tag(keys[0])) != value
        ):
            table.clear()
        if keys == ["data", "normalisation"] and table.get("normalisation") != value:
            table.pop("mean", None)
            table.pop("std", None)
        table[keys[-1]] = value
    changed = {".".join(keys) for keys, _ in parsed}
    if "training.epochs" in changed and "training.milestones" not in changed:
        _drop_later_milestones(result["training"])
    return result


def _drop_later_milestones(training: dict[str, Any]) -> None:
    """Let a recipe's own milestones be no hindrance to fewer epochs."""
    last, milestones = training["epochs"], training.get("milestones")
    if isinstance(last, int) and isinstance(milestones, list | tuple):
        within = [epoch for epoch in milestones if not (isinstance(epoch, int) and epoch > last)]
        training["milestones"] = within


def recipe_from_dict(values: Mapping[str, Any], *, source: str = "recipe") -> Recipe:
    """The recipe that nested plain values describe; missing fields take their defaults.

    source: how errors call the place that the values came from.
    """
    recipe: Recipe = build(Recipe, values, source=source, path="")
    if (broken := broken_rule(recipe)) is not None:
        found: Any = recipe
        for key, place in re.findall(r"(\w+)(?:\[(\d+)\])?", broken.path):
            found = getattr(found, key)
            found = found[int(place)] if place else found
        if isinstance(found, tuple) and any(map(is_dataclass, found)):
            found = f"{len(found)} of them"
        raise _wrong(source, broken.path, broken.expected, found)
    return recipe


def without_places(recipe: Recipe) -> Recipe:
    """`recipe` to give away: of the files and folders in it no more than their names."""
    data, model = recipe.data, recipe.model
    data = replace(data, name=Path(data.name).resolve().name or data.name)
    if isinstance(model, PretrainedOptions):
        model = replace(model, weights=Path(model.weights).name)
    return replace(recipe, data=data, model=model)


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


def build(kind: Any, value: Any, *, source: str, path: str = "") -> Any:
    """A plain `value` as the annotated type `kind`, strictly; dataclasses are tables.

    source, path: how errors call the file and the place in it. Raises TenfoldError for an unknown
    key, a missing one that has no default, and a value of another type.
    """
    if is_dataclass(kind):
        return _build_dataclass(kind, value, source=source, path=path)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _build_variant(get_args(kind), value, source=source, path=path)
    if origin is Literal:
        choices = get_args(kind)
        if value not in choices:
            expected = f"one of {', '.join(map(str, choices))}{nearest(str(value), choices)}"
            raise _wrong(source, path, expected, value)
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _wrong(source, path, "a list", value)
        item = get_args(kind)[0]
        return tuple(
            build(item, v, source=source, path=f"{path}[{i}]") for i, v in enumerate(value)
        )
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= sys.float_info.max:
            raise _wrong(source, path, "a finite number", value)
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
        raise _wrong(source, path, words[kind], value)
    return value


def _build_dataclass(kind: Any, value: Any, *, source: str, path: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(source, path, "a table", value)
    hints = get_type_hints(kind)
    for key in value:
        if key not in hints:
            place = f"{path}.{key}" if path else key
            hint = _elsewhere(kind, str(key)) or nearest(str(key), hints)
            hint = hint or _elsewhere(kind, str(key), cutoff=0.6)
            raise TenfoldError(
                f"{source}: unknown key {place!r}{hint}; the keys here are {', '.join(hints)}."
            )
    prefix = f"{path}." if path else ""
    for field in fields(kind):
        has_default = field.default is not MISSING or field.default_factory is not MISSING
        if not has_default and field.name not in value:
            raise TenfoldError(f"{source}: {prefix}{field.name} is missing; say what it is.")
    return kind(
        **{k: build(hints[k], v, source=source, path=f"{prefix}{k}") for k, v in value.items()}
    )


def _elsewhere(kind: Any, key: str, *, cutoff: float = 1.0) -> str:
    """As `nearest`, among the keys of the recipe's other tables, if `kind` is one of a recipe's."""
    tables = {"": {Recipe}} | {
        name: {each for each in get_args(hint) or (hint,) if is_dataclass(each)}
        for name, hint in get_type_hints(Recipe).items()
        if get_origin(hint) is not tuple
    }
    if not any(kind in kinds for kinds in tables.values()):
        return ""
    keys = {
        field.name: f"{table}.{field.name}" if table else field.name
        for table, kinds in tables.items()
        for each in kinds - {Recipe}
        for field in fields(each)
        if kind not in kinds and field.name != "name"
    }
    matches = difflib.get_close_matches(key, keys, n=1, cutoff=cutoff)
    return f" (did you mean {keys[matches[0]]!r}?)" if matches else ""


def _build_variant(variants: Sequence[Any], value: Any, *, source: str, path: str) -> Any:
    """A union of dataclasses, told apart by their `name`."""
    if not isinstance(value, Mapping):
        raise _wrong(source, path, "a table", value)
    tags = {get_args(get_type_hints(variant)["name"])[0]: variant for variant in variants}
    tag = value.get("name", _default_tag(path))
    if not isinstance(tag, str) or tag not in tags:
        expected = f"one of {', '.join(tags)}{nearest(str(tag), tags)}"
        raise _wrong(source, f"{path}.name", expected, tag)
    return _build_dataclass(tags[tag], value, source=source, path=path)


def _default_tag(section: str) -> str | None:
    """The `name` of the variant that a section has where nothing is said."""
    default = {f.name: f.default_factory for f in fields(Recipe)}.get(section)
    return getattr(default(), "name", None) if callable(default) else None


def _wrong(source: str, path: str, expected: str, found: Any) -> TenfoldError:
    return TenfoldError(f"{source}: {path} must be {expected}, not {found!r}.")
