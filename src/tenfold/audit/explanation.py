"""Where does it look? Maps of what mattered, filters, what layers see, and what is most alike."""

import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, Field

from tenfold.audit.answer import Answer, Arrays
from tenfold.audit.store import sections
from tenfold.audit.subject import Subject
from tenfold.data.image_sources import find_images
from tenfold.data.images import LUMA
from tenfold.data.tables import printable
from tenfold.errors import TenfoldError, counted
from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.probabilities import softmax
from tenfold.formatting import percent
from tenfold.reporting.templating import write_page
from tenfold.reporting.thumbnails import thumbnails
from tenfold.results.facts import Fact

NUM_OF_A_KIND = 6
"""Images that are explained: the errors of highest confidence and the images of lowest."""

NUM_PAIRS, NUM_OF_A_PAIR = 3, 3
"""Pairs of classes most often confused, and images of each."""

MOST_EXPLAINED = 50
"""Images that somebody names at once; a page with more can't be read."""

NUM_ERRORS = 100
"""Errors of greatest loss of which the explorer of the page shows a map and the nearest training
images, no larger than ERROR_SIDE pixels."""

ERROR_SIDE = 64

NUM_CHECKED = 16
"""Images for the comparison with random weights."""

NUM_MAPS = 8
"""Maps of a layer that are kept: those that vary the most."""

NUM_NEIGHBOURS = 3
MOST_FILTERS = 64

HEAT_STRENGTH = 0.75
"""Of the colour over the image where it mattered the most."""


def has_captum() -> bool:
    """Whether what explanations need is installed; to know that, nothing is imported."""
    return importlib.util.find_spec("captum") is not None


class Explained(Fact):
    """An image: what it is an example of, its class, none where nobody knows it, the one predicted,
    and the classes of the training images most like it."""

    id: str
    kind: str
    true: str
    predicted: str = Field(validation_alias=AliasChoices("predicted", "guess"))
    confidence: float
    neighbours: tuple[str, ...]

    def __str__(self) -> str:
        truth = f"is {self.true}, " if self.true else ""
        return (
            f"{self.kind}: {truth}predicted {self.predicted} ({percent(self.confidence, digits=0)})"
        )


class Explanation(Answer):
    """checks: how alike the maps of a method are to those of shuffled weights. unavailable: why
    there are none by another. layers: those whose maps of the first image are kept. errors: those
    of greatest loss, of which there are a map and the nearest training images for the explorer."""

    question = "Attribution: where does it look?"
    template = "explanation"

    split: str
    examples: tuple[Explained, ...] = Field(validation_alias=AliasChoices("examples", "pictures"))
    checks: dict[str, float]
    unavailable: dict[str, str]
    layers: tuple[str, ...]
    errors: tuple[Explained, ...] = ()

    def is_worth_another_try(self, *, named: bool) -> bool:
        return bool(self.unavailable) and (named or has_captum())

    def summary(self) -> str:
        checks = ", ".join(f"{name} {value:.2f}" for name, value in self.checks.items())
        return (
            f"{counted(len(self.examples), 'image')}; likeness to maps of random weights: {checks}"
        )

    def images(
        self, index: int, methods: Iterable[tuple[str, str]]
    ) -> list[tuple[str, NDArray[np.uint8]]]:
        """An image, its maps by `methods`, given by key and name, and the training images most like
        it, each with its label: of a map its name, unless it is plain grey."""
        pixels, alike = self.arrays["pixels"][index], self.arrays["neighbours"][index]
        maps = [(name, self.arrays[key][index]) for key, name in methods]
        return [
            ("image", pixels),
            *((name if np.ptp(_strength(each)) else "nothing stands out", heated(pixels, each))
              for name, each in maps),
            *zip(self.examples[index].neighbours, alike, strict=True),
        ]  # fmt: skip

    def maps(self, number: int) -> list[tuple[str, NDArray[np.uint8]]]:
        """The maps of a layer in grey, each with its label."""
        maps, layer = self.arrays[f"layer{number}"], self.layers[number]
        return [(f"{layer}, map {i}", _grey(each)) for i, each in enumerate(maps, start=1)]

    def sheet_of_filters(self) -> NDArray[np.uint8]:
        """Filters side by side, with a line of grey between them, at most 16 in a row."""
        filters = self.arrays["filters"]
        framed = np.pad(filters, ((0, 0), (1, 0), (1, 0), (0, 0)), constant_values=128)
        across = min(len(framed), 16)
        blank = np.full_like(framed[:1], 128)
        cells = np.concatenate([framed, *[blank] * (-len(framed) % across)])
        rows = [np.concatenate(cells[i : i + across], axis=1) for i in range(0, len(cells), across)]
        sheet = np.concatenate(rows)
        return np.pad(sheet, ((0, 1), (0, 1), (0, 0)), constant_values=128)


