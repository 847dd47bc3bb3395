"""The files that CIFAR-10 and CIFAR-100 are published as: binary and Python batches.

Both kinds are read from a folder, from an archive, or from one batch file. A picture's id is its
position in its split, counted from 1: `train/1` is the first picture of the first batch.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.formats.archives import is_archive, read_members
from tenfold.data.formats.cifar_names import CIFAR10_CLASS_NAMES, CIFAR100_CLASS_NAMES
from tenfold.data.formats.cifar_pickle import as_text, unpickle_batch
from tenfold.data.images import Dataset, Images, numbered_ids
from tenfold.errors import TenfoldError
from tenfold.progress import Progress

NUM_PIXEL_BYTES = 3 * 32 * 32
# The largest honest file, the training batch of CIFAR-100, holds 154 MB.
MAX_BATCH_BYTES = 400_000_000
MAX_BATCHES = 100

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Pixels as stored, `(n, 3072)`, all red values first, then green, then blue; and `n` labels."""


@dataclass(frozen=True)
class Layout:
    """How one of the data sets names its files.

    train: matches the name of a training batch; a group in it, if any, is the batch's number.
    num_label_bytes: bytes before each picture in a binary batch; the last one is the label.
    label_key: the labels' name in a Python batch; names_key: the class names' in its meta file.
    """

    name: str
    train: re.Pattern[str]
    test: str
    meta: str
    num_train_batches: int
    num_label_bytes: int
    label_key: str
    names_key: str
    class_names: tuple[str, ...]

    def wants(self, name: str) -> bool:
        """Whether a file of this name is part of the data set."""
        return name in (self.test, self.meta) or self.is_train(name)

    def is_train(self, name: str) -> bool:
        """Whether a file of this name is a training batch."""
        return self.train.fullmatch(name) is not None

    def number(self, name: str) -> int:
        """A training batch's place among the others."""
        match = self.train.fullmatch(name)
        return int(match[1]) if match and match.groups() else 1


def _layouts(suffix: str, *, meta10: str, meta100: str) -> tuple[Layout, Layout]:
    ending = re.escape(suffix)
    return (
        Layout(
            name="cifar10",
            train=re.compile(rf"data_batch_(\d{{1,4}}){ending}"),
            test=f"test_batch{suffix}",
            meta=meta10,
            num_train_batches=5,
            num_label_bytes=1,
            label_key="labels",
            names_key="label_names",
            class_names=CIFAR10_CLASS_NAMES,
        ),
        Layout(
            name="cifar100",
            train=re.compile(rf"train{ending}"),
            test=f"test{suffix}",
            meta=meta100,
            num_train_batches=1,
            num_label_bytes=2,
            label_key="fine_labels",
            names_key="fine_label_names",
            class_names=CIFAR100_CLASS_NAMES,
        ),
    )


BINARY_LAYOUTS = _layouts(".bin", meta10="batches.meta.txt", meta100="fine_label_names.txt")
PYTHON_LAYOUTS = _layouts("", meta10="batches.meta", meta100="meta")


def read_cifar_binary(path: Path, *, progress: Progress | None = None) -> Dataset:
    """CIFAR-10 or CIFAR-100 from binary batches: a folder, an archive or one batch file.

    Raises TenfoldError, with file and byte offset, where a record is cut off or a label is too
    large for the class names, and where there are no such batches.
    """
    layout, files = _find(path, BINARY_LAYOUTS, fallback=_binary_layout_of)
    class_names = layout.class_names
    if layout.meta in files:
        lines = files.pop(layout.meta).decode("utf-8", errors="replace").splitlines()
        class_names = tuple(line.strip() for line in lines if line.strip())

    def parse(name: str, content: bytes) -> Batch:
        return _parse_binary(
            content, where=_where(path, name), layout=layout, num_classes=len(class_names)
        )

    kind = "CIFAR binary batches"
    return _assemble(path, layout, files, class_names, parse=parse, kind=kind, progress=progress)


def read_cifar_python(path: Path, *, progress: Progress | None = None) -> Dataset:
    """CIFAR-10 or CIFAR-100 from Python batches: a folder, an archive or one batch file.

    The batches are pickles; nothing that they ask for is imported or called, apart from what an
    array of numbers needs. Raises TenfoldError, naming the file and the key in it, for a pickle
    that asks for anything else, a wrong number of pixels or a label too large, and where there
    are no such batches.
    """
    layout, files = _find(path, PYTHON_LAYOUTS, fallback=_python_layout_of)
    class_names = layout.class_names
    if layout.meta in files:
        where = _where(path, layout.meta)
        class_names = _names_in(unpickle_batch(files.pop(layout.meta), where), where, layout)

    def parse(name: str, content: bytes) -> Batch:
        where = _where(path, name)
        batch = unpickle_batch(content, where)
        return _parse_python(batch, where=where, layout=layout, num_classes=len(class_names))

    kind = "CIFAR Python batches"
    return _assemble(path, layout, files, class_names, parse=parse, kind=kind, progress=progress)


