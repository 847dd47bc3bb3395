"""What audits found of several runs, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.audit.agreement import Agreement
from tenfold.audit.answer import Answer, Missing
from tenfold.audit.calibration import Calibration, reliability
from tenfold.audit.novelty import Novelty
from tenfold.audit.robustness import Robustness, against_severity
from tenfold.audit.store import known_answers
from tenfold.errors import counted
from tenfold.evaluation.runs import Run
from tenfold.formatting import percent
from tenfold.reporting.charts import Charts
from tenfold.reporting.section import Section, Table
from tenfold.run import RunFolder


@dataclass(frozen=True)
class _Audited:
    """What is known of a run, with its name and colour in the comparison."""

    label: str
    colour: str
    calibration: Calibration | None = None
    robustness: Robustness | None = None
    novelty: Novelty | None = None
    agreement: Agreement | None = None

    def cells(self, kinds: Sequence[str]) -> tuple[str, ...]:
        """A row of the table. kinds: the out-of-distribution images that all runs were shown."""
        robust, people = self.robustness, self.agreement
        told = None
        if self.novelty and kinds:
            told = sum(self.novelty.results[kind][0].auroc for kind in kinds) / len(kinds)
        return (
            self.label,
            percent(self.calibration.best.error_width if self.calibration else None, digits=2),
            percent(robust.mean if robust else None),
            percent(robust.shift_consistency if robust else None),
            percent(min(map(robust.attacked, ("FGSM", "PGD"))) if robust else None),
            percent(told, digits=0),
            percent(people.majority if people else None),
        )


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
    found: list[_Audited] = []
    for run, colour in zip(runs, colours, strict=True):
        if known := _known(run):
            own = {name: known[name] for name in _Audited.__annotations__ if name in known}
            found.append(_Audited(run.label, colour, **own))  # type: ignore[arg-type]
    if not found:
        return None
    kinds = _common_kinds(found)
    drawn = []
    if trusted := [(e.label, e.colour, e.calibration.best.bins) for e in found if e.calibration]:
        drawn.append(
            charts.chart(
                "Are they as sure as they are right?",
                reliability(trusted),
                "Below the dotted line a run promises too much, above it too little.",
            )
        )
    if damaged := [(e.label, e.colour, e.robustness.by_severity()) for e in found if e.robustness]:
        drawn.append(
            charts.chart(
                "What damage leaves of them",
                against_severity(damaged),
                "The mean over fifteen kinds of damage, from none to severity 5.",
            )
        )
    return Section(
        name="trust",
        question="Beyond accuracy",
        answer=(
            "What accuracy does not say, for the runs that were audited. Confidence is that after "
            "a temperature where validation pictures allowed one.",
            *_conditions(found, kinds),
        ),
        charts=tuple(drawn),
        tables=(Table("In figures", COLUMNS, tuple(each.cells(kinds) for each in found)),),
    )


def _known(run: Run) -> dict[str, Answer]:
    answers = known_answers(RunFolder(run.folder))
    return {name: each for name, each in answers.items() if not isinstance(each, Missing)}


def _common_kinds(found: Sequence[_Audited]) -> tuple[str, ...]:
    """The out-of-distribution images that all runs with a look at some were shown."""
    shown = [each.novelty.results for each in found if each.novelty]
    return tuple(kind for kind in shown[0] if all(kind in each for each in shown)) if shown else ()


def _conditions(found: Sequence[_Audited], kinds: Sequence[str]) -> list[str]:
    """What the figures are about, and where runs were measured differently."""
    sentences = []
    if kinds:
        sentences.append(
            f"Strange pictures, told by confidence, are those that all of them saw: "
            f"{', '.join(kinds)}."
        )
    measured = [each.robustness for each in found if each.robustness]
    if len(damaged := {(each.num_images, each.official) for each in measured}) > 1:
        ways = "; ".join(
            counted(number, "picture") + (" of CIFAR-10-C" if official else "")
            for number, official in sorted(damaged)
        )
        sentences.append(
            f"Damage was measured in different ways ({ways}), so differences of a point or two say "
            "nothing."
        )
    return sentences
