"""Searches around the tiny recipe on the tiny data, as real commands."""

import json
from pathlib import Path
from typing import Any

import commands
from commands import Command, write_tiny_data, write_tiny_recipe

LR = '"optimizer.lr" = {low = 1e-6, high = 0.3, log = true}\n'
SPACE = f"""{LR}
"training.batch_size" = {{times = [0.5, 1, 2]}}
model.dropout = {{low = 0.0, high = 0.5}}
"""
LONG_EPOCHS = 30
LONG = ["--set", f"training.epochs={LONG_EPOCHS}"]


def arguments(*more: str, trials: int | None = None, space: str = "space.toml") -> list[str]:
    """`tenfold tune` of the tiny recipe on the tiny data."""
    limit = [] if trials is None else ["--trials", str(trials)]
    if "--report" not in more:
        limit.append("--no-report")
    return [
        "tune",
        "tiny.toml",
        "--data",
        "data.npz",
        "--space",
        space,
        "--threads",
        "1",
        *limit,
        *more,
    ]


def tune(folder: Path, *more: str, **options: Any) -> Command:
    return commands.run(arguments(*more, **options), folder=folder)


def start(folder: Path, *more: str, **options: Any) -> Command:
    return commands.start(arguments(*more, **options), folder=folder)


def prepare(folder: Path, space: str = SPACE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_tiny_data(folder / "data.npz", num_train=256, num_test=32)
    write_tiny_recipe(folder)
    (folder / "space.toml").write_text(space)
    return folder


def summary(folder: Path, search: str = "tunes/tiny") -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / search / "trials.json").read_text())
    return values


def states(folder: Path, search: str = "tunes/tiny") -> dict[str, int]:
    counts: dict[str, int] = summary(folder, search)["counts"]
    return counts
