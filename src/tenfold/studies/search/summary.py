"""All trials of a search as plain numbers: `trials.json`, for the page and for others."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tenfold.recipe import Recipe
from tenfold.recipe.dotted import flatten
from tenfold.results.searches import SearchSummary, State, read_search
from tenfold.results.searches import Trial as SearchedTrial
from tenfold.studies.search.definition import OBJECTIVE, SearchPlan
from tenfold.studies.search.space import Space, with_values
from tenfold.studies.search.store import (
    BASELINE,
    ERROR,
    RUN,
    SURPLUS,
    is_interrupted,
    quiet,
    requested,
    resumes,
)

EPOCHS, NUM_VALIDATION = "epochs", "num_validation"
"""Attributes of a trial: the epochs that it was to train, and the pictures that it is judged by."""

ENOUGH_FOR_IMPORTANCES = 12
"""Complete trials; with fewer, the shares change from trial to trial."""


def summarise(
    study: optuna.Study, plan: SearchPlan, *, with_importances: bool = False
) -> SearchSummary:
    """All that the storage knows; the importances, which take a second, only if asked for."""
    trials = study.get_trials(deepcopy=False)
    records = records_of(trials, plan)
    complete = [record for record in records if record.state == "complete"]
    known: dict[str, Any] = {}
    for trial in trials:
        known |= {k: v for k, v in trial.user_attrs.items() if k in (EPOCHS, NUM_VALIDATION)}
    settings = plan.fact()
    best = max(complete, key=lambda r: (r.accuracy or 0.0, -r.number), default=None)
    own = next((record for record in complete if record.is_baseline), None)
    return SearchSummary(
        name=plan.recipe.name,
        source=plan.source,
        objective=OBJECTIVE,
        recipe=settings.recipe,
        space=settings.space,
        epochs=known.get(EPOCHS),
        num_validation=known.get(NUM_VALIDATION),
        counts=dict(Counter(record.state for record in records)),
        best=best.number if best else None,
        baseline=own.number if own else None,
        importances=_importances(study, plan.space) if with_importances else None,
        trials=tuple(records),
    )


def records_of(trials: Sequence[FrozenTrial], plan: SearchPlan) -> list[SearchedTrial]:
    """The record of each trial that counts or was interrupted, in their order."""
    successors = {number: t.number for t in trials if (number := resumes(t)) is not None}
    return [
        _record(trial, plan, resumed_as=successors.get(trial.number))
        for trial in trials
        if SURPLUS not in trial.user_attrs
    ]


def recorded_trials(folder: Path) -> list[SearchedTrial]:
    """The trials that `folder/trials.json` says have ended; none where there is no such file."""
    if not (folder / "trials.json").exists():
        return []
    return [*read_search(folder).of_state("complete", "pruned", "failed")]


def is_same_trial(record: SearchedTrial, held: Mapping[int, SearchedTrial]) -> bool:
    """Whether `held` has the trial of this record, as it is read from JSON."""
    other = held.get(record.number)
    return (
        other is not None
        and other.accuracy == record.accuracy
        and other.to_dict()["params"] == record.params
    )


def recipe_of(record: SearchedTrial, recipe: Recipe) -> Recipe:
    """The recipe that a trial around `recipe` trained."""
    return with_values(recipe, record.params, source=f"trial {record.number}")


def _record(trial: FrozenTrial, plan: SearchPlan, *, resumed_as: int | None) -> SearchedTrial:
    attributes = trial.user_attrs
    epochs = trial.intermediate_values
    states: dict[TrialState, State] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "interrupted" if is_interrupted(trial) else "failed",
        TrialState.RUNNING: "running",
        TrialState.WAITING: "waiting",
    }
    state = states[trial.state]
    seconds = trial.duration.total_seconds() if trial.duration is not None else None
    return SearchedTrial(
        number=trial.number,
        state=state,
        is_baseline=BASELINE in attributes,
        params=_params(trial, plan),
        accuracy=trial.value if state == "complete" else None,
        values=tuple(epochs.get(n) for n in range(1, max(epochs, default=0) + 1)),
        seconds=seconds,
        error=attributes.get(ERROR),
        run=f"runs/{attributes[RUN]}" if RUN in attributes else None,
        resumes=resumes(trial),
        resumed_as=resumed_as,
    )


def _params(trial: FrozenTrial, plan: SearchPlan) -> dict[str, Any]:
    """The trial's values as recipes have them; the recipe's own ones where nothing was changed."""
    if BASELINE in trial.user_attrs:
        own: Mapping[str, Any] = flatten(plan.recipe.to_dict())
        return {chosen.key: own[chosen.key] for chosen in plan.space}
    stored = requested(trial)
    return {
        chosen.key: chosen.restored(stored[chosen.key])
        for chosen in plan.space
        if chosen.key in stored
    }


def _importances(study: optuna.Study, space: Space) -> dict[str, float] | None:
    """The share of each field in the spread of the accuracies (fANOVA, Hutter et al. 2014)."""
    keys = [chosen.key for chosen in space]
    whole = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if set(keys) <= trial.params.keys()
    ]
    if len(whole) < ENOUGH_FOR_IMPORTANCES or len({trial.value for trial in whole}) < 2:
        return None
    with quiet():
        shares = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0), params=keys
        )
    return dict(shares)
