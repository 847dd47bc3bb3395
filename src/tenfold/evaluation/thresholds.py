"""From which confidence on an answer may be used; needs nothing but Python."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tenfold.errors import TenfoldError

CERTAINTY = 0.95
"""Share of fits whose promise of an accuracy holds."""

NO_VALIDATION = (
    "the run held no validation pictures back; train with some, such as "
    "--set data.validation_size=0.1."
)


def images_needed(accuracy: float, *, certainty: float = CERTAINTY) -> int:
    """The fewest images, all predicted right, that show with `certainty` that `accuracy` is held:
    so many heads in a row are too many for a coin of that chance."""
    return math.ceil(math.log(1 - certainty) / math.log(accuracy) - 1e-9)


def why_not_promised(accuracy: float, num_images: int) -> str:
    """Why no confidence was found that promises `accuracy`, from `num_images` for validation."""
    asked, needed = f"{100 * accuracy:g} % right answers", images_needed(accuracy)
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
    asked = f"{100 * accuracy:g} % right answers"
    if not known:
        raise TenfoldError(f"There is no threshold for {asked}: {unfitted or NO_VALIDATION}")
    found = next((each for each in known if each["accuracy"] == accuracy), None)
    if found is None:
        choices = " and ".join(f"{100 * each['accuracy']:g} %" for each in known)
        raise TenfoldError(f"There is no threshold for {asked}; there are some for {choices}.")
    if not found.get("num_images"):
        raise TenfoldError(
            f"The threshold for {asked} is one of an older tenfold, which kept its promise in half "
            "of the cases only; run `tenfold audit RUN calibration`, then export the run again."
        )
    if found["confidence"] > 1:
        raise TenfoldError(why_not_promised(accuracy, found["num_images"]))
    return float(found["confidence"])
