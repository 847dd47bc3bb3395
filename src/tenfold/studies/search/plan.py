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

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from tenfold.errors import TenfoldError
from tenfold.files import write_text
from tenfold.recipe import Recipe, recipe_from_dict
from tenfold.results.searches import Plan, SearchFile
from tenfold.studies.planning import describe_change
from tenfold.studies.search.space import Space

OWN_STORAGE = "a data base in its folder"
OBJECTIVE = "validation accuracy after the last epoch"
OWN_FILES = ("search.lock", "space.toml", "trials.db", "trials.db-journal", "trials.db.lock")
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
            space=self.space,
            checksums=dict(self.checksums),
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


def write_plan(folder: Path, plan: SearchPlan, *, storage: str) -> None:
    """Write the plan into `folder`; storage: where the trials are kept, without its password."""
    lines = ["# The ranges of this search; a copy of it, changed, can be given to --space."]
    for chosen in plan.space:
        spec = chosen.model_dump(mode="json", exclude={"key", "kind"}, exclude_unset=True)
        spec = {k: v for k, v in spec.items() if v is not None and v is not False}
        # A table on one line, which TOML before 1.1 can read.
        items = ", ".join(to_toml({key: value}).strip() for key, value in spec.items())
        lines.append(f'"{chosen.key}" = {{{items}}}')
    write_text(folder / "space.toml", "\n".join(lines) + "\n")
    kept = SearchFile(source=plan.source, storage=storage, **dict(plan.fact()))
    kept.write(folder / "search.json")


def describe_difference(before: Plan, plan: SearchPlan) -> str | None:
    """What tells two plans apart, in words; None where they are the same."""
    # Read, so that it has the options too that have come since it was written.
    then = recipe_from_dict(before.recipe, source="the search's recipe")
    # Its description changes no result.
    then = then.but(description=plan.recipe.description)
    if change := describe_change(then.to_dict(), plan.recipe.to_dict()):
        return change
    ranges, asked = (
        {each.key: each.model_dump(mode="json") for each in space}
        for space in (before.space, plan.space)
    )
    for key in ranges | asked:
        if key not in asked:
            return f"it searches {key}, which was not asked for now"
        if key not in ranges:
            return f"it does not search {key}"
        if ranges[key] != asked[key]:
            return f"the range of {key} is another one than it was"
    if before.checksums != plan.checksums:
        return f"the images of {plan.recipe.data.name} are no longer those that it began with"
    return None if before.objective == OBJECTIVE else f"it was judged by {before.objective}"


def to_toml(values: Mapping[str, Any]) -> str:
    """`values` as TOML as people write it: a list of plain values stands on one line."""

    def joined(match: re.Match[str]) -> str:
        items = [line.strip().removesuffix(",") for line in match[1].splitlines()]
        return f"= [{', '.join(items)}]\n"

    return re.sub(r"= \[\n((?:    [^\n]*,\n)*)\]\n", joined, tomli_w.dumps(values))
