"""What audits found of several runs, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tenfold.audit.agreement import Agreement
from tenfold.audit.answer import Missing
from tenfold.audit.calibration import Calibration, reliability
from tenfold.audit.novelty import Novelty
from tenfold.audit.robustness import Robustness, against_severity
from tenfold.audit.store import known_answers
from tenfold.evaluation.runs import Run
from tenfold.reporting.charts import Charts
from tenfold.reporting.section import Section
from tenfold.reporting.templating import environment
from tenfold.run import RunFolder


@dataclass(frozen=True)
class Audited:
    """What is known of a run, with its name and colour in the comparison."""

    label: str
    colour: str
    calibration: Calibration | None = None
    robustness: Robustness | None = None
    novelty: Novelty | None = None
    agreement: Agreement | None = None

    def mean_auroc(self, kinds: Sequence[str]) -> float | None:
        """How well confidence tells images of these kinds from known ones."""
        if self.novelty is None or not kinds:
            return None
        return sum(self.novelty.results[kind][0].auroc for kind in kinds) / len(kinds)


def compare_trust(runs: Sequence[Run], colours: Sequence[str], charts: Charts) -> Section | None:
    """The audited ones of `runs`, each in its colour; None where none was audited."""
    found: list[Audited] = []
    for run, colour in zip(runs, colours, strict=True):
        answers = known_answers(RunFolder(run.folder))
        known = {name: each for name, each in answers.items() if not isinstance(each, Missing)}
        own = {name: known[name] for name in Audited.__annotations__ if name in known}
        if known:
            found.append(Audited(run.label, colour, **own))  # type: ignore[arg-type]
    if not found:
        return None
    shown = [each.novelty.results for each in found if each.novelty]
    body = (
        environment()
        .get_template("audit/comparison.html")
        .render(
            runs=found,
            kinds=[kind for kind in shown[0] if all(kind in each for each in shown)]
            if shown
            else [],
            ways={(e.robustness.num_images, e.robustness.official) for e in found if e.robustness},
            reliability=reliability(
                (e.label, e.colour, e.calibration.best.bins) for e in found if e.calibration
            ),
            severities=against_severity(
                (e.label, e.colour, e.robustness.by_severity()) for e in found if e.robustness
            ),
            chart=charts.chart,
        )
    )
    return Section("trust", "Beyond accuracy", Markup(body))  # The template escapes names.
