"""What each accuracy costs, over seeds, and how recipes get there, over time.

    python benchmarks/accuracy.py [--to 75 85 91 94] [--float32] [--seeds 5] [--out runs/bench]

Runs `tenfold bench --to` for each accuracy, with --float32 held to that precision, and then trains
each recipe of the picture once with 5,000 training images held out. Everything goes into `--out`,
and what is there already is kept, so that the same command goes on after an interruption;
`docs/make_speed.py` writes the tables and the picture from it. All four accuracies with five seeds
take two and a half hours on two cores.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tenfold.files import read_json
from tenfold.recipe import load_recipe
from tenfold.run import describe_environment, runs_of
from tenfold.training.reach import RECIPES

HELD_OUT = 5000
ORDINARY = ("ann", "tutorial-cnn", "cnn-quick")
"""Recipes whose curves stand beside those of the fast ones."""


def main() -> int:
    """Measure what is missing; the exit status of the first command that fails."""
    options = parse()
    for target in options.to:
        reach(target, seeds=options.seeds, out=options.out, in_float32=options.float32)
    for recipe in [*ORDINARY, *(RECIPES["cpu"][target] for target in options.to)]:
        change = f"data.validation_size={HELD_OUT}"
        wanted = what_counts(load_recipe(recipe, [change]).to_dict())
        earlier = [r for r in runs_of(options.out / "curves", recipe) if r.is_finished()]
        if not any(what_counts(read_json(run.recipe)) == wanted for run in earlier):
            changes = ["--set", change]
            tenfold("train", recipe, *changes, "--cpu", "--runs", str(options.out / "curves"))
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    targets = list(RECIPES["cpu"])
    parser.add_argument("--to", nargs="+", choices=targets, default=targets, help="in per cent")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--float32", action="store_true", help="without bf16")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    return parser.parse_args()


def reach(target: str, *, seeds: int, out: Path, in_float32: bool = False) -> None:
    """Write `to-<target>.json`; the command keeps the seeds that are finished."""
    out.mkdir(parents=True, exist_ok=True)
    print(f"Reaching {target} % with {seeds} seeds", flush=True)
    options = ["--seeds", str(seeds), "--cpu", "--runs", str(out / "runs"), "--json"]
    if in_float32:
        options += ["--set", "training.precision=float32"]
    said = tenfold("bench", "--to", target, *options)
    records = [json.loads(line) for line in said.splitlines()]
    values = {
        "target": target,
        "environment": describe_environment(),
        "seeds": [record for record in records if record["event"] == "reached"],
        "summary": next(record for record in records if record["event"] == "summary"),
    }
    name = f"to-{target}-float32" if in_float32 else f"to-{target}"
    (out / f"{name}.json").write_text(json.dumps(values, indent=2) + "\n")


def what_counts(recipe: dict[str, Any]) -> dict[str, Any]:
    """`recipe` as JSON has it, without the words that describe it."""
    values: dict[str, Any] = json.loads(json.dumps(recipe))
    values.pop("description", None)
    return values


def tenfold(*arguments: str) -> str:
    """What the command prints; ends this one where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "tenfold", *arguments], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
