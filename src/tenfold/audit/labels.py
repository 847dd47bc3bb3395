"""Are the labels right? Images whose label the model doubts the most."""

import numpy as np

from tenfold.audit.answer import Answer, Unanswerable
from tenfold.audit.subject import Subject
from tenfold.evaluation import label_issues as measuring
from tenfold.evaluation.label_issues import LabelIssue, Recovered
from tenfold.evaluation.submissions import table_text

NUM_DOUBTFUL = 24
"""Images with a doubtful label that are kept to be shown."""


class Labels(Answer):
    """first: the most doubtful labels. known: how the ranking does on labels of CIFAR-10 that
    people have found to be wrong."""

    question = "Are the labels right?"
    template = "labels"

    split: str
    num_images: int
    num_judged: int
    num_likely: int
    first: tuple[LabelIssue, ...]
    known: Recovered | None

    def summary(self) -> str:
        unjudged = self.num_images - self.num_judged
        return f"{self.num_likely} of {self.num_judged:,} labels are doubtful" + (
            f"; {unjudged:,} could not be judged" if unjudged else ""
        )


def labels(subject: Subject) -> Labels:
    """Images whose label is probably wrong, among those that training did not see."""
    predictions = subject.measured_predictions()
    num_judged = measuring.count_judged(predictions)
    if not num_judged:
        raise Unanswerable(
            f"None of the {len(predictions.labels):,} labels could be judged: each is the only one "
            "of its class, or the model is right no more often than by chance."
        )
    ranked = measuring.rank_labels(predictions)
    first = ranked[:NUM_DOUBTFUL]
    rows = [
        [issue.id, issue.given, issue.suggested, f"{issue.quality:.6f}", str(issue.is_likely)]
        for issue in ranked
    ]
    table = table_text(["id", "given", "suggested", "quality", "likely_wrong"], rows)
    wrong = set(measuring.WRONG_IN_CIFAR10)
    return Labels(
        split=subject.split,
        num_images=len(ranked),
        num_judged=num_judged,
        num_likely=sum(issue.is_likely for issue in ranked),
        first=tuple(first),
        known=measuring.measure(ranked, wrong) if subject.is_of_cifar10 else None,
    ).having(
        {"first": subject.measured.pixels[np.array([issue.position for issue in first])]},
        {"labels.csv": table},
    )
