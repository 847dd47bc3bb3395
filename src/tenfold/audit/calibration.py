"""When it is sure, is it right? Confidence before and after a temperature, thresholds and sets."""

from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tenfold.audit.answer import Answer
from tenfold.audit.subject import Subject
from tenfold.errors import TenfoldError, counted
from tenfold.evaluation import calibration as measuring
from tenfold.evaluation.calibration import Bin, PredictionSets
from tenfold.evaluation.metrics import cross_entropy, wilson_interval
from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.thresholds import CERTAINTY, why_not_promised
from tenfold.formatting import percent
from tenfold.recipe import Recipe
from tenfold.registry import traits
from tenfold.reporting.figures import draw_curve, new_chart, short
from tenfold.reporting.svg import MUTED, SERIES, styled
from tenfold.results.facts import Fact
from tenfold.results.runs import Threshold

FEWEST_IN_BIN = 10
"""Predictions that a dot of a reliability diagram stands for; fewer say nothing."""

NO_TEST = (
    "There is no test split to see what a temperature does on images that it was not fitted on; "
    "give the data one, or set data.test_size."
)
NO_VALIDATION = (
    "There are no validation images besides those it is measured on, so no temperature, "
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

    question = "Calibration: when it is confident, is it right?"
    template = "calibration"

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

    @property
    def is_too_sure(self) -> bool:
        """Whether confidence as trained is above accuracy rather than below."""
        return sum((b.confidence - b.accuracy) * b.num_images for b in self.before.bins) > 0

    def reliability_diagram(self) -> Figure:
        """Accuracy against confidence, as trained and with the temperature."""
        lines = [("as trained", SERIES[1], self.before.bins)]
        if self.after is not None:
            lines.append(("with temperature", SERIES[0], self.after.bins))
        return reliability(lines, num_dashed=len(lines) - 1)

    @styled
    def accuracy_by_coverage(self) -> Figure:
        """Accuracy of the surest predictions against the share of images that is answered."""
        figure, axes = new_chart(percent="xy")
        draw_curve(axes, *zip(*self.selective, strict=True), label=None, colour=SERIES[0])
        axes.set(xlim=(0, 1), xlabel="coverage, the most confident first", ylabel="accuracy")
        axes.yaxis.set_major_locator(MaxNLocator(6))
        return figure


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


def _threshold_words(threshold: Threshold, split: str) -> str:
    """What a threshold promises, and what it came to on the images of `split`."""
    if threshold.confidence > 1:
        return why_not_promised(threshold.accuracy, threshold.num_images)
    return (
        f"For {percent(threshold.accuracy, digits=0)} accuracy, let it decline below a "
        f"confidence of {percent(threshold.confidence)}, as "
        f"{counted(threshold.num_images, 'validation image')} promise with "
        f"{percent(CERTAINTY, digits=0)} certainty: "
        + (
            f"it then answered {percent(threshold.coverage)} of the {split} images, and "
            f"{percent(threshold.reached)} of the answers were right."
            if threshold.coverage
            else f"none of the {split} images has it."
        )
    )


@styled
def reliability(lines: Iterable[tuple[str, str, Sequence[Bin]]], *, num_dashed: int = 0) -> Figure:
    """Accuracy against confidence for each label, colour and bins, the first of them dashed, with
    95 % intervals; the diagonal is what it should be."""
    figure, axes = new_chart(grid="both", percent="xy")
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":", label="perfectly calibrated")
    for number, (label, colour, bins) in enumerate(lines):
        enough = [each for each in bins if each.num_images >= FEWEST_IN_BIN]
        if enough:
            x, y = [each.confidence for each in enough], [each.accuracy for each in enough]
            style = "--" if number < num_dashed else "-"
            marks = {"linestyle": style, "marker": "o", "markersize": 4, "clip_on": False}
            ends = [wilson_interval(round(b.accuracy * b.num_images), b.num_images) for b in enough]
            axes.vlines(x, *zip(*ends, strict=True), color=colour, linewidth=1, alpha=0.6)
            draw_curve(axes, x, y, label=short(label), colour=colour, **marks)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    figure.legend(loc="outside upper left", ncols=3)
    return figure
