"""States to resume from: written whole, verified when read, the one before kept.

A checkpoint is two files of one number: `000007.safetensors` with every tensor, and
`000007.json` with the rest and the checksums of both. The JSON file is renamed into place last,
so a checkpoint without one was never finished.
"""

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load, save

from tenfold.data.splits import TrainingData
from tenfold.errors import TenfoldError
from tenfold.files import write_bytes, write_json
from tenfold.own_parts import is_own, sum_of
from tenfold.recipe import Recipe, recipe_from_dict
from tenfold.recipe.dotted import flatten
from tenfold.recipe.models import KINDS
from tenfold.recipe.own_code import own_code
from tenfold.run import RunFolder, write_lines
from tenfold.training.devices import on_first_process, precision_of
from tenfold.training.distillation import checksum_of
from tenfold.training.state import History, TrainingState

logger = logging.getLogger("tenfold")


FORMAT = "tenfold-checkpoint-1"
UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError),
    SafetensorError,
)


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


def identity_of(recipe: Recipe, data: TrainingData, accelerator: Accelerator) -> dict[str, Any]:
    """Everything that the bits of a result depend on, as flat JSON values by name."""
    device = accelerator.device

    def gpu() -> dict[str, Any]:
        if device.type != "cuda":
            return {"GPU": None}
        return {
            "GPU": torch.cuda.get_device_name(device),
            "cuDNN": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "float32 products": torch.get_float32_matmul_precision(),
        }

    return {
        **flatten(recipe.to_dict()),
        **{f"code of {name}": sum_of(path) for name, path in own_code(recipe).items()},
        "teacher": checksum_of(recipe.distillation),
        "class names": list(data.train.class_names),
        "image size": list(data.train.size),
        "training images": len(data.train),
        "data checksums": dict(data.checksums),
        **({"corrections of labels": data.corrections} if data.corrections else {}),
        "threads": torch.get_num_threads(),
        "processes": accelerator.num_processes,
        "device": device.type,
        **on_first_process(accelerator, gpu),
        "arithmetic": precision_of(accelerator),
        "torch": metadata.version("torch"),
    }


_OLD_NUMBER = "pictures for training"
"""What checkpoints of older versions call the number of training images."""

NEVER_CHANGED = ("class names", "image size", "stages")
"""Differences that no flag allows: the weights would not fit or would mean something else."""


class Resumer:
    """Brings a run's state back, and saves it, with the seconds of all its sessions.

    allow_changes: go on although recipe, threads or data are not what they were; the result is
    then not that of an uninterrupted run. started: when this session was, by `time.monotonic` and
    `time.process_time`. Raises TenfoldError, with the difference, where the run was another one.
    """

    def __init__(
        self,
        run: RunFolder,
        identity: Mapping[str, Any],
        accelerator: Accelerator,
        *,
        allow_changes: bool,
        started: tuple[float, float],
    ) -> None:
        self._run, self._identity = run, dict(identity)
        self._accelerator, self._allow_changes = accelerator, allow_changes
        self._wall, self._process = started
        self._found = newest_good_checkpoint(run.checkpoints)
        if self._found is not None:
            if "float32 products" in identity:  # Older runs left them as torch has them.
                before = self._found.state["identity"].get("float32 products", "highest")
                torch.set_float32_matmul_precision(before)
                self._identity["float32 products"] = before
            self._require_same(self._found.state["identity"], self._found.path)

    @property
    def stage(self) -> int:
        """The place of the stage that the newest good checkpoint is from, 0 without one."""
        return int(self._found.state["history"].get("stage", 0)) if self._found else 0

    def restore(self, state: TrainingState) -> None:
        """Bring `state` to the newest good checkpoint, or leave it where there is none."""
        found, self._found = self._found, None  # Its tensors would be held all along.
        if found is None:
            return
        key = "optimizer.name"
        is_same = found.state["identity"].get(key) == self._identity.get(key)
        if not is_same:
            logger.warning("The checkpoint is of another optimiser; this one starts without state.")
        state.load_tensors(found.tensors, source=str(found.path), with_optimizer=is_same)
        state.history = history = History.from_dict(found.state["history"])
        self._wall -= history.wall_seconds
        self._process -= history.process_seconds
        if self._accelerator.scaler is not None and found.state["scaler"] is not None:
            self._accelerator.scaler.load_state_dict(found.state["scaler"])
        if self._accelerator.is_main_process:
            self._write_logs(history)

    def save(self, state: TrainingState) -> None:
        """Write a checkpoint, and the logs as they were at its moment."""
        state.history.wall_seconds = time.monotonic() - self._wall
        state.history.process_seconds = time.process_time() - self._process
        scaler = self._accelerator.scaler
        save_checkpoint(
            self._run.checkpoints,
            state.tensors(),
            {
                "identity": self._identity,
                "history": state.history.to_dict(),
                "scaler": scaler.state_dict() if scaler is not None else None,
            },
        )
        self._write_logs(state.history)

    def _write_logs(self, history: History) -> None:
        write_lines(self._run.metrics, history.metrics)
        write_lines(self._run.timings, history.timings)

    def _require_same(self, before: Mapping[str, Any], path: Path) -> None:
        if before.get("arithmetic") == "no":  # As accelerate says, and older runs.
            before = {**before, "arithmetic": "float32"}
        if _OLD_NUMBER in before:
            before = {**before, "training images": before[_OLD_NUMBER]}
            del before[_OLD_NUMBER]
        before = {**self._unknown_then(), **before}
        names = [n for n in {**before, **self._identity} if before.get(n) != self._identity.get(n)]
        if not names:
            return
        after = self._identity
        differences = "; ".join(
            f"{n} was {_shorten(before.get(n))} and is now {_shorten(after.get(n))}" for n in names
        )
        fatal = [name for name in names if name in NEVER_CHANGED]
        if self._allow_changes and not fatal:
            logger.warning("Resuming %s although %s.", self._run.path, differences)
            return
        remedy = (
            "train in another folder"
            if fatal
            else "undo the change, pass --allow-changes to go on all the same, or train in another "
            "folder"
        )
        raise TenfoldError(f"{path} can't be resumed: {differences}; {remedy}.")

    def _unknown_then(self) -> dict[str, Any]:
        """What a run of an older version says nothing of: what has become an option since, but
        for those of parts of one's own, which are as old as their code."""
        names = {table: self._identity[f"{table}.name"] for table in KINDS}
        chosen = {table: {"name": name} for table, name in names.items() if not is_own(name)}
        options = recipe_from_dict(chosen).to_dict()
        for table in names.keys() - chosen.keys():
            del options[table]
        unsaid = ("GPU", "cuDNN", "float32 products")
        as_now = {name: self._identity[name] for name in unsaid if name in self._identity}
        return {**flatten(options), **as_now}


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
