"""From which confidence on an answer may be used; needs nothing but Python."""

from collections.abc import Mapping

from tenfold.errors import TenfoldError


def confidence_for(known: Mapping[float, float], accuracy: float) -> float:
    """The confidence from which on `accuracy` of the answers are right.

    known: fitted confidences by accuracy, both shares. Raises TenfoldError where none was fitted
    for it, and where no confidence is high enough.
    """
    asked = f"{100 * accuracy:g} % right answers"
    if not known:
        raise TenfoldError(
            f"There is no threshold for {asked}, since the run held no validation pictures back; "
            "train with some, such as --set data.validation_size=0.1."
        )
    if accuracy not in known:
        choices = " and ".join(f"{100 * each:g} %" for each in known)
        raise TenfoldError(f"There is no threshold for {asked}; there are some for {choices}.")
    if known[accuracy] > 1:
        raise TenfoldError(
            f"No confidence is high enough for {asked}, as far as the run's validation pictures "
            "say, so no answer would be used; ask for less, or for all answers."
        )
    return known[accuracy]
