"""The parts of an audit that look into the network: where it looked, and what its errors share."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold import explain
from tenfold.audit.store import Arrays, Finding
from tenfold.audit.subject import Subject
from tenfold.data.image_sources import find_pictures
from tenfold.data.tables import printable
from tenfold.errors import TenfoldError
from tenfold.evaluation.picture_predictions import read_pictures
from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.probabilities import softmax

NUM_OF_A_KIND = 6
"""Pictures that are explained: the surest errors and the least sure."""

NUM_PAIRS, NUM_OF_A_PAIR = 3, 3
"""Pairs of classes most often confused, and pictures of each."""

MOST_EXPLAINED = 50
"""Pictures that somebody names at once; a page with more can't be read."""

NUM_CHECKED = 16
"""Pictures for the comparison with random weights."""

NUM_MAPS = 8
"""Maps of a layer that are kept: those that answered the most."""

NUM_NEIGHBOURS = 3
NUM_GROUPS, NUM_IN_GROUP = 6, 8
MOST_FILTERS = 64


def explanation(subject: Subject) -> Finding:
    """Filters, maps of features, and where it looked on the pictures most worth a look."""
    predictions = subject.measured_predictions()
    chosen, kinds = interesting(predictions)
    truths = [predictions.class_names[label] for label in predictions.labels[chosen]]
    ids = [str(predictions.ids[index]) for index in chosen]
    return _explained(subject, subject.measured.pixels[chosen], ids, truths, kinds)


def explain_pictures(subject: Subject, wanted: Sequence[str]) -> Finding:
    """The same for pictures that somebody named: files, folders, or ids of the measured split.

    Raises TenfoldError where there is no such picture, where one can't be read, and where there are
    more than MOST_EXPLAINED.
    """
    pixels, ids, truths = [], [], []
    places = {str(name): index for index, name in enumerate(subject.measured.ids)}
    for name in wanted:
        if name in places:
            index = places[name]
            pixels.append(subject.measured.pixels[index])
            ids.append(name)
            truths.append(subject.measured.class_names[subject.measured.labels[index]])
            _require_few(len(pixels))
            continue
        if re.fullmatch(r"(train|validation|test)/-?\d+", name) and not Path(name).exists():
            raise TenfoldError(
                f"There is no picture {name} in the {subject.split} split, whose ids are like "
                f"{subject.measured.ids[0]} and {subject.measured.ids[-1]}."
            )
        paths = find_pictures([name])
        _require_few(len(pixels) + len(paths))
        pixels += list(read_pictures(paths, subject.model))
        ids += [printable(path) for path in paths]
        truths += [""] * len(paths)
    return _explained(subject, np.stack(pixels), ids, truths, ["asked for"] * len(pixels))


def _require_few(number: int) -> None:
    if number > MOST_EXPLAINED:
        raise TenfoldError(
            f"{number:,} pictures are too many for one page; name at most {MOST_EXPLAINED}."
        )


def _explained(
    subject: Subject,
    pixels: NDArray[np.uint8],
    ids: Sequence[str],
    truths: Sequence[str],
    kinds: Sequence[str],
) -> Finding:
    model = subject.model
    logits = model.logits(pixels).astype(np.float64) / subject.temperature
    guesses = logits.argmax(axis=1)
    confidence = softmax(logits).max(axis=1)
    arrays: Arrays = {"pixels": pixels}
    checks = {}
    some = subject.measured.pixels[subject.drawn(len(subject.measured), NUM_CHECKED)]
    asked = model.logits(some).argmax(axis=1)
    methods = explain.methods_for(model)
    unavailable = {}
    for number, (name, method) in enumerate(methods.items()):
        try:
            arrays[name] = method(model, pixels, guesses).astype(np.float16)
        except TenfoldError as error:
            unavailable[name] = str(error)
            continue
        checks[name] = explain.randomisation_check(model, some, asked, method, seed=subject.seed)
        if subject.progress is not None:
            subject.progress("maps", number + 1, len(methods))
    features = explain.features_before_head(model, pixels)
    neighbours = explain.nearest(features, subject.known_features, number=NUM_NEIGHBOURS)
    arrays["neighbours"] = subject.known.pixels[neighbours.indices.ravel()].reshape(
        *neighbours.indices.shape, *subject.known.pixels.shape[1:]
    )
    filters = explain.first_filters(model)
    if filters is not None:
        arrays["filters"] = (filters[:MOST_FILTERS] * 255).astype(np.uint8)
    layers = []
    for number, layer in enumerate(explain.feature_maps(model, pixels[:1])):
        layers.append(layer.layer)
        arrays[f"layer{number}"] = _strongest(layer.maps[0]).astype(np.float16)
    names = model.class_names
    pictures = [
        {
            "id": ids[place],
            "kind": kinds[place],
            "true": truths[place],
            "guess": names[guess],
            "confidence": float(confidence[place]),
            "neighbours": [
                names[label] for label in subject.known_labels[neighbours.indices[place]]
            ],
        }
        for place, guess in enumerate(guesses)
    ]
    values = {
        "split": subject.split,
        "pictures": pictures,
        "checks": checks,
        "unavailable": unavailable,
        "layers": layers,
    }
    return Finding(values, arrays)


