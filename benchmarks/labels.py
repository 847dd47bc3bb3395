"""How many labels that were flipped on purpose are found, and what mending them is worth.

    python benchmarks/labels.py [--recipe cnn] [--share 0.05] [--folds 5] [--seeds 3]

For each seed a share of the training labels is flipped to another class, a run is trained on them,
and `tenfold audit RUN labels --folds` judges them. Then it is trained again with those that were
found corrected to what the audit suggests, and with those dropped. `labels.json` in `--out` holds
for each seed how many of the flipped were found while nine in ten of the found were flipped, how
many the audit itself calls likely, and the accuracy of all four runs on the test split. What is
there already is kept. With cnn on CIFAR-10 that is nine trainings a seed.
"""

import argparse
import csv
import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tenfold import TrainOptions, load_data, train
from tenfold.audit import AuditOptions, audit
from tenfold.data import Dataset
from tenfold.files import write_json
from tenfold.run import RunFolder

PRECISION = 0.9
Rows = dict[str, tuple[str, str]]
"""Label and action by id, as a file of corrections has them."""


def main() -> None:
    """Measure what is missing, and write it down."""
    options = parse()
    dataset = load_data(options.data)
    seeds = [measure(seed, dataset, options) for seed in range(options.seeds)]
    keys = ("found", "likely", "likely_precision", "clean", "flipped", "corrected", "dropped")
    means = {key: statistics.mean(each[key] for each in seeds) for key in keys}
    settings = {key: str(value) for key, value in vars(options).items()}
    result = {"settings": settings, "means": means, "seeds": seeds}
    write_json(options.out / "labels.json", result)
    print(json.dumps(result["means"], indent=2))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", default="cnn")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--share", type=float, default=0.05, help="of the training labels")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=0, help="0 for the recipe's")
    parser.add_argument("--out", type=Path, default=Path("runs/labels"))
    return parser.parse_args()


def measure(seed: int, dataset: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """What is found, and four accuracies, with one seed of flips and of training."""
    folder = options.out / f"seed-{seed}"
    flips = flip(dataset, options.share, seed)
    clean = accuracy(folder, "clean", {}, seed, options)
    flipped = accuracy(folder, "flipped", flips, seed, options)
    # Validation images are no training images, and theirs are not judged.
    run = RunFolder(folder / "flipped")
    audit(run, ["labels"], options=AuditOptions(folds=options.folds, seed=seed))
    with open(run.path / "audit" / "labels.csv", newline="") as file:
        ranked = list(csv.DictReader(file))
    is_wrong = np.array([row["id"] in flips for row in ranked])
    likely = [row for row in ranked if row["likely_wrong"] == "True"]
    is_hit = [row["id"] in flips for row in likely]
    fixes = {row["id"]: (row["suggested"], "correct") for row in likely}
    drops = {row["id"]: (row["given"], "drop") for row in likely}
    return {
        "seed": seed,
        "num_flipped": int(is_wrong.sum()),
        "found": found_at(is_wrong, PRECISION),
        "likely": sum(is_hit) / max(int(is_wrong.sum()), 1),
        "likely_precision": sum(is_hit) / max(len(is_hit), 1),
        "clean": clean,
        "flipped": flipped,
        "corrected": accuracy(folder, "corrected", flips | fixes, seed, options),
        "dropped": accuracy(folder, "dropped", flips | drops, seed, options),
    }


def flip(dataset: Dataset, share: float, seed: int) -> Rows:
    """Another class for a share of the training images, each as likely."""
    images, generator = dataset.train, np.random.default_rng(seed)
    number, classes = round(share * len(images)), images.num_classes
    chosen = np.sort(generator.choice(len(images), number, replace=False))
    others = (images.labels[chosen] + generator.integers(1, classes, number)) % classes
    return {
        str(images.ids[index]): (images.class_names[label], "correct")
        for index, label in zip(chosen, others, strict=True)
    }


def found_at(is_wrong: np.ndarray, precision: float) -> float:
    """The largest share of the wrong that a start of the ranking holds at this precision."""
    hits = np.cumsum(is_wrong)
    good = hits >= precision * np.arange(1, len(hits) + 1)
    return float(hits[good].max(initial=0) / max(hits[-1], 1))


def accuracy(
    folder: Path, name: str, rows: Mapping[str, tuple[str, str]], seed: int, options: Any
) -> float:
    """On the test split, of a run in `folder` that trains with these corrections."""
    place, changes = folder / name, dict[str, Any]()
    if rows:
        changes["data__corrections"] = str(write_rows(folder / f"{name}.csv", rows))
    if options.epochs:
        changes["epochs"] = options.epochs
    run = RunFolder(place)
    if not run.is_finished():
        train(
            options.recipe,
            data=options.data,
            seed=seed,
            options=TrainOptions(folder=place),
            **changes,
        )
    return float(json.loads(run.result.read_text())["splits"]["test"]["accuracy"])


def write_rows(path: Path, rows: Mapping[str, tuple[str, str]]) -> Path:
    """A file of corrections."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines: Iterable[tuple[str, ...]] = ((name, *row) for name, row in rows.items())
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("id", "label", "action"), *lines])
    return path


if __name__ == "__main__":
    main()
