"""Predictions of single picture files, read by the rules of the training data."""

import contextlib
import os
import time
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tenfold.data.formats.decoding import Chunk, decode_all
from tenfold.data.formats.image_folders import picture_files, printable
from tenfold.data.formats.pictures import BrokenPictureError, prepare_picture
from tenfold.errors import TenfoldError
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
    def white_level(self) -> int:
        """The value at which files of sixteen bits are white; 0 where it is not known."""

    def predict_proba(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (N, C) of pictures (N, H, W, 3)."""


class Guess(NamedTuple):
    """A class and how likely the model finds it, between 0 and 1."""

    label: str
    probability: float


class PicturePrediction(NamedTuple):
    """What a model says of a picture file.

    path: as it was given, or found in a folder; guesses: the likeliest first, none for a broken
    picture; error: why it is broken, else None; is_unsure: whether the likeliest class had better
    not be used.
    """

    path: str
    guesses: tuple[Guess, ...]
    error: str | None = None
    is_unsure: bool = False


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
    model: Model,
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
    with contextlib.closing(_decode(model, paths, progress=progress)) as chunks:
        for chunk in chunks:
            probabilities = iter(_probabilities(model, chunk))
            for _ in range(len(chunk.pixels) + len(chunk.broken)):
                path = printable(paths[position])
                if position in chunk.broken:
                    yield PicturePrediction(path, (), chunk.broken[position])
                else:
                    yield PicturePrediction(path, _likeliest(model, next(probabilities), top))
                position += 1


def with_threshold(prediction: PicturePrediction, threshold: float) -> PicturePrediction:
    """The same, and unsure where the likeliest class is less likely than `threshold`."""
    if not prediction.guesses or prediction.guesses[0].probability >= threshold:
        return prediction
    return prediction._replace(is_unsure=True)


def watch_folder(
    model: Model, folder: Path, *, seconds: float = 0.5, top: int = 1
) -> Generator[PicturePrediction, None, None]:
    """A prediction for each picture in `folder`, now and as they come; never ends.

    A file counts once its size has stayed the same for `seconds`, and again when it changes. Raises
    TenfoldError where there is no such folder.
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
        with contextlib.closing(predict_pictures(model, settled, top=top)) as predictions:
            yield from predictions
        done = {path: state for path, state in done.items() if path in now}
        done |= {path: now[path] for path in settled}
        before = now
        time.sleep(seconds)


_State = tuple[int, int, int, int]
"""Size and times of a file, and which it is."""


def _states(folder: Path) -> dict[str, _State]:
    """Of each picture file in `folder`; what vanishes meanwhile is left out."""
    found: dict[str, _State] = {}
    with contextlib.suppress(OSError):
        for file in picture_files(folder):
            path = os.path.join(folder, file.path)
            with contextlib.suppress(OSError):
                state = os.stat(path)
                found[path] = state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino
    return found


def read_pictures(paths: Sequence[str], model: Model) -> NDArray[np.uint8]:
    """The pictures in `paths` as (N, H, W, 3) uint8, as `model` sees them.

    Raises TenfoldError, naming it, for one that can't be read.
    """
    parts = []
    with contextlib.closing(_decode(model, paths, progress=None)) as chunks:
        for chunk in chunks:
            if chunk.broken:
                position, reason = next(iter(chunk.broken.items()))
                raise TenfoldError(f"{printable(paths[position])} can't be read: it {reason}.")
            parts.append(chunk.pixels)
    return np.concatenate(parts)


def _decode(
    model: Model, paths: Sequence[str], *, progress: Progress | None
) -> Generator[Chunk, None, None]:
    height, width = model.image_size
    if height == width:
        yield from decode_all(
            paths, image_size=height, white_level=model.white_level, progress=progress
        )
        return
    for position, path in enumerate(paths):
        pixels = np.empty((0, height, width, 3), dtype=np.uint8)
        broken = {}
        try:
            pixels = prepare_picture(path, size=(height, width), white_level=model.white_level)[
                None
            ]
        except BrokenPictureError as error:
            broken[position] = str(error)
        yield Chunk(pixels, np.full((len(pixels), 2), (height, width), dtype=np.int32), broken)


def _probabilities(model: Model, chunk: Chunk) -> np.ndarray:
    if not len(chunk.pixels):
        return np.empty((0, len(model.class_names)), dtype=np.float32)
    return model.predict_proba(chunk.pixels)


def _likeliest(model: Model, probabilities: np.ndarray, top: int) -> tuple[Guess, ...]:
    order = np.argsort(-probabilities, kind="stable")[:top]
    return tuple(Guess(model.class_names[i], float(probabilities[i])) for i in order)