def interesting(predictions: Predictions) -> tuple[NDArray[np.int64], list[str]]:
    """Indices of the pictures most worth a look, and what each is an example of."""
    probabilities = predictions.probabilities
    guesses, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(guesses != predictions.labels)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")]
    unsure = np.argsort(confidence, kind="stable")
    groups = {"surest error": surest, "least sure": unsure}
    pairs = guesses * probabilities.shape[1] + predictions.labels
    values, counts = np.unique(pairs[wrong], return_counts=True)
    for place in np.argsort(-counts, kind="stable")[:NUM_PAIRS]:
        guess, true = divmod(int(values[place]), probabilities.shape[1])
        names = predictions.class_names
        kind = f"{names[true]} called {names[guess]}, {counts[place]} times"
        groups[kind] = surest[pairs[surest] == values[place]]
    chosen: list[int] = []
    kinds: list[str] = []
    for kind, indices in groups.items():
        number = NUM_OF_A_KIND if kind in ("surest error", "least sure") else NUM_OF_A_PAIR
        fresh = [int(index) for index in indices if int(index) not in chosen][:number]
        chosen += fresh
        kinds += [kind] * len(fresh)
    return np.array(chosen, dtype=np.int64), kinds


def _strongest(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """(K, h, w): the maps that vary the most over the picture."""
    order = np.argsort(-maps.std(axis=(1, 2)), kind="stable")[:NUM_MAPS]
    return maps[order]


def errors(subject: Subject) -> Finding:
    """Groups of errors that look alike to the network."""
    from sklearn.cluster import KMeans

    predictions = subject.measured_predictions()
    guesses = predictions.logits.argmax(axis=1)
    wrong = np.flatnonzero(guesses != predictions.labels)
    values: dict[str, Any] = {"split": subject.split, "num_wrong": len(wrong), "groups": []}
    arrays: Arrays = {}
    if len(wrong) < 2:
        return Finding(values, arrays)
    features = subject.features[wrong]
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    features = features / np.maximum(lengths, 1e-12)
    number = min(NUM_GROUPS, max(len(wrong) // 5, 1))
    found = KMeans(number, n_init=4, random_state=subject.seed).fit(features)
    # Features that are all alike make fewer groups than were asked for.
    sizes = np.bincount(found.labels_)
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    for place, group in enumerate(order):
        members = np.flatnonzero(found.labels_ == group)
        away = np.linalg.norm(features[members] - found.cluster_centers_[group], axis=1)
        nearest = wrong[members[np.argsort(away, kind="stable")[:NUM_IN_GROUP]]]
        values["groups"].append(
            {
                "num_images": len(members),
                "pairs": _commonest_pairs(predictions, guesses, wrong[members]),
                "pictures": [
                    {
                        "id": str(predictions.ids[index]),
                        "true": predictions.class_names[predictions.labels[index]],
                        "guess": predictions.class_names[guesses[index]],
                    }
                    for index in nearest
                ],
            }
        )
        arrays[f"group{place}"] = subject.measured.pixels[nearest]
    return Finding(values, arrays)


def _commonest_pairs(
    predictions: Predictions, guesses: NDArray[np.int64], indices: NDArray[np.int64]
) -> list[list[Any]]:
    """Up to three of (true, guessed, how many)."""
    names = predictions.class_names
    pairs = np.stack([predictions.labels[indices], guesses[indices]], axis=1)
    values, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:3]
    return [[names[values[i][0]], names[values[i][1]], int(counts[i])] for i in order]
