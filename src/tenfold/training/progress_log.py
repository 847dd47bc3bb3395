"""What a live page shows of a run that is under way: `progress.jsonl` in its folder."""

import contextlib
import json
import time
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data import Images
from tenfold.data.encoding import png_data_uri
from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.probabilities import softmax
from tenfold.run import RunFolder
from tenfold.training.reporters import Plan, Reporters

NUM_SAMPLES = 10
"""Validation images whose predictions are written down after each epoch."""

MAX_SIDE = 96
"""Pixels of a sample; larger images are thinned out."""

NUM_LIKELIEST = 3


class ProgressLog(Reporters):
    """Writes lines of JSON: plans, with the time and a few validation images; the mean loss and
    images a second of the steps since the line before; and after each epoch what it predicts.

    A line of steps comes every second, and in runs of hours every ten. Nothing that goes wrong here
    ends a training.
    """

    def __init__(self, run: RunFolder, validation: Images | None) -> None:
        super().__init__()
        self._path, self._validation = run.progress, validation
        self._samples: list[Any] = []
        self._losses: list[float] = []
        self._rates: list[float] = []
        self._started: float | None = None
        self._steps_per_epoch, self._last = 1, time.monotonic()

    def started(self, plan: Plan) -> None:
        """See Reporter."""
        first = self._started is None
        self._started = self._last = time.monotonic()
        self._steps_per_epoch = plan.steps_per_epoch
        images = {"images": _described(self._validation)} if first else {}
        self._write("started", **images, plan=asdict(plan))

    def stepped(self, **step: Any) -> None:
        """See Reporter."""
        self._losses.append(step["loss"])
        self._rates.append(step["images_per_second"])
        now = time.monotonic()
        elapsed = now - self._started if self._started is not None else 0.0
        if now - self._last < min(max(elapsed / 1000, 1.0), 10.0):
            return
        self._last = now
        self._write(
            "step",
            step=step["step"] + (step["epoch"] - 1) * self._steps_per_epoch,
            loss=float(np.mean(self._losses)),
            images_per_second=float(np.mean(self._rates)),
        )
        self._losses.clear()
        self._rates.clear()

    def predicted(self, predictions: Predictions) -> None:
        """Told of the predictions of all validation images, before the epoch ends."""
        chosen = samples_of(predictions.labels)
        shares = softmax(predictions.logits[chosen].astype(np.float64))
        orders = (-shares).argsort(axis=1, kind="stable")[:, :NUM_LIKELIEST]
        self._samples = [
            [[predictions.class_names[k], round(float(row[k]), 4)] for k in order]
            for row, order in zip(shares, orders, strict=True)
        ]

    def epoch_ended(self, metrics: dict[str, Any], timings: dict[str, Any]) -> None:
        """See Reporter."""
        self._write("epoch", epoch=metrics["epoch"], samples=self._samples)

    def ended(self, reason: str) -> None:
        """See Reporter."""
        self._write("ended", reason=reason)

    def _write(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, "time": time.time(), **values})
        with contextlib.suppress(OSError), open(self._path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def samples_of(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of a few images, of as many classes as there are."""
    first = np.sort(np.unique(labels, return_index=True)[1])
    others = np.setdiff1d(np.arange(len(labels)), first)
    return np.concatenate([first, others])[:NUM_SAMPLES]


def _described(images: Images | None) -> list[dict[str, str]]:
    """The samples with their classes."""
    if images is None:
        return []
    thin = -(-max(images.size) // MAX_SIDE)
    return [
        {
            "id": str(images.ids[index]),
            "true": images.class_names[images.labels[index]],
            "uri": png_data_uri(np.ascontiguousarray(images.pixels[index, ::thin, ::thin])),
        }
        for index in samples_of(images.labels)
    ]
