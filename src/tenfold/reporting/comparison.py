"""What the page of several runs shows beside what it shows of any study: who is right where."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.audit.answer import Missing
from tenfold.audit.calibration import reliability
from tenfold.audit.robustness import against_severity
from tenfold.audit.store import known_answers
from tenfold.evaluation.runs import Run
from tenfold.recipe.dotted import as_texts
from tenfold.reporting.explorer import explore_pair
from tenfold.reporting.galleries import Loader, SplitImages, disputed_cards
from tenfold.reporting.study import view_study
from tenfold.run import RunFolder
from tenfold.studies.analysis import summarise_runs
from tenfold.studies.finished import StudyRuns, are_of_same_images, as_study


@dataclass(frozen=True, eq=False)
class Disagreement:
    """What two runs predict for the same images.

    only_first, only_second: ids of the images that this run alone gets right. share: of the images
    for which the predictions differ, be they right or wrong.
    """

    first: Run
    second: Run
    num_images: int
    share: float
    only_first: NDArray[np.str_]
    only_second: NDArray[np.str_]
    both_right: int

    @property
    def both_wrong(self) -> int:
        """On how many images neither is right."""
        return self.num_images - self.both_right - len(self.only_first) - len(self.only_second)


def view_runs(runs: Sequence[Run], *, loader: Loader) -> dict[str, Any]:
    """The values of the template for several runs, which are a study with a variant a recipe."""
    study = as_study(runs)
    values = view_study(summarise_runs(study))
    of_run = {
        run.folder: values["marks"][variant.label]
        for variant in study.variants
        for run in variant.runs.values()
    }
    values |= {
        "runs": runs,
        "of_run": of_run,
        "settings": different_settings(study),
        "networks": dense_and_convolutional(study),
        "trust": compare_trust({run: of_run[run.folder].colour for run in runs}),
        "explorer": None,
        "disagreements": {},
    }
    values["pair"] = pair = most_telling_pair(study)
    if pair is None:
        return values
    first, second, images = pair.first, pair.second, SplitImages(pair.first, loader)
    sides = ((first, second, pair.only_first), (second, first, pair.only_second))
    if len(runs) > 2:
        values["disagreements"] = {
            (a.folder, b.folder): disagreement(a, b) for a, b in permutations(runs, 2)
        }
    return values | {
        "images": images,
        "disputed": [(a, b, disputed_cards(ids, a, b, images)) for a, b, ids in sides],
        "class_gains": class_gains(first, second),
        "explorer": explore_pair(first, second, images),
    }


def compare_trust(colours: dict[Run, str]) -> dict[str, Any]:
    """What audits found of runs, each drawn in its colour; empty where none was audited."""
    audited = []
    for run, colour in colours.items():
        answers = known_answers(RunFolder(run.folder))
        known = {name: one for name, one in answers.items() if not isinstance(one, Missing)}
        audited += [(run.label, colour, known)] if known else []

    def of(question: str) -> list[tuple[str, str, Any]]:
        """Label, colour and answer of each that has one."""
        return [(name, ink, found[question]) for name, ink, found in audited if question in found]

    novel, calibrated, damaged = of("novelty"), of("calibration"), of("robustness")
    kinds = list(novel[0][2].results) if novel else []
    bins = [(label, ink, each.best.bins) for label, ink, each in calibrated]
    curves = [(label, ink, each.by_severity()) for label, ink, each in damaged]
    found = {
        "audited": [(label, answers) for label, _, answers in audited],
        "kinds": [kind for kind in kinds if all(kind in each.results for *_, each in novel)],
        "ways": {(each.num_images, each.official) for *_, each in damaged},
        "reliability": reliability(bins) if bins else None,
        "severities": against_severity(curves) if curves else None,
    }
    return found if audited else {}


def most_telling_pair(study: StudyRuns) -> Disagreement | None:
    """Of the variant that is right most often and the baseline, or the next one, a typical run
    each; of a single variant its best seed and its worst. None where they can't be matched."""
    several = len(study.variants) > 1
    typical = [v.typical for v in study.variants] if several else study.runs
    scored = {run: run.shown_scores.accuracy for run in typical if run and run.shown_scores}
    if len(scored) < 2:
        return None
    best, *others = sorted(scored, key=lambda run: -scored[run])
    others = [*dict.fromkeys([next(iter(scored)), *others])] if several else others[-1:]
    found = (disagreement(best, other) for other in others if other is not best)
    return next((pair for pair in found if pair), None)


def disagreement(first: Run, second: Run) -> Disagreement | None:
    """What two runs predict for the images that both have, matched by id and by class name.

    None where they were scored on different splits or data, or share no images.
    """
    a, b = first.shown_answers, second.shown_answers
    if a is None or b is None or first.shown_split != second.shown_split:
        return None
    ids, in_a, in_b = np.intersect1d(a.ids, b.ids, return_indices=True)
    if not len(ids) or not are_of_same_images([first, second]):
        return None
    named_a, named_b = (np.array(each.class_names)[each.predicted] for each in (a, b))
    right_a, right_b = a.right[in_a], b.right[in_b]
    return Disagreement(
        first=first,
        second=second,
        num_images=len(ids),
        share=float((named_a[in_a] != named_b[in_b]).mean()),
        only_first=ids[right_a & ~right_b],
        only_second=ids[right_b & ~right_a],
        both_right=int((right_a & right_b).sum()),
    )


def class_gains(first: Run, second: Run) -> list[tuple[str, float, float]]:
    """Each class with its recall in `second` and in `first`, the biggest gain first."""
    if not (first.shown_scores and second.shown_scores):
        return []
    before = {score.name: score.recall or 0.0 for score in second.shown_scores.per_class}
    gains = [
        (score.name, before[score.name], score.recall or 0.0)
        for score in first.shown_scores.per_class
        if score.name in before and score.num_images
    ]
    return sorted(gains, key=lambda gain: gain[1] - gain[2])


def different_settings(study: StudyRuns) -> dict[str, list[str]]:
    """The fields of the recipes that differ between variants, with each one's value."""
    recipes = [as_texts(variant.recipe) for variant in study.variants]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    values = {key: [recipe.get(key, "–") for recipe in recipes] for key in keys}
    words = ("name", "description", "seed")
    return {k: v for k, v in values.items() if k not in words and len(set(v)) > 1}


def dense_and_convolutional(study: StudyRuns) -> dict[str, Run]:
    """A typical run of an `ann` and of a `cnn`, where these two and no others are compared."""
    typical = [run for variant in study.variants if (run := variant.typical)]
    found = {run.model_name: run for run in typical}
    matched = len(study.variants) == 2 and set(found) == {"ann", "cnn"}
    return found if matched and disagreement(*typical) else {}
