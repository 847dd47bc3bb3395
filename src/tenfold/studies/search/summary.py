"""What a search has found: `trials.json`, all trials as plain numbers, and `best.toml`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tenfold.errors import counted
from tenfold.files import write_text
from tenfold.recipe import Options
from tenfold.recipe.dotted import flatten
from tenfold.results.searches import SearchSummary
from tenfold.results.searches import Trial as SearchedTrial
from tenfold.studies.search import store
from tenfold.studies.search.plan import SearchPlan, to_toml
from tenfold.studies.search.space import Space, with_values

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
    best = max(complete, key=lambda r: (r.accuracy or 0.0, -r.number), default=None)
    own = next((record for record in complete if record.is_baseline), None)
    return SearchSummary(
        name=plan.recipe.name,
        source=plan.source,
        epochs=known.get(EPOCHS),
        num_validation=known.get(NUM_VALIDATION),
        counts=dict(Counter(record.state for record in records)),
        best=best.number if best else None,
        baseline=own.number if own else None,
        importances=_importances(study, plan.space) if with_importances else None,
        trials=tuple(records),
        **{key: value for key, value in plan.fact() if key != "checksums"},
    )


def records_of(trials: Sequence[FrozenTrial], plan: SearchPlan) -> list[SearchedTrial]:
    """The record of each trial, in their order."""
    successors = {number: t.number for t in trials if (number := store.resumes(t)) is not None}
    return [_record(trial, plan, resumed_as=successors.get(trial.number)) for trial in trials]


def _record(trial: FrozenTrial, plan: SearchPlan, *, resumed_as: int | None) -> SearchedTrial:
    attributes = trial.user_attrs
    epochs = trial.intermediate_values
    state: Any = trial.state.name.lower()
    if trial.state == TrialState.FAIL:
        state = "interrupted" if store.is_interrupted(trial) else "failed"
    seconds = trial.duration.total_seconds() if trial.duration is not None else None
    return SearchedTrial(
        number=trial.number,
        state=state,
        is_baseline=store.BASELINE in attributes,
        params=_params(trial, plan),
        accuracy=trial.value if state == "complete" else None,
        values=tuple(epochs.get(n) for n in range(1, max(epochs, default=0) + 1)),
        seconds=seconds,
        error=attributes.get(store.ERROR),
        run=f"runs/{attributes[store.RUN]}" if store.RUN in attributes else None,
        resumes=store.resumes(trial),
        resumed_as=resumed_as,
    )


def _params(trial: FrozenTrial, plan: SearchPlan) -> dict[str, Any]:
    """The trial's values as recipes have them; the recipe's own ones where nothing was changed."""
    if store.BASELINE in trial.user_attrs:
        own: Mapping[str, Any] = flatten(plan.recipe.to_dict())
        return {chosen.key: own[chosen.key] for chosen in plan.space}
    # It has drawn them, or waits to be given them.
    stored = trial.system_attrs.get("fixed_params", {}) | trial.params
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
    with store.quiet():
        shares = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0), params=keys
        )
    return dict(shares)


def write_best(folder: Path, plan: SearchPlan, summary: SearchSummary) -> None:
    """Write `folder/best.toml`, a recipe for `load_recipe`; nothing where no trial is complete."""
    best = summary.best_trial
    if best is None:
        return
    name = plan.recipe.name
    recipe = with_values(plan.recipe, best.params, source=f"trial {best.number}")
    # Its runs are a series of their own, and what the recipe says of itself is no longer so.
    recipe = recipe.but(name=f"{name}-best", description=f"{name} with the values of a search")
    values = to_toml(_differences(recipe))
    write_text(folder / "best.toml", f"{_header(folder, plan, summary, best)}\n{values}")


def _header(folder: Path, plan: SearchPlan, summary: SearchSummary, best: SearchedTrial) -> str:
    counts = summary.counts
    num_trained = counts.get("complete", 0) + counts.get("pruned", 0) + counts.get("failed", 0)
    lines = [
        f"The best of {counted(num_trained, 'trial')} of a search around the recipe {plan.source},",
        f"trial {best.number} of the search in {folder.as_posix()}, with seed {plan.recipe.seed}.",
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
    return "".join(f"# {line}".rstrip() + "\n" for line in printable)


def _plain(value: Any) -> Any:
    """A tuple as a list, and tables in it as what differs from their defaults."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return _differences(value) if isinstance(value, Options) else value


def _differences(table: Options) -> dict[str, Any]:
    """The fields of a table that differ from their defaults, in the order of the schema."""
    chosen: dict[str, Any] = {}
    for key, own in table:
        if isinstance(own, Options):
            if inner := _differences(own):
                chosen[key] = inner
        elif key == "name" or own != type(table).model_fields[key].default:
            chosen[key] = _plain(own)
    return chosen
