"""What pydantic refuses, in one sentence that names the file, the field and the nearest match."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "a string",
    "tuple": "a list",
    "list": "a list",
    "dict": "a table",
    "model": "a table",
    "mapping": "a table",
    "too_short": "at least {min_length} long",
    "too_long": "at most {max_length} long",
}
_BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
_LONGEST_VALUE = 80


def sentence_of(
    error: ValidationError,
    source: str | Path,
    *,
    kind: Any = None,
    options_of: Callable[[tuple[int | str, ...]], Any] | None = None,
    elsewhere: Mapping[str, Iterable[str]] | None = None,
    remedy: str = "",
) -> str:
    """The first thing that `error` complains of, such as `x.toml: seed must be at least 0, not -1`.

    source: how to call the file. kind: the model that was validated, from which the keys of an
    unknown key's table are known, and which parts of a place are tags of a union. options_of:
    gives the model of the table at a place that names a part. elsewhere: the tables in which a key
    may be that is unknown where it stands. remedy: what to do, where it isn't to correct the value.
    """
    details = error.errors(include_url=False)
    # A key that is misspelt is missing too.
    detail = next((each for each in details if each["type"] == "extra_forbidden"), details[0])
    place, table = _place(kind, detail["loc"], options_of)
    end = f"; {remedy}." if remedy else "."
    if detail["type"] == "unusable":
        return (
            f"{source}: {place}.name {detail['ctx']['name']} can't be used: {detail['ctx']['why']}."
        )
    if detail["type"] == "expected":
        place = ".".join(filter(None, (place, detail["ctx"]["key"])))
    if detail["type"] == "missing" and isinstance(detail["loc"][-1], int):
        place = place.rpartition("[")[0]
        return f"{source}: {place} must be a longer list, not {_found(detail)}."
    if detail["type"] == "missing":
        return f"{source}: {place} is missing; {remedy or 'say what it is'}."
    if detail["type"] == "extra_forbidden":
        keys = [field.alias or name for name, field in getattr(table, "model_fields", {}).items()]
        known = f"; the keys here are {', '.join(keys)}" if keys else "; leave it out"
        hint = _nearest_key(str(detail["loc"][-1]), keys, place, elsewhere or {})
        return f"{source}: unknown key {place!r}{hint}{known}."
    if detail["type"].startswith("union_tag"):
        place = f"{place}.{detail['ctx']['discriminator'].strip(chr(39))}".removeprefix(".")
    subject = f"{place} must" if place else "the whole must"
    wanted = _range_of(table, detail) or _expected(detail)
    return f"{source}: {subject} be {wanted}, not {_found(detail)}{end}"


def nearest(word: str, words: Iterable[str]) -> str:
    """` (did you mean 'x'?)` with the one of `words` that is most like `word`, or nothing."""
    matches = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def _nearest_key(
    key: str, keys: Sequence[str], place: str, elsewhere: Mapping[str, Iterable[str]]
) -> str:
    """The key that is meant: one of another table that has this very name, or the most similar."""
    own = place.rpartition(".")[0]
    others = {
        name: f"{table}.{name}".removeprefix(".")
        for name, tables in elsewhere.items()
        if own not in tables
        for table in tables
    }
    if key not in others and (hint := nearest(key, keys)):
        return hint
    matches = difflib.get_close_matches(key, others, n=1)
    return f" (did you mean {others[matches[0]]!r}?)" if matches else ""


def _range_of(table: Any, detail: ErrorDetails) -> str:
    """Both bounds of a number that broke one, in words."""
    field = getattr(table, "model_fields", {}).get(detail["loc"][-1]) if detail["loc"] else None
    if detail["type"] not in _BOUNDS or field is None:
        return ""
    match bounds_of(field):
        case {"ge": low, "le": high}:
            return f"from {low:,} to {high:,}"
        case {"ge": low, "lt": high}:
            return f"from {low:,} to below {high:,}"
        case {"gt": low, "le": high}:
            return f"above {low:,} and at most {high:,}"
        case {"ge": low}:
            return f"{low:,} or more"
        case {"gt": low}:
            return f"more than {low:,}"
    return ""


def bounds_of(field: FieldInfo) -> dict[str, Any]:
    """The limits of a number, by `gt`, `ge`, `lt` and `le`."""
    keys = ("gt", "ge", "lt", "le")
    return {k: getattr(each, k) for each in field.metadata for k in keys if hasattr(each, k)}


def _expected(detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "expected":
        return str(context["words"])
    if kind == "value_error":
        return str(context["error"])
    if kind in ("literal_error", "union_tag_invalid", "union_tag_not_found"):
        listed = str(context.get("expected") or context.get("expected_tags", "its names"))
        words = listed.replace("'", "").replace(" or ", ", ").split(", ")
        return f"one of {', '.join(words)}{nearest(_found(detail).strip(chr(39)), words)}"
    if (said := _EXPECTED.get(kind) or _EXPECTED.get(kind.partition("_")[0])) is not None:
        return said.format(**context)
    return detail["msg"].removeprefix("Input should be ")


def _found(detail: ErrorDetails) -> str:
    value = detail["input"]
    if detail["type"] == "expected" and detail["ctx"]["key"]:
        value = detail["ctx"]["found"]
    if detail["type"].startswith("union_tag") and isinstance(value, dict):
        value = value.get(detail["ctx"]["discriminator"].strip("'"))
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _place(
    kind: Any,
    location: tuple[int | str, ...],
    options_of: Callable[[tuple[int | str, ...]], Any] | None,
) -> tuple[str, Any]:
    """`location` as `a.b[0]`, and the model whose key its last part is."""
    path, table = "", None
    for number, part in enumerate(location, 1):
        kinds = _alternatives(kind)
        tagged = next((each for each in kinds if len(kinds) > 1 and _tag(each, part)), None)
        if tagged is not None:
            kind = tagged
            continue
        table = next((each for each in kinds if hasattr(each, "model_fields")), None)
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
        if table is not None and isinstance(part, str):
            field = table.model_fields.get(part)
            kind = field.annotation if field else None
        else:
            inner = ([a for a in get_args(each) if a is not Ellipsis] for each in kinds)
            items = [args[-1] for args in inner if args]
            kind = items[0] if items else None
        names = any(getattr(each, "names_a_part", False) for each in _alternatives(kind))
        if names and options_of is not None and number < len(location):
            kind = options_of(location[:number])
    return path.removeprefix("."), table


def _alternatives(kind: Any) -> list[Any]:
    """The types of a union without None, or `kind` alone."""
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        inner = (each for arg in get_args(kind) for each in _alternatives(arg))
        return [each for each in inner if each is not type(None)]
    return [kind]


def _tag(kind: Any, part: int | str) -> bool:
    """Whether `part` is how pydantic calls the variant `kind` of a union."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return False
    literals = (field.annotation for field in kind.model_fields.values())
    tags = [arg for each in literals if get_origin(each) is Literal for arg in get_args(each)]
    return part == kind.__name__ or (part in tags and part not in kind.model_fields)


def unusable(name: str, why: str) -> PydanticCustomError:
    """The error where somebody's own part can't be had."""
    return PydanticCustomError(
        "unusable", "{name} can't be used: {why}.", {"name": name, "why": why}
    )


def expected(words: str, *, key: str = "", found: Any = None) -> PydanticCustomError:
    """An error that says what `key` of the table in hand must be; for validators."""
    context = {"words": words, "key": key, "found": found}
    return PydanticCustomError("expected", "must be {words}", context)
