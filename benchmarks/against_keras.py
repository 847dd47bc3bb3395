"""The recipe `tutorial-cnn` against the same network in Keras 3 on TensorFlow, on this machine.

Usage: python benchmarks/against_keras.py --keras PYTHON, where PYTHON is the interpreter of an
environment with TensorFlow in it: `python3 -m venv keras && keras/bin/pip install tensorflow`,
then --keras keras/bin/python. The two train in turns, the same pictures, batch size and epochs,
each with all cores. What is timed is all of the training, checkpoints too, but neither loading nor
scoring.

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


def keras(python: Path, pictures: Path, *, epochs: int, seed: int) -> dict[str, Any]:
    """One run of Keras."""
    script = Path(__file__).with_name("keras_tutorial.py")
    words = [python, script, pictures, "--epochs", epochs, "--seed", seed]
    done = subprocess.run(
        list(map(str, words)), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def tenfold(folder: Path, *, epochs: int, seed: int) -> dict[str, Any]:
    """One run of tenfold."""
    words = ["train", "tutorial-cnn", "--seed", seed, "--set", f"training.epochs={epochs}"]
    words += ["--folder", folder, "--no-report", "--json"]
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
    runs: dict[str, list[dict[str, Any]]] = {"Keras": [], "tenfold": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures = folder / "cifar10.npz"
        words = ["data", "export", "cifar10", str(pictures), "--json"]
        subprocess.run([sys.executable, "-m", "tenfold", *words], check=True)
        for seed in range(options.repeat):
            for name in runs:
                how = {"epochs": options.epochs, "seed": seed}
                run = (
                    keras(options.keras, pictures, **how)
                    if name == "Keras"
                    else tenfold(folder / str(seed), **how)
                )
                runs[name].append(run)
                print(f"{name}, seed {seed}: {run['seconds']:.0f} s, {run['accuracy']:.2%}")
    medians = {
        name: {key: statistics.median(r[key] for r in found) for key in ("seconds", "accuracy")}
        for name, found in runs.items()
    }
    ratio = medians["tenfold"]["seconds"] / medians["Keras"]["seconds"]
    print(f"\n{'':10}{'seconds':>10}{'test':>10}   median of {options.repeat}")
    for name, values in medians.items():
        print(f"{name:10}{values['seconds']:>10.0f}{values['accuracy']:>10.2%}")
    print(f"tenfold takes {ratio:.2f} of the time of Keras.")
    if options.json:
        print(json.dumps({"runs": runs, "medians": medians, "ratio": ratio}))


if __name__ == "__main__":
    main()
