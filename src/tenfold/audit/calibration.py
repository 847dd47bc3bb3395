"""When it is sure, is it right? Confidence before and after a temperature, thresholds and sets."""

from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tenfold.audit.answer import Answer
from tenfold.audit.subject import Subject
from tenfold.errors import TenfoldError, counted
from tenfold.evaluation import calibration as measuring
from tenfold.evaluation.calibration import Bin, PredictionSets
from tenfold.evaluation.metrics import cross_entropy
from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.thresholds import CERTAINTY, why_not_promised
from tenfold.formatting import percent, points
from tenfold.recipe import Recipe
from tenfold.registry import traits
from tenfold.reporting.charts import Charts
from tenfold.reporting.figures import draw_curve, new_chart, percent_ticks, short
from tenfold.reporting.section import Section, Source, Table
from tenfold.reporting.svg import MUTED, SERIES, styled
from tenfold.results.facts import Fact
from tenfold.results.runs import Threshold

FEWEST_IN_BIN = 10
"""Predictions that a dot of a reliability diagram stands for; fewer say nothing."""

NO_TEST = (
    "There is no test split to see what a temperature does on pictures that it was not fitted on; "
    "give the data one, or set data.test_size."
)
NO_VALIDATION = (
    "There are no validation pictures besides those it is measured on, so no temperature, "
    "threshold or set could be fitted; train with --set data.validation_size=0.1."
)


class Trust(Fact):
    """How far confidence is from accuracy: calibration errors with bins of equal width and of as
    many images, Brier score, loss, and the bins."""

    error_width: float
    error_mass: float
    brier: float
    loss: float
    bins: tuple[Bin, ...]


class Calibration(Answer):
    """before, after: as trained, and with a temperature, where one could be fitted; if not,
    unfitted says why. chosen_by: what else of the training went by the validation images.
    selective: coverage and accuracy of the surest predictions."""

    question = "When it is sure, is it right?"
    sources = (
        Source("Naeini et al. 2015, calibration error",
               "https://ojs.aaai.org/index.php/AAAI/article/view/9602"),
        Source("Brier 1950, Brier score",
               "https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2"),
        Source("Guo et al. 2017, temperature", "https://arxiv.org/abs/1706.04599"),
        Source("Clarté et al. 2023, how it is fitted", "https://arxiv.org/abs/2303.02644"),
        Source("Sadinle et al. 2019, sets", "https://arxiv.org/abs/1609.00451"),
    )  # fmt: skip

    split: str
    before: Trust
    unfitted: str = ""
    num_validation: int = 0
    temperature: float = 1.0
    chosen_by: str = ""
    after: Trust | None = None
    thresholds: tuple[Threshold, ...] = ()
    selective: tuple[tuple[float, float], ...] = ()
    sets: tuple[PredictionSets, ...] = ()

    @property
    def best(self) -> Trust:
        """With the temperature, where there is one."""
        return self.after or self.before

    def summary(self) -> str:
        before = f"confidence off by {percent(self.before.error_width, 2)}"
        if self.after is None:
            return f"{before}; {self.unfitted}"
        return (
            f"{before}, {percent(self.after.error_width, 2)} with temperature "
            f"{self.temperature:.2f}"
        )

    def promises(self) -> list[str]:
        """What thresholds promise, and what may be too much of a promise."""
        found = [_threshold_words(each, self.split) for each in self.thresholds]
        if self.chosen_by:
            found.append(
                f"The same validation images chose {self.chosen_by}, so temperature, thresholds "
                "and sets may promise a little too much; what they reached on other images counts."
            )
        return found

    def section(self, charts: Charts) -> Section:
        before, after = self.before, self.after
        lines = [("as trained", SERIES[1], before.bins)]
        lines += [("with temperature", SERIES[0], after.bins)] if after else []
        drawn = [
            charts.chart(
                "Is it as sure as it is right?",
                reliability(lines, num_dashed=1 if after else 0),
                "Each dot holds answers of similar confidence. Below the dotted line it promises "
                "too much, above it too little.",
            )
        ]
        tables = [_measures(before, after)]
        answer = [_honesty(before)]
        if after is None:
            answer.append(self.unfitted)
        else:
            answer.append(
                "Dividing what it computes by one number, the temperature "
                f"{self.temperature:.2f}, fitted on "
                f"{counted(self.num_validation, 'validation picture')}, brings that to "
                f"{points(after.error_width)}, and changes no answer."
            )
            answer += self.promises()
            drawn.append(
                charts.chart(
                    "If it may decline to answer",
                    _selective(self.selective),
                    "The fewer pictures it must answer, the more of its answers are right. The "
                    "right end is all pictures.",
                )
            )
            tables.append(_coverage(self.sets))
        return Section(tuple(answer), tuple(drawn), tuple(tables))


