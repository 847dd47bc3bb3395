"""A section of the page for each question that an audit answers."""

from collections.abc import Mapping

from tenfold.audit.store import Finding
from tenfold.reporting.audit import looking, measured
from tenfold.reporting.audit.section import Section
from tenfold.reporting.charts import Charts


def view_audit(findings: Mapping[str, Finding], charts: Charts) -> tuple[Section, ...]:
    """A section for each part that was computed, in the order of the questions."""
    views = {
        "calibration": measured.calibration,
        "explanation": looking.explanation,
        "errors": looking.errors,
        "robustness": measured.robustness,
        "novelty": measured.novelty,
        "agreement": measured.agreement,
        "labels": measured.labels,
    }
    return tuple(
        view(findings[name], charts)
        for name, view in views.items()
        if name in findings and "missing" not in findings[name].values
    )
