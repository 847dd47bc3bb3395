"""What if an image is not perfect? Accuracy under corruptions, shifts and attacks."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from matplotlib.figure import Figure
from pydantic import Field

from tenfold.audit.answer import Answer
from tenfold.audit.subject import Subject
from tenfold.evaluation.corruptions import FAMILIES, AttackResult, CorruptionResult, corrupt
from tenfold.evaluation.predictions import predict_images
from tenfold.formatting import percent
from tenfold.reporting.figures import draw_curve, new_chart, short
from tenfold.reporting.svg import SERIES, styled
from tenfold.results.facts import Fact

Pictures = Annotated[int, Field(ge=1, description="How many are damaged and attacked.")]

ATTACKED_SHARE = 0.5
"""Of the images that are corrupted; an attack takes some thirty passes for each."""

NUM_FLIPPED = 8
"""Images that are kept to be shown whose prediction a shift changes."""

SHOWN = (1, 3, 5)
"""Severities of each corruption that are kept to be shown."""


class Flipped(Fact):
    """An image whose class changes with a move by one pixel: its class, the one predicted as it is,
    the one predicted once moved, and which way."""

    id: str
    true: str
    before: str
    after: str
    direction: str


class Robustness(Answer):
    """official: whether the corrupted images are the published ones of CIFAR-10-C. side: of the
    model's images, in pixels. mean: accuracy over corruptions. shift_consistency: the share whose
    prediction stays under a move by one pixel in any of four ways."""

    question = "Robustness: what if an image is not perfect?"
    template = "robustness"

    split: str
    num_images: int
    side: int
    official: bool
    clean: float
    corruptions: tuple[CorruptionResult, ...]
    mean: float
    shift_consistency: float
    flips: tuple[Flipped, ...]
    attacks: tuple[AttackResult, ...]
    num_shifted: int
    num_attacked: int

    def attacked(self, method: str, steps: int = 8) -> float:
        """Accuracy under an attack of at most `steps` of 255."""
        found = {(each.method, round(each.limit * 255)): each.accuracy for each in self.attacks}
        return found[method, steps]

    def by_severity(self) -> list[float]:
        """Accuracy as they are, and the mean over all corruptions at the severities 1 to 5."""
        return [self.clean, *_means(self.corruptions)]

    def summary(self) -> str:
        return (
            f"{percent(self.mean)} right under corruption ({percent(self.clean)} without), "
            f"{percent(self.shift_consistency)} steady under a shift, "
            f"{percent(self.attacked('PGD'))} under attack"
        )

    def severity_curves(self) -> Figure:
        """Accuracy against severity, the mean of each family of corruptions."""
        families: dict[str, list[CorruptionResult]] = {}
        for result in self.corruptions:
            families.setdefault(result.family, []).append(result)
        return against_severity(
            (family, colour, [self.clean, *_means(rows)])
            for colour, (family, rows) in zip(SERIES, families.items(), strict=False)
        )


def robustness(
    subject: Subject, *, pictures: Pictures = 1000, corrupted: Path | None = None
) -> Robustness:
    """What is left of the accuracy on corrupted, shifted and attacked images."""
    from tenfold.evaluation import robustness as measuring

    model, seed, progress = subject.model, subject.seed, subject.progress
    images = subject.sample(subject.measured, pictures)
    attacked = subject.sample(images, max(round(pictures * ATTACKED_SHARE), 1))
    # The published files are of all test images.
    compared = (
        subject.measured_predictions()
        if corrupted is not None
        else predict_images(model, images, progress=progress)
    )
    results = tuple(
        measuring.corruption_accuracies(
            model, images, official=corrupted, seed=seed, progress=progress
        )
    )
    shifts = measuring.shift_consistency(model, images, progress=progress)
    flips, example = shifts.flips[:NUM_FLIPPED], images.pixels[:1]
    kinds = [name for names in FAMILIES.values() for name in names]
    damaged = [[corrupt(example, k, severity=s, seed=seed)[0] for s in SHOWN] for k in kinds]
    arrays = {"example": example, "corrupted": np.stack(damaged)}
    if flips:
        own = [images.pixels[each.position : each.position + 1] for each in flips]
        moved = [measuring.shifted(one, f.direction) for one, f in zip(own, flips, strict=True)]
        arrays |= {"flipped": np.concatenate(own), "moved": np.concatenate(moved)}
    return Robustness(
        split=subject.split,
        num_images=len(compared.labels),
        side=min(model.image_size),
        official=corrupted is not None,
        clean=float(compared.right.mean()),
        corruptions=results,
        mean=float(np.mean([result.accuracies for result in results])),
        shift_consistency=shifts.consistency,
        flips=tuple(
            Flipped(
                id=str(images.ids[each.position]),
                true=images.class_names[images.labels[each.position]],
                before=model.class_names[each.before],
                after=model.class_names[each.after],
                direction=each.direction,
            )
            for each in flips
        ),
        attacks=tuple(measuring.attack_accuracies(model, attacked, seed=seed, progress=progress)),
        num_shifted=len(images),
        num_attacked=len(attacked),
    ).having(arrays)


def _means(rows: Sequence[CorruptionResult]) -> list[float]:
    """The mean accuracy at each severity."""
    return [sum(v) / len(rows) for v in zip(*(row.accuracies for row in rows), strict=True)]


@styled
def against_severity(lines: Iterable[tuple[str, str, Sequence[float]]]) -> Figure:
    """Accuracy from none to severity 5: label, colour and six accuracies of each line."""
    figure, axes = new_chart(percent="y")
    for label, colour, values in lines:
        draw_curve(axes, list(range(6)), values, label=short(label), colour=colour)
        axes.plot(range(6), values, "o", color=colour, markersize=4)
    axes.set(ylim=(0, 1), xlabel="severity", ylabel="accuracy")
    axes.set_xticks(range(6), ["clean", "1", "2", "3", "4", "5"])
    figure.legend(loc="outside upper left", ncols=4)
    return figure
