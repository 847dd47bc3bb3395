"""Do two commits train the same bits? Processors differ, so both run here, side by side.

    python benchmarks/same_bits.py BEFORE [AFTER] [--recipes ann,cnn,fast-75,transfer] [--threads 1]

Each commit is checked out beside this one and trains a few steps of each recipe on digits, with one
seed, the same threads and float32; losses by epoch and the sum of the weights must be equal. Ends
with 1 where they aren't. `transfer` is the head and one epoch of EfficientNet-Lite0.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPES = {
    "ann": ["ann", "--set", "training.epochs=2"],
    "cnn": ["cnn", "--set", "training.epochs=2", "--set", "training.min_steps=0"],
    "fast-75": ["fast-75", "--set", "training.epochs=2", "--set", "training.precision=float32"],
    "transfer": [
        "transfer-lite0", "--set", "data.train_size=60", "--set", "model.input_size=64",
        "--set", "training.epochs=1",
    ],
}  # fmt: skip


def main() -> int:
    """Train, compare, say; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before")
    parser.add_argument("after", nargs="?", default="HEAD")
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as place:
        for name in (options.before, options.after):
            tree = Path(place) / name.replace("/", "-")
            git("worktree", "add", "--quiet", "--detach", str(tree), name)
            try:
                found[name] = {
                    recipe: trained(tree, recipe, options.threads)
                    for recipe in options.recipes.split(",")
                }
            finally:
                git("worktree", "remove", "--force", str(tree))
    before, after = found[options.before], found[options.after]
    for recipe, own in before.items():
        same = own[:2] == after[recipe][:2]
        seconds = f"{own[2]:.0f} s and {after[recipe][2]:.0f} s"
        sys.stdout.write(f"{recipe}: {'the same bits' if same else 'OTHER BITS'} ({seconds})\n")
    return 0 if all(own[:2] == after[recipe][:2] for recipe, own in before.items()) else 1


def git(*arguments: str) -> None:
    """Run git in this clone."""
    subprocess.run(["git", *arguments], check=True, cwd=Path(__file__).parent)


def trained(tree: Path, recipe: str, threads: int) -> tuple[list[float], str, float]:
    """Losses by epoch, the sum of all weights, and the seconds of a training by `tree`'s code."""
    folder = tree / "same-bits" / recipe
    command = [
        sys.executable, "-m", "tenfold", "train", *RECIPES[recipe], "--data", "digits",
        "--threads", str(threads), "--no-test", "--no-report", "--folder", str(folder),
    ]  # fmt: skip
    started = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(tree / "src")},
    )
    seconds = time.perf_counter() - started
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["train_loss"] for line in lines], weights_sum(folder), seconds


def weights_sum(folder: Path) -> str:
    """SHA-256 of the tensors, without the header, which has the recipe."""
    from safetensors.numpy import load_file

    tensors = load_file(folder / "model.safetensors")
    parts = (name.encode() + tensors[name].tobytes() for name in sorted(tensors))
    return hashlib.sha256(b"".join(parts)).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
