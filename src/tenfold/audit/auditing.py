"""`audit`: compute the parts that are wanted and not known yet, and keep them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenfold.audit import PARTS, parts
from tenfold.audit.looking import errors, explanation
from tenfold.audit.store import Finding, Store
from tenfold.audit.subject import Subject
from tenfold.errors import TenfoldError
from tenfold.progress import Progress
from tenfold.run import RunFolder


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


@dataclass(frozen=True)
class FilledOptions:
    """AuditOptions with a number for each of its numbers."""

    pictures: int
    human: Path | None
    corrupted: Path | None
    new_test_set: Path | None
    strange: str | None
    seed: int


@dataclass(frozen=True)
class Part:
    """How a part is computed, on which options it depends, and whether it looks at pictures."""

    compute: Callable[[Subject, FilledOptions], Finding]
    options: tuple[str, ...] = ("seed",)
    looks_at_pictures: bool = True


_PARTS = {
    "calibration": Part(parts.calibration, (), looks_at_pictures=False),
    "explanation": Part(lambda subject, options: explanation(subject)),
    "errors": Part(lambda subject, options: errors(subject)),
    "robustness": Part(parts.robustness, ("seed", "pictures", "corrupted")),
    "new-pictures": Part(parts.new_pictures, ("new_test_set",)),
    "novelty": Part(parts.novelty, ("seed", "pictures", "strange")),
    "agreement": Part(parts.agreement, ("human",)),
    "labels": Part(parts.labels, ()),
}


def audit(
    run: RunFolder,
    wanted: Sequence[str] | None = None,
    *,
    options: AuditOptions | None = None,
    progress: Progress | None = None,
    told: Callable[[str], None] = lambda part: None,
) -> dict[str, Finding]:
    """What is known of `run` after the parts `wanted` were computed, or found as they were kept.

    wanted: None for all. A part for which something is missing says so in its values; it is tried
    again when it is named, or when an option of it is given. told: is called with the name of each
    part that has to be computed.

    Raises TenfoldError where the run is not finished, where its data has changed since, for an
    unknown part, and where a named part lacks something.
    """
    options = options or AuditOptions()
    if options.pictures is not None and options.pictures < 1:
        raise TenfoldError(f"An audit needs at least one picture, not {options.pictures}.")
    if unknown := sorted(set(wanted or ()) - set(PARTS)):
        raise TenfoldError(f"There is no part {unknown[0]!r}; there are: {', '.join(PARTS)}.")
    filled = options.filled()
    store, subject = Store(run), Subject(run, seed=filled.seed, progress=progress)
    findings: dict[str, Finding] = {}
    is_recorded = False
    for name in [part for part in PARTS if wanted is None or part in wanted]:
        part = _PARTS[name]
        kept = store.load(name, options=_plain(options, part.options))
        if kept is not None and not (wanted is not None and kept.may_be_there_now):
            findings[name] = kept
            continue
        told(name)
        with run.writer():
            findings[name] = _compute(part, subject, filled, must=wanted is not None)
            if "missing" not in findings[name].values and not is_recorded:
                subject.record_use("tenfold audit")
                is_recorded = True
            store.save(name, findings[name], options=_plain(filled, part.options))
    return findings


def _compute(part: Part, subject: Subject, options: FilledOptions, *, must: bool) -> Finding:
    """What `part` finds; must: whether it is an error that something is missing for it."""
    if part.looks_at_pictures:
        subject.measured  # noqa: B018 -- that there are none would be missing for every part.
    given = any(isinstance(getattr(options, name), Path) for name in part.options)
    try:
        return part.compute(subject, options)
    except TenfoldError as error:
        if must or given:
            raise
        return Finding({"missing": str(error)}, {})


def _plain(options: AuditOptions | FilledOptions, names: Sequence[str]) -> Mapping[str, Any]:
    """What `names` are in `options`, as JSON has it."""
    values = {name: getattr(options, name) for name in names}
    return {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in values.items()}
