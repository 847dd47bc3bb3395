"""Study folders made up file by file, with accuracies that are known because they were chosen."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.evaluation.metrics import compute_metrics
from tenfold.evaluation.predictions import Predictions, save_predictions
from tenfold.files import write_json

NUM_PICTURES = 1_000
MACHINE = {"cpu": "Xeon", "cores": 2, "memory_bytes": 8_000_000_000}


def answers(accuracy: float, seed: int, *, number: int = NUM_PICTURES) -> np.ndarray:
    """(number,) bool, exactly that share of it true; easy pictures rather than hard ones."""
    ease = np.random.default_rng(0).normal(size=number)
    luck = np.random.default_rng([seed, round(1e6 * accuracy)]).normal(size=number)
    right = np.zeros(number, dtype=bool)
    right[np.argsort(-(ease + 0.5 * luck))[: round(accuracy * number)]] = True
    return right


@dataclass
class Made:
    """A run to make up; accuracies are of the split that the study is judged by."""

    seed: int
    accuracy: float = 0.6
    status: str = "finished"
    epochs: int = 20
    milestones: dict[int, float] = field(default_factory=dict)
    train: Sequence[float | None] = (0.5, 0.6)
    validation: Sequence[float | None] = (0.5, 0.58)
    split: str = "test"
    seconds: float = 100.0
    predictions: bool = True
    device: str = "cpu"
    first_picture: int = 0
    checksum: str = "5eed"


def make_study(folder: Path, variants: dict[str, list[Made]], **plan: Any) -> Path:
    """A study's folder; `published` maps labels to lists, `planned` seeds to those without runs."""
    published, planned = plan.pop("published", {}), plan.pop("planned", {})
    trials = []
    for label, runs in variants.items():
        for seed in sorted({*(run.seed for run in runs), *planned.get(label, ())}):
            epochs = runs[0].epochs if runs else 20
            milestones = [*runs[0].milestones] if runs else []
            recipe = {
                "name": "lenet",
                "seed": seed,
                "data": {"name": "cifar10", "image_size": 0},
                "model": {"name": "lenet"},
                "training": {"epochs": epochs, "milestones": milestones},
            }
            name = f"{label},seed={seed}"
            trials.append(
                {
                    "trial": name,
                    "variant": label,
                    "overrides": [],
                    "seed": seed,
                    "recipe": recipe,
                }
            )
    folder.mkdir(parents=True, exist_ok=True)
    plan = {
        "name": folder.name,
        "title": "A title",
        "question": "What helps?",
        "limits": ["One network."],
        "baseline": next(iter(variants), None),
        "variants": [{"label": v, "published": published.get(v, [])} for v in variants],
        "trials": trials,
        **plan,
    }
    write_json(folder / "study.json", plan)
    for label, runs in variants.items():
        for run in runs:
            make_run(folder, f"{label},seed={run.seed}", run)
    for trial in trials:
        write_json(folder / "runs" / str(trial["trial"]) / "recipe.json", trial["recipe"])
    return folder


def make_run(folder: Path, trial: str, run: Made) -> None:
    """The record of a run and, if it is finished, its folder."""
    is_finished = run.status == "finished"
    path = folder / "runs" / trial
    if not is_finished:
        write_json(path / "failure.json", {"error": run.status})
        return
    path.mkdir(parents=True)
    lines = [
        {
            "epoch": epoch,
            "train_accuracy": train,
            "validation_accuracy": validation,
            "train_loss": None if train is None else 1 - train,
            "validation_loss": None,
        }
        for epoch, (train, validation) in enumerate(
            zip(run.train, run.validation, strict=True), start=1
        )
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    provenance = {
        "hardware": MACHINE,
        "device": run.device,
        "threads": 1,
        "data": {
            "checksums": {"pixels": run.checksum},
            "splits": {"train": 45_000, run.split: NUM_PICTURES},
        },
    }
    write_json(path / "provenance.json", provenance)
    right = answers(run.accuracy, run.seed)
    logits = np.zeros((NUM_PICTURES, 2), dtype=np.float32)
    logits[np.arange(NUM_PICTURES), np.where(right, 1, 0)] = 1
    ids = np.array([f"test/{run.first_picture + n}" for n in range(NUM_PICTURES)])
    labels = np.ones(NUM_PICTURES, dtype=np.int64)
    predictions = Predictions(logits, labels, ids, ("wrong", "right"))
    if run.predictions:
        save_predictions(path / f"predictions-{run.split}.npz", predictions)
    write_json(
        path / "result.json",
        {
            "model": {"name": "lenet", "num_parameters": 62_006},
            "training": {
                "epochs": run.epochs,
                "steps": 10 * run.epochs,
                "wall_seconds": run.seconds,
                "training_seconds": run.seconds,
                "process_seconds": 2 * run.seconds,
            },
            "splits": {run.split: compute_metrics(predictions).to_dict()},
            "milestones": [
                {"epoch": epoch, "splits": {run.split: {"accuracy": accuracy, "loss": 1.0}}}
                for epoch, accuracy in run.milestones.items()
            ],
        },
    )


def three(*accuracies: float, **options: Any) -> list[Made]:
    """Runs of seeds 0, 1, ..."""
    return [Made(seed, accuracy, **options) for seed, accuracy in enumerate(accuracies)]
