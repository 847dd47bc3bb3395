"""Write docs/reference.md from the code: commands, recipe fields and models.

The schema's docstrings are the one source; this turns them into tables.
"""

import ast
import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from tenfold.recipe import schema

COMMANDS = (
    "demo", "data get", "data info", "data eda", "data export", "train", "runs", "evaluate",
    "report", "audit", "explain", "doctor", "predict", "export", "serve", "push", "pull", "score",
    "study", "studies", "tune", "heads", "bench", "recipes", "models",
)  # fmt: skip


def field_docs(kind: type) -> dict[str, str]:
    """The string that follows each field of a dataclass."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            docs[field.target.id] = " ".join(str(after.value.value).split())  # type: ignore[attr-defined]
    return docs


def table(kind: Any) -> str:
    """A Markdown table of a dataclass's fields."""
    docs, defaults = field_docs(kind), kind()
    rows = ["| field | default | meaning |", "| --- | --- | --- |"]
    hints = get_type_hints(kind)
    for field in fields(kind):
        if kind is not schema.DataOptions and field.name == "name":
            continue  # The tag, which stands above the table.
        choices = get_args(hints[field.name]) if "Literal" in str(hints[field.name]) else ()
        meaning = docs.get(field.name, "")
        if len(choices) > 1:
            meaning = f"{meaning} One of {', '.join(map(str, choices))}.".strip()
        default = getattr(defaults, field.name)
        shown = list(default) if isinstance(default, tuple) else default
        shown = str(shown).lower() if isinstance(shown, bool) else shown
        rows.append(f"| `{field.name}` | `{shown}` | {meaning} |")
    return "\n".join(rows)


def recipe_sections() -> list[str]:
    """A section for each table of a recipe, with one part for each of its variants."""
    sections = []
    hints = get_type_hints(schema.Recipe)
    for field in fields(schema.Recipe):
        kinds = get_args(hints[field.name]) or (hints[field.name],)
        is_list = kinds[-1] is Ellipsis
        kinds = kinds[:1] if is_list else kinds
        if not all(hasattr(kind, "__dataclass_fields__") for kind in kinds):
            continue
        sections.append(f"### [[{field.name}]]" if is_list else f"### [{field.name}]")
        for kind in kinds:
            tag = f'`name = "{kind().name}"`: ' if len(kinds) > 1 else ""
            sections += [f"{tag}{' '.join((inspect.getdoc(kind) or '').split())}", table(kind)]
    return sections


def command_sections() -> list[str]:
    """The help of each command."""
    sections = []
    for command in COMMANDS:
        call = [sys.executable, "-m", "tenfold", *command.split(), "--help"]
        text = subprocess.run(call, capture_output=True, text=True, check=True).stdout
        text = text.replace("python -m tenfold", "tenfold").strip()
        sections.append(f"### tenfold {command}\n\n```\n{text}\n```")
    return sections


def main() -> None:
    """Write the page."""
    parts = [
        "# Reference",
        "Written by `make docs` from the code; change it there.",
        "## Commands",
        *command_sections(),
        "## Recipe fields",
        "A recipe is a TOML file that lists only what differs from these defaults. "
        "`--set table.field=value` changes a field from the command line. Beside the tables below "
        "stand `name`, `description` and `seed`.",
        *recipe_sections(),
    ]
    path = Path(__file__).with_name("reference.md")
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    sys.stdout.write(f"{path.name} is written.\n")


if __name__ == "__main__":
    main()
