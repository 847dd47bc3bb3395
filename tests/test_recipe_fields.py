"""No dead options: every field of a recipe is read by the code, and set by a recipe or a test."""

import ast
import contextlib
import inspect
import itertools
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

import pytest

import tenfold
from tenfold.recipe import Recipe, StageOptions, TrainingOptions, load_recipe, shipped_recipes
from tenfold.recipe.models import KINDS
from tenfold.registry import SHIPPED, PartOptions, find_part

SOURCES = Path(tenfold.__file__).parent
TESTS = Path(__file__).parent


def tables_of(name: str, annotation: Any) -> tuple[type, ...]:
    """The models of a table of the recipe: of every part that it can name, if it names one."""
    if name in KINDS:
        return tuple(find_part(KINDS[name], part).options for part in SHIPPED[KINDS[name]])
    kind = get_args(annotation)[0] if get_origin(annotation) is tuple else annotation
    return (kind,) if hasattr(kind, "model_fields") else ()


SECTIONS = {
    name: tables
    for name, field in Recipe.model_fields.items()
    if (tables := tables_of(name, field.annotation))
}
FIELDS = [
    pytest.param(kind, field, id=f"{kind.__name__}.{field}")
    for kinds in SECTIONS.values()
    for kind in kinds
    for field in kind.model_fields
    if not (field == "name" and issubclass(kind, PartOptions))
]


# -- read by the code ----------------------------------------------------------------------------


def attributes_read() -> set[str]:
    """Every attribute that the code reads, except where recipes are defined and checked."""
    return {
        node.attr
        for path in SOURCES.rglob("*.py")
        if path != SOURCES / "recipe" / "models.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def parameters_used(call: Any) -> set[str]:
    """The parameters of a function, or of a class's `__init__`, that its body reads."""
    call = call.__init__ if inspect.isclass(call) else call
    [function] = ast.parse(textwrap.dedent(inspect.getsource(call))).body
    assert isinstance(function, ast.FunctionDef)
    names = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
    body = [node for statement in function.body for node in ast.walk(statement)]
    return {node.id for node in body if isinstance(node, ast.Name) and node.id in names}


READ = attributes_read()


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_every_field_is_read(kind: type, field: str) -> None:
    used = parameters_used(kind.part.call) if issubclass(kind, PartOptions) else READ
    assert field in used


# -- set by a recipe or a test -------------------------------------------------------------------


class Setting(NamedTuple):
    """A field that something sets."""

    kind: type
    field: str


FLAGS = {"--time": Setting(TrainingOptions, "time_limit_seconds")}
"""Flags of the command line that stand for a field."""


def settings_in_shipped_recipes() -> Iterator[Setting]:
    for name in shipped_recipes():
        recipe = load_recipe(name)
        for section, kinds in SECTIONS.items():
            found = getattr(recipe, section)
            for options in found if isinstance(found, tuple) else (found,):
                for kind in kinds:
                    if type(options) is kind:
                        yield from _differences(kind, dict(options))


def settings_in_tests() -> Iterator[Setting]:
    """From calls of the options classes, flags, `section.key=value`, TOML and nested dicts.

    Tests of the recipe itself don't count: they set a field only to see it set.
    """
    for path in TESTS.glob("*.py"):
        if path.name.startswith("test_recipe"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield from _in_call(node, node.func.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from _in_text(node.value)
            elif isinstance(node, ast.Dict):
                yield from _in_dict(node)
            elif isinstance(node, ast.Tuple):
                yield from _in_tuple(node)


def _in_call(node: ast.Call, name: str) -> Iterator[Setting]:
    values = {keyword.arg: _value(keyword.value) for keyword in node.keywords if keyword.arg}
    for keyword in node.keywords:
        if keyword.arg in SECTIONS and isinstance(keyword.value, ast.Dict):
            own = [_value(key) for key in keyword.value.keys]
            inner = dict(zip(own, map(_value, keyword.value.values), strict=True))
            yield from _in_section(keyword.arg, inner)
    for kinds in SECTIONS.values():
        for kind in kinds:
            short = kind.part.name if issubclass(kind, PartOptions) else kind.__name__
            if short in (name.removesuffix("_schedule"), *map(_value, node.args[:2])):
                yield from _differences(kind, values)


def _in_tuple(node: ast.Tuple) -> Iterator[Setting]:
    """`("vit", {"depth": 2})`, as tests of networks have it."""
    for name, options in itertools.pairwise(node.elts):
        known = isinstance(name, ast.Constant) and name.value in SHIPPED["network"]
        if known and isinstance(options, ast.Dict):
            keys = [_value(key) for key in options.keys]
            values = dict(zip(keys, map(_value, options.values), strict=True))
            yield from _in_section("model", {"name": _value(name), **values})


def _in_text(text: str) -> Iterator[Setting]:
    """A flag, an override such as `training.epochs=3`, or the text of a recipe."""
    if text in FLAGS:
        yield FLAGS[text]
    with contextlib.suppress(tomllib.TOMLDecodeError):
        for section, values in tomllib.loads(text).items():
            if section in SECTIONS and isinstance(values, dict):
                yield from _in_section(section, values)
        return
    key, equals, value = text.partition("=")
    section, _, field = key.partition(".")
    if equals and section in SECTIONS:
        yield from _in_section(section, {field: value})


def _in_dict(node: ast.Dict) -> Iterator[Setting]:
    """`{"training": {"epochs": 3}}`, as `recipe_from_dict` takes it, or one of its stages."""
    if "trains" in map(_value, node.keys):
        values = dict(zip(map(_value, node.keys), map(_value, node.values), strict=True))
        yield from _differences(StageOptions, values)
    for key, inner in zip(node.keys, node.values, strict=True):
        section = _value(key)
        if isinstance(section, str) and section in SECTIONS and isinstance(inner, ast.Dict):
            names = [_value(name) for name in inner.keys]
            values = dict(zip(names, map(_value, inner.values), strict=True))
            yield from _in_section(section, values)


def _in_section(section: str, values: dict[Any, Any]) -> Iterator[Setting]:
    for kind in SECTIONS[section]:
        if section not in KINDS or values.get("name", kind().name) == kind().name:
            yield from _differences(kind, values)


def _differences(kind: type, values: dict[Any, Any]) -> Iterator[Setting]:
    """The fields that get another value than their default."""
    default = dict(kind())
    for field, value in values.items():
        if field in default and value != default[field]:
            yield Setting(kind, field)


def _value(node: ast.expr | None) -> Any:
    """The value of a literal; anything else counts as something new."""
    if node is None:
        return None
    try:
        return ast.literal_eval(node)
    except ValueError:
        return object()


SET = {*settings_in_shipped_recipes(), *settings_in_tests()}


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_every_field_is_set_to_another_value_somewhere(kind: type, field: str) -> None:
    assert Setting(kind, field) in SET
