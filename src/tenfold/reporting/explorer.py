"""The error explorer of a page: its images as one sprite, and what its script filters and sorts.

N images, H by W pixels, C classes. The script is `templates/explorer.js`.
"""

import base64
import hashlib
import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from tenfold.audit.answer import Answer
from tenfold.audit.explanation import Explanation
from tenfold.evaluation.calibration import fitted_of
from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.runs import Run
from tenfold.files import without_folders
from tenfold.reporting.figures import best_last
from tenfold.reporting.galleries import SplitImages, evenly
from tenfold.reporting.templating import TEMPLATES
from tenfold.reporting.thumbnails import thumbnails

MOST_ERRORS, NUM_CORRECT = 2000, 400
"""Images of a run: its errors of greatest loss, and some of what it gets right."""

MOST_OF_A_PAIR, NUM_CORRECT_OF_A_PAIR = 1000, 200
"""Of two runs, whose page holds the charts of up to ten."""

MOST_BYTES = 2_900_000
"""Of a sprite; in base64 it is a third longer."""

MOST_PIXELS, LONGEST_SIDE = 6_000_000, 128
"""Of a sprite, so that it is encoded in a fraction of a second, and of an image in it."""

NUM_SHOWN_CLASSES = 5
_QUALITIES = (80, 65, 50, 30)


def explore_run(
    run: Run, images: SplitImages, answers: Mapping[str, Answer]
) -> dict[str, Any] | None:
    """The values of the explorer of a run; None where it has no predictions or no images.

    answers: what its audit found, of which maps and nearest training images are taken.
    """
    predictions, scores = run.shown_answers, run.shown_scores
    if predictions is None or scores is None or not len(predictions.labels):
        return None
    loss, errors = losses(predictions), np.flatnonzero(~predictions.right)
    shown = errors[np.argsort(-loss[errors], kind="stable")][:MOST_ERRORS]
    correct = evenly(np.flatnonzero(predictions.right), NUM_CORRECT)
    edges = np.array(scores.confidence.bin_edges)
    # The chart counts confidence as trained, before any temperature.
    fitted = fitted_of(run.result) if run.result else None
    chosen = np.concatenate([shown, correct])
    logits = predictions.logits[chosen] * (fitted.temperature if fitted else 1.0)
    bins = np.searchsorted(edges, predictions._replace(logits=logits).confidence, side="right") - 1
    places = {name: number for number, name in enumerate(predictions.class_names)}
    rows = [places[each.name] for each in best_last(scores.per_class) if each.name in places]
    more = {
        "bins": np.clip(bins, 0, len(edges) - 2).tolist(),
        "edges": edges.tolist(),
        "rows": rows,
        "closer": _closer(answers.get("explanation")),
    }
    return _values({run: predictions}, shown, correct, images, len(errors), more)


def explore_pair(first: Run, second: Run, images: SplitImages) -> dict[str, Any] | None:
    """The values of the explorer of two runs, on the images that both have predicted."""
    a, b = first.shown_answers, second.shown_answers
    if a is None or b is None or set(a.class_names) != set(b.class_names):
        return None
    _, in_a, in_b = np.intersect1d(a.ids, b.ids, return_indices=True)
    columns = [b.class_names.index(name) for name in a.class_names]
    labels = a.labels[in_a]
    a = a._replace(logits=a.logits[in_a], labels=labels, ids=a.ids[in_a])
    b = Predictions(b.logits[in_b][:, columns], labels, a.ids, a.class_names)
    loss = np.maximum(losses(a), losses(b))
    both = a.right & b.right
    errors = np.flatnonzero(~both)
    # In turn from those that the first alone gets right, the second alone, and neither.
    rank = np.empty(len(labels))
    for kind in (a.right & ~both, b.right & ~both, ~a.right & ~b.right):
        own = np.flatnonzero(kind)
        rank[own[np.argsort(-loss[own], kind="stable")]] = np.arange(len(own))
    shown = errors[np.argsort(rank[errors], kind="stable")][:MOST_OF_A_PAIR]
    correct = evenly(np.flatnonzero(both), NUM_CORRECT_OF_A_PAIR)
    return _values({first: a, second: b}, shown, correct, images, len(errors), {})


def losses(predictions: Predictions) -> NDArray[np.float64]:
    """(N,) cross-entropy of each image in nats."""
    own = predictions.probabilities[np.arange(len(predictions.labels)), predictions.labels]
    return np.asarray(-np.log(np.maximum(own, 1e-12)))


def label_quality(predictions: Predictions) -> NDArray[np.float64]:
    """(N,) from 0, surely wrong, to 1: the normalized margin of cleanlab (Northcutt et al. 2021,
    arXiv 1911.00068), the label's probability less that of the likeliest other class."""
    rows, probabilities = np.arange(len(predictions.labels)), predictions.probabilities
    own = probabilities[rows, predictions.labels]
    probabilities[rows, predictions.labels] = -np.inf
    others = probabilities.max(axis=1)
    return np.asarray((own - np.where(np.isfinite(others), others, 0) + 1) / 2)


