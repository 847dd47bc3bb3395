"""What if a picture is not perfect? Accuracy under corruptions, shifts and attacks."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from matplotlib.figure import Figure
from pydantic import Field

from tenfold.audit.answer import Answer
from tenfold.audit.subject import Subject
from tenfold.errors import counted
from tenfold.evaluation.corruptions import FAMILIES, AttackResult, CorruptionResult, corrupt
from tenfold.evaluation.predictions import predict_images
from tenfold.formatting import percent, plain
from tenfold.reporting.charts import Charts
from tenfold.reporting.figures import draw_curve, new_chart, percent_ticks, short
from tenfold.reporting.pictures import picture_uri
from tenfold.reporting.section import Section, Shown, Source, Strip, Table
from tenfold.reporting.svg import MUTED, SERIES, styled
from tenfold.results.facts import Fact

Pictures = Annotated[int, Field(ge=1, description="How many are damaged and attacked.")]

ATTACKED_SHARE = 0.5
"""Of the images that are corrupted; an attack takes some thirty passes for each."""

NUM_FLIPPED = 8
"""Images that are kept to be shown whose prediction a shift changes."""

_SHOWN_SEVERITIES = (1, 3, 5)


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

    question = "What if a picture is not perfect?"
    sources = (
        Source("Hendrycks and Dietterich 2019", "https://arxiv.org/abs/1903.12261"),
        Source("Zhang 2019, shifts", "https://arxiv.org/abs/1904.11486"),
        Source("Goodfellow et al. 2015, FGSM", "https://arxiv.org/abs/1412.6572"),
        Source("Madry et al. 2018, PGD", "https://arxiv.org/abs/1706.06083"),
    )

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

    def section(self, charts: Charts) -> Section:
        families: dict[str, list[CorruptionResult]] = {}
        for result in self.corruptions:
            families.setdefault(result.family, []).append(result)
        lines = [
            (family, colour, [self.clean, *_means(rows)])
            for colour, (family, rows) in zip(SERIES, families.items(), strict=False)
        ]
        drawn = (
            charts.chart(
                "The more damage, the fewer right answers",
                against_severity(lines),
                "Each line is the mean of a family: noise, blur, weather, and what is done to "
                "files. Severity 5 is hard for people too.",
            ),
            charts.chart(
                "Each kind of damage",
                _by_corruption(self.corruptions, clean=self.clean),
                "Right answers per 100, on average over five severities. The dotted line is "
                "without damage.",
            ),
        )
        attacks = Table(
            "Pictures changed so as to mislead it",
            ("method", "at most 2 of 255", "at most 8 of 255"),
            tuple(
                (name, *(percent(self.attacked(name, steps)) for steps in (2, 8)))
                for name in ("FGSM", "PGD")
            ),
        )
        return Section(self._answer(), drawn, (attacks,), self._strips())

    def _answer(self) -> tuple[str, ...]:
        worst, best = (find(self.corruptions, key=lambda r: r.mean) for find in (min, max))
        which = " (the published files of CIFAR-10-C)" if self.official else ""
        pgd = self.attacked("PGD")
        answer: tuple[str, ...] = (
            f"Of {counted(self.num_images, 'picture')}{which} it gets {percent(self.clean)} right "
            f"as they are, and {percent(self.mean)} on average over fifteen kinds of damage. The "
            f"worst is {plain(worst.corruption)} ({percent(worst.mean)}), the mildest "
            f"{plain(best.corruption)} ({percent(best.mean)}).",
            f"Moved by one pixel up, down, left and right, {percent(self.shift_consistency)} of "
            f"{counted(self.num_shifted, 'picture')} keep their answer.",
            "Small changes, made to mislead it, leave "
            f"{percent(pgd)} of {counted(self.num_attacked, 'picture')} right at 8 of 255 steps "
            "of brightness, where it looks at each once"
            + (": like any network that was not trained against it, it can be fooled at will."
               if pgd < 0.1 else "."),
        )  # fmt: skip
        if self.side > 32:
            answer += (
                "The damage was defined for pictures of 32 pixels; on these, of "
                f"{self.side}, blur and shifts look milder than they would there.",
            )
        return answer

    def _strips(self) -> tuple[Strip, ...]:
        example, corrupted = self.arrays["example"][0], self.arrays["corrupted"]
        labels = ("as it is", *(f"severity {severity}" for severity in _SHOWN_SEVERITIES))
        damaged = tuple(
            Shown(tuple(map(picture_uri, (example, *each))), labels, (plain(result.corruption),))
            for result, each in zip(self.corruptions, corrupted, strict=True)
        )
        strips = [
            Strip("What was done to the pictures", "As it is, and at severity 1, 3 and 5.", damaged)
        ]
        if self.flips:
            moved = tuple(
                Shown(
                    (picture_uri(before), picture_uri(after)),
                    (f"as it is: {each.before}", f"moved {each.direction}: {each.after}"),
                    (f"is {each.true}, called {each.before}; moved {each.direction}: {each.after}",
                     each.id),
                )
                for each, before, after in zip(
                    self.flips, self.arrays["flipped"], self.arrays["moved"], strict=True
                )
            )  # fmt: skip
            caption = (
                "The first of those whose answer changes, as they are and moved by one pixel. To "
                "us both look the same; to the network nearly every number is another one."
            )
            strips.append(Strip("What one pixel changes", caption, moved))
        return tuple(strips)


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
    arrays = {
        "example": example,
        "corrupted": np.stack(
            [
                np.concatenate(
                    [corrupt(example, name, severity=s, seed=seed) for s in _SHOWN_SEVERITIES]
                )
                for names in FAMILIES.values()
                for name in names
            ]
        ),
    }
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
    figure, axes = new_chart()
    for label, colour, values in lines:
        draw_curve(axes, list(range(6)), values, label=short(label), colour=colour)
        axes.plot(range(6), values, "o", color=colour, markersize=4)
    axes.set(ylim=(0, 1), xlabel="severity", ylabel="right answers")
    axes.yaxis.set_major_formatter(percent_ticks())
    axes.set_xticks(range(6), ["clean", "1", "2", "3", "4", "5"])
    axes.grid(axis="y")
    axes.tick_params(length=0)
    figure.legend(loc="outside upper left", ncols=4, handlelength=1.2, borderpad=0)
    return figure


@styled
def _by_corruption(results: Sequence[CorruptionResult], *, clean: float) -> Figure:
    """The mean accuracy over severities of each corruption, the worst on top."""
    ordered = sorted(results, key=lambda result: -result.mean)
    figure, axes = new_chart(height=330)
    rows = range(len(ordered))
    axes.barh(rows, [result.mean for result in ordered], height=0.62, color=SERIES[0])
    axes.axvline(clean, color=MUTED, linewidth=1, linestyle=":")
    for row, result in enumerate(ordered):
        axes.annotate(
            f"{100 * result.mean:.0f}", (result.mean, row), xytext=(4, 0),
            textcoords="offset points", va="center", ha="left", fontsize=9, color=MUTED,
        )  # fmt: skip
    axes.set_yticks(rows, [short(plain(result.corruption)) for result in ordered])
    axes.set_xlim(0, 1.06)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.xaxis.set_major_formatter(percent_ticks())
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(axis="x")
    return figure