class Asked(NamedTuple):
    """An image that is to be explained, with what Explained says of it."""

    pixels: NDArray[np.uint8]
    id: str
    true: str
    kind: str


class Described(NamedTuple):
    """Images (N, H, W, 3) uint8, the class predicted for each (N,), the training images most like
    each, (N, NUM_NEIGHBOURS) indices, and what is said of it."""

    pixels: NDArray[np.uint8]
    predicted: NDArray[np.int64]
    alike: NDArray[np.int64]
    said: tuple[Explained, ...]


def explanation(subject: Subject) -> Explanation:
    """Filters, maps of features, and where it looked on the images most worth a look."""
    kinds = interesting(subject.measured_predictions())
    found = _explained(subject, [_measured(subject, index, kind) for index, kind in kinds.items()])
    errors, arrays = _greatest_losses(subject)
    return found.model_copy(update={"errors": errors}).having({**found.arrays, **arrays})


def _greatest_losses(subject: Subject) -> tuple[tuple[Explained, ...], Arrays]:
    """The errors of greatest loss, with a map of where it looked by the first method that there is,
    and the nearest training images, (N, H, W, 3) and (N, NUM_NEIGHBOURS, H, W, 3) uint8."""
    from tenfold import explain

    predictions = subject.measured_predictions()
    wrong = np.flatnonzero(~predictions.right)
    likely = predictions.probabilities[wrong, predictions.labels[wrong]]
    worst = wrong[np.argsort(likely, kind="stable")[:NUM_ERRORS]]
    if not len(worst):
        return (), {}
    name, method = next(iter(explain.methods_for(subject.model).items()))
    found = _described(subject, [_measured(subject, index, name) for index in worst])
    try:
        maps = method(subject.model, found.pixels, found.predicted)
    except TenfoldError:  # Said of the images above.
        return (), {}
    heat = np.stack([heated(*pair) for pair in zip(found.pixels, maps, strict=True)])
    near = subject.known.pixels[found.alike]
    small = thumbnails(near.reshape(-1, *near.shape[2:]), max_side=ERROR_SIDE)
    return found.said, {
        "error_maps": thumbnails(heat, max_side=ERROR_SIDE),
        "error_neighbours": small.reshape(*near.shape[:2], *small.shape[1:]),
    }


def _described(subject: Subject, asked: Sequence[Asked]) -> Described:
    """What is predicted for images, and what is most like them by what the head sees."""
    from sklearn.neighbors import NearestNeighbors

    pixels, names = np.stack([each.pixels for each in asked]), subject.model.class_names
    number = min(NUM_NEIGHBOURS, len(subject.known))
    known = NearestNeighbors(n_neighbors=number, metric="cosine").fit(subject.known_features)
    alike = known.kneighbors(subject.features_of(pixels), return_distance=False)
    shares = softmax(subject.model.logits(pixels).astype(np.float64) / subject.temperature)
    predicted = shares.argmax(axis=1)
    said = tuple(
        Explained(
            id=image.id,
            kind=image.kind,
            true=image.true,
            predicted=names[label],
            confidence=float(own[label]),
            neighbours=tuple(names[known] for known in subject.known_labels[near]),
        )
        for image, label, own, near in zip(asked, predicted, shares, alike, strict=True)
    )
    return Described(pixels, predicted, alike, said)


def explain_pictures(subject: Subject, wanted: Sequence[str]) -> Explanation:
    """The same for images that somebody named: files, folders, or ids of the measured split.

    Raises TenfoldError where there is no such image, where one can't be read, and where there are
    more than MOST_EXPLAINED.
    """
    asked: list[Asked] = []
    ids = subject.measured.ids.tolist()
    for name in wanted:
        if name in ids:
            asked.append(_measured(subject, ids.index(name), "asked for"))
        elif re.fullmatch(r"(train|validation|test)/-?\d+", name) and not Path(name).exists():
            raise TenfoldError(
                f"There is no image {name} in the {subject.split} split, whose ids are like "
                f"{ids[0]} and {ids[-1]}."
            )
        else:
            paths = find_images([name])
            _require_few(len(asked) + len(paths))
            files = zip(subject.model.pixels(paths), paths, strict=True)
            asked += [Asked(pixels, printable(path), "", "asked for") for pixels, path in files]
        _require_few(len(asked))
    return _explained(subject, asked)


def _measured(subject: Subject, index: int, kind: str) -> Asked:
    images = subject.measured
    true = images.class_names[images.labels[index]]
    return Asked(images.pixels[index], str(images.ids[index]), true, kind)


