"""What an audit may be told."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class AuditOptions:
    """What an audit may be told. None is the usual; what is kept is then taken whatever it was
    computed with.

    pictures: how many pictures of the measured split are corrupted, attacked and compared with
    strange ones, 1000 by default; what a smaller number says is less certain. human: the file with
    people's answers to CIFAR-10's test set; fetched by default. corrupted: a folder with the
    published files of CIFAR-10-C; by default pictures are corrupted here. new_test_set: a folder
    with the files of CIFAR-10.1; fetched by default. strange: name or path of a data set of other
    things than the run's classes. seed: of what is drawn, 0 by default.
    """

    pictures: int | None = None
    human: Path | None = None
    corrupted: Path | None = None
    new_test_set: Path | None = None
    strange: str | None = None
    seed: int | None = None

    def given(self) -> dict[str, Any]:
        """Those that are not None."""
        return {name: value for name, value in vars(self).items() if value is not None}


SOURCES = frozenset({"human", "corrupted", "new_test_set", "strange"})
"""Options that name data: where one is given and can't be had, that is an error."""


def as_plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` as JSON has them."""
    return {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in options.items()}
