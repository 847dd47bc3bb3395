"""What the numbers say, in sentences for people who have never trained a network."""

import re
from dataclasses import dataclass

from tenfold.errors import counted
from tenfold.evaluation.runs import Run
from tenfold.formatting import count, duration, interval, listed, percent
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
    data = f"{_training_images(run)}{run.data_name}"
    if run.training is None:
        return f"{subject} is learning from {data}; {_progress(run)}."
    learned = f"{subject} learned from {data} in {duration(run.training.wall_seconds)}"
    scores = run.shown_scores
    if scores is None:
        return f"{learned}. It has not been tried on images that it did not learn from."
    return (
        f"{learned} and has an accuracy of {percent(scores.accuracy)} on "
        f"{counted(scores.num_images, f'{run.shown_split} image')}{scores.unseen} "
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
                f"There are no test or validation images for {run.label}, so nothing here says "
                "how well it does on new ones."
            )
        )
    elif run.shown_split == "validation":
        found.append(
            Notice(
                f"There are no test images for {run.label}. The figures are from the validation "
                "images, which may have been used to choose between settings, so they can be a "
                "little too good."
            )
        )
    return tuple(found)


def _training_images(run: Run) -> str:
    splits = run.data.splits
    number = splits.get("train")
    return f"{counted(number, 'image')} of " if number else ""


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
    return f"{done}, with {percent(last.validation_accuracy)} validation accuracy"


def _baseline(run: Run) -> str:
    assert run.shown_scores is not None
    totals = run.shown_scores.matrix.sum(axis=1)
    share = float(totals.max() / max(totals.sum(), 1))
    return f"Always predicting the commonest class would reach {percent(share)}."


def _unseen(scores: Metrics) -> str:
    names = [score.name for score in scores.per_class if not score.num_images]
    more = [f"{len(names) - 5} others"] if len(names) > 6 else []
    shown = names[:5] + more if more else names
    return f" There were no images of {listed(shown)} to try it on." if names else ""


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
