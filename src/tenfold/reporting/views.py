"""What the templates show: charts, tables and pictures of one run or of several."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tenfold.audit.card import model_card
from tenfold.audit.page import sections
from tenfold.audit.store import known_answers
from tenfold.errors import counted
from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.runs import Run
from tenfold.formatting import count, duration, interval, percent, rate
from tenfold.reporting import facts, figures, story
from tenfold.reporting.charts import Chart, Charts
from tenfold.reporting.exports import exports_section
from tenfold.reporting.galleries import (
    Card,
    Loader,
    Pictures,
    right_cards,
    unsure_cards,
    wrong_cards,
)
from tenfold.results.runs import Epoch, Metrics
from tenfold.run import RunFolder


@dataclass(frozen=True)
class Tile:
    """One figure of the headline."""

    value: str
    name: str
    detail: str = ""


@dataclass(frozen=True)
class Gallery:
    """A grid of pictures, or a sentence where there are none."""

    heading: str
    caption: str
    cards: tuple[Card, ...]
    empty: str


def view_run(
    run: Run, *, charts: Charts, loader: Loader | None, with_curves: bool = True
) -> dict[str, Any]:
    """The values of the template for one run; without a loader there are no pictures."""
    recipe, defaults = facts.recipe_rows(run)
    pictures = Pictures(run, loader) if loader else None
    scores = run.shown_scores
    galleries = _galleries(run, pictures) if pictures else ()
    answers = known_answers(RunFolder(run.folder)) if loader else {}
    exports = exports_section(run.folder) if loader else None
    return {
        "run": run,
        "lead": story.describe_run(run),
        "notices": story.notices(run),
        "tiles": _tiles(run),
        "curves": learning_charts(run.epochs, charts, stage_ends=run.stage_ends)
        if with_curves
        else (),
        "curves_note": _curves_note(run),
        "answers": _answer_charts(scores, charts) if scores else (),
        "mistakes": scores.most_confused[:10] if scores else (),
        "galleries": galleries,
        "pictures_note": (pictures.problem or "") if pictures else "",
        "training": facts.training_rows(run),
        "scores": facts.score_rows(run),
        "uses": facts.use_rows(run),
        "recipe": recipe,
        "recipe_defaults": defaults,
        "provenance": facts.provenance_rows(run),
        "epochs": run.epochs,
        "trust": model_card(run, answers) if answers else None,
        "audit": (*sections(answers, charts), *([exports] if exports else [])),
    }


def learning_charts(
    epochs: Sequence[Epoch], charts: Charts, *, stage_ends: Sequence[int] = ()
) -> tuple[Chart, ...]:
    """Accuracy and loss by epoch, with a line after each of `stage_ends`."""
    if not epochs:
        return ()
    return (
        charts.chart(
            "Right answers while learning",
            figures.learning_curves(epochs, quantity="accuracy", stage_ends=stage_ends),
            "Higher is better. The further the training line rises above the validation line, the "
            "more was learned by heart.",
        ),
        charts.chart(
            "Loss while learning",
            figures.learning_curves(epochs, quantity="loss", stage_ends=stage_ends),
            "Lower is better. The loss also counts how sure the answers are: a validation line "
            "that turns upwards means surer and surer mistakes.",
        ),
    )


def _answer_charts(scores: Metrics, charts: Charts) -> tuple[Chart, ...]:
    names = [score.name for score in scores.per_class]
    bitmap = len(names) > figures.MAX_CLASSES_WITH_FIGURES
    key = (
        "The stronger the red, the more often it happens."
        if bitmap
        else "Figures are per 100 pictures of the row; the commonest mistake is the reddest."
    )
    return (
        charts.chart(
            "Which class is taken for which",
            figures.confusion_matrix(scores.matrix, names),
            "Each row holds the pictures of one class, each column one answer. Blue cells are "
            f"right answers, red ones mistakes. {key}",
            wide=bitmap,
        ),
        charts.chart(
            "Class by class",
            figures.per_class_bars(scores.per_class),
            "Recall: of the pictures of this class, how many were found. Precision: of the "
            "pictures called this, how many were. F1 sums up both.",
        ),
        charts.chart(
            "How sure it is",
            figures.confidence_histogram(scores),
            "Each bar holds the answers of one confidence, as trained, before any temperature. A "
            "model that knows what it knows has its mistakes on the left and few on the right.",
        ),
    )


def _tiles(run: Run) -> tuple[Tile, ...]:
    tiles = []
    scores = run.shown_scores
    if scores:
        tiles.append(
            Tile(
                percent(scores.accuracy),
                f"right on {run.shown_split} pictures",
                f"95 % interval {interval(*scores.accuracy_interval)}, "
                f"{counted(scores.num_images, 'picture')}",
            )
        )
    elif run.epochs and run.epochs[-1].validation_accuracy is not None:
        last = run.epochs[-1]
        tiles.append(Tile(percent(last.validation_accuracy), f"validation, epoch {last.number}"))
    if run.training:
        tiles.append(
            Tile(
                duration(run.training.wall_seconds),
                "training time",
                counted(run.training.epochs, "epoch"),
            )
        )
    if run.num_parameters:
        tiles.append(Tile(count(run.num_parameters), "parameters", "numbers that were learned"))
    if run.training and run.training.images_per_second:
        tiles.append(Tile(rate(run.training.images_per_second), "pictures a second", "in training"))
    return tuple(tiles)


def _curves_note(run: Run) -> str:
    if not run.epochs:
        return "No epoch has been completed yet, so there are no curves."
    notes = []
    if all(epoch.validation_loss is None for epoch in run.epochs):
        notes.append(
            "No pictures were held back for validation, so there is only the training line."
        )
    if len(run.epochs) == 1:
        notes.append("There is one epoch, so each line is a single dot.")
    if run.stage_ends:
        notes.append("A dotted line is where another part of the network began to learn.")
    return " ".join(notes)


def _galleries(run: Run, pictures: Pictures) -> tuple[Gallery, ...]:
    answers = run.shown_answers
    if answers is None:
        return ()
    kinds: tuple[
        tuple[str, Callable[[Predictions, str, Pictures], tuple[Card, ...]], str, str], ...
    ] = (
        (
            "Its surest mistakes",
            wrong_cards,
            "The wrong answers that it gave with the highest confidence. Some are hard for people "
            "too, and some labels may be wrong.",
            f"It made no mistake on the {run.shown_split} pictures.",
        ),
        (
            "Where it could not decide",
            unsure_cards,
            "The pictures whose two best guesses were closest to each other.",
            "There is only one class, so there is nothing to decide.",
        ),
        (
            "Right answers",
            right_cards,
            "Taken at even distances from all right answers, so they are ordinary ones.",
            f"It got none of the {run.shown_split} pictures right.",
        ),
    )
    return tuple(
        Gallery(heading, caption, choose(answers, run.label, pictures), empty)
        for heading, choose, caption, empty in kinds
    )
