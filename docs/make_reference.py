"""Write what follows from the code: docs/reference.md, the schema that editors complete recipes by,
numbers of parameters, and the parts of documents that quote measured.json.

The schema's docstrings are the one source; this turns them into tables.
"""

import inspect
import json
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

from documents import MEASURED, count_parameters_of_recipes, measured_in, measured_text, quoting
from typer.testing import CliRunner

from tenfold.cli.app import app
from tenfold.recipe import Options, PartOptions, Recipe
from tenfold.recipe.models import KINDS, json_schema
from tenfold.registry import SHIPPED, find_part

COMMANDS = (
    "demo", "data get", "data info", "data eda", "data export", "train", "runs", "evaluate",
    "report", "audit", "explain", "doctor", "predict", "export", "serve", "push", "pull", "score",
    "study", "studies", "tune", "heads", "bench", "recipes", "models",
)  # fmt: skip


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
        sections.append(f"### [[{name}]]" if name not in KINDS and is_list else f"### [{name}]")
        for kind in kinds:
            assert kind is not None
            tag = f'`name = "{kind().name}"`: ' if name in KINDS else ""
            sections += [f"{tag}{' '.join((inspect.getdoc(kind) or '').split())}", table(kind)]
    return sections


def command_sections() -> list[str]:
    """The help of each command."""
    sections = []
    for command in COMMANDS:
        asked = [*command.split(), "--help"]
        text = CliRunner().invoke(app, asked, prog_name="tenfold", catch_exceptions=False).output
        sections.append(f"### tenfold {command}\n\n```\n{text.strip()}\n```")
    return sections


def reference() -> str:
    """docs/reference.md."""
    parts = [
        "# Reference",
        "Written by `make docs` from the code; change it there.",
        "## Commands",
        *command_sections(),
        "## Recipe fields",
        "A recipe is a TOML file that lists only what differs from these defaults. "
        "`--set table.field=value` changes a field from the command line. Beside the tables below "
        "stand `name`, `description` and `seed`. The line `#:schema PATH` at its top, with what "
        "`tenfold recipes --schema` prints in that file, lets editors such as those with Taplo "
        "complete and check it.",
        *recipe_sections(),
    ]
    return "\n\n".join(parts) + "\n"


def from_code(root: Path) -> dict[Path, str]:
    """All files but the reference, which takes long, with their text."""
    counts = {"num_parameters": count_parameters_of_recipes()}
    measured = measured_in(root).model_copy(update=counts)
    return quoting(root, measured) | {
        root / MEASURED: measured_text(measured),
        root / "src/tenfold/recipes/recipe.schema.json": json.dumps(json_schema(), indent=1) + "\n",
    }


def main() -> None:
    """Write the files."""
    root = Path(__file__).parent.parent
    documents = from_code(root) | {root / "docs/reference.md": reference()}
    for path, text in documents.items():
        path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{', '.join(path.name for path in documents)} are written.\n")


if __name__ == "__main__":
    main()
