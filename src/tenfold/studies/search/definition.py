"""What a search is going to do, in its folder and its storage, so that a resumed one does the same.

A search folder:

  search.json     the plan: recipe, ranges, objective, checksums of the data
  space.toml      the ranges, to be copied and changed
  trials.db       all trials, unless they are in another storage
  runs/trial-<n>  the run folder of each trial
  trials.json     all trials as numbers, for the page and for others
  best.toml       the best recipe
  report.html     the page
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tenfold.errors import TenfoldError
from tenfold.files import write_text
from tenfold.recipe import Recipe, recipe_from_dict
from tenfold.recipe.dotted import flatten
from tenfold.results.searches import Plan, SearchFile, Setting, read_plan
from tenfold.studies.search.recipe_text import to_inline_table
from tenfold.studies.search.space import Space

OWN_STORAGE = "a data base in its folder"
OBJECTIVE = "validation accuracy after the last epoch"
OWN_FILES = ("search.lock", "space.toml")
"""What a process that died before the plan was written may leave."""


@dataclass(frozen=True)
class SearchPlan:
    """What is searched: `space`, around `recipe`.

    source: the name or path that the recipe was given by, for commands to repeat. checksums: those
    of the data, once they have been read.
    """

    recipe: Recipe
    space: Space
    source: str
    checksums: Mapping[str, str] = field(default_factory=dict)

    def fact(self) -> Plan:
        """All that must be the same when the search goes on."""
        return Plan(
            objective=OBJECTIVE,
            recipe=self.recipe.to_dict(),
            space=tuple(Setting(**each.to_dict()) for each in self.space),
            checksums=dict(self.checksums),
        )


def require_search_folder(folder: Path) -> None:
    """Raise TenfoldError where `folder` is something else, such as a run folder or a home."""
    if not folder.exists() or (folder / "search.json").exists():
        return
    if not folder.is_dir():
        raise TenfoldError(f"{folder} is not a folder; give another --folder.")
    others = [p for p in folder.iterdir() if p.name not in OWN_FILES and p.suffix != ".tmp"]
    if others:
        raise TenfoldError(
            f"{folder} holds other things than a search, such as {min(others).name}; give another "
            "--folder."
        )


def require_equal_epochs(plan: SearchPlan, num_train: int) -> None:
    """Raise TenfoldError where large batches of `num_train` pictures would get more epochs."""
    training = plan.recipe.training
    sizes = [chosen.edges() for chosen in plan.space if chosen.key == "training.batch_size"]
    largest = max((*sizes[0], training.batch_size) if sizes else (training.batch_size,))
    if training.min_steps > training.epochs * (num_train // largest) and sizes:
        raise TenfoldError(
            f"A search compares trials after the same epochs, of which training.min_steps = "
            f"{training.min_steps} gives more to batches of {largest}; switch it off with --set "
            "training.min_steps=0, and set training.epochs to what you want."
        )


def require_comparable(recipe: Recipe) -> None:
    """Raise TenfoldError where trials of `recipe` would not end at the same epoch."""
    for key in ("early_stopping", "time_limit_seconds"):
        if getattr(recipe.training, key):
            raise TenfoldError(
                f"A search compares trials after the same epochs, which training.{key} would end "
                f"at different ones; switch it off with --set training.{key}=0."
            )


def agree_on_plan(folder: Path, plan: SearchPlan, *, storage: str) -> str:
    """Write the plan into `folder`, or see that the one that is there says the same.

    storage: where the trials are kept, without its password. Returns the folder's own random id.
    Raises TenfoldError, with the difference, where the plan or the storage is another one.
    """
    path = folder / "search.json"
    if not path.exists():
        kept = SearchFile(
            id=secrets.token_hex(8),
            source=plan.source,
            storage=storage,
            **dict(plan.fact()),
        )
        write_text(folder / "space.toml", _space_toml(plan))
        kept.write(path)
        return kept.id
    before = read_plan(folder)
    if before.storage != storage:
        raise TenfoldError(
            f"The search in {folder} keeps its trials in {before.storage}, not in {storage}; "
            "give it as --storage, or give another --folder."
        )
    require_same_plan(before, plan, where=f"The search in {folder}", remedy="--folder")
    return before.id


def require_same_plan(before: Plan, plan: SearchPlan, *, where: str, remedy: str) -> None:
    """Raise TenfoldError, with the difference, where `before` is not what `plan` says."""
    # Read, so that it has the options too that have come since it was written.
    then = recipe_from_dict(before.recipe, source="the search's recipe").to_dict()
    difference = _difference(before.model_copy(update={"recipe": then}), plan.fact())
    if difference is not None:
        raise TenfoldError(
            f"{where} is another one: {difference}; give another {remedy}, or repeat the command "
            "that began it."
        )


def _difference(before: Plan, now: Plan) -> str | None:
    """What tells two plans apart, in words; None where they are the same."""
    old, new = flatten(before.recipe), flatten(now.recipe)
    old["description"] = new["description"]  # It changes no result.
    for key in [*old, *(key for key in new if key not in old)]:
        if old.get(key) != new.get(key):
            return f"{key} was {old.get(key)!r} and is {new.get(key)!r} now"
    ranges, asked = (
        {each.key: each.model_dump(mode="json") for each in p.space} for p in (before, now)
    )
    for key in [*ranges, *(key for key in asked if key not in ranges)]:
        if key not in asked:
            return f"it searches {key}, which was not asked for now"
        if key not in ranges:
            return f"it does not search {key}"
        if ranges[key] != asked[key]:
            return f"the range of {key} is another one than it was"
    if before.checksums != now.checksums:
        return f"the images of {new['data.name']} are no longer those that it began with"
    return None if before.objective == now.objective else f"it was judged by {before.objective}"


def _space_toml(plan: SearchPlan) -> str:
    lines = ["# The ranges of this search; a copy of it, changed, can be given to --space."]
    for chosen in plan.space:
        spec = chosen.model_dump(mode="json", exclude={"key", "kind"}, exclude_unset=True)
        spec = {k: v for k, v in spec.items() if v is not None and v is not False}
        lines.append(f'"{chosen.key}" = {to_inline_table(spec)}')
    return "\n".join(lines) + "\n"
