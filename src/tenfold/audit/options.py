"""What an audit may be told, and which part asks for what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OPTIONS: dict[str, tuple[str, ...]] = {
    "calibration": (),
    "explanation": ("seed",),
    "errors": ("seed",),
    "robustness": ("seed", "pictures", "corrupted"),
    "new-pictures": ("new_test_set",),
    "novelty": ("seed", "pictures", "strange"),
    "agreement": ("human",),
    "labels": (),
}
"""Of each part, by name: what it depends on besides weights and data."""


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

    def filled(self) -> "FilledOptions":
        """The same with the usual values in the place of None."""
        return FilledOptions(
            pictures=1000 if self.pictures is None else self.pictures,
            human=self.human,
            corrupted=self.corrupted,
            new_test_set=self.new_test_set,
            strange=self.strange,
            seed=0 if self.seed is None else self.seed,
        )


SOURCES = frozenset({"human", "corrupted", "new_test_set", "strange"})
"""Options that name data: where one is given and can't be had, that is an error."""


@dataclass(frozen=True)
class FilledOptions:
    """AuditOptions with a number for each of its numbers."""

    pictures: int
    human: Path | None
    corrupted: Path | None
    new_test_set: Path | None
    strange: str | None
    seed: int


def as_plain(options: AuditOptions | FilledOptions, names: Sequence[str]) -> Mapping[str, Any]:
    """What `names` are in `options`, as JSON has it."""
    values = {name: getattr(options, name) for name in names}
    return {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in values.items()}
