"""How far a model's confidence can be trusted, and what to do about it.

N images, C classes. A confidence is the probability of the predicted class.
Everything that is fitted is fitted on validation images and measured on others.
"""

import math
from typing import Any, Literal

import numpy as np

from tenfold.errors import TenfoldError, counted
from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.probabilities import softmax
from tenfold.evaluation.thresholds import CERTAINTY, images_needed, in_set, set_threshold_for
from tenfold.results.facts import Fact
from tenfold.results.runs import Fitted, OperatingPoint, Result, Threshold, Unfitted

NUM_BINS = 15
"""Of confidences, as Guo et al. (2017) and most papers since have them."""

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0

FEWEST_IMAGES = 50
"""For a temperature. Of simulated models whose confidence is 9 points too high, one fitted on 50
images leaves 4 points and makes 7 in 100 worse; on 30 images 6 points and 22 in 100."""

ASKED_ACCURACIES = (0.95, 0.99)
"""Of the answers that a model gives where it may decline."""

PROMISED_COVERAGES = (0.9, 0.95, 0.99)
"""Of sets of classes."""

Binning = Literal["width", "mass"]
"""Bins of the same width on [0, 1], or with as many images each."""


class Bin(Fact):
    """Images of similar confidence: their mean confidence and the share that is right.

    low, high: the confidences that belong to it, the first not included.
    """

    low: float
    high: float
    num_images: int
    confidence: float
    accuracy: float


def fit(validation: Predictions) -> Fitted:
    """Temperature, thresholds and sets from `validation` images, which training did not see.

    Raises TenfoldError as `fit_temperature` does, where there are fewer than FEWEST_IMAGES, and
    where the temperature is one of its bounds.
    """
    num_images = len(validation.labels)
    temperature = fit_temperature(validation) if num_images >= FEWEST_IMAGES else 1.0
    if doubt := _doubt(temperature, num_images):
        raise TenfoldError(doubt)
    scaled = with_temperature(validation, temperature)
    return Fitted(
        temperature=temperature,
        thresholds=tuple(find_threshold(scaled, asked) for asked in ASKED_ACCURACIES),
        sets=tuple((promised, fit_sets(scaled, promised)) for promised in PROMISED_COVERAGES),
        num_images=num_images,
    )


def _doubt(temperature: float, num_images: int) -> str:
    """Why a temperature is none to be used, as a sentence; empty for a good one."""
    if num_images < FEWEST_IMAGES:
        return (
            f"A temperature fitted on {counted(num_images, 'validation image')} would be left to "
            f"chance; hold out at least {FEWEST_IMAGES} with data.validation_size."
        )
    if temperature in (LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE):
        return (
            f"No temperature from {LOWEST_TEMPERATURE:g} to {HIGHEST_TEMPERATURE:g} makes its "
            f"confidence fit what it gets right of {num_images:,} validation images; look at its "
            "accuracy first."
        )
    return ""


def why_unfitted(result: Result) -> str:
    """Why a run's result has nothing of it that may be used, where validation images were there."""
    kept = result.calibration
    if isinstance(kept, Unfitted):
        return kept.unfitted
    return _doubt(kept.temperature, kept.num_images) if kept else ""


def fitted_of(result: Result) -> Fitted | None:
    """What a run's result keeps of it; None where nothing was fitted that may be used."""
    kept = result.calibration
    return kept if isinstance(kept, Fitted) and not why_unfitted(result) else None


def set_facts(fitted: Fitted | None) -> list[dict[str, Any]]:
    """What was fitted for sets, as `set_threshold_for` takes it."""
    if fitted is None:
        return []
    return [
        {"coverage": coverage, "probability": least, "num_images": fitted.num_images}
        for coverage, least in fitted.sets
    ]


def set_threshold(result: Result, coverage: float) -> float:
    """The probability from which on a class belongs to a set of a run. Raises TenfoldError as
    `set_threshold_for` does."""
    known, unfitted = set_facts(fitted_of(result)), why_unfitted(result)
    return set_threshold_for(known, coverage, unfitted=unfitted)


