"""Predictions of single picture files, read by the rules of the training data."""

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.data.formats.decoding import Chunk, decode_all
from tenfold.data.formats.image_folders import picture_files, printable
from tenfold.data.formats.pictures import BrokenPictureError, decode_picture
from tenfold.errors import TenfoldError
from tenfold.evaluation.trained import TrainedModel
from tenfold.progress import Progress


class Guess(NamedTuple):
    """A class and how likely the model finds it, between 0 and 1."""

    label: str
    probability: float


class PicturePrediction(NamedTuple):
    """What a model says of a picture file.

    path: as it was given, or found in a folder; guesses: the likeliest first, none for a broken
    picture; error: why it is broken, else None.
    """

    path: str
    guesses: tuple[Guess, ...]
    error: str | None = None


def find_pictures(places: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Paths of picture files: those given, and those in folders given, at any depth, each once.

    Raises TenfoldError for a path where nothing is, and for a folder without pictures.
    """
    found: dict[str, None] = {}
    for place in map(Path, places):
        if place.is_dir():
            inside = [os.path.join(place, file.path) for file in picture_files(place)]
            if not inside:
                raise TenfoldError(f"{place} holds no pictures; check the path.")
            found.update(dict.fromkeys(inside))
        elif place.exists():
            found[os.fspath(place)] = None
        else:
            raise TenfoldError(f"There is no picture or folder {place}; check the path.")
    return list(found)


def predict_pictures(
    model: TrainedModel,
    paths: Sequence[str],
    *,
    top: int = 1,
    progress: Progress | None = None,
) -> Generator[PicturePrediction, None, None]:
    """The `top` likeliest classes of each picture, in order, broken pictures among them.

    Pictures are converted and brought to the model's size by the rules of `data.formats.pictures`;
    a model of pictures that aren't square takes those that have its size. Few are in memory at
    once. Close the iterator if it isn't read to its end. Raises TenfoldError for a `top` below 1.
    """
    if top < 1:
        raise TenfoldError(f"The number of classes to show is {top}, where 1 or more is expected.")
    position = 0
    with closing(_decode(model.image_size, paths, progress=progress)) as chunks:
        for chunk in chunks:
            probabilities = iter(_probabilities(model, chunk))
            for _ in range(len(chunk.pixels) + len(chunk.broken)):
                path = printable(paths[position])
                if position in chunk.broken:
                    yield PicturePrediction(path, (), chunk.broken[position])
                else:
                    yield PicturePrediction(path, _likeliest(model, next(probabilities), top))
                position += 1


def read_pictures(paths: Sequence[str], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The pictures in `paths` as (N, H, W, 3) uint8, brought to `size` as for a prediction.

    Raises TenfoldError, naming it, for one that can't be read.
    """
    parts = []
    with closing(_decode(size, paths, progress=None)) as chunks:
        for chunk in chunks:
            if chunk.broken:
                position, reason = next(iter(chunk.broken.items()))
                raise TenfoldError(f"{printable(paths[position])} can't be read: it {reason}.")
            parts.append(chunk.pixels)
    return np.concatenate(parts)


def _decode(
    size: tuple[int, int], paths: Sequence[str], *, progress: Progress | None
) -> Generator[Chunk, None, None]:
    height, width = size
    if height == width:
        yield from decode_all(paths, image_size=height, progress=progress)
        return
    for position, path in enumerate(paths):
        pixels = np.empty((0, height, width, 3), dtype=np.uint8)
        broken = {}
        try:
            picture = decode_picture(path).pixels
            if picture.shape == pixels.shape[1:]:
                pixels = picture[None]
            else:
                broken[position] = (
                    f"has {picture.shape[1]}x{picture.shape[0]} pixels where this model takes "
                    f"{width}x{height}"
                )
        except BrokenPictureError as error:
            broken[position] = str(error)
        yield Chunk(pixels, np.full((len(pixels), 2), size, dtype=np.int32), broken)


def _probabilities(model: TrainedModel, chunk: Chunk) -> np.ndarray:
    if not len(chunk.pixels):
        return np.empty((0, len(model.class_names)), dtype=np.float32)
    return model.predict_proba(chunk.pixels)


def _likeliest(model: TrainedModel, probabilities: np.ndarray, top: int) -> tuple[Guess, ...]:
    order = np.argsort(-probabilities, kind="stable")[:top]
    return tuple(Guess(model.class_names[i], float(probabilities[i])) for i in order)
