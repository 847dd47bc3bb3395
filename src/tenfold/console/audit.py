"""What an audit found, in a line or two for each part."""

from collections.abc import Mapping
from typing import Any

from tenfold.audit.store import Finding
from tenfold.console.output import Output
from tenfold.errors import counted
from tenfold.formatting import percent


def show_findings(output: Output, findings: Mapping[str, Finding]) -> None:
    """Say what each part came to, or why it came to nothing."""
    rows = []
    for name, finding in findings.items():
        values = finding.values
        output.record("part", part=name, **values)
        missing = values.get("missing")
        rows.append([name, missing if missing else _SUMMARIES.get(name, _own)(values)])
    output.table("What is known of it", ["part", "found"], rows)


def _calibration(values: dict[str, Any]) -> str:
    before = f"confidence off by {percent(values['before']['error_width'], 2)}"
    if "unfitted" in values:
        return f"{before}; {values['unfitted']}"
    return (
        f"{before}, {percent(values['after']['error_width'], 2)} with temperature "
        f"{values['temperature']:.2f}"
    )


def _explanation(values: dict[str, Any]) -> str:
    checks = ", ".join(f"{name} {value:.2f}" for name, value in values["checks"].items())
    pictures = counted(len(values["pictures"]), "picture")
    return f"{pictures}; likeness to maps of random weights: {checks}"


def _errors(values: dict[str, Any]) -> str:
    return f"{counted(values['num_wrong'], 'mistake')} in {counted(len(values['groups']), 'group')}"


def _robustness(values: dict[str, Any]) -> str:
    pgd = next(a for a in values["attacks"] if a["method"] == "PGD" and a["limit"] > 4 / 255)
    return (
        f"{percent(values['mean'])} right under corruption ({percent(values['clean'])} without), "
        f"{percent(values['shift_consistency'])} steady under a shift, "
        f"{percent(pgd['accuracy'])} under attack"
    )


def _new_pictures(values: dict[str, Any]) -> str:
    return (
        f"{percent(values['accuracy'])} right of CIFAR-10.1's, {percent(values['test_accuracy'])} "
        "of the test set's"
    )


def _novelty(values: dict[str, Any]) -> str:
    return "; ".join(
        f"{kind}: {percent(rows[0]['auroc'], 0)} by confidence"
        for kind, rows in values["results"].items()
    )


def _agreement(values: dict[str, Any]) -> str:
    return (
        f"says what most people say for {percent(values['majority'])} of the pictures; loss "
        f"against their answers {values['soft_cross_entropy']:.3f}, theirs {values['floor']:.3f}"
    )


def _labels(values: dict[str, Any]) -> str:
    unjudged = values["num_images"] - values["num_judged"]
    return f"{values['num_likely']} of {values['num_judged']:,} labels are doubtful" + (
        f"; {unjudged:,} could not be judged" if unjudged else ""
    )


def _own(values: dict[str, Any]) -> str:
    return f"{values['title']} {counted(len(values['rows']), 'row')}"


_SUMMARIES = {
    "calibration": _calibration,
    "explanation": _explanation,
    "errors": _errors,
    "robustness": _robustness,
    "new-pictures": _new_pictures,
    "novelty": _novelty,
    "agreement": _agreement,
    "labels": _labels,
}
