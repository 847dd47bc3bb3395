"""`audit`: compute the parts that are wanted and not known yet, and keep them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tenfold.audit import PARTS, parts
from tenfold.audit.looking import errors, explanation
from tenfold.audit.options import OPTIONS, SOURCES, AuditOptions, FilledOptions, as_plain
from tenfold.audit.store import Finding, Store, kept_findings
from tenfold.audit.subject import Subject
from tenfold.errors import HeldError, TenfoldError, UnwritableError
from tenfold.progress import Progress
from tenfold.run import RunFolder


@dataclass(frozen=True)
class Part:
    """How a part is computed, and whether it looks at pictures."""

    compute: Callable[[Subject, FilledOptions], Finding]
    looks_at_pictures: bool = True


_PARTS = {
    "calibration": Part(parts.calibration, looks_at_pictures=False),
    "explanation": Part(lambda subject, options: explanation(subject)),
    "errors": Part(lambda subject, options: errors(subject)),
    "robustness": Part(parts.robustness),
    "new-pictures": Part(parts.new_pictures),
    "novelty": Part(parts.novelty),
    "agreement": Part(parts.agreement),
    "labels": Part(parts.labels),
}


def audit(
    run: RunFolder,
    wanted: Sequence[str] | None = None,
    *,
    options: AuditOptions | None = None,
    data: str | None = None,
    progress: Progress | None = None,
    told: Callable[[str], None] = lambda part: None,
) -> dict[str, Finding]:
    """What is known of `run` after the parts `wanted` were computed, or found as they were kept.

    wanted: None for all. A part for which something is missing says so in its values; it is tried
    again when it is named, or when an option of it is given. data: where the run's images are now,
    if not where they were. told: is called with the name of each
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
    subject = Subject(run, seed=filled.seed, progress=progress, data=data)
    store, kept = Store(run), kept_findings(run, wanted, options)
    findings: dict[str, Finding] = {}
    is_recorded = False
    for name in [part for part in PARTS if wanted is None or part in wanted]:
        if name in kept:
            findings[name] = kept[name]
            continue
        told(name)
        part = _PARTS[name]
        with run.writer():
            must = wanted is not None or _is_given(name, options)
            findings[name] = _compute(part, subject, filled, must=must)
            if "missing" not in findings[name].values and not is_recorded:
                subject.record_use("tenfold audit")
                is_recorded = True
            store.save(name, findings[name], options=as_plain(filled, OPTIONS[name]))
    return findings


def _is_given(name: str, options: AuditOptions) -> bool:
    """Whether somebody has named data for the part `name`."""
    return any(getattr(options, option) is not None for option in set(OPTIONS[name]) & SOURCES)


def _compute(part: Part, subject: Subject, options: FilledOptions, *, must: bool) -> Finding:
    """What `part` finds; must: whether it is an error that something is missing for it."""
    if part.looks_at_pictures:
        subject.require_pictures()  # Without any, every part would lack them.
    try:
        return part.compute(subject, options)
    except (HeldError, UnwritableError):
        raise
    except TenfoldError as error:
        if must:
            raise
        # Where the run's own data is gone, that is to be said, and nothing to be kept.
        assert subject.dataset is not None
        return Finding({"missing": str(error)}, {})
