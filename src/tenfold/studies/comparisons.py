"""Every variant of a study against its baseline, on the same pictures."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tenfold.studies.statistics import (
    Difference,
    describe_difference,
    holm,
    mcnemar_p,
    welch_difference,
)
from tenfold.studies.study_runs import Answers, StudyRuns, VariantRuns


@dataclass(frozen=True)
class Comparison:
    """A variant against the baseline at the end of training.

    mcnemar_p: of the runs with the first seed that both have, None where they share none.
    num_pictures, num_own: how many pictures all runs answered, and the most that one did.
    """

    variant: str
    baseline: str
    epoch: int
    found: Difference
    p_holm: float
    mcnemar_p: float | None
    num_pictures: int
    num_own: int
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """As it stands in summary.json."""
        return {
            "variant": self.variant,
            "baseline": self.baseline,
            "epoch": self.epoch,
            "difference": self.found.difference,
            "low": self.found.low,
            "high": self.found.high,
            "p": self.found.p,
            "p_holm": self.p_holm,
            "mcnemar_p": self.mcnemar_p,
            "n": list(self.found.num_seeds),
            "sentence": self.sentence,
        }


@dataclass(frozen=True)
class _Test:
    """What is known of a pair before it is corrected for there being others."""

    found: Difference
    mcnemar_p: float | None
    num_pictures: int
    num_own: int


def compare_with_baseline(study: StudyRuns) -> list[Comparison]:
    """Every other variant whose answers can be matched with the baseline's, in the plan's order.

    Raises TenfoldError where predictions can't be read.
    """
    baseline = next((v for v in study.variants if v.label == study.baseline), None)
    theirs = _answers(baseline, study.split) if baseline else {}
    if baseline is None or not theirs:
        return []
    tests: dict[str, tuple[VariantRuns, _Test]] = {}
    for variant in study.variants:
        if variant is baseline:
            continue
        test = _test(_answers(variant, study.split), theirs)
        if test is not None:
            tests[variant.label] = variant, test
    corrected = holm([test.found.p for _, test in tests.values()])
    return [
        Comparison(
            variant=label,
            baseline=baseline.label,
            epoch=variant.last_epoch,
            found=test.found,
            p_holm=p_holm,
            mcnemar_p=test.mcnemar_p,
            num_pictures=test.num_pictures,
            num_own=test.num_own,
            sentence=describe_difference(
                test.found,
                variant=label,
                baseline=baseline.label,
                p_holm=p_holm,
                num_comparisons=len(tests),
            ),
        )
        for (label, (variant, test)), p_holm in zip(tests.items(), corrected, strict=True)
    ]


def _answers(variant: VariantRuns, split: str) -> dict[int, Answers]:
    """The answers of each seed whose run kept some."""
    found = {run.seed: run.answers(split) for run in variant.runs}
    return {seed: answers for seed, answers in found.items() if answers is not None}


def _test(ours: Mapping[int, Answers], theirs: Mapping[int, Answers]) -> _Test | None:
    """The tests of two variants' answers by seed; None where they share no pictures."""
    everyone = [*ours.values(), *theirs.values()]
    ids = functools.reduce(_common, (answers.ids for answers in everyone))
    if not ours or not len(ids):
        return None
    first, second = (
        {seed: answers.right[np.searchsorted(answers.ids, ids)] for seed, answers in side.items()}
        for side in (ours, theirs)
    )
    shared = sorted(set(first) & set(second))
    return _Test(
        found=welch_difference(np.stack([*first.values()]), np.stack([*second.values()])),
        mcnemar_p=mcnemar_p(first[shared[0]], second[shared[0]]) if shared else None,
        num_pictures=len(ids),
        num_own=max(len(answers.ids) for answers in everyone),
    )


def _common(first: Any, second: Any) -> Any:
    if np.array_equal(first, second):
        return first
    return np.intersect1d(first, second, assume_unique=True)
