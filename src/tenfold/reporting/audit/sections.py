"""A section of the page for each question that an audit answers."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from tenfold.audit.store import Finding
from tenfold.reporting.audit import looking, measured
from tenfold.reporting.audit.section import Section
from tenfold.reporting.charts import Charts

View = Callable[[Finding, Charts], Section]

VIEWS: dict[str, tuple[str, View]] = {
    "calibration": ("When it is sure, is it right?", measured.calibration),
    "explanation": ("Where does it look?", looking.explanation),
    "errors": ("What do its mistakes have in common?", looking.errors),
    "robustness": ("What if a picture is not perfect?", measured.robustness),
    "new-pictures": ("Does it do as well on new pictures?", measured.new_pictures),
    "novelty": ("Does it notice what it does not know?", measured.novelty),
    "agreement": ("Does it see what people see?", measured.agreement),
    "labels": ("Are the labels right?", measured.labels),
}
"""The question that each part answers, in the order of the page."""


def view_audit(findings: Mapping[str, Finding], charts: Charts) -> tuple[Section, ...]:
    """A section for each part that was computed, in the order of the questions.

    A part that lacked something is a section that says so, unless it is not for this run at all.
    """
    sections = []
    for name in sorted(findings, key=[*VIEWS, *findings].index):
        finding = findings[name]
        question, view = VIEWS.get(name, (finding.values.get("title", name), measured.own))
        if finding.values.get("for_good"):
            continue
        if (missing := finding.values.get("missing")) is not None:
            again = f"With that mended, this command answers the question: tenfold audit RUN {name}"
            sections.append(Section((missing, again), name=name, question=question))
            continue
        sections.append(replace(view(finding, charts), name=name, question=question))
    return tuple(sections)
