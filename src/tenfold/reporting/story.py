"""What the numbers say, in sentences for people who have never trained a network."""

import re
from dataclasses import dataclass

from tenfold.errors import counted
from tenfold.evaluation.runs import Run
from tenfold.formatting import (
    count,
    duration,
    interval,
    listed,
    percent,
    points,
    signed_points,
    times,
)
from tenfold.reporting.comparison import Comparison, Group
from tenfold.results.runs import Metrics

_KINDS = {"ann": "a dense network", "cnn": "a convolutional network"}
_FALLBACK = re.compile(r"could not be reached|fall(s|ing)?[ -]?back|instead of|in place of", re.I)


@dataclass(frozen=True)
class Notice:
    """Something to know before the figures; loud ones change what the figures mean."""

    text: str
    loud: bool = False


def describe_run(run: Run) -> str:
    """What was trained on what, and what came of it."""
    kind = _KINDS.get(run.model_name, f"the network {run.model_name}")
    size = f" with {count(run.num_parameters)} parameters" if run.num_parameters else ""
    subject = f"{_capital(kind)}{size}"
    data = f"{_training_pictures(run)}{run.data_name}"
    if run.training is None:
        return f"{subject} is learning from {data}; {_progress(run)}."
    learned = f"{subject} learned from {data} in {duration(run.training.wall_seconds)}"
    scores = run.shown_scores
    if scores is None:
        return f"{learned}. It has not been tried on pictures that it did not learn from."
    return (
        f"{learned} and is right on {percent(scores.accuracy)} of "
        f"{counted(scores.num_images, f'{run.shown_split} picture')}{scores.unseen} "
        f"(95 % interval {interval(*scores.accuracy_interval)}). {_baseline(run)}{_unseen(scores)}"
    )


def notices(run: Run) -> tuple[Notice, ...]:
    """What a reader must know about this run before its figures."""
    found = [
        Notice(note, loud=_FALLBACK.search(note) is not None) for note in run.data.notes if note
    ]
    found += [
        Notice(
            f"The run {run.label} was trained on {count(scores.num_trained_on)} of the "
            f"{counted(scores.num_images, 'image')} of {split}; what it gets right of them says "
            "little.",
            loud=True,
        )
        for split, scores in run.scores.items()
        if scores.num_trained_on
    ]
    if run.training is None:
        found.append(
            Notice(
                f"The run {run.label} is not finished: {_progress(run)}. This page shows what "
                "there is so far; tenfold train with the same recipe goes on where it stopped."
            )
        )
    elif run.shown_split is None:
        found.append(
            Notice(
                f"There are no test or validation pictures for {run.label}, so nothing here says "
                "how well it does on new ones."
            )
        )
    elif run.shown_split == "validation":
        found.append(
            Notice(
                f"There are no test pictures for {run.label}. The figures are from the validation "
                "pictures, which may have been used to choose between settings, so they can be a "
                "little too good."
            )
        )
    return tuple(found)


def compare_in_words(comparison: Comparison) -> str:
    """The sentence that a comparison begins with."""
    scored = [group for group in comparison.groups if group.mean is not None]
    if not scored:
        return (
            "None of these runs has been evaluated yet, so there is nothing to compare but curves."
        )
    if len(comparison.groups) == 1:
        return _one_group(scored[0])
    if not comparison.same_pictures:
        return (
            "These runs were scored on different pictures, so their accuracies can't be set "
            "against each other directly."
        )
    if len(scored) == 1:
        return f"{_accuracy_of(scored[0])}; the other runs have not been evaluated yet."
    best, second = scored[:2]
    assert best.mean is not None
    assert second.mean is not None
    sentence = (
        f"{_accuracy_of(best)}, {_named(second)} on {percent(second.mean)}: "
        f"{points(best.mean - second.mean)} more{_at_what_cost(best.typical, second.typical)}."
    )
    sentence = f"{sentence} {_certainty(comparison, best, second)}".strip()
    if len(scored) > 2:
        sentence += (
            f" The last of {len(scored)} is {scored[-1].label} with {percent(scored[-1].mean)}."
        )
    return sentence


def _training_pictures(run: Run) -> str:
    splits = run.data.splits
    number = splits.get("train")
    return f"{counted(number, 'picture')} of " if number else ""


