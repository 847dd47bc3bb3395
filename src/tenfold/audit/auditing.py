"""`audit`: compute the parts that are wanted and not known yet, and keep them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenfold.audit import PARTS, parts
from tenfold.audit.looking import errors, explanation
from tenfold.audit.store import Finding, Store
from tenfold.audit.subject import Subject
from tenfold.errors import TenfoldError
from tenfold.evaluation.evaluate import record_use
from tenfold.files import read_json, write_json
from tenfold.progress import Progress
from tenfold.run import RunFolder


@dataclass(frozen=True)
class AuditOptions:
    """What an audit may be told.

    pictures: how many pictures of the measured split are corrupted and attacked; what a smaller
    number says is less certain. human: the file with people's answers to CIFAR-10's test set, or
    None to fetch it. corrupted: a folder with the published files of CIFAR-10-C, or None to corrupt
    pictures here. new_test_set: a folder with the files of CIFAR-10.1, or None to fetch them. seed:
    of what is drawn.
    """

    pictures: int = 1000
    human: Path | None = None
    corrupted: Path | None = None
    new_test_set: Path | None = None
    seed: int = 0


@dataclass(frozen=True)
class Part:
    """How a part is computed, and on which options it depends."""

    compute: Callable[[Subject, AuditOptions], Finding]
    options: tuple[str, ...] = ("seed",)


_PARTS = {
    "calibration": Part(parts.calibration, ()),
    "explanation": Part(lambda subject, options: explanation(subject)),
    "errors": Part(lambda subject, options: errors(subject)),
    "robustness": Part(parts.robustness, ("seed", "pictures", "corrupted")),
    "novelty": Part(parts.novelty, ("seed", "pictures")),
    "agreement": Part(parts.agreement, ()),
    "labels": Part(parts.labels, ()),
}


def audit(
    run: RunFolder,
    wanted: Sequence[str] = PARTS,
    *,
    options: AuditOptions | None = None,
    progress: Progress | None = None,
    told: Callable[[str], None] = lambda part: None,
) -> dict[str, Finding]:
    """What is known of `run` after the parts `wanted` were computed, or found as they were kept.

    told: is called with the name of each part that has to be computed. Raises TenfoldError where
    the run is not finished, and for an unknown part. A part for which something is missing says
    so in its values and is tried again the next time.
    """
    options = options or AuditOptions()
    if unknown := sorted(set(wanted) - set(PARTS)):
        raise TenfoldError(f"There is no part {unknown[0]!r}; there are: {', '.join(PARTS)}.")
    store, subject = Store(run), Subject(run, seed=options.seed, progress=progress)
    findings: dict[str, Finding] = {}
    is_recorded = False
    for name in [part for part in PARTS if part in wanted]:
        part = _PARTS[name]
        key = store.key(name, {each: _plain(getattr(options, each)) for each in part.options})
        kept = store.load(name, key=key)
        if kept is not None and "missing" not in kept.values:
            findings[name] = kept
            continue
        told(name)
        with run.writer():
            if not is_recorded:
                _record(subject)
                is_recorded = True
            findings[name] = part.compute(subject, options)
            store.save(name, findings[name], key=key)
    return findings


def _record(subject: Subject) -> None:
    """Looking at how it does on the test pictures is a use of them."""
    found = subject.measured_predictions()
    accuracy = float((found.logits.argmax(axis=1) == found.labels).mean())
    result = read_json(subject.run.result)
    record_use(result, subject.split, accuracy, purpose="audit")
    write_json(subject.run.result, result)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