def sprite_of(tiles: NDArray[np.uint8]) -> dict[str, Any]:
    """Images (N, H, W, 3) uint8 side by side in one WebP image, which is a data URI: the width and
    height of one, from one to the next, and how many are in a row."""
    from PIL import Image

    number, height, width = tiles.shape[:3]
    # To whole blocks of the encoder, so that no image colours its neighbours.
    tiles = np.pad(tiles, ((0, 0), (0, -height % 4), (0, -width % 4), (0, 0)), mode="edge")
    pitch = tiles.shape[2], tiles.shape[1]
    across = max(math.ceil(math.sqrt(number * pitch[1] / pitch[0])), 1)
    blank = np.zeros((-number % across, *tiles.shape[1:]), dtype=np.uint8)
    rows = np.concatenate([tiles, blank]).reshape(-1, across, *tiles.shape[1:])
    sheet = rows.transpose(0, 2, 1, 3, 4).reshape(-1, across * pitch[0], 3)
    image = Image.fromarray(np.ascontiguousarray(sheet))
    for quality in _QUALITIES:
        content = io.BytesIO()
        image.save(content, "WEBP", quality=quality, method=1)
        if content.tell() <= MOST_BYTES:
            break
    uri = f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
    return {"uri": uri, "size": (width, height), "pitch": pitch, "across": across}


def _values(
    runs: Mapping[Run, Predictions],
    errors: NDArray[np.int64],
    correct: NDArray[np.int64],
    images: SplitImages,
    num_errors: int,
    more: Mapping[str, Any],
) -> dict[str, Any] | None:
    """What the template and the script take of runs of one split and what each predicted; None
    where the data set lacks an image.

    errors, correct: the images to show. num_errors: of all. more: values for the script.
    """
    (run, first), chosen = next(iter(runs.items())), np.concatenate([errors, correct])
    ids = first.ids[chosen].tolist()
    found = images.pixels(ids)
    if len(found) < len(ids) or not found:
        return None
    side = min(LONGEST_SIDE, max(math.isqrt(MOST_PIXELS // len(ids)), 8))
    content = json.dumps([run.data.name, dict(run.data.checksums)], sort_keys=True)
    values = {
        "key": hashlib.sha256(content.encode()).hexdigest()[:16],
        "classes": first.class_names,
        "ids": ids,
        "labels": first.labels[chosen].tolist(),
        "runs": [
            {"name": without_folders(run.label), **_predicted(each, chosen)}
            for run, each in runs.items()
        ],
        "sprite": sprite_of(thumbnails(np.stack([found[name] for name in ids]), max_side=side)),
        **more,
    }
    return {
        "names": first.class_names,
        "runs": [each["name"] for each in values["runs"]],
        "edges": more.get("edges", ()),
        "num_errors": num_errors,
        "num_shown_errors": len(errors),
        "num_shown_correct": len(correct),
        "num_correct": len(first.labels) - num_errors,
        "has_closer": bool(more.get("closer")),
        # No text in it can end the element.
        "json": Markup(json.dumps(values, separators=(",", ":")).replace("<", "\\u003c")),
        "script": Markup((TEMPLATES / "explorer.js").read_text(encoding="utf-8")),
    }


def _predicted(predictions: Predictions, chosen: NDArray[np.int64]) -> dict[str, Any]:
    own = predictions._replace(logits=predictions.logits[chosen], labels=predictions.labels[chosen])
    probabilities = own.probabilities
    likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :NUM_SHOWN_CLASSES]
    shares = np.take_along_axis(probabilities, likeliest, axis=1)
    return {
        "likeliest": likeliest.tolist(),
        "shares": np.round(1000 * shares).astype(int).tolist(),
        "loss": np.round(losses(own), 3).tolist(),
        "quality": np.round(label_quality(own), 4).tolist(),
    }


def _closer(explanation: Answer | None) -> dict[str, Any] | None:
    """Of the errors of greatest loss that an audit explained: the map of each and the training
    images nearest to it, as a sprite with a row each."""
    if not isinstance(explanation, Explanation) or not explanation.errors:
        return None
    maps, alike = (explanation.arrays[name] for name in ("error_maps", "error_neighbours"))
    groups = np.concatenate([maps[:, None], alike], axis=1)
    return {
        "sprite": sprite_of(groups.reshape(-1, *groups.shape[2:])),
        "count": groups.shape[1],
        "ids": [error.id for error in explanation.errors],
        "neighbours": [error.neighbours for error in explanation.errors],
    }
