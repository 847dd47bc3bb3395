"""What a study is going to do, kept in its folder so that a resumed one does the same."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tenfold.errors import TenfoldError
from tenfold.files import read_json
from tenfold.recipe import Recipe, load_recipe, recipe_from_dict
from tenfold.recipe.dotted import flatten
from tenfold.results.studies import PlannedVariant, PublishedResult, StudyPlan, read_plan
from tenfold.studies.definition import (
    Study,
    Trial,
    Variant,
    adjust,
    choose_study,
    shipped_studies,
    trial_of,
    without_words,
)


def load_trials(study: Study) -> list[Trial]:
    """Every variant with each of its seeds, and their recipes.

    Raises TenfoldError where a value doesn't fit, where two trials are the same, which would be one
    result counted twice, and where a published result is of an epoch that no run comes to.
    """
    found: dict[Recipe, Trial] = {}
    for variant in study.variants:
        overrides = (*study.overrides, *variant.overrides)
        for seed in range(variant.seeds or study.seeds):
            try:
                recipe = load_recipe(variant.recipe, [*overrides, f"seed={seed}"])
            except TenfoldError as error:
                raise TenfoldError(f"{variant.label}: {error}") from error
            trial = trial_of(variant.label, overrides, seed, recipe)
            if recipe in found:
                raise TenfoldError(
                    f"The trials {found[recipe].trial} and {trial.trial} are the same; leave out "
                    "one of them."
                )
            found[recipe] = trial
        _require_evaluated(variant, recipe)
    return [*found.values()]


def require_folder_of(what: str, folder: Path, *, plan: str, left: Sequence[str]) -> None:
    """Raise TenfoldError where `folder` is something else, such as a run folder or a home.

    plan: the file that says what it is. left: what a process may leave that died before that.
    """
    if not folder.exists() or (folder / plan).exists():
        return
    if not folder.is_dir():
        raise TenfoldError(f"{folder} is not a folder; give another --folder.")
    others = [p.name for p in folder.iterdir() if p.name not in left and p.suffix != ".tmp"]
    if others:
        raise TenfoldError(
            f"{folder} holds other things than a {what}, such as {min(others)}; give another "
            "--folder."
        )


def agree_on_plan(folder: Path, study: Study, trials: Sequence[Trial]) -> list[Trial]:
    """Write `folder/study.json`, or bring the one that is there up to date; the trials to run.

    More trials may come to those that are there. These keep the description that they had, so that
    rewording a recipe stops nothing. Raises TenfoldError, with the difference, where a trial that
    is there would be dropped or changed.
    """
    path = folder / "study.json"
    before = _known_recipes(read_plan(folder)) if path.exists() else {}
    agreed = []
    for trial in trials:
        if old := before.get(trial.trial):
            recipe = trial.loaded.but(description=old.get("description", ""))
            trial = trial_of(trial.variant, trial.overrides, trial.seed, recipe)
        agreed.append(trial)
    now = {trial.trial: trial.recipe for trial in agreed}
    if missing := [name for name in before if name not in now]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        difference = f"it has the trial {missing[0]}{more}, which was not asked for now"
    else:
        changes = ((name, describe_change(old, now[name])) for name, old in before.items())
        difference = next((f"in {name}, {change}" for name, change in changes if change), "")
    if difference:
        raise TenfoldError(
            f"The study in {folder} is another one: {difference}; give another --folder, or "
            "repeat the command that began it."
        )
    published = {
        v.label: tuple(
            PublishedResult(**{**p.model_dump(), "epoch": p.epoch or None}) for p in v.published
        )
        for v in study.variants
    }
    plan = StudyPlan(
        **study.model_dump(include={"name", "title", "question", "limits"}),
        baseline=study.baseline or None,
        variants=tuple(PlannedVariant(label=k, published=each) for k, each in published.items()),
        trials=tuple(agreed),
    )
    if not path.exists() or read_json(path) != plan.to_dict():
        plan.write(path)
    return agreed


def command_of(folder: Path) -> str | None:
    """The command that repeats the study in `folder`, where that is a shipped one unchanged."""
    plan = read_plan(folder)
    if plan.name not in shipped_studies():
        return None
    most = 1 + max((trial.seed for trial in plan.trials), default=0)
    shipped = choose_study(plan.name)
    with contextlib.suppress(TenfoldError):  # Of a version whose recipes were others.
        planned = {t.trial: without_words(recipe_from_dict(t.recipe)) for t in plan.trials}
        for flags, study in (("", shipped), (f" --seeds {most}", adjust(shipped, seeds=most))):
            if planned == {t.trial: without_words(t.loaded) for t in load_trials(study)}:
                return f"tenfold study {plan.name}{flags}"
    return None


def describe_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """The first field in which two recipes differ, in words; None where they are the same."""
    before, now = (flatten(json.loads(json.dumps(recipe))) for recipe in (old, new))
    for key in before | now:
        if before.get(key) != now.get(key):
            return f"{key} was {before.get(key)!r} and is {now.get(key)!r} now"
    return None


def _known_recipes(plan: StudyPlan) -> dict[str, dict[str, Any]]:
    """The recipes of a plan by trial, with fields that have come to the schema since then; as they
    are, where they can't be loaded now."""
    found = {}
    for trial in plan.trials:
        try:
            found[trial.trial] = recipe_from_dict(trial.recipe).to_dict()
        except TenfoldError:
            found[trial.trial] = trial.recipe
    return found


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
