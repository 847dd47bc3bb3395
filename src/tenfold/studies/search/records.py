"""All trials of a search as plain numbers: `trials.json`, for the page and for others."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import optuna
from optuna.trial import FrozenTrial, TrialState

from tenfold.files import read_json
from tenfold.recipe import Recipe
from tenfold.recipe.dotted import flatten
from tenfold.studies.search.plan import OBJECTIVE, SearchPlan
from tenfold.studies.search.queue import (
    BASELINE,
    ERROR,
    RESUMES,
    RUN,
    SURPLUS,
    is_interrupted,
    requested,
    resumed_by,
)
from tenfold.studies.search.space import Space, with_values
from tenfold.studies.search.storage import quiet

EPOCHS, NUM_VALIDATION = "epochs", "num_validation"
"""Attributes of a trial: the epochs that it was to train, and the pictures that it is judged by."""

ENOUGH_FOR_IMPORTANCES = 12
"""Complete trials; with fewer, the shares change from trial to trial."""

State = Literal["complete", "pruned", "failed", "interrupted", "running", "waiting"]


class TrialRecord(TypedDict):
    """What is known of a trial.

    accuracy: on validation after the last epoch, None where it didn't come to that. values: the
    same after each epoch, None where it is missing. run: its folder, seen from the search's.
    resumes, resumed_as: the number of the interrupted trial that it does again, and of the one
    that did it again.
    """

    number: int
    state: State
    is_baseline: bool
    params: dict[str, Any]
    accuracy: float | None
    values: list[float | None]
    seconds: float | None
    error: str | None
    run: str | None
    resumes: int | None
    resumed_as: int | None


class Summary(TypedDict):
    """A whole search. best, baseline: numbers of trials. importances: shares that add up to 1."""

    name: str
    source: str
    objective: str
    recipe: dict[str, Any]
    space: list[dict[str, Any]]
    epochs: int | None
    num_validation: int | None
    counts: dict[str, int]
    best: int | None
    baseline: int | None
    importances: dict[str, float] | None
    trials: list[TrialRecord]


def summarise(study: optuna.Study, plan: SearchPlan, *, with_importances: bool = False) -> Summary:
    """All that the storage knows; the importances, which take a second, only if asked for."""
    trials = study.get_trials(deepcopy=False)
    records = records_of(trials, plan)
    complete = [record for record in records if record["state"] == "complete"]
    states: dict[str, int] = {}
    for record in records:
        states[record["state"]] = states.get(record["state"], 0) + 1
    known: dict[str, Any] = {}
    for trial in trials:
        known |= {k: v for k, v in trial.user_attrs.items() if k in (EPOCHS, NUM_VALIDATION)}
    settings = plan.to_dict()
    best = max(complete, key=lambda r: (r["accuracy"] or 0.0, -r["number"]), default=None)
    own = next((record for record in complete if record["is_baseline"]), None)
    return Summary(
        name=plan.recipe.name,
        source=plan.source,
        objective=OBJECTIVE,
        recipe=settings["recipe"],
        space=settings["space"],
        epochs=known.get(EPOCHS),
        num_validation=known.get(NUM_VALIDATION),
        counts=states,
        best=best["number"] if best else None,
        baseline=own["number"] if own else None,
        importances=_importances(study, plan.space) if with_importances else None,
        trials=records,
    )


def records_of(trials: Sequence[FrozenTrial], plan: SearchPlan) -> list[TrialRecord]:
    """The record of each trial that counts or was interrupted, in their order."""
    successors = resumed_by(trials)
    return [
        _record(trial, plan, resumed_as=successors.get(trial.number))
        for trial in trials
        if SURPLUS not in trial.user_attrs
    ]


def recorded_trials(folder: Path) -> list[TrialRecord]:
    """The trials that `folder/trials.json` says have ended; none where there is no such file."""
    path = folder / "trials.json"
    records: list[TrialRecord] = read_json(path)["trials"] if path.exists() else []
    return [record for record in records if record["state"] in ("complete", "pruned", "failed")]


def is_same_trial(record: TrialRecord, held: Mapping[int, TrialRecord]) -> bool:
    """Whether `held` has the trial of this record, as it is read from JSON."""
    other = held.get(record["number"])
    if other is None:
        return False
    kept = json.loads(json.dumps([other["params"], other["accuracy"]]))
    return bool(kept == [record["params"], record["accuracy"]])


def recipe_of(record: TrialRecord, recipe: Recipe) -> Recipe:
    """The recipe that a trial around `recipe` trained."""
    return with_values(recipe, record["params"], source=f"trial {record['number']}")


def _record(trial: FrozenTrial, plan: SearchPlan, *, resumed_as: int | None) -> TrialRecord:
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
    return TrialRecord(
        number=trial.number,
        state=state,
        is_baseline=BASELINE in attributes,
        params=_params(trial, plan),
        accuracy=trial.value if state == "complete" else None,
        values=[epochs.get(epoch) for epoch in range(1, max(epochs, default=0) + 1)],
        seconds=seconds,
        error=attributes.get(ERROR),
        run=f"runs/{attributes[RUN]}" if RUN in attributes else None,
        resumes=attributes.get(RESUMES),
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