def _planned_epochs(run: Run) -> int | None:
    """Of all stages; None where the recipe does not say."""
    own = (run.recipe.get("training") or {}).get("epochs")
    stages = run.recipe.get("stages") or ()
    return sum(stage.get("epochs") or own or 0 for stage in stages) if stages else own


def _progress(run: Run) -> str:
    if not run.epochs:
        return "it has not completed an epoch yet"
    last = run.epochs[-1]
    planned = _planned_epochs(run)
    done = (
        f"{last.number} of {planned} epochs are done" if planned else f"epoch {last.number} is done"
    )
    if last.validation_accuracy is None:
        return done
    return f"{done}, with {percent(last.validation_accuracy)} right on the validation pictures"


def _baseline(run: Run) -> str:
    assert run.shown_scores is not None
    totals = run.shown_scores.matrix.sum(axis=1)
    share = float(totals.max() / max(totals.sum(), 1))
    return f"Always naming the commonest class would be right on {percent(share)}."


def _unseen(scores: Metrics) -> str:
    names = [score.name for score in scores.per_class if not score.num_images]
    more = [f"{len(names) - 5} others"] if len(names) > 6 else []
    shown = names[:5] + more if more else names
    return f" There were no images of {listed(shown)} to try it on." if names else ""


def _one_group(group: Group) -> str:
    low, high = min(group.accuracies), max(group.accuracies)
    number = len(group.accuracies)
    if group.deviation is None:
        return f"{_accuracy_of(group)}; the other runs of it have not been evaluated yet."
    return (
        f"{number} runs of {group.label} that differ in nothing but the seed are right on "
        f"{percent(group.mean)} on average, from {interval(low, high)} "
        f"(standard deviation {points(group.deviation, digits=2)})."
    )


def _accuracy_of(group: Group) -> str:
    """The beginning of a sentence; a label keeps its first letter as it is."""
    name = _named(group)
    name = name if name == group.label else _capital(name)
    scores = group.typical.shown_scores
    assert scores is not None
    average = f" on average over {len(group.accuracies)} seeds" if group.deviation else ""
    return (
        f"{name} is right on {percent(group.mean)} of the "
        f"{counted(scores.num_images, f'{group.typical.shown_split} picture')}{average}"
    )


def _named(group: Group) -> str:
    """`the dense network (ann)` where the label begins with the network's name, else the label."""
    model = group.runs[0].model_name
    kind = _KINDS.get(model)
    if kind is None or group.label.partition("-")[0] != model:
        return group.label
    return f"the {kind.removeprefix('a ')} ({group.label})"


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _at_what_cost(best: Run, second: Run) -> str:
    parts = []
    if best.num_parameters and second.num_parameters:
        compared = _ratio(best.num_parameters, second.num_parameters, "parameters")
        parts.append(f"with {compared}")
    if best.training and second.training:
        ratio = best.training.wall_seconds / max(second.training.wall_seconds, 1e-9)
        if 1 / 1.1 < ratio < 1.1:
            parts.append("in about the same training time")
        elif ratio > 1:
            parts.append(f"after {times(ratio)} the training time")
        else:
            parts.append(f"in {percent(ratio, digits=0)} of the training time")
    return "".join(f", {part}" for part in parts[:1]) + "".join(
        f" and {part}" for part in parts[1:]
    )


def _ratio(number: float, other: float, noun: str) -> str:
    ratio = number / other
    if 1 / 1.1 < ratio < 1.1:
        return f"about as many {noun}"
    if ratio > 1:
        return f"{times(ratio)} as many {noun}"
    return f"{percent(ratio, digits=0)} of the {noun}"


def _certainty(comparison: Comparison, best: Group, second: Group) -> str:
    pair = comparison.pair
    if pair is None or pair.first is not best.typical or pair.second is not second.typical:
        return ""
    low, high = pair.interval
    if pair.is_clear:
        text = (
            f"The choice of {pair.first.shown_split} pictures can't explain the difference: its "
            f"95 % interval is {_range(low, high)}."
        )
    else:
        text = (
            f"That is too close to call on these pictures: the 95 % interval of the difference is "
            f"{_range(low, high)}, and zero lies in it."
        )
    if best.deviation is None and second.deviation is None:
        text += (
            " Each was trained once; how much luck there is in the training itself, only more "
            "seeds can show."
        )
    return text


def _range(low: float, high: float) -> str:
    if low > 0:
        return f"{100 * low:.1f} to {points(high)}"
    return f"{signed_points(low)} to {signed_points(high)} points"
