"""`tutorial-cnn` and `fast-75` against the tutorial's network in Keras 3 on TensorFlow, here.

Usage: python benchmarks/against_keras.py --keras PYTHON, where PYTHON is the interpreter of an
environment with TensorFlow in it: `python3 -m venv keras && keras/bin/pip install tensorflow`,
then --keras keras/bin/python. They train in turns, the same images, each with all cores;
`tutorial-cnn` has Keras's batch size and epochs, `fast-75` its own. What is timed is all of the
training, checkpoints too, but neither loading nor scoring.

Prints a line a run and a table of medians and, with --json, one object.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def keras(python: Path, images: Path, *, epochs: int, seed: int) -> dict[str, Any]:
    """One run of Keras."""
    script = Path(__file__).with_name("keras_tutorial.py")
    words = [python, script, images, "--epochs", epochs, "--seed", seed]
    done = subprocess.run(
        list(map(str, words)), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def tenfold(recipe: str, folder: Path, *, epochs: int, seed: int) -> dict[str, Any]:
    """One run of a recipe of tenfold; the tutorial's has so many epochs."""
    words = ["train", recipe, "--seed", seed, "--folder", folder, "--no-report", "--json"]
    words += ["--epochs", epochs] if recipe == "tutorial-cnn" else []
    command = [sys.executable, "-m", "tenfold", *map(str, words)]
    times = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            times[json.loads(line)["event"]] = time.perf_counter()
    assert process.returncode == 0
    result = json.loads((folder / "result.json").read_text())
    return {
        "seconds": times["ended"] - times["started"],
        "accuracy": result["splits"]["test"]["accuracy"],
        "num_parameters": result["model"]["num_parameters"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keras", type=Path, required=True, help="a Python that has TensorFlow")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=1, help="runs of each")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {"Keras": [], "tutorial-cnn": [], "fast-75": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = folder / "cifar10.npz"
        words = ["data", "export", "cifar10", str(images), "--json"]
        subprocess.run([sys.executable, "-m", "tenfold", *words], check=True)
        for seed in range(options.repeat):
            for name in runs:
                how = {"epochs": options.epochs, "seed": seed}
                run = (
                    keras(options.keras, images, **how)
                    if name == "Keras"
                    else tenfold(name, folder / f"{name}-{seed}", **how)
                )
                runs[name].append(run)
                print(f"{name}, seed {seed}: {run['seconds']:.0f} s, {run['accuracy']:.2%}")
    medians = {
        name: {key: statistics.median(r[key] for r in found) for key in ("seconds", "accuracy")}
        for name, found in runs.items()
    }
    whole = medians["Keras"]["seconds"]
    print(f"\n{'':14}{'seconds':>10}{'of Keras':>10}{'test':>10}   median of {options.repeat}")
    for name, values in medians.items():
        seconds, accuracy = values["seconds"], values["accuracy"]
        print(f"{name:14}{seconds:>10.0f}{seconds / whole:>10.2f}{accuracy:>10.2%}")
    if options.json:
        print(json.dumps({"runs": runs, "medians": medians}))


if __name__ == "__main__":
    main()
