"""The charts of the live page."""

from collections.abc import Sequence

from tenfold.reporting.live.curves import Curve, draw
from tenfold.reporting.live.runs import LiveRun
from tenfold.reporting.templating import Chart

MOST_NAMED = 5
"""Runs with a colour and a name; the others are lines in the background."""

MOST_LETTERS = 22
"""Of a name in a legend; its end says more."""


def of_run(run: LiveRun) -> list[Chart]:
    """Accuracy and loss by epoch, and loss by step, as far as there are any."""
    found = []
    for quantity, caption in (
        ("accuracy", "Training accuracy is that of augmented images while weights still change."),
        ("loss", "A validation line that turns upwards means ever more confident errors."),
    ):
        lines = [
            _curve(run, f"validation_{quantity}", "validation", "var(--accent)"),
            _curve(run, f"train_{quantity}", "training", "var(--muted)"),
        ]
        if lines := [line for line in lines if line.points]:
            heading, is_share = f"{quantity.capitalize()} by epoch", quantity == "accuracy"
            names = "epoch", quantity
            found.append(draw(heading, lines, names=names, caption=caption, is_share=is_share))
    if len(run.steps) > 1:
        steps = Curve("training", "var(--muted)", [(step, loss) for step, loss, _ in run.steps])
        caption = "As the optimiser sees it, with smoothing and mixing where the recipe has them."
        names = "step", "loss"
        found.append(draw("Training loss by step", [steps], names=names, caption=caption))
    return found


def of_runs(runs: Sequence[LiveRun]) -> Chart:
    """Validation accuracy by epoch of all runs, of which the first have colours."""
    lines = [
        _curve(run, "validation_accuracy", _short(run.name), f"var(--s{place})")
        if place <= MOST_NAMED
        else _curve(run, "validation_accuracy", "", "var(--line)")
        for place, run in enumerate(runs, start=1)
    ]
    caption = "The first runs of the table have colours and names"
    caption += "; the others are thin lines." if len(runs) > MOST_NAMED else "."
    names = "epoch", "validation accuracy"
    return draw("By epoch", lines, names=names, caption=caption, is_share=True, width=720)


def _short(name: str) -> str:
    return name if len(name) <= MOST_LETTERS else f"…{name[1 - MOST_LETTERS :]}"


def _curve(run: LiveRun, quantity: str, name: str, colour: str) -> Curve:
    points = [(float(each.number), getattr(each, quantity)) for each in run.epochs]
    return Curve(name, colour, [(x, y) for x, y in points if y is not None])
