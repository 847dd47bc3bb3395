"""The code of parts of one's own, which a run keeps beside its weights."""

import shutil
from pathlib import Path

from tenfold.errors import TenfoldError
from tenfold.files import write_json
from tenfold.own_parts import sum_of
from tenfold.recipe.models import Recipe


def own_code(recipe: Recipe) -> dict[str, Path]:
    """The files that the parts of `recipe` are from, by name.

    Raises TenfoldError where two of them have the same name and are not the same.
    """
    found: dict[str, Path] = {}
    for part in recipe.parts:
        if (path := part.part.code) is not None:
            other = found.setdefault(path.name, path)
            if sum_of(other) != sum_of(path):
                raise TenfoldError(
                    f"{other} and {path} have the same name, and a run keeps both; rename one."
                )
    return found


def write_recipe(recipe: Recipe, file: Path) -> dict[str, str]:
    """Write the recipe of a run to `file` in its folder, and its code to `code` beside; the code's
    SHA-256 by file name."""
    found = own_code(recipe)
    for name, path in found.items():
        kept = file.parent / "code" / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not kept.exists() or sum_of(kept) != sum_of(path):
            shutil.copyfile(path, kept)
    write_json(file, recipe.to_dict())
    return {name: sum_of(path) for name, path in found.items()}
