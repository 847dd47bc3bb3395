"""From which confidence on a prediction may be used, and from which probability on a class belongs
to a conformal set; needs nothing but Python."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tenfold.errors import TenfoldError

CERTAINTY = 0.95
"""Share of fits whose promise of an accuracy holds."""

NO_VALIDATION = (
    "the run held no validation images back; train with some, such as "
    "--set data.validation_size=0.1."
)


def images_needed(accuracy: float, *, certainty: float = CERTAINTY) -> int:
    """The fewest images, all predicted right, that show with `certainty` that `accuracy` is held:
    so many heads in a row are too many for a coin of that chance."""
    return math.ceil(math.log(1 - certainty) / math.log(accuracy) - 1e-9)


def why_not_promised(accuracy: float, num_images: int) -> str:
    """Why no confidence was found that promises `accuracy`, from `num_images` for validation."""
    asked, needed = f"{100 * accuracy:g} % accuracy", images_needed(accuracy)
    if num_images < needed:
        return (
            f"No confidence can promise {asked} from {num_images:,} validation images, where "
            f"{needed:,} that are all right are the fewest that can; hold out more with "
            "data.validation_size, or ask for less."
        )
    return (
        f"No confidence promises {asked} with {100 * CERTAINTY:g} % certainty, as far as the run's "
        f"{num_images:,} validation images say; hold out more, or ask for less."
    )


def confidence_for(
    known: Sequence[Mapping[str, Any]], accuracy: float, *, unfitted: str = ""
) -> float:
    """The confidence from which on `accuracy` of the answers are right.

    known: the fields of thresholds. unfitted: why there are none. Raises TenfoldError where none
    was fitted for `accuracy`, where an older version fitted it, and where none promises it.
    """
    asked = f"{100 * accuracy:g} % accuracy"
    lack = f"There is no threshold for {asked}"
    found = _fitted_for(known, "accuracy", accuracy, lack=lack, unfitted=unfitted)
    if not found.get("num_images"):
        raise TenfoldError(
            f"The threshold for {asked} is one of an older tenfold, which kept its promise in half "
            "of the cases only; run `tenfold audit RUN calibration`, then export the run again."
        )
    if found["confidence"] > 1:
        raise TenfoldError(why_not_promised(accuracy, found["num_images"]))
    return float(found["confidence"])


def images_for_sets(coverage: float) -> int:
    """The fewest validation images from which sets can promise `coverage`."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def set_threshold_for(
    known: Sequence[Mapping[str, Any]], coverage: float, *, unfitted: str = ""
) -> float:
    """The probability from which on a class belongs to a set, so that the true class is in
    `coverage` of the sets of further images like those for validation.

    known: coverage, probability and num_images of each that was fitted. unfitted: why there are
    none. Raises TenfoldError where none was fitted for `coverage`, and where there were too few
    images for it.
    """
    lack = f"There are no sets that hold the true class in {100 * coverage:g} % of cases"
    found = _fitted_for(known, "coverage", coverage, lack=lack, unfitted=unfitted)
    if found["num_images"] < (needed := images_for_sets(coverage)):
        raise TenfoldError(
            f"{lack} from {found['num_images']:,} validation images, where "
            f"{needed:,} are the fewest that can promise them; hold out more with "
            "data.validation_size, or ask for less."
        )
    return float(found["probability"])


def _fitted_for(
    known: Sequence[Mapping[str, Any]], key: str, share: float, *, lack: str, unfitted: str
) -> Mapping[str, Any]:
    if not known:
        raise TenfoldError(f"{lack}: {unfitted or NO_VALIDATION}")
    for each in known:
        if each[key] == share:
            return each
    choices = ", ".join(f"{100 * each[key]:g}" for each in known)
    raise TenfoldError(f"{lack}; choose one of {choices}.")


def in_set(probabilities: Any, threshold: float) -> Any:
    """Which classes belong to the conformal set of each image, as an array of bool in the shape of
    `probabilities`, (C,) or (N, C): those from `threshold` on, and the likeliest in any case."""
    return probabilities >= probabilities.max(axis=-1, keepdims=True).clip(max=threshold)


def set_of(
    class_names: Sequence[str], probabilities: Any, threshold: float | None
) -> tuple[str, ...]:
    """The classes of an image's set, the likeliest first; none where no set was asked for."""
    if threshold is None:
        return ()
    inside, order = in_set(probabilities, threshold), (-probabilities).argsort(kind="stable")
    return tuple(class_names[index] for index in order if inside[index])