def holds_cifar(path: Path, layouts: tuple[Layout, ...]) -> bool:
    """Whether a folder, or a folder in it, holds a batch of one of the layouts, by file names."""
    return any(_batch_names(folder, layout) for folder in _folders(path) for layout in layouts)


def named_as_batch(path: PurePath, layouts: tuple[Layout, ...]) -> bool:
    """Whether a file is named as a batch of one of the layouts."""
    return any(layout.is_train(path.name) or path.name == layout.test for layout in layouts)


def is_cifar_binary(path: Path) -> bool:
    """Whether a file of any name has the size and labels of a binary batch."""
    if path.stat().st_size > MAX_BATCH_BYTES:
        return False
    try:
        _binary_layout_of(path, path.read_bytes())
    except TenfoldError:
        return False
    return True


def _find(
    path: Path, layouts: tuple[Layout, ...], *, fallback: Callable[[Path, bytes], Layout]
) -> tuple[Layout, dict[str, bytes]]:
    """The layout that `path` follows, and its files by name."""
    if path.is_dir():
        return _find_in_folder(path, layouts)
    if not path.is_file():
        raise TenfoldError(f"{path} does not exist; CIFAR batches were expected there.")
    if is_archive(path):
        return _find_in_archive(path, layouts)
    if path.stat().st_size > MAX_BATCH_BYTES:
        raise TenfoldError(f"{path} is larger than any CIFAR batch; check the path.")
    content = path.read_bytes()
    layout = next((at for at in layouts if named_as_batch(path, (at,))), None)
    layout = layout or fallback(path, content)
    meta = path.parent / layout.meta
    return layout, {path.name: content} | ({meta.name: meta.read_bytes()} if meta.is_file() else {})


def _find_in_folder(path: Path, layouts: tuple[Layout, ...]) -> tuple[Layout, dict[str, bytes]]:
    found = [
        (folder, layout)
        for folder in _folders(path)
        for layout in layouts
        if _batch_names(folder, layout)
    ]
    if not found:
        raise TenfoldError(_nothing_in(path, layouts))
    if len(found) > 1:
        names = " and ".join(f"{layout.name} in {folder}" for folder, layout in found)
        raise TenfoldError(f"{path} holds {names}; give the folder of the one that is meant.")
    folder, layout = found[0]
    wanted = _batch_names(folder, layout)
    if (folder / layout.meta).is_file():
        wanted.append(layout.meta)
    return layout, {name: (folder / name).read_bytes() for name in wanted}


def _find_in_archive(path: Path, layouts: tuple[Layout, ...]) -> tuple[Layout, dict[str, bytes]]:
    def limit(member: str) -> int | None:
        name = PurePosixPath(member).name
        return MAX_BATCH_BYTES if any(layout.wants(name) for layout in layouts) else None

    members = read_members(path, limit)
    files = {PurePosixPath(member).name: content for member, content in members.items()}
    if len(files) < len(members):
        raise TenfoldError(
            f"{path} holds the same batch in two folders; unpack it and give one of the folders."
        )
    for layout in layouts:
        own = {name: content for name, content in files.items() if layout.wants(name)}
        if own.keys() - {layout.meta}:
            return layout, own
    raise TenfoldError(_nothing_in(path, layouts))


def _folders(path: Path) -> list[Path]:
    """The folder itself and those that the official archives unpack to."""
    with os.scandir(path) as entries:
        inner = sorted(e.name for e in entries if "cifar" in e.name.lower() and e.is_dir())
    return [path, *(path / name for name in inner)]


def _batch_names(folder: Path, layout: Layout) -> list[str]:
    names = [name for name in os.listdir(folder) if layout.is_train(name) or name == layout.test]
    return [name for name in names if (folder / name).is_file()]


def _nothing_in(path: Path, layouts: tuple[Layout, ...]) -> str:
    ten, hundred = layouts
    train = "data_batch_1" + ten.test.removeprefix("test_batch")
    return (
        f"{path} holds no CIFAR batches; files such as {train} and {ten.test}, or "
        f"{hundred.test.replace('test', 'train')} and {hundred.test}, were expected in it."
    )


def _where(path: Path, name: str) -> str:
    return str(path) if path.name == name else f"{path}: {name}"


def _parse_binary(content: bytes, *, where: str, layout: Layout, num_classes: int) -> Batch:
    length = layout.num_label_bytes + NUM_PIXEL_BYTES
    excess = len(content) % length
    if excess or not content:
        raise TenfoldError(
            f"{where}: the record at byte {len(content) - excess} has {excess} bytes instead of "
            f"{length}; the file is cut off or no CIFAR batch: get it again."
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, length)
    labels = records[:, layout.num_label_bytes - 1].astype(np.int64)
    wrong = np.flatnonzero(labels >= num_classes)
    if len(wrong):
        row = int(wrong[0])
        raise TenfoldError(
            f"{where}: the label at byte {row * length + layout.num_label_bytes - 1} is "
            f"{labels[row]} where at most {num_classes - 1} is allowed; the file is damaged or no "
            "CIFAR batch: get it again."
        )
    return records[:, layout.num_label_bytes :], labels


