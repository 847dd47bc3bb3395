"""Run folders as training and evaluation write them, made up in milliseconds for the tests."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tenfold.data.images import Dataset, Images

CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
# Which classes people and networks take for each other.
ALIKE = {3: (5,), 5: (3,), 0: (8, 2), 1: (9,), 9: (1,), 4: (7, 2), 7: (4,), 2: (0, 6), 6: (3,)}


@dataclass(frozen=True)
class Recipe:
    """What to make up."""

    name: str = "cnn"
    skill: float = 2.6
    seed: int = 0
    epochs: int = 8
    num_parameters: int = 357_706
    seconds: float = 78.4
    class_names: tuple[str, ...] = CIFAR10
    num_test: int = 400
    has_test: bool = True
    has_validation: bool = True
    notes: tuple[str, ...] = ()
    finished: bool = True
    location: str | None = None


def make_dataset(class_names: tuple[str, ...] = CIFAR10, *, num_test: int = 400) -> Dataset:
    """Blobs whose colour goes with the class."""
    random = np.random.default_rng(5)

    def images(split: str, number: int) -> Images:
        labels = np.arange(number, dtype=np.int64) % len(class_names)
        hues = np.stack([labels * 37 % 256, labels * 91 % 256, labels * 151 % 256], axis=1)
        noise = random.integers(-40, 40, (number, 32, 32, 3))
        pixels = np.clip(hues[:, None, None, :] + noise, 0, 255).astype(np.uint8)
        ids = np.array([f"{split}/{index}" for index in range(number)])
        return Images(pixels, labels, class_names, ids)

    return Dataset("cifar10", images("train", 200), None, images("test", num_test), "made up")


def make_run(folder: Path, recipe: Recipe | None = None, *, dataset: Dataset | None = None) -> Path:
    """Write a whole run folder, or an unfinished one, and return it."""
    recipe = recipe or Recipe()
    dataset = dataset or make_dataset(recipe.class_names, num_test=recipe.num_test)
    folder.mkdir(parents=True)
    write_json(folder / "recipe.json", _recipe_json(recipe))
    write_json(folder / "provenance.json", _provenance_json(recipe, dataset))
    _write_epochs(folder, recipe)
    if not recipe.finished:
        return folder
    splits = {}
    for split in ("validation", "test"):
        if not getattr(recipe, f"has_{split}"):
            continue
        images = dataset.train if split == "validation" else dataset.test
        assert images is not None
        logits = _make_logits(recipe, images.labels, split)
        np.savez_compressed(
            folder / f"predictions-{split}.npz",
            logits=logits,
            labels=images.labels,
            ids=images.ids,
            class_names=np.array(images.class_names),
        )
        splits[split] = _metrics(logits, images.labels, images.class_names)
    write_json(folder / "result.json", _result_json(recipe, splits))
    return folder


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def _make_logits(recipe: Recipe, labels: np.ndarray, split: str) -> np.ndarray:
    """Noise, the truth on top, and something for the classes that look alike."""
    number, classes = len(labels), len(recipe.class_names)
    # Pictures are easy or hard for every model; the rest is the model's own luck.
    shared = np.random.default_rng(len(split)).normal(size=(number, classes))
    own = np.random.default_rng([recipe.seed, len(recipe.name), abs(round(recipe.skill * 100))])
    logits = 0.9 * shared + 0.7 * own.normal(size=(number, classes))
    for label, others in ALIKE.items():
        for other in others:
            if max(label, other) < classes:
                logits[labels == label, other] += 1.1
    logits[np.arange(number), labels] += recipe.skill
    return (1.6 * logits).astype(np.float32)


def _metrics(logits: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> dict[str, object]:
    classes, number = len(names), len(labels)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    answers = logits.argmax(axis=1)
    confusion = np.zeros((classes, classes), dtype=int)
    np.add.at(confusion, (labels, answers), 1)
    right = answers == labels
    accuracy = float(right.mean())
    half = 1.96 * math.sqrt(max(accuracy * (1 - accuracy), 1e-6) / number)
    per_class = []
    for index, name in enumerate(names):
        hits, true, called = (
            confusion[index, index], confusion[index].sum(), confusion[:, index].sum(),
        )  # fmt: skip
        per_class.append(
            {
                "name": name,
                "precision": float(hits / max(called, 1)),
                "recall": float(hits / max(true, 1)),
                "f1": float(2 * hits / max(true + called, 1)),
                "num_images": int(true),
            }
        )
    mistakes = confusion - np.diag(np.diag(confusion))
    worst = np.argsort(-mistakes, axis=None)[:10]
    edges = np.linspace(0, 1, 21)
    best = probabilities.max(axis=1)
    return {
        "num_images": number,
        "accuracy": accuracy,
        "accuracy_interval": [max(0.0, accuracy - half), min(1.0, accuracy + half)],
        "top5_accuracy": None if classes <= 5 else 0.98,
        "loss": float(-np.log(probabilities[np.arange(number), labels]).mean()),
        "matthews_correlation": 0.7,
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "most_confused": [
            {
                "true": names[flat // classes],
                "predicted": names[flat % classes],
                "count": int(mistakes.flat[flat]),
                "share": float(mistakes.flat[flat] / max(confusion[flat // classes].sum(), 1)),
            }
            for flat in worst
            if mistakes.flat[flat]
        ],
        "confidence": {
            "bin_edges": edges.tolist(),
            "right": np.histogram(best[right], edges)[0].tolist(),
            "wrong": np.histogram(best[~right], edges)[0].tolist(),
        },
        "images_per_second": 9120.5,
    }


def _recipe_json(recipe: Recipe) -> dict[str, object]:
    model: dict[str, object] = {"name": recipe.name, "widths": [512, 256], "dropout": 0.2}
    if recipe.name == "cnn":
        model = {"name": "cnn", "widths": [32, 64, 128], "kernel_size": 3, "dropout": 0.2}
    return {
        "name": recipe.name,
        "description": "",
        "seed": recipe.seed,
        "data": {"name": "cifar10", "train_size": 0, "validation_size": 0.1, "image_size": 0},
        "model": model,
        "augmentation": {
            "flip": recipe.name == "cnn",
            "translate": 2 if recipe.name == "cnn" else 0,
        },
        "optimizer": {"name": "adamw", "lr": 0.003, "weight_decay": 0.01},
        "schedule": {"name": "one_cycle", "peak": 0.25},
        "training": {"epochs": recipe.epochs, "batch_size": 256},
    }


def _provenance_json(recipe: Recipe, dataset: Dataset) -> dict[str, object]:
    splits = {"train": 45_000}
    splits |= {"validation": 5_000} if recipe.has_validation else {}
    splits |= {"test": recipe.num_test} if recipe.has_test else {}
    return {
        "tenfold": "0.1.0",
        "git": {"commit": "2119441abcdef0123456789", "dirty": True},
        "seed": recipe.seed,
        "threads": 2,
        "python": "3.11.9",
        "platform": "Linux-6.1-x86_64",
        "libraries": {"torch": "2.11.0", "numpy": "2.4.6"},
        "hardware": {"cpu": "Xeon", "cores": 2, "memory_bytes": 8_000_000_000, "device": "cpu"},
        "data": {
            "name": dataset.name,
            "location": recipe.location,
            "source": dataset.source,
            "checksums": {"train images": "47af8b02" * 8},
            "notes": list(recipe.notes),
            "class_names": list(recipe.class_names),
            "image_size": [32, 32],
            "splits": splits,
        },
        "sessions": [
            {
                "started": "2026-11-21T04:28:04+00:00",
                "command": "tenfold train",
                "resumed_at_step": 0,
            },
            {
                "started": "2026-11-21T04:29:04+00:00",
                "command": "tenfold train",
                "resumed_at_step": 90,
            },
        ],
    }


def _write_epochs(folder: Path, recipe: Recipe) -> None:
    done = recipe.epochs if recipe.finished else max(recipe.epochs - 3, 0)
    ceiling = 0.3 + recipe.skill / 6
    metrics, timings = [], []
    for epoch in range(1, done + 1):
        share = 1 - math.exp(-epoch / 2.5)
        validation = 0.1 + (ceiling - 0.1) * share
        known = recipe.has_validation
        metrics.append(
            {
                "epoch": epoch,
                "step": 176 * epoch,
                "learning_rate": 0.003 * (1 - epoch / (recipe.epochs + 1)),
                "train_loss": 2.3 - 1.5 * share,
                "train_accuracy": 0.1 + (ceiling - 0.02) * share,
                "validation_loss": 2.3 - 1.3 * share + 0.01 * epoch if known else None,
                "validation_accuracy": validation if known else None,
            }
        )
        timings.append(
            {
                "epoch": epoch,
                "training_seconds": recipe.seconds * epoch / recipe.epochs,
                "images_per_second": 45_000 * recipe.epochs / recipe.seconds,
            }
        )
    for name, lines in (("metrics", metrics), ("timings", timings)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)


def _result_json(recipe: Recipe, splits: dict[str, object]) -> dict[str, object]:
    use = {"time": "2026-11-21T04:31:04+00:00", "purpose": "after training", "accuracy": 0.78}
    return {
        "model": {"name": recipe.name, "num_parameters": recipe.num_parameters},
        "training": {
            "epochs": recipe.epochs,
            "steps": 176 * recipe.epochs,
            "training_seconds": recipe.seconds,
            "wall_seconds": recipe.seconds + 9,
            "process_seconds": 1.9 * recipe.seconds,
            "images_per_second": 45_000 * recipe.epochs / recipe.seconds,
            "peak_memory_bytes": 1_130_000_000,
            "ended": "finished",
            "best_epoch": None,
        },
        "splits": splits,
        "test_uses": [use] if recipe.has_test else [],
    }
