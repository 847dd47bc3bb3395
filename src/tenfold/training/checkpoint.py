"""States to resume from: written whole, verified when read, the one before kept.

A checkpoint is two files of one number: `000007.safetensors` with every tensor, and
`000007.json` with the rest and the checksums of both. The JSON file is renamed into place last,
so a checkpoint without one was never finished.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from tenfold.errors import TenfoldError
from tenfold.files import write_bytes, write_json

FORMAT = "tenfold-checkpoint-1"
UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError),
    SafetensorError,
)

logger = logging.getLogger("tenfold")

_written: dict[Path, list[tuple[int, int]]] = {}
"""The last checkpoint that this process wrote, and the marks of its files then."""


class Checkpoint(NamedTuple):
    """A state that was read and found whole; `path` is that of its JSON file."""

    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]
    path: Path


def save_checkpoint(
    folder: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]
) -> None:
    """Write a new checkpoint, and keep the newest whole one before it.

    Raises TenfoldError where it can't be written; the earlier ones are then untouched.
    """
    numbers = _numbers(folder)
    number = max(numbers, default=0) + 1
    content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    document = {
        "format": FORMAT,
        "tensors_sha256": hashlib.sha256(content).hexdigest(),
        "state": dict(state),
    }
    write_bytes(_path(folder, number, "safetensors"), content)
    write_json(_path(folder, number, "json"), {**document, "sha256": _checksum_of(document)})
    numbers.sort(reverse=True)
    before = next((n for n in numbers if _is_whole(folder, n)), number)
    _written.clear()
    _written[_path(folder, number, "json")] = _marks(folder, number)
    # Older checkpoints, and what a killed process left half-written.
    for path in folder.iterdir():
        known = path.stem.isdecimal() and int(path.stem) in (before, number)
        if not known and path.suffix in (".json", ".safetensors", ".tmp"):
            path.unlink(missing_ok=True)


def _is_whole(folder: Path, number: int) -> bool:
    """Whether a checkpoint is whole; what this process wrote itself is not read again for that."""
    path = _path(folder, number, "json")
    with contextlib.suppress(OSError):
        if path in _written and _written[path] == _marks(folder, number):
            return True
    return isinstance(_read(folder, number), Checkpoint)


def _marks(folder: Path, number: int) -> list[tuple[int, int]]:
    """Size and time of the last change of both files."""
    kept = [_path(folder, number, suffix).stat() for suffix in ("json", "safetensors")]
    return [(each.st_size, each.st_mtime_ns) for each in kept]


def newest_good_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None where there is none at all.

    Damaged ones are skipped, with a warning in the log that says which and why. Raises
    TenfoldError where there are checkpoints, but every one is damaged.
    """
    numbers = sorted(_numbers(folder), reverse=True)
    for number in numbers:
        found = _read(folder, number)
        if isinstance(found, Checkpoint):
            return found
        path = _path(folder, number, "json")
        logger.warning("%s is damaged (%s); the checkpoint before it is used.", path, found)
    if numbers:
        raise TenfoldError(
            f"Every checkpoint in {folder} is damaged; restore the folder from a copy, or remove "
            "it to train from the start."
        )
    return None


def _read(folder: Path, number: int) -> Checkpoint | str:
    """The checkpoint, or what is damaged in it; raises TenfoldError for another format."""
    path = _path(folder, number, "json")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        checksum = document.pop("sha256")
        if checksum != _checksum_of(document):
            return "its checksum does not match"
        if document["format"] != FORMAT:
            raise TenfoldError(
                f"{path} has the format {document['format']!r}, and this version reads "
                f"{FORMAT!r}; resume it with the version of tenfold that wrote it."
            )
        content = _path(folder, number, "safetensors").read_bytes()
        if hashlib.sha256(content).hexdigest() != document["tensors_sha256"]:
            return "the checksum of its tensors does not match"
        return Checkpoint(load(content), document["state"], path)
    except UNREADABLE as error:
        return f"it can't be read: {error}"


def _checksum_of(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _path(folder: Path, number: int, suffix: str) -> Path:
    return folder / f"{number:06}.{suffix}"


def _numbers(folder: Path) -> list[int]:
    """The numbers of the checkpoints that were finished, damaged since or not."""
    if not folder.is_dir():
        return []
    return [int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal()]
