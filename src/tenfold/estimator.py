"""tenfold behind scikit-learn's interface: a recipe as an estimator."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d

from tenfold.data.decoding import BrokenImageError, prepare_image, resize_pixels
from tenfold.data.images import Dataset, Images, numbered_ids
from tenfold.data.splits import training_data
from tenfold.errors import TenfoldError
from tenfold.evaluation.evaluate import splitting
from tenfold.evaluation.trained import TrainedModel
from tenfold.recipe import Recipe, from_keywords, load_recipe
from tenfold.training.state import History
from tenfold.training.trainer import fit

SIDE = 32
"""Pixels to which files and tiny images are brought where the recipe doesn't say another size."""
TINY = 16


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A recipe that is trained by `fit(X, y)`, for scikit-learn's tools.

    recipe: the name or path of one, or a `Recipe`. overrides: its fields, with two underscores for
    the dot: `optimizer__lr=0.1`, `training__epochs=3`, `model__widths=(16, 32)`.

    X: `(N, H, W, 3)` or grey `(N, H, W)`, uint8 or floats in [0, 1]; or a list of paths of image
    files; or `(N, 3 * S * S)` and `(N, S * S)`, square images that were made flat. Images of less
    than 16 pixels are enlarged to 32. y: `(N,)` labels of any kind that can be sorted.

    After `fit`: `classes_` `(C,)`, `n_features_in_`, `model_` (a `TrainedModel`) and `history_`
    (losses and accuracies by epoch). The recipe's own validation split is held out of X where it
    asks for one and X has enough images.

    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> classifier = Classifier("ann", training__epochs=20)
    >>> classifier = classifier.fit(digits.images[:300] / 16, digits.target[:300])
    >>> bool(classifier.score(digits.images[300:400] / 16, digits.target[300:400]) > 0.8)
    True
    """

    def __init__(self, recipe: str | Path | Recipe = "cnn", **overrides: Any) -> None:
        self.recipe = recipe
        self._overrides = overrides

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The recipe and the fields that are set; with deep, as scikit-learn asks, the same."""
        del deep
        return {"recipe": self.recipe, **self._overrides}

    def set_params(self, **params: Any) -> Self:
        """Another recipe or other fields, which `fit` checks."""
        if "recipe" in params:
            self.recipe = params.pop("recipe")
        self._overrides = {**self._overrides, **params}
        return self

    def fit(self, X: Any, y: ArrayLike | None) -> Self:
        """Train on images `X` and labels `y`; see the class for their forms.

        Raises ValueError for labels that are not classes, and TenfoldError for what can't be read.
        """
        if y is None:
            raise ValueError("Classifier requires y to be passed, but the target y is None.")
        recipe = load_recipe(self.recipe, from_keywords(self._overrides))
        pixels = self._pixels(X, recipe, is_first=True)
        side = recipe.data.image_size or (SIDE if min(pixels.shape[1:3]) < TINY else 0)
        if side:
            pixels = resize_pixels(pixels, image_size=side)
        labels = column_or_1d(y, warn=True)
        if labels.dtype.kind == "f" and not np.isfinite(labels).all():
            raise ValueError("Input y contains NaN or infinity.")
        check_classification_targets(labels)
        if len(pixels) != len(labels):
            raise ValueError(f"X has {len(pixels)} images and y {len(labels)} labels.")
        self.classes_ = unique_labels(labels)
        if len(self.classes_) < 2:
            raise ValueError("Classifier can't fit when only one class is present.")
        names = tuple(str(name) for name in self.classes_)
        indices = np.searchsorted(self.classes_, labels).astype(np.int64)
        images = Images(pixels, indices, names, numbered_ids("train", len(pixels)))
        # A test split is the caller's business, so none is held out here.
        whole = Dataset("arrays", images, None, images, "arrays in memory")
        sizes = splitting(recipe.data)
        try:
            data = training_data(whole, **sizes)
        except TenfoldError:  # Too few images, or too much alike, to hold some out.
            data = training_data(whole, **sizes | {"validation_size": 0})
        fitted = fit(recipe, data)
        self.model_: TrainedModel = fitted.model
        self.history_: History = fitted.history
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Probabilities `(N, C)` float32, columns in the order of `classes_`."""
        check_is_fitted(self)
        return self.model_.predict_proba(self._pixels(X, self.model_.recipe))

    def predict(self, X: Any) -> NDArray[Any]:
        """The most likely label of each image, `(N,)`."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        for name in ("two_d_array", "three_d_array", "positive_only", "string"):
            setattr(tags.input_tags, name, True)
        return tags

    def _pixels(self, X: Any, recipe: Recipe, *, is_first: bool = False) -> NDArray[np.uint8]:
        """X as `(N, H, W, 3)` uint8, and what scikit-learn wants to know of it."""
        if _are_files(X):
            side = recipe.data.image_size or SIDE
            pixels = np.stack([_read(path, side) for path in X])
            features = 1
        else:
            array = check_array(X, dtype="numeric", allow_nd=True, input_name="X", estimator=self)
            features = int(np.prod(array.shape[1:]))
            pixels = _as_uint8(self._of_rows(array) if array.ndim == 2 else array)
        if is_first:
            self.n_features_in_ = features
        elif features != self.n_features_in_:
            raise ValueError(
                f"X has {features} features, but Classifier is expecting {self.n_features_in_} "
                "features as input"
            )
        return pixels

    @staticmethod
    def _of_rows(array: NDArray[Any]) -> NDArray[Any]:
        """Rows `(N, D)` as square images."""
        for channels in (3, 1):
            side = round((array.shape[1] / channels) ** 0.5)
            if side * side * channels == array.shape[1] and side >= 4:
                shaped = array.reshape(len(array), side, side, channels)
                return shaped if channels == 3 else shaped[..., 0]
        raise ValueError(
            f"X has {array.shape[1]} columns, which make no square image; give (N, H, W) or "
            "(N, H, W, 3). Reshape your data."
        )


def _read(path: str | Path, side: int) -> NDArray[np.uint8]:
    try:
        return prepare_image(path, size=(side, side))
    except BrokenImageError as error:
        raise TenfoldError(f"{path} can't be used: it {error}.") from error


def _are_files(values: Any) -> bool:
    if not isinstance(values, Sequence) and getattr(values, "ndim", 0) != 1:
        return False
    return len(values) > 0 and all(isinstance(each, str | Path) for each in values)


def _as_uint8(array: NDArray[Any]) -> NDArray[np.uint8]:
    """`(N, H, W, 3)` or `(N, H, W)` as `(N, H, W, 3)` uint8."""
    if array.ndim == 3:
        array = np.repeat(array[..., None], 3, axis=3)
    if array.ndim != 4 or array.shape[3] != 3:
        wanted = "(N, H, W, 3), (N, H, W) or flat"
        raise ValueError(f"X must be {wanted}, not {array.shape}. Reshape your data.")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.min() < 0 or array.max() > 1:
        raise ValueError(
            f"X goes from {array.min():g} to {array.max():g}, where Negative values in data and "
            "those above 1 mean nothing; give uint8, or floats in [0, 1]."
        )
    return np.ascontiguousarray(np.rint(array * 255), dtype=np.uint8)