def write_explanation(run: Path, found: Explanation, path: Path) -> Path:
    """Write a page of `found` alone, for the run in the folder `run`, and return `path`."""
    values = {"title": f"Where {run} looks", "sections": sections({"explanation": found})}
    return write_page(path, "explanation.html", ("style.css", "report.css"), **values)


def _require_few(number: int) -> None:
    if number > MOST_EXPLAINED:
        raise TenfoldError(
            f"{number:,} images are too many for one page; name at most {MOST_EXPLAINED}."
        )


def _explained(subject: Subject, asked: Sequence[Asked]) -> Explanation:
    from tenfold import explain

    model, (pixels, predicted, alike, said) = subject.model, _described(subject, asked)
    some = subject.measured.pixels[subject.drawn(len(subject.measured), NUM_CHECKED)]
    of_some, methods = model.logits(some).argmax(axis=1), explain.methods_for(model)
    arrays: Arrays = {"pixels": pixels, "neighbours": subject.known.pixels[alike]}
    checks, unavailable = {}, {}
    for number, (name, method) in enumerate(methods.items()):
        try:
            arrays[name] = method(model, pixels, predicted).astype(np.float16)
        except TenfoldError as error:
            unavailable[name] = str(error)
            continue
        checks[name] = explain.randomisation_check(model, some, of_some, method, seed=subject.seed)
        if subject.progress is not None:
            subject.progress("maps", number + 1, len(methods))
    if (filters := explain.first_filters(model)) is not None:
        arrays["filters"] = (filters[:MOST_FILTERS] * 255).astype(np.uint8)
    layers = explain.feature_maps(model, pixels[:1])
    for number, (maps,) in enumerate(layers.values()):
        # Those that vary the most over the image.
        order = np.argsort(-maps.std(axis=(1, 2)), kind="stable")[:NUM_MAPS]
        arrays[f"layer{number}"] = maps[order].astype(np.float16)
    return Explanation(
        split=subject.split,
        examples=said,
        checks=checks,
        unavailable=unavailable,
        layers=tuple(layers),
    ).having(arrays)


def interesting(predictions: Predictions) -> dict[int, str]:
    """What each of the images most worth a look is an example of, by its index."""
    labels, predicted = predictions.labels, predictions.predicted
    confidence = predictions.confidence
    wrong = np.flatnonzero(~predictions.right)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")]
    groups = [
        ("most confident error", surest, NUM_OF_A_KIND),
        ("lowest confidence", np.argsort(confidence, kind="stable"), NUM_OF_A_KIND),
    ]
    pairs = Counter(zip(predicted[wrong].tolist(), labels[wrong].tolist(), strict=True))
    # Of equals those of the first classes.
    for instead, true in sorted(pairs, key=lambda pair: (-pairs[pair], pair))[:NUM_PAIRS]:
        kind = f"one of {counted(pairs[instead, true], 'such error')}"
        is_one = (labels[surest] == true) & (predicted[surest] == instead)
        groups.append((kind, surest[is_one], NUM_OF_A_PAIR))
    chosen: dict[int, str] = {}
    for kind, indices, number in groups:
        fresh = [index for index in indices.tolist() if index not in chosen][:number]
        chosen |= dict.fromkeys(fresh, kind)
    return chosen


def heated(pixels: NDArray[np.uint8], values: NDArray[np.float16]) -> NDArray[np.uint8]:
    """The image, greyed, with red where a map `(H, W)` spoke for the prediction.

    What spoke against it has no colour.
    """
    share = _strength(values)[..., None]
    grey = (pixels @ LUMA)[..., None]
    grey = np.repeat(0.75 * grey + 40, 3, axis=2)
    red = np.array([235, 40, 30], dtype=np.float32)
    mixed = grey * (1 - HEAT_STRENGTH * share) + red * HEAT_STRENGTH * share
    return np.asarray(np.clip(mixed, 0, 255), dtype=np.uint8)


def _strength(values: NDArray[np.float16]) -> NDArray[np.float32]:
    """How red each place is, in [0, 1]."""
    strength = np.maximum(values.astype(np.float32), 0)
    # A coarse map is high almost everywhere, and then only differences say something.
    low, high = (float(np.percentile(strength, share)) for share in (10, 99))
    return np.clip((strength - low) / max(high - low, 1e-12), 0, 1)


def _grey(values: NDArray[np.float16]) -> NDArray[np.uint8]:
    maps = values.astype(np.float32)
    low, high = float(maps.min()), float(maps.max())
    scaled = (maps - low) / (high - low) * 255 if high > low else maps * 0
    return np.repeat(scaled.astype(np.uint8)[..., None], 3, axis=2)
