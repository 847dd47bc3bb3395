"""No dead options: every field of a recipe is read by the code, and set by a recipe or a test."""

import ast
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest

import tenfold
from tenfold.recipe import Recipe, shipped_recipes
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


FIELDS = [
    pytest.param(kind, field, id=f"{kind.__name__}.{field}")
    for name, table in Recipe.model_fields.items()
    for kind in tables_of(name, table.annotation)
    for field in kind.model_fields
    if not (field == "name" and issubclass(kind, PartOptions))
]
READ = {
    node.attr
    for path in SOURCES.rglob("*.py")
    if path != SOURCES / "recipe" / "models.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
}
# Tests of the recipe itself set a field only to see it set.
WRITTEN = "\n".join(
    [*shipped_recipes().values()]
    + [path.read_text() for path in TESTS.glob("*.py") if not path.name.startswith("test_recipe")]
)


def parameters_used(call: Any) -> set[str]:
    """The parameters of a function, or of a class's `__init__`, that its body reads."""
    call = call.__init__ if inspect.isclass(call) else call
    [function] = ast.parse(textwrap.dedent(inspect.getsource(call))).body
    assert isinstance(function, ast.FunctionDef)
    names = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
    body = [node for statement in function.body for node in ast.walk(statement)]
    return {node.id for node in body if isinstance(node, ast.Name) and node.id in names}


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_every_field_is_read_and_set_to_another_value_somewhere(kind: type, field: str) -> None:
    used = parameters_used(kind.part.call) if issubclass(kind, PartOptions) else READ
    assert field in used
    default = re.escape(str(kind.model_fields[field].default))
    assert re.search(rf"\b{field}\"?\s?[=:]\s?\"?(?!{default}\b)\S", WRITTEN, re.IGNORECASE)
