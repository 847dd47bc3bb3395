"""Every variant of a study against its baseline, on the same pictures."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.evaluation.predictions import load_predictions
from tenfold.evaluation.runs import Run
from tenfold.results.studies import Comparison
from tenfold.run import RunFolder
from tenfold.studies.finished import StudyRuns, VariantRuns
from tenfold.studies.statistics import (
    Difference,
    describe_difference,
    holm,
    mcnemar_p,
    welch_difference,
)


class Answers(NamedTuple):
    """Which images a run got right: ids (N,), sorted and distinct, and right (N,) bool."""

    ids: NDArray[np.str_]
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class _Test:
    """What is known of a pair before it is corrected for there being others."""

    found: Difference
    mcnemar_p: float | None
    num_images: int
    num_own: int


def compare_with_baseline(study: StudyRuns) -> list[Comparison]:
    """Every other variant whose answers can be matched with the baseline's, in the plan's order.

    Raises TenfoldError where predictions can't be read.
    """
    baseline = next((v for v in study.variants if v.label == study.plan.baseline), None)
    theirs = _answers(baseline, study.split) if baseline else {}
    if baseline is None or not theirs:
        return []
    tests: dict[str, tuple[VariantRuns, _Test]] = {}
    for variant in study.variants:
        if variant is baseline:
            continue
        if not are_of_same_images([*variant.runs.values(), *baseline.runs.values()]):
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
            difference=test.found.difference,
            low=test.found.low,
            high=test.found.high,
            p=test.found.p,
            p_holm=p_holm,
            mcnemar_p=test.mcnemar_p,
            n=test.found.num_seeds,
            sentence=describe_difference(
                test.found,
                variant=label,
                baseline=baseline.label,
                p_holm=p_holm,
                num_comparisons=len(tests),
            ),
            num_images=test.num_images,
            num_own=test.num_own,
        )
        for (label, (variant, test)), p_holm in zip(tests.items(), corrected, strict=True)
    ]


def are_of_same_images(runs: Sequence[Run]) -> bool:
    """Whether all runs were scored on the same data, as far as they say."""
    sizes = {
        (str(run.data.image_size), json.dumps(dict(run.data.checksums), sort_keys=True))
        for run in runs
    }
    return len({run.data_name for run in runs}) == 1 and len(sizes) == len(dict(sizes))


def _answers(variant: VariantRuns, split: str) -> dict[int, Answers]:
    """The answers of each seed whose run kept some."""
    found = {}
    for seed, run in variant.runs.items():
        path = RunFolder(run.folder).predictions(split)
        predictions = run.answers.get(split)
        if predictions is None and path.exists():
            predictions = load_predictions(path)
        if predictions is not None:
            ids, first = np.unique(predictions.ids, return_index=True)
            found[seed] = Answers(ids, predictions.right[first])
    return found


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
        num_images=len(ids),
        num_own=max(len(answers.ids) for answers in everyone),
    )


def _common(first: Any, second: Any) -> Any:
    if np.array_equal(first, second):
        return first
    return np.intersect1d(first, second, assume_unique=True)
