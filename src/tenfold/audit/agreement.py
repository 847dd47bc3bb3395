"""Does it see what people see? The model beside people's answers, for CIFAR-10."""

from pathlib import Path

import numpy as np

from tenfold.audit.answer import Answer, Unanswerable
from tenfold.audit.subject import Subject
from tenfold.evaluation import agreement as measuring
from tenfold.evaluation.agreement import Disagreement
from tenfold.evaluation.calibration import with_temperature
from tenfold.formatting import percent


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
    template = "agreement"

    model_alone: tuple[Case, ...]
    people_alone: tuple[Case, ...]

    def summary(self) -> str:
        return (
            f"says what most people say for {percent(self.majority)} of the pictures; loss "
            f"against their answers {self.soft_cross_entropy:.3f}, theirs {self.floor:.3f}"
        )


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

    cases = {
        name: tuple(map(case, getattr(found, name))) for name in ("model_alone", "people_alone")
    }
    pixels = subject.measured.pixels
    return Agreement(**dict(found) | cases).having(
        {name: pixels[[each.position for each in cases[name]]] for name in cases}
    )
