"""Write what follows from the code: pages of commands, recipe fields and Python, the schema that
editors complete recipes by, numbers of parameters, and the parts of documents that quote
measured.json.

Docstrings and help texts are the one source; this turns them into tables.
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from documents import MEASURED, count_parameters_of_recipes, measured_in, measured_text, quoting
from typer.testing import CliRunner

import tenfold
from tenfold.cli.app import app
from tenfold.recipe import Options, PartOptions, Recipe
from tenfold.recipe.models import KINDS, json_schema
from tenfold.registry import SHIPPED, find_part

WRITTEN = "Written by `make reference` from the code; change it there."

PYTHON = (
    """\
# Python

What `import tenfold` has; the [tour](tour.md#in-python) shows it at work. """
    + WRITTEN
)


def table(kind: type[Options]) -> str:
    """A Markdown table of the fields of a table of the recipe."""
    rows = ["| field | default | meaning |", "| --- | --- | --- |"]
    for key, field in kind.model_fields.items():
        if issubclass(kind, PartOptions) and key == "name":
            continue  # The tag, which stands above the table.
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        meaning = " ".join((field.description or "").split())
        if len(choices) > 1:
            meaning = f"{meaning} One of {', '.join(map(str, choices))}.".strip()
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        shown = str(default).lower() if isinstance(default, bool) else default
        rows.append(f"| `{key}` | `{shown}` | {meaning} |")
    return "\n".join(rows)


def recipe_sections() -> list[str]:
    """A section for each table of a recipe, with one part for each of its parts."""
    sections = []
    for name, field in Recipe.model_fields.items():
        kinds = [field.annotation]
        if name in KINDS:
            kinds = [find_part(KINDS[name], part).options for part in SHIPPED[KINDS[name]]]
        elif is_list := get_origin(field.annotation) is tuple:
            kinds = [get_args(field.annotation)[0]]
        if not all(hasattr(kind, "model_fields") for kind in kinds):
            continue
        sections.append(f"## [[{name}]]" if name not in KINDS and is_list else f"## [{name}]")
        for kind in kinds:
            assert kind is not None
            tag = f'`name = "{kind().name}"`: ' if name in KINDS else ""
            sections += [f"{tag}{' '.join((inspect.getdoc(kind) or '').split())}", table(kind)]
    return sections


def names_of_commands() -> Iterator[str]:
    """All of them, such as `train` and `data get`."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from (f"{name} {each}" for each in command.commands)
        else:
            yield name


def commands() -> str:
    """docs/commands.md: the help of each command."""
    parts = ["# Commands", WRITTEN]
    for command in names_of_commands():
        asked = [*command.split(), "--help"]
        text = CliRunner().invoke(app, asked, prog_name="tenfold", catch_exceptions=False).output
        parts.append(f"## tenfold {command}\n\n```\n{text.strip()}\n```")
    return "\n\n".join(parts) + "\n"


def recipe_fields() -> str:
    """docs/recipe-fields.md."""
    parts = [
        "# Recipe fields",
        WRITTEN,
        "A recipe is a TOML file that lists only what differs from these defaults. "
        "`--set table.field=value` changes a field from the command line. Beside the tables below "
        "stand `name`, `description` and `seed`. The line `#:schema PATH` at its top, with what "
        "`tenfold recipes --schema` prints in that file, lets editors such as those with Taplo "
        "complete and check it; it is "
        "[recipe.schema.json](../src/tenfold/recipes/recipe.schema.json).",
        *recipe_sections(),
    ]
    return "\n\n".join(parts) + "\n"


def python() -> str:
    """docs/python.md: the public names, with their signatures and docstrings."""
    parts = [PYTHON]
    for name in tenfold.__all__:
        public = getattr(tenfold, name)
        parts += [f"## {name}", block("python", signature(name, public)), described(public)]
        if inspect.isclass(public) and (rows := members(public)):
            parts.append("\n".join(["| member | what it is |", "| --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def block(language: str, text: str) -> str:
    """Text in a fence."""
    return f"```{language}\n{text}\n```"


def signature(name: str, public: Any, *, prefix: str = "tenfold.") -> str:
    """A call as one writes it, with types by their last names; an argument a line if it is long."""
    if issubclass(public, Exception) if inspect.isclass(public) else False:
        return f"{prefix}{name}"
    found = inspect.signature(public)
    bare = [each.replace(annotation=each.empty) for each in found.parameters.values()]
    found = found.replace(parameters=bare, return_annotation=found.empty)
    text = f"{prefix}{name}{plain(str(found))}"
    if len(text) <= 90:
        return text
    lines = [plain(str(each)) for each in with_markers(bare)]
    return "\n".join([f"{prefix}{name}(", *(f"    {line}," for line in lines), ")"])


def with_markers(parameters: list[inspect.Parameter]) -> Iterator[inspect.Parameter | str]:
    """The parameters, with the `*` behind which they are named."""
    kinds = [each.kind for each in parameters]
    for number, each in enumerate(parameters):
        is_first = each.kind == each.KEYWORD_ONLY and each.KEYWORD_ONLY not in kinds[:number]
        if is_first and each.VAR_POSITIONAL not in kinds:
            yield "*"
        yield each


def plain(text: str) -> str:
    """Defaults as a caller would write them."""
    text = re.sub(r"<function (\w+) at \w+>", r"\1", text.replace("<factory>", "..."))
    text = re.sub(r"PosixPath|WindowsPath", "Path", text)
    return re.sub(r"'([^'\"]*)'", r'"\1"', text)  # As ruff writes it.


def described(public: Any) -> str:
    """A docstring as Markdown, its examples in fences."""
    paragraphs = (inspect.getdoc(public) or "").split("\n\n")
    return "\n\n".join(
        block("pycon", text) if text.startswith(">>>") else text for text in paragraphs
    )


def members(public: type) -> list[str]:
    """A row for each method and property of its own that has a docstring."""
    rows = []
    for name, member in vars(public).items():
        text = (inspect.getdoc(member) or "").split("\n\n")[0]
        if name.startswith(("_", "model_")) or not text:
            continue
        if isinstance(member, property):
            called = name
        elif inspect.isfunction(member) or isinstance(member, (classmethod, staticmethod)):
            called = signature(name, getattr(public, name), prefix="").replace("(self, ", "(")
            called = " ".join(called.replace("(self)", "()").split()).replace("( ", "(")
        else:
            continue
        rows.append(f"| `{called.replace(',)', ')')}` | {' '.join(text.split())} |")
    return rows


def from_code(root: Path) -> dict[Path, str]:
    """All files but the commands, which take long, with their text."""
    counts = {"num_parameters": count_parameters_of_recipes()}
    measured = measured_in(root).model_copy(update=counts)
    return quoting(root, measured) | {
        root / MEASURED: measured_text(measured),
        root / "docs/recipe-fields.md": recipe_fields(),
        root / "docs/python.md": python(),
        root / "src/tenfold/recipes/recipe.schema.json": json.dumps(json_schema(), indent=1) + "\n",
    }


def main() -> None:
    """Write the files."""
    root = Path(__file__).parent.parent
    documents = from_code(root) | {root / "docs/commands.md": commands()}
    for path, text in documents.items():
        path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{', '.join(path.name for path in documents)} are written.\n")


if __name__ == "__main__":
    main()
