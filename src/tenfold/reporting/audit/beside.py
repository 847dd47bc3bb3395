"""What audits found of several runs, side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from tenfold.audit.store import known_findings
from tenfold.reporting.audit.section import Table
from tenfold.reporting.runs import Run
from tenfold.reporting.words import percent
from tenfold.run import RunFolder

COLUMNS = (
    "run",
    "confidence off by",
    "right when damaged",
    "steady under a shift",
    "right under attack",
    "strange ones told",
    "agrees with people",
)


def trust_table(runs: Sequence[Run]) -> Table | None:
    """A row for each run that was audited; None where none was."""
    rows = []
    for run in runs:
        found = {
            name: finding.values
            for name, finding in known_findings(RunFolder(run.folder)).items()
            if "missing" not in finding.values
        }
        if found:
            rows.append((run.label, *(_cells(found))))
    return Table("Beyond accuracy", COLUMNS, tuple(rows)) if rows else None


def _cells(found: Mapping[str, Any]) -> tuple[str, ...]:
    trust, robust = found.get("calibration"), found.get("robustness")
    strange, people = found.get("novelty"), found.get("agreement")
    off = (trust.get("after") or trust["before"])["error_width"] if trust else None
    attacked = (
        min(each["accuracy"] for each in robust["attacks"] if each["limit"] > 4 / 255)
        if robust
        else None
    )
    told = None
    if strange:
        shares = [rows[0]["auroc"] for rows in strange["results"].values()]
        told = sum(shares) / len(shares)
    return (
        percent(off, digits=2),
        percent(robust["mean"] if robust else None),
        percent(robust["shift_consistency"] if robust else None),
        percent(attacked),
        percent(told, digits=0),
        percent(people["majority"] if people else None),
    )
