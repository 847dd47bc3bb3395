"""Does it see what people see? The model beside people's answers, for CIFAR-10."""

from pathlib import Path

import numpy as np

from tenfold.audit.answer import Answer, Unanswerable
from tenfold.audit.subject import Subject
from tenfold.evaluation import agreement as measuring
from tenfold.evaluation.agreement import Disagreement
from tenfold.evaluation.calibration import with_temperature
from tenfold.formatting import percent
from tenfold.reporting.charts import Charts
from tenfold.reporting.pictures import picture_uri
from tenfold.reporting.section import Section, Shown, Source, Strip

_SHOWN = (
    ("model_alone", "Easy for people, hard for it", "People agree, and it is unsure."),
    ("people_alone", "Hard for people, easy for it", "It is sure, and people are not."),
)


class Case(Disagreement):
    """An image: its class, the model's prediction, and the two commonest answers of people with
    their shares."""

    id: str
    true: str
    model: str
    people: tuple[tuple[str, float], ...]


class Agreement(Answer, measuring.Agreement):
    """The model beside people, and the images that only one of them is unsure about."""

    question = "Does it see what people see?"
    sources = (Source("Peterson et al. 2019, CIFAR-10H", "https://arxiv.org/abs/1908.07086"),)

    model_alone: tuple[Case, ...]
    people_alone: tuple[Case, ...]

    def summary(self) -> str:
        return (
            f"says what most people say for {percent(self.majority)} of the pictures; loss "
            f"against their answers {self.soft_cross_entropy:.3f}, theirs {self.floor:.3f}"
        )

    def section(self, charts: Charts) -> Section:
        answer = (
            "Some fifty people said what they see on each test picture. "
            f"{percent(self.human_accuracy)} of their answers are right; what most of them say is "
            f"right for {percent(self.majority_accuracy)} of the pictures. The model says what "
            f"most people say for {percent(self.majority)}.",
            "Where people are not of one mind, its second guess is theirs for "
            f"{percent(self.second_best, digits=0)} of the pictures. How unsure it is goes with "
            f"how unsure they are by {self.entropy_correlation:.2f}; 1 would be the same order of "
            "pictures, 0 none.",
            f"Its loss against people's answers is {self.soft_cross_entropy:.3f}; people "
            f"themselves would have {self.floor:.3f}.",
        )
        return Section(
            answer, strips=tuple(Strip(head, text, self._rows(name)) for name, head, text in _SHOWN)
        )

    def _rows(self, name: str) -> tuple[Shown, ...]:
        cases: tuple[Case, ...] = getattr(self, name)
        rows = []
        for pixels, case in zip(self.arrays[name], cases, strict=True):
            shares = [f"{what} {percent(share, digits=0)}" for what, share in case.people if share]
            lines = (f"is {case.true}, called {case.model}", f"people: {', '.join(shares)}")
            rows.append(Shown((picture_uri(pixels),), (case.true,), lines))
        return tuple(rows)


def agreement(subject: Subject, *, human: Path | None = None) -> Agreement:
    """The model beside people, for CIFAR-10."""
    if not subject.is_of_cifar10:
        raise Unanswerable("People's answers are known for the test pictures of CIFAR-10 alone.")
    answers = measuring.load_answers(human, progress=subject.progress)
    predictions = subject.measured_predictions()
    calibrated = with_temperature(predictions, subject.temperature)
    found = measuring.compare_with_people(calibrated, answers)
    names = predictions.class_names

    def case(each: Disagreement) -> Case:
        shares = answers[each.position]
        return Case(
            **dict(each),
            id=str(predictions.ids[each.position]),
            true=names[predictions.labels[each.position]],
            model=names[predictions.predicted[each.position]],
            people=tuple(
                (measuring.CLASS_NAMES[i], float(shares[i]))
                for i in np.argsort(-shares, kind="stable")[:2]
            ),
        )

    cases = {name: tuple(map(case, getattr(found, name))) for name, *_ in _SHOWN}
    pixels = subject.measured.pixels
    return Agreement(**dict(found) | cases).having(
        {name: pixels[[each.position for each in cases[name]]] for name in cases}
    )
