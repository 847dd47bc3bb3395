"""Several heads on the same features: what a pretrained network knows, and how best to ask it."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from tenfold.data import Images
from tenfold.data.splits import TrainingData
from tenfold.errors import TenfoldError
from tenfold.evaluation.features import features_of
from tenfold.evaluation.predictions import map_labels, predict_images
from tenfold.evaluation.trained import TrainedModel
from tenfold.models import Pretrained
from tenfold.progress import Progress
from tenfold.recipe import Recipe, StageOptions
from tenfold.training.loop import fit

NEIGHBOURS = (1, 5, 10, 20, 50)
"""Numbers of neighbours that validation chooses from; the third without validation."""

INVERSE_PENALTIES = (0.1, 0.01, 0.001)
"""`C` of logistic regression on standardised features, chosen likewise."""

HIDDEN = 256
"""Units of the MLP's one hidden layer, as `transfer-resnet50` has them."""

_Features = NDArray[np.float32]
_Labels = NDArray[np.int64]


class HeadResult(NamedTuple):
    """One head: what was chosen for it, accuracies (None without such pictures), and the seconds
    that training and choosing took once the features were there."""

    head: str
    chosen: str
    validation: float | None
    test: float | None
    seconds: float


class _Split(NamedTuple):
    features: _Features
    labels: _Labels


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
    others are scikit-learn's. What there is to choose is chosen on validation pictures. Raises
    TenfoldError where the recipe has no pretrained network.
    """
    require_pretrained(recipe)
    model: TrainedModel | None = None
    for name, units in (("linear", ()), ("MLP", (HIDDEN,))):
        wanted = _with_head(recipe, units)
        if model is None:  # So that the features are there, and nobody's seconds.
            model = fit(_shortest(wanted), data, accelerator=accelerator, progress=progress).model
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
    splits = [_split(model, images) for images in (data.train, data.validation, test)]
    train, validation, final = splits
    assert train is not None
    yield _nearest(train, validation, final)
    yield _logistic(train, validation, final)


def require_pretrained(recipe: Recipe) -> None:
    """Raise TenfoldError where `recipe` has no pretrained network."""
    if recipe.model.name != "pretrained":
        raise TenfoldError(
            f"{recipe.name} has no pretrained network (its model is {recipe.model.name}); name a "
            "recipe such as transfer-lite0."
        )


def _with_head(recipe: Recipe, units: tuple[int, ...]) -> Recipe:
    heads = [stage for stage in recipe.stages if stage.trains == "head"]
    stage = heads[0] if heads else StageOptions(trains="head")
    return recipe.but(model=recipe.model.but(head=units), stages=(stage,))


def _shortest(recipe: Recipe) -> Recipe:
    [stage] = recipe.stages
    training = recipe.training.but(min_steps=0)
    return recipe.but(training=training, stages=(stage.but(epochs=1),))


def _right(model: TrainedModel, images: Images | None) -> float | None:
    if images is None:
        return None
    found = predict_images(model, images)
    return float((found.logits.argmax(axis=1) == found.labels).mean())


def _split(model: TrainedModel, images: Images | None) -> _Split | None:
    if images is None:
        return None
    assert isinstance(model.module, Pretrained)
    features = features_of(model.module, images.pixels, model.normalisation)
    return _Split(features, map_labels(images, model.class_names))


def _nearest(train: _Split, validation: _Split | None, test: _Split | None) -> HeadResult:
    """By the angle between features, the nearer the weightier."""
    from sklearn.neighbors import KNeighborsClassifier

    def make(number: int) -> Any:
        return KNeighborsClassifier(
            min(number, len(train.labels)), metric="cosine", weights="distance"
        )

    return _best(
        "nearest neighbours", "k = {}", NEIGHBOURS, make, train, validation, test, default=2
    )


def _logistic(train: _Split, validation: _Split | None, test: _Split | None) -> HeadResult:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def make(inverse_penalty: float) -> Any:
        return make_pipeline(
            StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=300, tol=1e-3)
        )

    return _best(
        "logistic regression", "C = {}", INVERSE_PENALTIES, make, train, validation, test, default=1
    )


def _best(
    head: str,
    words: str,
    values: Sequence[float],
    make: Callable[[Any], Any],
    train: _Split,
    validation: _Split | None,
    test: _Split | None,
    *,
    default: int,
) -> HeadResult:
    """The head with the value that is best on validation, or the default one without it."""
    started = time.perf_counter()
    tried = values if validation is not None else [values[default]]
    models = {value: make(value).fit(train.features, train.labels) for value in tried}
    scores = {
        value: model.score(validation.features, validation.labels) if validation else 0.0
        for value, model in models.items()
    }
    chosen = max(scores, key=lambda value: scores[value])
    seconds = time.perf_counter() - started
    return HeadResult(
        head,
        words.format(chosen),
        float(scores[chosen]) if validation is not None else None,
        float(models[chosen].score(test.features, test.labels)) if test is not None else None,
        seconds,
    )
