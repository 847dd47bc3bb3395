"""A section of the page for each question that an audit answers."""

from collections.abc import Mapping

from markupsafe import Markup

from tenfold.audit import PARTS
from tenfold.audit.answer import Answer, Missing
from tenfold.audit.store import answer_type
from tenfold.reporting.charts import Charts
from tenfold.reporting.section import Section
from tenfold.reporting.templating import environment


def sections(answers: Mapping[str, Answer], charts: Charts) -> tuple[Section, ...]:
    """A section for each question that was asked, in their order, but for those that are none for
    this run at all."""
    found = []
    for name in sorted(answers, key=[*PARTS, *answers].index):
        answer = answers[name]
        if isinstance(answer, Missing) and answer.for_good:
            continue
        template = environment().get_template(f"audit/{answer.template}.html")
        body = template.render(it=answer, name=name, chart=charts.chart, **answer.figures())
        question = answer.heading or answer_type(name).question or name
        found.append(Section(name, question, Markup(body)))  # Templates escape what they show.
    return tuple(found)
