"""What a study is going to do, kept in its folder so that a resumed one does the same."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tenfold.errors import TenfoldError
from tenfold.files import read_json, write_json
from tenfold.locks import LOCK_FILES
from tenfold.recipe import Recipe, load_recipe
from tenfold.studies.trials import Trial


def load_recipes(
    recipe: str, trials: Sequence[Trial], *, overrides: Sequence[str] = ()
) -> dict[Trial, Recipe]:
    """The recipe of each trial, with `overrides` that all of them share.

    Raises TenfoldError where a value doesn't fit, and where two trials are the same, which would
    be one result counted twice.
    """
    if not trials:
        raise TenfoldError("A study needs at least one trial.")
    recipes: dict[Trial, Recipe] = {}
    by_recipe: dict[Recipe, Trial] = {}
    for trial in trials:
        resolved = load_recipe(recipe, [*overrides, *trial.overrides, f"seed={trial.seed}"])
        if resolved in by_recipe:
            raise TenfoldError(
                f"The trials {by_recipe[resolved].name} and {trial.name} are the same; leave one "
                "of them out of --grid."
            )
        by_recipe[resolved] = trial
        recipes[trial] = resolved
    return recipes


def require_study_folder(folder: Path) -> None:
    """Raise TenfoldError where `folder` is something else, such as a run folder or a home."""
    if not folder.exists() or (folder / "study.json").exists():
        return
    if not folder.is_dir():
        raise TenfoldError(f"{folder} is not a folder; give another --folder.")
    # A driver that died before the plan was written leaves no more than these.
    others = [p for p in folder.iterdir() if p.name not in LOCK_FILES and p.suffix != ".tmp"]
    if others:
        raise TenfoldError(
            f"{folder} holds other things than a study, such as {min(others).name}; give another "
            "--folder."
        )


def agree_on_plan(folder: Path, recipe: str, recipes: Mapping[Trial, Recipe]) -> None:
    """Write `folder/study.json`, or see that the one that is there says the same.

    Raises TenfoldError, with the difference, where it does not.
    """
    trials = [
        {
            "trial": trial.name,
            "overrides": trial.overrides,
            "seed": trial.seed,
            "recipe": resolved.to_dict(),
        }
        for trial, resolved in recipes.items()
    ]
    if not (folder / "study.json").exists():
        write_json(folder / "study.json", {"recipe": recipe, "trials": trials})
        return
    planned = {entry["trial"]: entry["recipe"] for entry in json.loads(json.dumps(trials))}
    if (difference := _describe_difference(read_plan(folder), planned)) is not None:
        raise TenfoldError(
            f"The study in {folder} is another one: {difference}; give another --folder, or repeat "
            "the command that began it."
        )


def read_plan(folder: Path) -> dict[str, dict[str, Any]]:
    """The resolved recipe of each planned trial, as JSON values, by the trial's name.

    Raises TenfoldError where `folder` has no plan.
    """
    path = folder / "study.json"
    if not path.exists():
        raise TenfoldError(f"There is no study in {folder}; `tenfold study` makes one.")
    try:
        return {entry["trial"]: dict(entry["recipe"]) for entry in read_json(path)["trials"]}
    except (KeyError, TypeError, ValueError):
        raise TenfoldError(
            f"{path} is not the plan of a study; restore it, or give another --folder."
        ) from None


def _describe_difference(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """What tells two plans apart, in words; None where they are the same."""
    if missing := [name for name in before if name not in now]:
        return f"it has {_first_of(missing)}, which was not asked for now"
    if added := [name for name in now if name not in before]:
        return f"it lacks {_first_of(added)}"
    for name in now:
        old, new = _flatten(before[name]), _flatten(now[name])
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) != new.get(key):
                return f"in {name}, {key} was {old.get(key)!r} and is {new.get(key)!r} now"
    return None


def _first_of(names: Sequence[str]) -> str:
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"the trial {names[0]}{others}"


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            flat.update(_flatten(inner, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = inner
    return flat
