"""An environment that holds the named packages, what they need, and nothing else."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

SOURCE = Path(__file__).parent.parent / "src"


def make(folder: Path, packages: Iterable[str]) -> Path:
    """Links in `folder` to the installed files of `packages` and of whatever they require."""
    waiting, seen = list(packages), set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        found = metadata.distribution(name)
        for top in {file.parts[0] for file in found.files or () if file.parts[0] != ".."}:
            link = folder / top
            # Two packages may share a folder, as those of google do.
            if top != "__pycache__" and not link.exists():
                link.symlink_to(Path(str(found.locate_file(top))))
        required = [Requirement(line) for line in found.requires or ()]
        waiting += [
            each.name for each in required if not each.marker or each.marker.evaluate({"extra": ""})
        ]
    return folder


def command(*arguments: object) -> list[str]:
    """Python with `arguments`, without what is installed beside it."""
    return [sys.executable, "-S", "-s", *map(str, arguments)]


def variables(folder: Path) -> dict[str, str]:
    """The environment variables of such a command."""
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{SOURCE}"}


def run(folder: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """What such a command gave."""
    return subprocess.run(
        command(*arguments),
        env=variables(folder),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
