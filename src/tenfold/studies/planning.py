"""What a study is going to do, kept in its folder so that a resumed one does the same."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tenfold.errors import TenfoldError
from tenfold.files import read_json
from tenfold.locks import LOCK_FILES
from tenfold.recipe import Recipe, load_recipe, recipe_from_dict
from tenfold.recipe.dotted import flatten
from tenfold.results.studies import (
    PlannedTrial,
    PlannedVariant,
    PublishedResult,
    StudyPlan,
    read_plan,
)
from tenfold.studies.definition import (
    Study,
    Variant,
    adjust,
    choose_study,
    shipped_studies,
)
from tenfold.studies.trials import Trial


def load_recipes(study: Study) -> dict[Trial, Recipe]:
    """The recipe of each trial.

    Raises TenfoldError where a value doesn't fit, where two trials are the same, which would be one
    result counted twice, and where a published result is of an epoch that no run comes to.
    """
    recipes: dict[Trial, Recipe] = {}
    by_recipe: dict[Recipe, Trial] = {}
    for trial in study.trials():
        resolved = _load(trial)
        if resolved in by_recipe:
            raise TenfoldError(
                f"The trials {by_recipe[resolved].name} and {trial.name} are the same; leave out "
                "one of them."
            )
        by_recipe[resolved] = trial
        recipes[trial] = resolved
    of_variant = {trial.variant: recipe for trial, recipe in recipes.items()}
    for variant in study.variants:
        _require_evaluated(variant, of_variant[variant.label])
    return recipes


def require_study_folder(folder: Path) -> None:
    """Raise TenfoldError where `folder` is something else, such as a run folder or a home."""
    if not folder.exists() or (folder / "study.json").exists():
        return
    if not folder.is_dir():
        raise TenfoldError(f"{folder} is not a folder; give another --folder.")
    # A driver that died before the plan was written leaves no more than these.
    others = [
        p for p in folder.iterdir() if p.name not in (*LOCK_FILES, "parts") and p.suffix != ".tmp"
    ]
    if others:
        raise TenfoldError(
            f"{folder} holds other things than a study, such as {min(others).name}; give another "
            "--folder."
        )


def agree_on_plan(
    folder: Path, study: Study, recipes: Mapping[Trial, Recipe]
) -> dict[Trial, Recipe]:
    """Write `folder/study.json`, or bring the one that is there up to date; the recipes to train.

    More trials may come to those that are there. These keep the description that they had, so that
    rewording a recipe stops nothing. Raises TenfoldError, with the difference, where a trial that
    is there would be dropped or changed.
    """
    path = folder / "study.json"
    agreed = dict(recipes)
    if path.exists():
        before = _recipes_of(read_plan(folder))
        for trial, resolved in recipes.items():
            if (old := _planned(before.get(trial.name))) is not None:
                reworded = resolved.but(description=old.description)
                agreed[trial] = old if reworded == old else resolved
        now = {trial.name: recipe.to_dict() for trial, recipe in agreed.items()}
        known = {name: _completed(values) for name, values in before.items()}
        if (difference := _describe_difference(known, json.loads(json.dumps(now)))) is not None:
            raise TenfoldError(
                f"The study in {folder} is another one: {difference}; give another --folder, or "
                "repeat the command that began it."
            )
    plan = _plan_of(study, agreed)
    if not path.exists() or read_json(path) != plan.to_dict():
        plan.write(path)
    return agreed


def _recipes_of(plan: StudyPlan) -> dict[str, dict[str, Any]]:
    """The resolved recipe of each planned trial, as JSON values, by the trial's name."""
    return {trial.trial: trial.recipe for trial in plan.trials}


def command_of(folder: Path) -> str | None:
    """The command that repeats the study in `folder`, where that is a shipped one unchanged."""
    plan = read_plan(folder)
    name = plan.name
    if name not in shipped_studies():
        return None
    planned = {trial: _without_words(values) for trial, values in _recipes_of(plan).items()}
    most = 1 + max((int(values.get("seed", 0)) for values in planned.values()), default=0)
    shipped = choose_study(name)
    for flags, study in (("", shipped), (f" --seeds {most}", adjust(shipped, seeds=most))):
        recipes = {trial.name: recipe.to_dict() for trial, recipe in load_recipes(study).items()}
        if planned == {trial: _without_words(values) for trial, values in recipes.items()}:
            return f"tenfold study {name}{flags}"
    return None


def _without_words(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as JSON values that equal those of a file, without what changes no result."""
    values: dict[str, Any] = json.loads(json.dumps(_completed(recipe)))
    return {key: value for key, value in values.items() if key not in ("name", "description")}


def _load(trial: Trial) -> Recipe:
    try:
        return load_recipe(trial.recipe, [*trial.overrides, f"seed={trial.seed}"])
    except TenfoldError as error:
        raise TenfoldError(f"{trial.variant}: {error}") from error


def _require_evaluated(variant: Variant, recipe: Recipe) -> None:
    """Raise TenfoldError where a published result is of an epoch or mode that isn't evaluated."""
    last, milestones = recipe.training.epochs, recipe.training.milestones
    for published in variant.published:
        if published.epoch not in (0, last, *milestones):
            raise TenfoldError(
                f"{variant.label}: a result is published for epoch {published.epoch}, which is "
                f"neither the last one ({last}) nor in training.milestones; add it there."
            )
        if published.training_mode and not recipe.evaluation.training_mode:
            raise TenfoldError(
                f"{variant.label}: a result is published in training mode, which this recipe does "
                "not measure; set evaluation.training_mode = true."
            )


def _plan_of(study: Study, recipes: Mapping[Trial, Recipe]) -> StudyPlan:
    return StudyPlan(
        name=study.name,
        title=study.title,
        question=study.question,
        limits=study.limits,
        baseline=study.baseline or None,
        variants=tuple(
            PlannedVariant(
                label=variant.label,
                published=tuple(
                    PublishedResult(**{**p.model_dump(), "epoch": p.epoch or None})
                    for p in variant.published
                ),
            )
            for variant in study.variants
        ),
        trials=tuple(
            PlannedTrial(
                trial=trial.name,
                variant=trial.variant,
                overrides=trial.overrides,
                seed=trial.seed,
                recipe=resolved.to_dict(),
            )
            for trial, resolved in recipes.items()
        ),
    )


def _planned(values: Mapping[str, Any] | None) -> Recipe | None:
    """The recipe in a plan; None where there is none, or not one that can be loaded now."""
    if values is not None:
        with contextlib.suppress(TenfoldError):
            return recipe_from_dict(values)
    return None


def _completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe in a plan, with fields that have come to the schema since it was written."""
    recipe = _planned(values)
    completed: dict[str, Any] = json.loads(json.dumps(recipe.to_dict() if recipe else values))
    return completed


def _describe_difference(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """What of an earlier plan would be dropped or changed, in words; None if nothing would."""
    if missing := [name for name in before if name not in now]:
        return f"it has {_first_of(missing)}, which was not asked for now"
    for name in before:
        old, new = flatten(before[name]), flatten(now[name])
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) != new.get(key):
                return f"in {name}, {key} was {old.get(key)!r} and is {new.get(key)!r} now"
    return None


def _first_of(names: Sequence[str]) -> str:
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"the trial {names[0]}{others}"
