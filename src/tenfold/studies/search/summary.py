"""What a search has found, all trials as plain numbers: `trials.json`."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tenfold.results.searches import Plan, SearchFile, SearchSummary
from tenfold.results.searches import Trial as SearchedTrial
from tenfold.studies.search import store

EPOCHS, NUM_VALIDATION = "epochs", "num_validation"
"""Attributes of a trial: the epochs that it was to train, and the images that it is judged by."""

ENOUGH_FOR_IMPORTANCES = 12
"""Complete trials; with fewer, the shares change from trial to trial."""


def summarise(
    study: optuna.Study, plan: SearchFile, *, with_importances: bool = False
) -> SearchSummary:
    """All that the storage knows; the importances, which take a second, only if asked for."""
    trials = study.get_trials(deepcopy=False)
    records = records_of(trials, plan)
    complete = [record for record in records if record.state == "complete"]
    known = {key: value for trial in trials for key, value in trial.user_attrs.items()}
    best = max(complete, key=lambda r: (r.accuracy or 0.0, -r.number), default=None)
    own = next((record for record in complete if record.is_baseline), None)
    return SearchSummary(
        name=plan.recipe["name"],
        source=plan.source,
        epochs=known.get(EPOCHS),
        num_validation=known.get(NUM_VALIDATION),
        counts=dict(Counter(record.state for record in records)),
        best=best.number if best else None,
        baseline=own.number if own else None,
        importances=_importances(study, plan) if with_importances else None,
        trials=tuple(records),
        objective=plan.objective,
        recipe=plan.recipe,
        space=plan.space,
    )


def records_of(trials: Sequence[FrozenTrial], plan: Plan) -> list[SearchedTrial]:
    """The record of each trial, in their order."""
    successors = {number: t.number for t in trials if (number := store.resumes(t)) is not None}
    return [_record(trial, plan, resumed_as=successors.get(trial.number)) for trial in trials]


def _record(trial: FrozenTrial, plan: Plan, *, resumed_as: int | None) -> SearchedTrial:
    attributes, epochs = trial.user_attrs, trial.intermediate_values
    state: Any = trial.state.name.lower()
    if trial.state == TrialState.FAIL:
        state = "interrupted" if store.is_interrupted(trial) else "failed"
    is_baseline = store.BASELINE in attributes
    # It has drawn them, or waits to be given them.
    stored = trial.system_attrs.get("fixed_params", {}) | trial.params
    drawn = {s.key: s.restored(stored[s.key]) for s in plan.space if s.key in stored}
    return SearchedTrial(
        number=trial.number,
        state=state,
        is_baseline=is_baseline,
        params=plan.own_values if is_baseline else drawn,
        accuracy=trial.value if state == "complete" else None,
        values=tuple(epochs.get(n) for n in range(1, max(epochs, default=0) + 1)),
        seconds=trial.duration.total_seconds() if trial.duration is not None else None,
        error=attributes.get(store.ERROR),
        run=f"runs/{attributes[store.RUN]}" if store.RUN in attributes else None,
        resumes=store.resumes(trial),
        resumed_as=resumed_as,
    )


def _importances(study: optuna.Study, plan: Plan) -> dict[str, float] | None:
    """The share of each field in the spread of the accuracies (fANOVA, Hutter et al. 2014)."""
    keys = [setting.key for setting in plan.space]
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = [trial.value for trial in complete if set(keys) <= trial.params.keys()]
    if len(values) < ENOUGH_FOR_IMPORTANCES or len(set(values)) < 2:
        return None
    with store.quiet():
        shares = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0), params=keys
        )
    return dict(shares)
