"""Predictions of two classes -> their ROC and precision-recall curves, as a page shows them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tenfold.evaluation.calibration import operating_points_of
from tenfold.evaluation.roc import Curve, curve_of, levels_of
from tenfold.evaluation.runs import Run
from tenfold.reporting.figures import new_chart
from tenfold.reporting.svg import ACCENT, BAD, MUTED, styled
from tenfold.results.runs import OperatingPoint

Floats = NDArray[np.floating[Any]]

MOST_POINTS = 200
"""Of a curve, which more of them would not change to the eye."""


class TwoClasses(NamedTuple):
    """positive: the class that is to be found, of which `share` of the images are.

    threshold: chosen for it, if one was; place: where that is, as a curve of one point.
    """

    positive: str
    curve: Curve
    share: float
    threshold: float
    place: Curve | None

    def roc(self) -> Figure:
        """Sensitivity against the false positive rate."""
        names = "false positive rate (1 − specificity)", "sensitivity"
        return self._drawn(*names, lambda curve: (1 - curve.specificity, curve.sensitivity), (0, 1))

    def precision_recall(self) -> Figure:
        """Precision against recall."""
        names, chance = ("recall (sensitivity)", "precision"), (self.share, self.share)
        return self._drawn(*names, lambda curve: (curve.sensitivity, curve.precision), chance)

    @styled
    def _drawn(
        self,
        x: str,
        y: str,
        places: Callable[[Curve], tuple[Floats, Floats]],
        chance: tuple[float, float],
    ) -> Figure:
        """A curve with the names of its axes, and the threshold's place on it."""
        figure, axes = new_chart(grid="both", percent="xy", height=300)
        axes.plot([0, 1], chance, color=MUTED, linewidth=0.8, linestyle=":", label="chance")
        axes.plot(*places(self.curve), color=ACCENT, linewidth=1.8)
        if self.place is not None:
            label = f"threshold {self.threshold:.3f}"
            marks: Any = {"color": BAD, "markersize": 7, "label": label, "clip_on": False}
            axes.plot(*places(self.place), "o", **marks)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=x, ylabel=y)
        axes.legend(loc="lower right")
        return figure


def points_of(run: Run) -> tuple[OperatingPoint, ...]:
    """The thresholds by sensitivity that a run has."""
    return operating_points_of(run.result) if run.result is not None else ()


def two_classes(run: Run) -> TwoClasses | None:
    """What the page of a run of two classes draws; None of any other."""
    predictions = run.shown_answers
    if predictions is None or len(predictions.class_names) != 2:
        return None
    points = points_of(run)
    positive = points[-1].class_name if points else predictions.class_names[1]
    number = predictions.class_names.index(positive)
    is_positive = predictions.labels == number
    if is_positive.all() or not is_positive.any():
        return None
    curve = curve_of(levels_of(predictions.probabilities[:, number], is_positive))
    threshold, place = 0.0, None
    if points:
        threshold = points[-1].threshold
        last = int((curve.thresholds >= threshold).sum()) - 1
        place = Curve(*(values[[last]] for values in curve))
    return TwoClasses(positive, _thinned(curve), float(is_positive.mean()), threshold, place)


def _thinned(curve: Curve) -> Curve:
    """The same with MOST_POINTS points or so, evenly along it."""
    along = curve.sensitivity + 1 - curve.specificity
    places = np.searchsorted(along, np.linspace(0, along[-1], MOST_POINTS))
    kept = np.unique(np.append(places, 0).clip(0, len(along) - 1))
    return Curve(*(values[kept] for values in curve))
