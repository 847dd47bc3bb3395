"""What if an image is not perfect? Accuracy under corruptions, shifts and attacks."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import Field

from tenfold.audit.answer import Answer
from tenfold.audit.subject import Subject
from tenfold.evaluation.corruptions import FAMILIES, AttackResult, CorruptionResult, corrupt
from tenfold.evaluation.predictions import predict_images
from tenfold.formatting import percent
from tenfold.reporting.figures import draw_curve, new_chart, short
from tenfold.reporting.svg import SERIES, styled
from tenfold.results.facts import Fact

NumImages = Annotated[int, Field(ge=1, description="How many are damaged and attacked.")]

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
            f"{percent(self.mean)} accuracy under corruption ({percent(self.clean)} without), "
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

    def fails(self) -> dict[str, str]:
        """By image, the least severity at which its prediction is wrong under each corruption, a
        digit each, 0 for none; empty of an audit by an older version."""
        if "fails" not in self.arrays:
            return {}
        digits = ["".join(map(str, row)) for row in self.arrays["fails"].tolist()]
        return dict(zip(self.arrays["fails_of"].tolist(), digits, strict=True))


def robustness(
    subject: Subject, *, images: NumImages = 1000, corrupted: Path | None = None
) -> Robustness:
    """What is left of the accuracy on corrupted, shifted and attacked images."""
    from tenfold.evaluation import robustness as measuring

    model, seed, progress = subject.model, subject.seed, subject.progress
    measured = subject.sample(subject.measured, images)
    attacked = subject.sample(measured, max(round(images * ATTACKED_SHARE), 1))
    # The published files are of all test images.
    if corrupted is None:
        compared = predict_images(model, measured, progress=progress)
    else:
        compared = subject.measured_predictions()
    kinds = [name for names in FAMILIES.values() for name in names]
    fails = np.zeros((len(compared.labels), len(kinds)), dtype=np.uint8)

    def on_result(name: str, severity: int, right: NDArray[np.bool_]) -> None:
        if corrupted is None:
            own = fails[:, kinds.index(name)]
            own[~right & (own == 0)] = severity

    results = tuple(
        measuring.corruption_accuracies(
            model, measured, official=corrupted, seed=seed, on_result=on_result, progress=progress
        )
    )
    shifts = measuring.shift_consistency(model, measured, progress=progress)
    flips, example = shifts.flips[:NUM_FLIPPED], measured.pixels[:1]
    damaged = [[corrupt(example, k, severity=s, seed=seed)[0] for s in SHOWN] for k in kinds]
    arrays = {"example": example, "corrupted": np.stack(damaged)}
    if corrupted is None:
        arrays |= {"fails": fails, "fails_of": np.array(measured.ids, dtype=str)}
    if flips:
        own = [measured.pixels[each.position : each.position + 1] for each in flips]
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
                id=str(measured.ids[each.position]),
                true=measured.class_names[measured.labels[each.position]],
                before=model.class_names[each.before],
                after=model.class_names[each.after],
                direction=each.direction,
            )
            for each in flips
        ),
        attacks=tuple(measuring.attack_accuracies(model, attacked, seed=seed, progress=progress)),
        num_shifted=len(measured),
        num_attacked=len(attacked),
    ).having(arrays)


def _means(rows: Sequence[CorruptionResult]) -> list[float]:
    """The mean accuracy at each severity."""
    return [sum(v) / len(rows) for v in zip(*(row.accuracies for row in rows), strict=True)]


@styled
def against_severity(lines: Iterable[tuple[str, str, Sequence[float]]]) -> Figure:
    """Accuracy from none to severity 5: label, colour and six accuracies of each line."""
    # As high as the bars of the corruptions, beside which it stands.
    figure, axes = new_chart(height=330, percent="y")
    for label, colour, values in lines:
        draw_curve(axes, list(range(6)), values, label=short(label), colour=colour)
        axes.plot(range(6), values, "o", color=colour, markersize=4, clip_on=False)
    axes.set(ylim=(0, 1), xlabel="severity", ylabel="accuracy")
    axes.set_xticks(range(6), ["clean", "1", "2", "3", "4", "5"])
    figure.legend(loc="outside upper left", ncols=4)
    return figure
