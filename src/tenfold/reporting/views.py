"""What the template of a run shows besides the run itself: charts, images and settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from tenfold.audit.card import model_card
from tenfold.audit.page import sections
from tenfold.audit.store import known_answers
from tenfold.errors import TenfoldError
from tenfold.evaluation.runs import Run
from tenfold.recipe import recipe_from_dict
from tenfold.recipe.dotted import as_texts
from tenfold.reporting import figures, story
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


def view_run(
    run: Run, *, charts: Charts, loader: Loader | None, with_curves: bool = True
) -> dict[str, Any]:
    """The values of the template for one run; without a loader there are no images."""
    recipe, defaults = _settings(run.recipe)
    pictures = Pictures(run, loader) if loader else None
    scores = run.shown_scores
    galleries = _galleries(run, pictures) if pictures else {}
    answers = known_answers(RunFolder(run.folder)) if loader else {}
    exports = exports_section(run.folder) if loader else None
    curves = learning_charts(run.epochs, charts, stage_ends=run.stage_ends) if with_curves else ()
    return {
        "run": run,
        "lead": story.describe_run(run),
        "notices": story.notices(run),
        "curves": curves,
        "answers": _prediction_charts(scores, charts) if scores else (),
        "galleries": galleries,
        "pictures_note": (pictures.problem or "") if pictures else "",
        "recipe": recipe,
        "recipe_defaults": defaults,
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
            "Accuracy by epoch",
            figures.learning_curves(epochs, quantity="accuracy", stage_ends=stage_ends),
            "Higher is better. The further the training line rises above the validation line, the "
            "more it overfits.",
        ),
        charts.chart(
            "Loss by epoch",
            figures.learning_curves(epochs, quantity="loss", stage_ends=stage_ends),
            "Lower is better. The loss also counts confidence: a validation line that turns "
            "upwards means ever more confident errors.",
        ),
    )


def _prediction_charts(scores: Metrics, charts: Charts) -> tuple[Chart, ...]:
    names = [score.name for score in scores.per_class]
    bitmap = len(names) > figures.MAX_CLASSES_WITH_FIGURES
    key = (
        "The stronger the red, the more often it happens."
        if bitmap
        else "Figures are per 100 images of the row; the commonest error is the reddest."
    )
    return (
        charts.chart(
            "Confusion matrix",
            figures.confusion_matrix(scores.matrix, names),
            "Each row holds the images of one class, each column one prediction. Blue cells are "
            f"correct, red ones errors. {key}",
            wide=bitmap,
        ),
        charts.chart(
            "Precision, recall and F1 by class",
            figures.per_class_bars(scores.per_class),
            "Recall: of the images of this class, how many were found. Precision: of the "
            "images predicted to be this, how many are. F1 sums up both.",
        ),
        charts.chart(
            "Confidence",
            figures.confidence_histogram(scores),
            "Each bar holds the predictions of one confidence, as trained, before any "
            "temperature. A well calibrated model has its errors on the left.",
        ),
    )


def _galleries(run: Run, pictures: Pictures) -> dict[str, tuple[Card, ...]]:
    if (predictions := run.shown_answers) is None:
        return {}
    kinds = {"wrong": wrong_cards, "unsure": unsure_cards, "right": right_cards}
    return {name: choose(predictions, run.label, pictures) for name, choose in kinds.items()}


def _settings(recipe: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """What a recipe sets, and what stands at its default."""
    tags = {
        table: {"name": values["name"]}
        for table, values in recipe.items()
        if isinstance(values, Mapping) and "name" in values and table != "data"
    }
    try:
        defaults = as_texts(recipe_from_dict(tags).to_dict())
    except TenfoldError:
        defaults = {}  # A recipe of another version of tenfold: everything is shown as set.
    named = {f"{table}.name" for table in recipe} | {"name", "description", "seed"}
    known = {key: value for key, value in as_texts(recipe).items() if value}
    own = {key: v for key, v in known.items() if key in named or defaults.get(key) != v}
    return own, {key: value for key, value in known.items() if key not in own}
