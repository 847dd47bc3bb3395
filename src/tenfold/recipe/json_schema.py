"""The schema of recipes as JSON Schema, by which editors complete and check them."""

from typing import Any

from tenfold.own_parts import OWN
from tenfold.recipe.models import DEFAULTS, KINDS, Recipe
from tenfold.registry import SHIPPED, find_part


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a recipe's TOML file."""
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= Recipe.model_json_schema()
    own = {"properties": {"name": {"type": "string", "pattern": f"^({OWN})$"}}}
    schema["$defs"]["PartOptions"] = {"type": "object", **own, "required": ["name"]}
    for table, kind in KINDS.items():
        parts = []
        for name in SHIPPED[kind]:
            part = find_part(kind, name).options.model_json_schema()
            schema["$defs"] |= part.pop("$defs", {})
            if name != DEFAULTS[table]:
                part["required"] = ["name"]
            parts.append(part)
        schema["properties"][table] = {"anyOf": [*parts, {"$ref": "#/$defs/PartOptions"}]}
    return schema