def operating_points_of(result: Result) -> tuple[OperatingPoint, ...]:
    """The thresholds by sensitivity of a run's result that hold for the temperature it has now."""
    fitted = fitted_of(result)
    now = fitted.temperature if fitted else 1.0
    points = result.operating_points
    return tuple(each for each in points if math.isclose(each.temperature, now, rel_tol=1e-6))


class PredictionSets(Fact):
    """What sets of classes with a promised coverage do on images that they were not fitted on.

    promised: share of images whose true class should be in their set. least: the probability
    from which on a class belongs to a set. coverage: the share measured. mean_size: classes in a
    set. single: share of sets with one class.
    """

    promised: float
    least: float
    coverage: float
    mean_size: float
    single: float


def reliability(
    predictions: Predictions, *, num_bins: int = NUM_BINS, binning: Binning = "width"
) -> list[Bin]:
    """Bins of the images by confidence, from low to high, without the empty ones.

    A model that can be trusted is right as often as it is confident in each (Niculescu-Mizil and
    Caruana 2005).
    """
    confidence, right = predictions.confidence, predictions.right
    if binning == "width":
        edges = np.linspace(0, 1, num_bins + 1)
        place = np.searchsorted(edges, confidence).clip(1) - 1
        groups = [np.flatnonzero(place == number) for number in range(num_bins)]
    else:
        groups = np.array_split(np.argsort(confidence, kind="stable"), num_bins)
        edges = np.array([0.0, *(confidence[group].max(initial=0) for group in groups)])
    return [
        Bin(
            low=float(low),
            high=float(high),
            num_images=len(group),
            confidence=float(confidence[group].mean()),
            accuracy=float(right[group].mean()),
        )
        for group, low, high in zip(groups, edges[:-1], edges[1:], strict=True)
        if len(group)
    ]


