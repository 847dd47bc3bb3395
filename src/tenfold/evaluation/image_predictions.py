"""Predictions of single image files, read by the rules of the training data."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tenfold.data.decoding import Window
from tenfold.data.folders import image_files
from tenfold.data.image_sources import Part, num_images, prepare_some
from tenfold.data.workers import (
    CHUNK_ITEMS,
    MIN_ITEMS_FOR_PROCESSES,
    chunk_length,
    map_on_cores,
)
from tenfold.errors import TenfoldError
from tenfold.evaluation.thresholds import set_of
from tenfold.progress import Progress


class Model(Protocol):
    """What predicts: a run's trained model, or a predictor of an exported one."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """One a probability, in order."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels that it takes."""

    @property
    def window(self) -> Window:
        """What is black and white in files of more than eight bits; empty where not known."""

    @property
    def operating_points(self) -> Mapping[str, float]:
        """By class, the probability from which on an image counts as one of it."""

    def predict_proba(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (N, C) of images (N, H, W, 3)."""


class ClassProbability(NamedTuple):
    """A class and how likely the model finds it, between 0 and 1."""

    label: str
    probability: float


class ImagePrediction(NamedTuple):
    """What a model says of an image file.

    path: as it was given, or found in a folder; likeliest: classes, the likeliest first, none for
    a broken image; error: why it is broken, else None; is_unsure: whether the likeliest class had
    better not be used; conformal_set: the classes of its set, where sets were asked for; positive:
    the classes whose operating point it reaches.
    """

    path: str
    likeliest: tuple[ClassProbability, ...]
    error: str | None = None
    is_unsure: bool = False
    conformal_set: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()


def predict_parts(
    model: Model,
    parts: Sequence[Part],
    *,
    top: int = 1,
    threshold: float = 0.0,
    set_threshold: float | None = None,
    progress: Progress | None = None,
) -> Generator[tuple[int, list[ImagePrediction]], None, None]:
    """The `top` likeliest classes of each image, in order, broken images among them; an image is
    unsure where the likeliest is less likely than `threshold`. set_threshold: the probability from
    which on a class belongs to an image's set; None has no sets.

    A few at a time, with the position of their part among `parts`, which each occurs. Images are
    converted and brought to the model's size by the rules of `data.decoding`; a model of
    images that aren't square takes those that have its size. Few are in memory at once. Close the
    iterator if it isn't read to its end. Raises TenfoldError for a `top` below 1, and as
    `Part.batches`.
    """
    if top < 1:
        raise TenfoldError(f"The number of classes to show is {top}, where 1 or more is expected.")
    done, total = 0, num_images(parts)
    with contextlib.closing(_decode(model, parts)) as batches:
        for position, ids, pixels, broken in batches:
            probabilities = iter(model.predict_proba(pixels) if len(pixels) else ())
            yield (
                position,
                [
                    ImagePrediction(name, (), broken[number])
                    if number in broken
                    else _predicted(model, name, next(probabilities), top, threshold, set_threshold)
                    for number, name in enumerate(ids)
                ],
            )
            done += len(ids)
            if progress is not None:
                progress("Decoding images", done, total)


def _predicted(
    model: Model,
    name: str,
    probabilities: NDArray[np.float32],
    top: int,
    threshold: float,
    set_threshold: float | None,
) -> ImagePrediction:
    order = np.argsort(-probabilities, kind="stable")[:top]
    likeliest = tuple(
        ClassProbability(model.class_names[i], float(probabilities[i])) for i in order
    )
    return ImagePrediction(
        name,
        likeliest,
        is_unsure=likeliest[0].probability < threshold,
        conformal_set=set_of(model.class_names, probabilities, set_threshold),
        positive=tuple(
            name
            for name, least in model.operating_points.items()
            if probabilities[model.class_names.index(name)] >= least
        ),
    )


def table_of(
    predictions: Sequence[ImagePrediction],
    *,
    top: int,
    has_unsure: bool,
    has_sets: bool,
    has_points: bool,
) -> tuple[list[str], list[list[str]]]:
    """Column names, and a row of cells for each prediction; in a cell, the classes of a set and
    those whose operating point is reached have a `|` between them."""
    columns = ["id", "label", "probability"]
    for number in range(2, top + 1):
        columns += [f"label_{number}", f"probability_{number}"]
    rows = []
    for prediction in predictions:
        cells = [prediction.path]
        for each in prediction.likeliest:
            cells += [each.label, f"{each.probability:.6f}"]
        cells += [""] * (len(columns) - len(cells))
        cells += ["yes" if prediction.is_unsure else ""] if has_unsure else []
        cells += ["|".join(prediction.conformal_set)] if has_sets else []
        cells += ["|".join(prediction.positive)] if has_points else []
        rows.append([*cells, prediction.error or ""])
    kinds = {"unsure": has_unsure, "set": has_sets, "positive": has_points}
    more = [name for name, is_there in kinds.items() if is_there]
    return [*columns, *more, "error"], rows


def watch_folder(
    model: Model, folder: Path, *, seconds: float = 0.5, **options: Any
) -> Generator[ImagePrediction, None, None]:
    """A prediction for each image in `folder`, now and as they come; never ends.

    options: `top` and thresholds, of `predict_parts`. A file counts once its size has stayed the
    same for `seconds`, and again when it changes. Raises TenfoldError where there is no such
    folder.
    """
    if not folder.is_dir():
        raise TenfoldError(f"There is no folder {folder} to watch; check the path.")
    done: dict[str, _State] = {}
    before: dict[str, _State] = {}
    while True:
        now = _states(folder)
        settled = [
            path for path, state in now.items() if before.get(path) == state != done.get(path)
        ]
        parts = [Part(settled)] if settled else []
        with contextlib.closing(predict_parts(model, parts, **options)) as found:
            for _, predictions in found:
                yield from predictions
        done = {path: state for path, state in done.items() if path in now}
        done |= {path: now[path] for path in settled}
        before = now
        time.sleep(seconds)


_State = tuple[int, int, int, int]
"""Size and times of a file, and which it is."""


def _states(folder: Path) -> dict[str, _State]:
    """Of each image file in `folder`; what vanishes meanwhile is left out."""
    found: dict[str, _State] = {}
    with contextlib.suppress(OSError):
        for file in image_files(folder):
            path = os.path.join(folder, file.path)
            with contextlib.suppress(OSError):
                state = os.stat(path)
                found[path] = state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino
    return found


def _decode(
    model: Model, parts: Sequence[Part]
) -> Generator[tuple[int, list[str], NDArray[np.uint8], dict[int, str]], None, None]:
    """Of a few images at a time: their part's position, their names, the pixels of those that can
    be read, and why the others can't, by position."""
    total = num_images(parts)
    length = CHUNK_ITEMS if total is None else chunk_length(total)
    ahead: deque[tuple[int, list[str]]] = deque()

    def tasks() -> Iterator[Any]:
        for position, part in enumerate(parts):
            for ids, sources in part.batches(length):
                ahead.append((position, ids))
                yield sources, model.image_size, model.window

    number = MIN_ITEMS_FOR_PROCESSES if total is None else total
    with contextlib.closing(map_on_cores(prepare_some, tasks(), num_items=number)) as results:
        for pixels, broken in results:
            yield *ahead.popleft(), pixels, broken