@traits(images=False)
def calibration(subject: Subject) -> Calibration:
    """How far confidence can be trusted, before and after a temperature fitted on validation."""
    measured, validation = subject.measured_predictions(), subject.predictions("validation")
    unfitted = "" if validation is not None else NO_VALIDATION
    if validation is not None:
        try:
            fitted = measuring.fit(validation)
        except TenfoldError as error:
            unfitted = str(error)
        else:
            subject.keep_fitted(fitted)
    if subject.split != "test" and (not unfitted or validation is None):
        unfitted = NO_TEST  # The run has fitted a temperature on these very images.
    if unfitted:
        return Calibration(split=subject.split, before=_trust(measured), unfitted=unfitted)
    scaled = measuring.with_temperature(measured, fitted.temperature)
    return Calibration(
        split=subject.split,
        before=_trust(measured),
        num_validation=fitted.num_images,
        temperature=fitted.temperature,
        chosen_by=chosen_by_validation(subject.model.recipe),
        after=_trust(scaled),
        thresholds=tuple(measuring.apply_threshold(scaled, each) for each in fitted.thresholds),
        selective=tuple(measuring.selective_curve(scaled)),
        sets=tuple(measuring.apply_sets(scaled, *each) for each in fitted.sets),
    )


def chosen_by_validation(recipe: Recipe) -> str:
    """What else of the training went by the validation images, in words; empty for nothing."""
    if recipe.training.early_stopping:
        return "the epoch whose weights are used"
    return "when the learning rate fell" if recipe.schedule.name == "plateau" else ""


def _trust(predictions: Predictions) -> Trust:
    return Trust(
        error_width=measuring.calibration_error(predictions),
        error_mass=measuring.calibration_error(predictions, binning="mass"),
        brier=measuring.brier_score(predictions),
        loss=cross_entropy(predictions),
        bins=tuple(measuring.reliability(predictions)),
    )


def _honesty(trust: Trust) -> str:
    """Whether confidence is too high or too low, as a sentence."""
    if trust.error_width < 0.01:
        return (
            "As trained, its confidence is honest: it differs from its share of right answers by "
            f"{points(trust.error_width)} on average."
        )
    gap = sum((each.confidence - each.accuracy) * each.num_images for each in trust.bins)
    return (
        f"As trained, its confidence and its share of right answers differ by "
        f"{points(trust.error_width)} on average: it is "
        f"{'too sure of itself' if gap > 0 else 'right more often than it says'}."
    )


def _threshold_words(threshold: Threshold, split: str) -> str:
    """What a threshold promises, and what it came to on the images of `split`."""
    if threshold.confidence > 1:
        return why_not_promised(threshold.accuracy, threshold.num_images)
    return (
        f"For {percent(threshold.accuracy, digits=0)} right answers, let it decline below a "
        f"confidence of {percent(threshold.confidence)}, as "
        f"{counted(threshold.num_images, 'validation image')} promise with "
        f"{percent(CERTAINTY, digits=0)} certainty: "
        + (
            f"it then answered {percent(threshold.coverage)} of the {split} pictures, and "
            f"{percent(threshold.reached)} of the answers were right."
            if threshold.coverage
            else f"none of the {split} pictures has it."
        )
    )


def _measures(before: Trust, after: Trust | None) -> Table:
    """The measures of calibration, as trained and with temperature where one was fitted."""
    both = [each for each in (before, after) if each]
    rows = (
        ("calibration error, bins of equal width", *(percent(t.error_width, 2) for t in both)),
        ("calibration error, bins of as many pictures", *(percent(t.error_mass, 2) for t in both)),
        ("Brier score, 0 is perfect", *(f"{trust.brier:.3f}" for trust in both)),
        ("loss", *(f"{trust.loss:.3f}" for trust in both)),
    )
    return Table("In figures", ("", "as trained", "with temperature")[: len(both) + 1], rows)


def _coverage(sets: Sequence[PredictionSets]) -> Table:
    """What sets of classes with a promised coverage do."""
    return Table(
        "Answers with several classes, that hold the right one as often as promised",
        ("promised", "held it", "classes on average", "just one", "none"),
        tuple(
            (percent(each.promised, digits=0), percent(each.coverage), f"{each.mean_size:.2f}",
             percent(each.single), percent(each.empty))
            for each in sets
        ),
    )  # fmt: skip


@styled
def reliability(lines: Iterable[tuple[str, str, Sequence[Bin]]], *, num_dashed: int = 0) -> Figure:
    """Accuracy against confidence for each label, colour and bins, the first of them dashed; the
    diagonal is what it should be."""
    figure, axes = new_chart()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":", label="as it should be")
    for number, (label, colour, bins) in enumerate(lines):
        enough = [each for each in bins if each.num_images >= FEWEST_IN_BIN]
        if enough:
            x, y = [each.confidence for each in enough], [each.accuracy for each in enough]
            draw_curve(axes, x, y, label=short(label), colour=colour, dashed=number < num_dashed)
            axes.plot(x, y, "o", color=colour, markersize=4)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="right answers")
    axes.xaxis.set_major_formatter(percent_ticks())
    axes.yaxis.set_major_formatter(percent_ticks())
    axes.grid(axis="both")
    axes.tick_params(length=0)
    figure.legend(loc="outside upper left", ncols=3, handlelength=1.4, borderpad=0)
    return figure


@styled
def _selective(curve: Sequence[tuple[float, float]]) -> Figure:
    """Accuracy of the surest predictions against the share of images that is answered."""
    figure, axes = new_chart()
    draw_curve(axes, *zip(*curve, strict=True), label=None, colour=SERIES[0])
    axes.set(xlim=(0, 1), xlabel="pictures answered, the surest first", ylabel="right answers")
    axes.xaxis.set_major_formatter(percent_ticks())
    axes.yaxis.set_major_formatter(percent_ticks())
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="y")
    axes.tick_params(length=0)
    return figure
