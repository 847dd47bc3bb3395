"""What audits found of several runs, side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from tenfold.audit.store import known_findings
from tenfold.errors import counted
from tenfold.evaluation.runs import Run
from tenfold.formatting import percent
from tenfold.reporting.audit import figures
from tenfold.reporting.audit.section import Section, Table
from tenfold.reporting.charts import Charts
from tenfold.run import RunFolder

Found = Mapping[str, Mapping[str, Any]]
"""The values of the parts that are known of a run, by the name of the part."""

COLUMNS = (
    "run",
    "confidence off by",
    "right when damaged",
    "steady under a shift",
    "right under attack",
    "strange ones told",
    "agrees with people",
)


def compare_trust(runs: Sequence[Run], colours: Sequence[str], charts: Charts) -> Section | None:
    """The audited ones of `runs`, each in its colour; None where none was audited."""
    known = [(run, colour, _known(run)) for run, colour in zip(runs, colours, strict=True)]
    known = [(run, colour, found) for run, colour, found in known if found]
    if not known:
        return None
    every = [found for _, _, found in known]
    kinds = _common_kinds(every)
    rows = tuple((run.label, *_cells(found, kinds)) for run, _, found in known)
    drawn = []
    if trusted := [(r, c, f["calibration"]) for r, c, f in known if "calibration" in f]:
        drawn.append(
            charts.chart(
                "Are they as sure as they are right?",
                figures.compared_reliability(
                    [(r.label, c, (v.get("after") or v["before"])["bins"]) for r, c, v in trusted]
                ),
                "Below the dotted line a run promises too much, above it too little.",
            )
        )
    if damaged := [(r, c, f["robustness"]) for r, c, f in known if "robustness" in f]:
        drawn.append(
            charts.chart(
                "What damage leaves of them",
                figures.compared_damage([(r.label, c, v) for r, c, v in damaged]),
                "The mean over fifteen kinds of damage, from none to severity 5.",
            )
        )
    return Section(
        (
            "What accuracy does not say, for the runs that were audited. Confidence is that after "
            "a temperature where validation pictures allowed one.",
            *_conditions(every, kinds),
        ),
        tuple(drawn),
        (Table("In figures", COLUMNS, rows),),
        name="trust",
        question="Beyond accuracy",
    )


def _known(run: Run) -> Found:
    return {
        name: finding.values
        for name, finding in known_findings(RunFolder(run.folder)).items()
        if "missing" not in finding.values
    }


def _common_kinds(every: Sequence[Found]) -> tuple[str, ...]:
    """The strange pictures that all runs with a look at some were shown."""
    shown = [found["novelty"]["results"] for found in every if "novelty" in found]
    return tuple(kind for kind in shown[0] if all(kind in each for each in shown)) if shown else ()


def _conditions(every: Sequence[Found], kinds: Sequence[str]) -> tuple[str, ...]:
    """What the figures are about, and where runs were measured differently."""
    sentences = []
    if kinds:
        sentences.append(
            f"Strange pictures, told by confidence, are those that all of them saw: "
            f"{', '.join(kinds)}."
        )
    damaged = {
        (found["robustness"]["num_images"], found["robustness"]["official"])
        for found in every
        if "robustness" in found
    }
    if len(damaged) > 1:
        ways = "; ".join(
            counted(number, "picture") + (" of CIFAR-10-C" if official else "")
            for number, official in sorted(damaged)
        )
        sentences.append(
            f"Damage was measured in different ways ({ways}), so differences of a point or two say "
            "nothing."
        )
    return tuple(sentences)


def _cells(found: Found, kinds: Sequence[str]) -> tuple[str, ...]:
    trust, robust = found.get("calibration"), found.get("robustness")
    strange, people = found.get("novelty"), found.get("agreement")
    off = (trust.get("after") or trust["before"])["error_width"] if trust else None
    attacked = (
        min(each["accuracy"] for each in robust["attacks"] if each["limit"] > 4 / 255)
        if robust
        else None
    )
    told = None
    if strange and kinds:
        told = sum(strange["results"][kind][0]["auroc"] for kind in kinds) / len(kinds)
    return (
        percent(off, digits=2),
        percent(robust["mean"] if robust else None),
        percent(robust["shift_consistency"] if robust else None),
        percent(attacked),
        percent(told, digits=0),
        percent(people["majority"] if people else None),
    )
