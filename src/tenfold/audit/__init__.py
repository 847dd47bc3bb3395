"""Everything that one should know before trusting a classifier, question by question.

    from tenfold.audit import audit

Each question has a file: it measures a finished run, and says and shows what it found. That is kept
in `audit/<question>.json`, with images in `audit/<question>.npz`; a question whose weights, data
and options have not changed is not computed again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenfold.errors import TenfoldError
from tenfold.own_parts import is_own
from tenfold.registry import SHIPPED

__all__ = ["PARTS", "AuditOptions", "audit", "require_parts"]

PARTS = tuple(SHIPPED["question"])
"""In the order of the page, which those of one's own follow."""

OLD_PARTS = {"new-pictures": "new-images"}
OLD_OPTIONS = {"pictures": "images", "strange": "ood"}
"""Questions and options by the names that older versions have for them, in files and commands."""

SOURCES = frozenset({"human", "corrupted", "new_test_set", "ood"})
"""Options that name data: where one is given and can't be had, that is an error."""


@dataclass(frozen=True)
class AuditOptions:
    """What an audit may be told. None is the usual; what is kept is then taken whatever it was
    computed with.

    images: how many of the measured split are corrupted, attacked and compared with
    out-of-distribution ones, 1000 by default; what a smaller number says is less certain. human:
    the file with people's answers to CIFAR-10's test set; fetched by default. corrupted: a folder
    with the published files of CIFAR-10-C; by default images are corrupted here. new_test_set: a
    folder with the files of CIFAR-10.1; fetched by default. ood: name or path of a data set of
    other things than the run's classes. folds: parts of the training images, whose labels are then
    judged by as many trainings; by default labels of the measured split are. seed: of what is
    drawn, 0 by default.
    """

    images: int | None = None
    human: Path | None = None
    corrupted: Path | None = None
    new_test_set: Path | None = None
    ood: str | None = None
    folds: int | None = None
    seed: int | None = None

    def given(self) -> dict[str, Any]:
        """Those that are not None."""
        return {name: value for name, value in vars(self).items() if value is not None}


def as_plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` as JSON has them."""
    return {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in options.items()}


def require_parts(wanted: Iterable[str]) -> None:
    """Raise TenfoldError for a name that is no question's, and not in the form of one's own."""
    if unknown := [part for part in wanted if part not in PARTS and not is_own(part)]:
        raise TenfoldError(
            f"There is no part {unknown[0]!r}; there are: {', '.join(PARTS)}, and those of your "
            "own, such as my.py:question."
        )


def __getattr__(name: str) -> Any:
    """Import what the questions need only where one is to be computed."""
    if name == "audit":
        from tenfold.audit.store import audit

        return audit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
