"""The run folder: where everything that belongs to one training run lies, and who may write it."""

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tenfold import __version__
from tenfold.errors import TenfoldError
from tenfold.files import require_writable, write_text
from tenfold.locks import hold, is_held

LIBRARIES = ("torch", "accelerate", "numpy", "scikit-learn", "safetensors", "pillow")


class _Place:
    """A file or folder of a run by its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, run: "RunFolder", owner: type) -> Path:
        return run.path / self._name


@dataclass(frozen=True)
class RunFolder:
    """`runs/<recipe>/<number>/`, by path; nothing is read or written until a method is called."""

    path: Path

    recipe = _Place("recipe.json")  # The resolved recipe.
    provenance = _Place("provenance.json")  # Versions, data, hardware and commands.
    # One line an epoch: the same bytes for the same recipe, seed and threads; and seconds.
    metrics, timings = _Place("metrics.jsonl"), _Place("timings.jsonl")
    progress = _Place("progress.jsonl")  # For a live page alone.
    checkpoints = _Place("checkpoint")  # The folder of states to resume from.
    model = _Place("model.safetensors")  # The final weights.
    trained_on = _Place("trained-on.npz")  # Sums of the training images, to know them again.
    corrections = _Place("corrections.csv")  # By which labels of training images were corrected.
    result = _Place("result.json")  # Metrics by split; its presence says that the run is finished.
    report = _Place("report.html")

    def milestone(self, epoch: int) -> Path:
        """The weights after `epoch` epochs, where the recipe asks for them."""
        return self.path / "milestones" / f"epoch-{epoch}.safetensors"

    def predictions(self, split: str) -> Path:
        """Logits, labels and ids of a split."""
        return self.path / f"predictions-{split}.npz"

    def is_finished(self) -> bool:
        """Whether training and its evaluation came to their end."""
        return self.result.exists()

    def writer(self) -> contextlib.AbstractContextManager[None]:
        """Hold the folder as its only writer; see `locks.hold`."""
        return hold(self.path)

    def is_held(self) -> bool:
        """Whether some process is writing in the folder now."""
        return is_held(self.path)


def create_run(runs: Path, recipe_name: str) -> RunFolder:
    """A new empty `runs/<recipe_name>/<number>/`, safe against others who create one now."""
    parent = runs / recipe_name
    require_writable(parent)
    number = max((int(path.name) for path in _numbered(parent)), default=0)
    while True:
        number += 1
        with contextlib.suppress(FileExistsError):
            (parent / str(number)).mkdir()
            return RunFolder(parent / str(number))


def runs_of(runs: Path, recipe_name: str) -> list[RunFolder]:
    """The recipe's runs, the one with the highest number first."""
    folders = [path for path in _numbered(runs / recipe_name) if path.is_dir()]
    return [RunFolder(path) for path in sorted(folders, key=lambda p: int(p.name), reverse=True)]


def _numbered(parent: Path) -> list[Path]:
    return [path for path in parent.glob("*") if path.name.isdecimal()]


def open_run(path: Path) -> RunFolder:
    """The run folder at `path`. Raises TenfoldError where there is none."""
    if path.is_file():
        raise TenfoldError(
            f"{path} is a file; name the run folder that it is from, like runs/cnn/1."
        )
    if not path.is_dir():
        raise TenfoldError(f"There is no run folder {path}; `tenfold train` makes one.")
    run = RunFolder(path)
    if not run.recipe.exists():
        raise TenfoldError(
            f"{path} is not a run folder: it has no recipe.json; give a folder such as runs/cnn/1."
        )
    return run


def finished_run(path: Path) -> RunFolder:
    """As `open_run`. Raises TenfoldError where the run is not finished."""
    run = open_run(path)
    if not run.is_finished():
        raise TenfoldError(
            f"{path} is not finished; run its `tenfold train` command again to finish it."
        )
    return run


def write_lines(path: Path, records: Sequence[Any]) -> None:
    """Write `records` to `path` atomically, each as one line of JSON."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command_line() -> str:
    """The command that started this process, without the path of the interpreter."""
    name = Path(sys.argv[0]).name
    return " ".join(["tenfold" if name in ("__main__.py", "-c", "-m") else name, *sys.argv[1:]])


def describe_environment() -> dict[str, Any]:
    """Versions, hardware and command, for a run's provenance."""
    import psutil

    libraries = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            libraries[name] = metadata.version(name)
    return {
        "tenfold": __version__,
        "git": _git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": libraries,
        "hardware": {
            "cpu": _field(Path("/proc/cpuinfo"), "model name")
            or platform.processor()
            or platform.machine(),
            "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
        },
    }


def _git_state() -> dict[str, Any] | None:
    """Commit and dirtiness of the checkout that tenfold runs from; None where there is none."""
    git, file = shutil.which("git"), Path(__file__).resolve()
    if git is None:
        return None

    def ask(*arguments: str) -> str:
        command = [git, "-C", str(file.parent), *arguments]
        return subprocess.check_output(
            command, text=True, timeout=10, stderr=subprocess.DEVNULL
        ).strip()

    try:
        # An installed copy may lie in a virtual environment within somebody else's repository.
        ask("ls-files", "--error-unmatch", file.name)
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (subprocess.SubprocessError, OSError):
        return None


def _field(file: Path, name: str) -> str:
    """The first value of a name in one of Linux's files about itself; empty where there is none."""
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return ""


def peak_memory_bytes() -> int:
    """The most memory that this process has held at once."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    # On Linux getrusage starts from the size of the process that started this one.
    if peak := _field(Path("/proc/self/status"), "VmHWM"):
        return int(peak.split()[0]) * 1024
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(used if sys.platform == "darwin" else used * 1024)
