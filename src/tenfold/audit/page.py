"""A section of the page for each question that an audit answers."""

from collections.abc import Mapping

from tenfold.audit import PARTS
from tenfold.audit.answer import Answer, Missing
from tenfold.audit.store import answer_type
from tenfold.reporting.charts import Charts
from tenfold.reporting.section import Section


def sections(answers: Mapping[str, Answer], charts: Charts) -> tuple[Section, ...]:
    """A section for each question that was asked, in their order.

    One that lacked something says so, unless it is none for this run at all.
    """
    found = []
    for name in sorted(answers, key=[*PARTS, *answers].index):
        answer = answers[name]
        if isinstance(answer, Missing):
            if answer.for_good:
                continue
            again = f"With that mended, this command answers the question: tenfold audit RUN {name}"
            section = Section((answer.missing, again))
        else:
            section = answer.section(charts)
        question = answer.heading or answer_type(name).question or name
        found.append(section._replace(name=name, question=question, sources=answer.sources))
    return tuple(found)