def _parse_python(
    batch: Mapping[str, Any], *, where: str, layout: Layout, num_classes: int
) -> Batch:
    pixels = batch.get("data")
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.ndim != 2
        or pixels.shape[1] != NUM_PIXEL_BYTES
    ):
        found = "nothing" if pixels is None else _described(pixels)
        raise TenfoldError(
            f"{where}: key 'data' holds {found} where (n, {NUM_PIXEL_BYTES}) bytes were expected; "
            "the file is damaged or no CIFAR batch: get it again."
        )
    try:
        labels = np.array([int(label) for label in batch.get(layout.label_key, ())], dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        labels = np.empty(0, dtype=np.int64)
    if len(labels) != len(pixels) or not len(labels):
        raise TenfoldError(
            f"{where}: key {layout.label_key!r} holds {len(labels)} labels for {len(pixels)} "
            "pictures; the file is damaged or no CIFAR batch: get it again."
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        row = int(wrong[0])
        raise TenfoldError(
            f"{where}: entry {row} of key {layout.label_key!r} is {labels[row]} where 0 to "
            f"{num_classes - 1} are allowed; the file is damaged or no CIFAR batch: get it again."
        )
    return pixels, labels


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.shape} {value.dtype}"
    return f"a {type(value).__name__}"


def _assemble(
    path: Path,
    layout: Layout,
    files: Mapping[str, bytes],
    class_names: tuple[str, ...],
    *,
    parse: Callable[[str, bytes], Batch],
    kind: str,
    progress: Progress | None,
) -> Dataset:
    """The batches, in the order of their numbers, as one data set."""
    single = path.is_file() and path.name in files
    train = sorted((name for name in files if layout.is_train(name)), key=layout.number)
    if single:
        train = list(files)
    if len(train) > MAX_BATCHES:
        raise TenfoldError(f"{path} holds {len(train)} training batches, at most {MAX_BATCHES}.")
    if not train:
        raise TenfoldError(
            f"{path} holds no training batch, only {layout.test}; give that file to read it alone."
        )
    names = {"train": train, "test": [layout.test] if layout.test in files and not single else []}
    images: dict[str, Images] = {}
    done, total = 0, sum(map(len, names.values()))
    for split, own in names.items():
        parsed = []
        for name in own:
            parsed.append(parse(name, files[name]))
            done += 1
            if progress is not None:
                progress("Reading CIFAR batches", done, total)
        if parsed:
            images[split] = _to_images(parsed, class_names, prefix=split)
    return Dataset(
        layout.name,
        images["train"],
        None,
        images.get("test"),
        f"{path} ({kind})",
        notes=_notes(path, layout, train, single=single),
    )


def _notes(path: Path, layout: Layout, train: list[str], *, single: bool) -> tuple[str, ...]:
    if single and path.name == layout.test:
        return (f"Only the test batch {path.name} was given; its pictures stand as train.",)
    if single and layout.num_train_batches > 1:
        return (f"Only the batch {path.name} was given.",)
    expected = set(range(1, layout.num_train_batches + 1))
    missing = sorted(expected - {layout.number(name) for name in train})
    if missing:
        listed = ", ".join(map(str, missing))
        return (f"{path} lacks training batches {listed}; the others were read.",)
    return ()


def _to_images(batches: list[Batch], class_names: tuple[str, ...], *, prefix: str) -> Images:
    num_images = sum(len(labels) for _, labels in batches)
    pixels = np.empty((num_images, 32, 32, 3), dtype=np.uint8)
    start = 0
    for stored, labels in batches:
        planes = stored.reshape(-1, 3, 32, 32)
        target = pixels[start : start + len(labels)]
        for channel in range(3):  # plane by plane is twice as fast as one transposed copy
            target[..., channel] = planes[:, channel]
        start += len(labels)
    return Images(
        pixels,
        np.concatenate([labels for _, labels in batches]),
        class_names,
        numbered_ids(prefix, num_images),
    )


def _names_in(meta: Mapping[str, Any], where: str, layout: Layout) -> tuple[str, ...]:
    names = meta.get(layout.names_key)
    if not isinstance(names, list) or not names:
        raise TenfoldError(f"{where}: key {layout.names_key!r} holds no class names.")
    return tuple(as_text(name) for name in names)


def _binary_layout_of(path: Path, content: bytes) -> Layout:
    for layout in BINARY_LAYOUTS:
        length = layout.num_label_bytes + NUM_PIXEL_BYTES
        if content and len(content) % length == 0:
            labels = np.frombuffer(content, dtype=np.uint8)[layout.num_label_bytes - 1 :: length]
            if int(labels.max()) < len(layout.class_names):
                return layout
    raise TenfoldError(
        f"{path} is no CIFAR batch: its {len(content)} bytes are no whole number of records of "
        "3073 (CIFAR-10) or 3074 bytes (CIFAR-100) with labels in range; check the file."
    )


def _python_layout_of(path: Path, content: bytes) -> Layout:
    batch = unpickle_batch(content, str(path))
    for layout in reversed(PYTHON_LAYOUTS):
        if layout.label_key in batch:
            return layout
    raise TenfoldError(
        f"{path} is no CIFAR batch: it has neither the key 'labels' nor 'fine_labels'."
    )