def calibration_error(
    predictions: Predictions, *, num_bins: int = NUM_BINS, binning: Binning = "width"
) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy over `reliability`'s
    bins, weighed by their images (Naeini et al. 2015). Between 0 and 1."""
    bins = reliability(predictions, num_bins=num_bins, binning=binning)
    total = sum(each.num_images for each in bins)
    return sum(abs(each.confidence - each.accuracy) * each.num_images for each in bins) / total


def brier_score(predictions: Predictions) -> float:
    """Mean over images of the squared distance between the probabilities and the truth, summed
    over classes (Brier 1950): 0 is perfect, 2 is surely wrong."""
    probabilities = predictions.probabilities
    truth = np.zeros_like(probabilities)
    truth[np.arange(len(truth)), predictions.labels] = 1.0
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def fit_temperature(predictions: Predictions) -> float:
    """What to divide logits by so that confidence is, on average, the share of right answers.

    No prediction changes by it (Guo et al. 2017, arXiv 1706.04599, fit it for the likelihood;
    Clarté et al. 2023, arXiv 2303.02644, so that the means agree, which leaves confidence closer to
    the truth where logits are averages over views). Within bounds where no temperature gives that.
    Raises TenfoldError where all predictions are right, for then the best one is 0.
    """
    from scipy.optimize import brentq

    logits = predictions.logits.astype(np.float64)
    right = float(predictions.right.mean())
    if right == 1:
        raise TenfoldError(
            f"A temperature can't be fitted on {len(logits)} images that are all predicted right; "
            "hold out more with data.validation_size."
        )

    def excess(log_temperature: float) -> float:
        """Mean confidence less the share that is right; it falls with the temperature."""
        confidence = softmax(logits * math.exp(-log_temperature)).max(axis=1)
        return float(confidence.mean()) - right

    low, high = math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE)
    if excess(low) <= 0:
        return LOWEST_TEMPERATURE
    if excess(high) >= 0:
        return HIGHEST_TEMPERATURE
    return math.exp(float(brentq(excess, low, high, xtol=1e-9)))


def with_temperature(predictions: Predictions, temperature: float) -> Predictions:
    """The same predictions with logits divided by `temperature`."""
    return predictions._replace(logits=(predictions.logits / np.float32(temperature)))


def find_threshold(predictions: Predictions, accuracy: float) -> Threshold:
    """A low confidence of which it is certain to CERTAINTY that `accuracy` of the predictions from
    it on are right.

    The surest images are tested by the lower bound of Clopper and Pearson (1934): from each of a
    few starts, four times as many images at each, further down until a test fails. The starts share
    what may go wrong (Angelopoulos et al. 2021, arXiv 2110.01052: Learn then Test).
    """
    from scipy.special import betainc

    confidence, right = predictions.confidence, predictions.right
    number, order = len(right), np.argsort(-confidence, kind="stable")
    starts = [images_needed(accuracy)]
    while 4 * starts[-1] <= number:
        starts.append(4 * starts[-1])
    risk = (1 - CERTAINTY) / len(starts)
    starts[0] = images_needed(accuracy, certainty=1 - risk)
    # A threshold takes all images of a confidence, or none.
    ends = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))
    num_right = np.cumsum(right[order])[ends]
    # The lower bound is `accuracy` or more where so many right are too many for `accuracy`.
    fails = ~(betainc(num_right, ends + 2 - num_right, accuracy) <= risk)
    best = -1
    for start in starts:
        first = int(np.searchsorted(ends, start - 1))
        tested = np.flatnonzero(np.append(fails[first:], True))[0]
        if tested:
            best = max(best, first + int(tested) - 1)
    if best < 0:
        lowest, count, reached = math.nextafter(1.0, 2.0), 0, 1.0
    else:
        count = int(ends[best]) + 1
        lowest, reached = float(confidence[order[count - 1]]), float(num_right[best]) / count
    return Threshold(
        accuracy=accuracy,
        confidence=lowest,
        coverage=count / number,
        reached=reached,
        num_images=number,
    )


def apply_threshold(predictions: Predictions, threshold: Threshold) -> Threshold:
    """What `threshold` does on other images: the coverage and the accuracy measured there."""
    confidence, right = predictions.confidence, predictions.right
    answered = confidence >= threshold.confidence
    reached = float(right[answered].mean()) if answered.any() else 1.0
    return threshold.model_copy(update={"coverage": float(answered.mean()), "reached": reached})


def selective_curve(predictions: Predictions, *, num_points: int = 50) -> list[tuple[float, float]]:
    """Shares of the images, the surest first, and the accuracy on each, from few of them to all
    (El-Yaniv and Wiener 2010)."""
    confidence, right = predictions.confidence, predictions.right
    shares = np.cumsum(right[np.argsort(-confidence, kind="stable")])
    counts = np.unique(np.ceil(np.linspace(0, 1, num_points + 1)[1:] * len(right)).astype(int))
    return [(count / len(right), float(shares[count - 1] / count)) for count in counts]


def fit_sets(predictions: Predictions, promised: float) -> float:
    """The probability from which on a class belongs to an image's set, so that the true class is
    in `promised` of the sets of further images like these.

    Split conformal prediction with 1 - p as the score (Sadinle, Lei and Wasserman 2019). 0, which
    puts every class into every set, where there are too few images for the promise.
    """
    probabilities = predictions.probabilities
    own = np.sort(probabilities[np.arange(len(probabilities)), predictions.labels])
    # As many of the true classes may lie below as leave ceil((N + 1) promised) of them.
    kept = math.ceil((len(own) + 1) * promised - 1e-9)
    return float(own[len(own) - kept]) if kept <= len(own) else 0.0


def apply_sets(predictions: Predictions, promised: float, least: float) -> PredictionSets:
    """What sets with the classes of a probability of `least` and more, and the likeliest one, do on
    `predictions`."""
    inside = in_set(predictions.probabilities, least)
    sizes = inside.sum(axis=1)
    return PredictionSets(
        promised=promised,
        least=least,
        coverage=float(inside[np.arange(len(inside)), predictions.labels].mean()),
        mean_size=float(sizes.mean()),
        single=float((sizes == 1).mean()),
    )
