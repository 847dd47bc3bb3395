"""What a search is going to do, and the best recipe that it found, as files in its folder.

search.json     the plan: recipe, ranges, objective, checksums of the data
space.toml      the ranges, to be copied and changed
trials.db       all trials, unless they are in another storage
runs/trial-<n>  the run folder of each trial
trials.json     all trials as numbers, for the page and for others
best.toml       the best recipe
report.html     the page
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from tenfold.errors import TenfoldError, counted
from tenfold.files import write_text
from tenfold.recipe import Options, recipe_from_dict
from tenfold.results.searches import Plan, SearchFile, SearchSummary
from tenfold.studies.running import describe_change
from tenfold.studies.search.space import with_values


def require_equal_epochs(plan: SearchFile, *, num_train: int | None = None) -> None:
    """Raise TenfoldError where trials would not end at the same epoch.

    num_train: images that are trained on, where they have been read.
    """
    training = plan.recipe["training"]
    keys = [key for key in ("early_stopping", "time_limit_seconds") if training[key]]
    sizes = [e for s in plan.space if s.key == "training.batch_size" for e in s.edges]
    if sizes and num_train is not None:
        fewest = training["epochs"] * (num_train // max(*sizes, training["batch_size"]))
        keys += ["min_steps"] if training["min_steps"] > fewest else []
    if keys:
        raise TenfoldError(
            f"A search compares trials after the same epochs, which training.{keys[0]} = "
            f"{training[keys[0]]} would make different ones; switch it off with --set "
            f"training.{keys[0]}=0."
        )


def write_plan(folder: Path, plan: SearchFile) -> None:
    """Write the plan into `folder`, and its ranges as --space takes them."""
    lines = ["# The ranges of this search; a copy of it, changed, can be given to --space."]
    for setting in plan.space:
        spec = setting.model_dump(mode="json", exclude={"key", "kind"}, exclude_unset=True)
        # A table on one line, which TOML before 1.1 can read.
        spec = {k: v for k, v in spec.items() if v is not None and v is not False}
        items = [_to_toml({key: value}).strip() for key, value in spec.items()]
        lines.append(f'"{setting.key}" = {{{", ".join(items)}}}')
    write_text(folder / "space.toml", "\n".join(lines) + "\n")
    plan.write(folder / "search.json")


def describe_difference(before: Plan, plan: Plan) -> str | None:
    """What tells two plans apart, in words; None where they are the same."""
    # Read, so that it has the options too that have come since; a description changes no result.
    then = recipe_from_dict(before.recipe, source="the search's recipe").to_dict()
    then["description"] = plan.recipe["description"]
    if change := describe_change(then, plan.recipe):
        return change
    ranges, asked = (
        {each.key: each.model_dump(mode="json") for each in space}
        for space in (before.space, plan.space)
    )
    for key in ranges | asked:
        if ranges.get(key) != asked.get(key):
            return f"the range of {key} is not what it was, or is new"
    if before.checksums != plan.checksums:
        name = plan.recipe["data"]["name"]
        return f"the images of {name} are no longer those that it began with"
    for name, own in before.code.items():
        if own != plan.code.get(name):
            return f"{name} is not what it was"
    same = before.objective == plan.objective
    return None if same else f"it was judged by {before.objective}"


def write_best(folder: Path, summary: SearchSummary) -> None:
    """Write `folder/best.toml`, a recipe for `load_recipe`, with files of parts of one's own beside
    it; nothing where no trial is complete."""
    best, name = summary.best_trial, summary.name
    if best is None:
        return
    recipe = with_values(summary.recipe, best.params, source=f"trial {best.number}")
    for part in recipe.parts:
        kept = folder / part.name.rpartition(":")[0]
        if part.part.code is not None and not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(part.part.code, kept)
    # Its runs are a series of their own, and what the recipe says of itself is no longer so.
    recipe = recipe.but(name=f"{name}-best", description=f"{name} with the values of a search")
    num_trained = counted(len(summary.of_state("complete", "pruned", "failed")), "trial")
    lines = [
        f"The best of {num_trained} of a search around the recipe {summary.source},",
        f"trial {best.number} of the search in {folder.as_posix()}, with seed {summary.seed}.",
        summary.gain_in_words,
        "",
        "The best of many trials is partly the luckiest, so its validation accuracy is optimistic,",
        "the more so the more trials there were. No trial has seen the test images. Measure it",
        "with seeds that the search has not used:",
        "",
        *(f"  {command}" for command in summary.commands(folder)),
    ]
    # TOML allows no control characters in comments, which a path may have.
    printable = ("".join(c if c.isprintable() else "?" for c in line) for line in lines)
    header = "".join(f"# {line}".rstrip() + "\n" for line in printable)
    write_text(folder / "best.toml", f"{header}\n{_to_toml(_differences(recipe))}")


def _differences(value: Any) -> Any:
    """Of tables the fields that differ from their defaults, in the order of the schema."""
    if isinstance(value, tuple):
        return [_differences(item) for item in value]
    if not isinstance(value, Options):
        return value
    fields = type(value).model_fields
    found = {
        key: _differences(own)
        for key, own in value
        if isinstance(own, Options) or key == "name" or own != fields[key].default
    }
    return {key: own for key, own in found.items() if own != {}}


def _to_toml(values: Mapping[str, Any]) -> str:
    """`values` as TOML as people write it: a list of plain values stands on one line."""

    def joined(match: re.Match[str]) -> str:
        items = [line.strip().removesuffix(",") for line in match[1].splitlines()]
        return f"= [{', '.join(items)}]\n"

    return re.sub(r"= \[\n((?:    [^\n]*,\n)*)\]\n", joined, tomli_w.dumps(values))
