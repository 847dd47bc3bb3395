"""Several heads on the same features: what a pretrained network knows, and how best to ask it."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from accelerate import Accelerator

from tenfold.data import Images
from tenfold.data.splits import TrainingData
from tenfold.errors import TenfoldError
from tenfold.evaluation.features import features_of
from tenfold.evaluation.predictions import map_labels, predict_images
from tenfold.evaluation.trained import TrainedModel
from tenfold.models import Pretrained
from tenfold.progress import Progress
from tenfold.recipe import Recipe, StageOptions
from tenfold.training.trainer import fit

NEIGHBOURS = (1, 5, 10, 20, 50)
"""Numbers of neighbours that validation chooses from; the middle one without validation."""

INVERSE_PENALTIES = (0.1, 0.01, 0.001)
"""`C` of logistic regression on standardised features, chosen likewise."""

HIDDEN = 256
"""Units of the MLP's one hidden layer, as `transfer-resnet50` has them."""


class HeadResult(NamedTuple):
    """One head: what was chosen for it, accuracies (None without such images), and the seconds
    that training and choosing took once the features were there."""

    head: str
    chosen: str
    validation: float | None
    test: float | None
    seconds: float


def compare_heads(
    recipe: Recipe,
    data: TrainingData,
    test: Images | None,
    *,
    accelerator: Accelerator,
    progress: Progress | None = None,
) -> Iterator[HeadResult]:
    """A linear head, an MLP, nearest neighbours and logistic regression, one after the other.

    The first two are trained by the ordinary loop with the recipe's first stage of its head; the
    others are scikit-learn's. What there is to choose is chosen on validation images. Raises
    TenfoldError where the recipe has no pretrained network.
    """
    require_pretrained(recipe)
    model: TrainedModel | None = None
    heads = [stage for stage in recipe.stages if stage.trains == "head"]
    stage = heads[0] if heads else StageOptions(trains="head")
    for name, units in (("linear", ()), ("MLP", (HIDDEN,))):
        wanted = recipe.but(model=recipe.model.but(head=units), stages=(stage,))
        if model is None:  # So that the features are there, and nobody's seconds.
            training = wanted.training.but(min_steps=0)
            short = wanted.but(training=training, stages=(stage.but(epochs=1),))
            model = fit(short, data, accelerator=accelerator, progress=progress).model
            if test is not None:
                predict_images(model, test, progress=progress)
        started = time.perf_counter()
        fitted = fit(wanted, data, accelerator=accelerator, progress=progress)
        seconds = time.perf_counter() - started
        yield HeadResult(
            name,
            f"{HIDDEN} units" if units else "",
            _right(fitted.model, data.validation),
            _right(fitted.model, test),
            seconds,
        )
    assert model is not None
    yield from _of_scikit_learn(model, data, test)


def require_pretrained(recipe: Recipe) -> None:
    """Raise TenfoldError where `recipe` has no pretrained network."""
    if recipe.model.name != "pretrained":
        raise TenfoldError(
            f"{recipe.name} has no pretrained network (its model is {recipe.model.name}); name a "
            "recipe such as transfer-lite0."
        )


def _right(model: TrainedModel, images: Images | None) -> float | None:
    if images is None:
        return None
    found = predict_images(model, images)
    return float((found.logits.argmax(axis=1) == found.labels).mean())


def _of_scikit_learn(
    model: TrainedModel, data: TrainingData, test: Images | None
) -> Iterator[HeadResult]:
    """Nearest neighbours by the angle between features, the nearer the weightier, and logistic
    regression, each with the value that is best on validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def split(images: Images | None) -> tuple[Any, Any] | None:
        if images is None:
            return None
        assert isinstance(model.module, Pretrained)
        features = features_of(model.module, images.pixels, model.normalisation)
        return features, map_labels(images, model.class_names)

    def nearest(number: Any) -> Any:
        number = min(number, len(data.train))
        return KNeighborsClassifier(number, metric="cosine", weights="distance")

    def logistic(inverse_penalty: Any) -> Any:
        regression = LogisticRegression(C=inverse_penalty, max_iter=300, tol=1e-3)
        return make_pipeline(StandardScaler(), regression)

    train, validation, final = map(split, (data.train, data.validation, test))
    assert train is not None
    for head, words, make, values in (
        ("nearest neighbours", "k = {}", nearest, NEIGHBOURS),
        ("logistic regression", "C = {}", logistic, INVERSE_PENALTIES),
    ):
        started = time.perf_counter()
        tried = values if validation else [values[len(values) // 2]]
        fitted = [make(value).fit(*train) for value in tried]
        scores = [float(each.score(*validation)) if validation else 0.0 for each in fitted]
        best, seconds = scores.index(max(scores)), time.perf_counter() - started
        yield HeadResult(
            head,
            words.format(tried[best]),
            scores[best] if validation else None,
            float(fitted[best].score(*final)) if final else None,
            seconds,
        )
