"""Does it notice what it does not know? Scores of out-of-distribution images beside known ones."""

import contextlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tenfold.audit.answer import Answer
from tenfold.audit.robustness import Pictures
from tenfold.audit.subject import Subject
from tenfold.data import Images, load
from tenfold.data.sources.digits import CLASS_NAMES as DIGIT_NAMES
from tenfold.errors import TenfoldError
from tenfold.evaluation import novelty as measuring
from tenfold.evaluation.novelty import NoveltyResult, Seen
from tenfold.formatting import percent
from tenfold.reporting.figures import new_chart, percent_ticks, short
from tenfold.reporting.svg import ACCENT, SERIES, styled

NUMERALS = {str(number) for number in range(10)} | set(DIGIT_NAMES)
"""Names of classes that say that a model knows digits."""

NUM_SHOWN = 6


class Novelty(Answer):
    """results: what each score tells, confidence first, by kind of out-of-distribution images."""

    question = "Does it notice what it does not know?"
    template = "novelty"

    num_images: int
    split: str
    results: dict[str, tuple[NoveltyResult, ...]]

    def summary(self) -> str:
        return "; ".join(
            f"{kind}: {percent(rows[0].auroc, 0)} by confidence"
            for kind, rows in self.results.items()
        )

    @property
    def scores(self) -> list[str]:
        """The names of the scores."""
        return [entry.score for entry in next(iter(self.results.values()))]

    @property
    def best(self) -> tuple[str, float]:
        """The score that tells images apart best, and its mean AUROC over their kinds."""
        means = np.mean([[each.auroc for each in rows] for rows in self.results.values()], axis=0)
        return self.scores[int(means.argmax())], float(means.max())

    @property
    def hardest(self) -> str:
        """The kind of images that confidence tells from known ones the worst."""
        return min(self.results, key=lambda kind: self.results[kind][0].auroc)

    def figures(self) -> dict[str, Figure]:
        return {"kinds": _by_kind(self.results, self.scores)}

    def images(self, name: str) -> list[tuple[str, NDArray[np.uint8]]]:
        """Some images of a kind, each with its label."""
        return [(name, pixels) for pixels in self.arrays[name]]


def novelty(subject: Subject, *, pictures: Pictures = 1000, strange: str | None = None) -> Novelty:
    """Whether it notices images of nothing that it knows."""
    size, number = subject.model.image_size, pictures
    others = {
        "noise": measuring.noise(number, size, seed=subject.seed),
        "textures": measuring.textures(number, size, seed=subject.seed),
        **_other_pictures(subject, number, strange),
    }
    scores = measuring.scores_of(subject.known_features, subject.known_labels)
    indices = subject.drawn(len(subject.measured), number)
    familiar = Seen(subject.measured_predictions().logits[indices], subject.features[indices])
    known = {label: score(familiar) for label, score in scores.items()}
    results = {}
    for name, pixels in others.items():
        seen = Seen(subject.model.logits(pixels), subject.features_of(pixels))
        results[name] = tuple(
            measuring.compare(label, known[label], score(seen)) for label, score in scores.items()
        )
    found = Novelty(num_images=len(indices), split=subject.split, results=results)
    return found.having({k.replace(" ", "_"): pixels[:NUM_SHOWN] for k, pixels in others.items()})


def _other_pictures(
    subject: Subject, number: int, named: str | None
) -> dict[str, NDArray[np.uint8]]:
    """Data sets that can be had here without waiting, and one that was named, at the model's size.

    Images of classes that the model knows are left out.
    """
    from tenfold.data.sources import get

    height, width = subject.model.image_size
    found = {}
    if named is not None:
        if height != width:
            raise TenfoldError(
                f"{named} can't be brought to the oblong {height}x{width} pixels of this model; "
                "leave --strange away."
            )
        strange = load(named, image_size=height, progress=subject.progress)
        found[strange.name] = _of_other_classes(subject, strange.test or strange.train, number)
    if height == width and not NUMERALS & set(subject.model.class_names):
        found["digits"] = subject.sample(load("digits", image_size=height).train, number).pixels
    if (height, width) == (32, 32):
        # It may not be at hand, and the model may know all of its classes.
        with contextlib.suppress(TenfoldError):
            others = get("cifar100", offline=True).test
            if others is not None:
                found["CIFAR-100"] = _of_other_classes(subject, others, number)
    return found


def _of_other_classes(subject: Subject, images: Images, number: int) -> NDArray[np.uint8]:
    """Up to `number` of the images whose class the model does not know by its name."""
    known = set(subject.model.class_names)
    strange = np.array([name not in known for name in images.class_names])
    keep = np.flatnonzero(strange[images.labels]).astype(np.int64)
    if not len(keep):
        raise TenfoldError(
            "All classes of the strange pictures are known to the model; name others with "
            "--strange."
        )
    return subject.sample(images.take(keep), number).pixels


@styled
def _by_kind(results: Mapping[str, Sequence[NoveltyResult]], scores: Sequence[str]) -> Figure:
    """How often a known image has the higher score of two, by kind of out-of-distribution image."""
    figure, axes = new_chart(height=60 + 78 * len(results))
    kinds = list(results)
    height = 0.8 / len(scores)
    for number, score in enumerate(scores):
        rows = [len(kinds) - 1 - k + 0.4 - (number + 0.5) * height for k in range(len(kinds))]
        values = [results[kind][number].auroc for kind in kinds]
        axes.barh(rows, values, height=0.85 * height, color=SERIES[number], label=score)
    axes.axvline(0.5, color=ACCENT, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(kinds)), [short(kind) for kind in reversed(kinds)])
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(percent_ticks())
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(axis="x")
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.2, borderpad=0)
    return figure
