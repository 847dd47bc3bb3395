"""What the page of several runs shows beside what it shows of any study: who is right where."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.audit.answer import Missing
from tenfold.audit.calibration import reliability
from tenfold.audit.robustness import against_severity
from tenfold.audit.store import known_answers
from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.runs import Run
from tenfold.recipe.dotted import as_texts
from tenfold.reporting.galleries import Card, Loader, SplitImages, disputed_cards
from tenfold.reporting.study.page import view_study
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


class ClassGain(NamedTuple):
    """The share of a class's images that each of two runs gets right."""

    name: str
    before: float
    after: float

    @property
    def gain(self) -> float:
        """How much more of the class the second gets right; negative where it gets less."""
        return self.after - self.before


def view_runs(runs: Sequence[Run], *, loader: Loader) -> dict[str, Any]:
    """The values of the template for several runs, which are a study with a variant a recipe."""
    study = as_study(runs)
    summary = summarise_runs(study)
    sentences = [comparison.sentence for comparison in summary.comparisons[:3]]
    summary = summary.model_copy(update={"findings": (*sentences, *summary.findings)})
    values = view_study(summary)
    of_run = {
        run.folder: values["marks"][variant.label]
        for variant in study.variants
        for run in variant.runs.values()
    }
    pair = most_telling_pair(study)
    images = SplitImages(pair.first, loader) if pair else None
    shares = {(a.folder, b.folder): disagreement(a, b) for a in runs for b in runs if a is not b}
    return values | {
        "runs": runs,
        "of_run": of_run,
        "pair": pair,
        "disputed": _disputed(pair, images) if pair and images else (),
        "images": images,
        "disagreements": shares if len(runs) > 2 and any(shares.values()) else {},
        "class_gains": class_gains(pair.first, pair.second) if pair else (),
        "settings": different_settings(study),
        "networks": dense_and_convolutional(study),
        "trust": compare_trust(runs, [of_run[run.folder].colour for run in runs]),
    }


def compare_trust(runs: Sequence[Run], colours: Sequence[str]) -> dict[str, Any]:
    """What audits found of `runs`, each drawn in its colour; empty where none was audited."""
    audited = []
    for run, colour in zip(runs, colours, strict=True):
        answers = known_answers(RunFolder(run.folder))
        known = {name: one for name, one in answers.items() if not isinstance(one, Missing)}
        audited += [(run.label, colour, known)] if known else []

    def of(question: str) -> list[tuple[str, str, Any]]:
        """Label, colour and answer of each that has one."""
        return [(name, ink, found[question]) for name, ink, found in audited if question in found]

    if not audited:
        return {}
    novel, calibrated, damaged = of("novelty"), of("calibration"), of("robustness")
    kinds = list(novel[0][2].results) if novel else []
    bins = [(label, ink, each.best.bins) for label, ink, each in calibrated]
    curves = [(label, ink, each.by_severity()) for label, ink, each in damaged]
    return {
        "audited": [(label, answers) for label, _, answers in audited],
        "kinds": [kind for kind in kinds if all(kind in each.results for *_, each in novel)],
        "ways": {(each.num_images, each.official) for *_, each in damaged},
        "reliability": reliability(bins) if bins else None,
        "severities": against_severity(curves) if curves else None,
    }


def most_telling_pair(study: StudyRuns) -> Disagreement | None:
    """Of the variant that is right most often and the baseline, or the next one, a typical run
    each; of a single variant its best seed and its worst. None where they can't be matched."""
    typical = [run for variant in study.variants if (run := variant.typical)]
    if len(study.variants) == 1:
        typical = study.runs
    scored = {run: s.accuracy for run in typical if (s := run.shown_scores)}
    ordered = sorted(scored, key=lambda run: -scored[run])
    if len(ordered) < 2:
        return None
    others = [*dict.fromkeys(typical[:1] + ordered)] if len(study.variants) > 1 else ordered[-1:]
    found = (disagreement(ordered[0], other) for other in others if other is not ordered[0])
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
    right_a, right_b = a.right[in_a], b.right[in_b]
    return Disagreement(
        first=first,
        second=second,
        num_images=len(ids),
        share=float((_predicted(a)[in_a] != _predicted(b)[in_b]).mean()),
        only_first=ids[right_a & ~right_b],
        only_second=ids[right_b & ~right_a],
        both_right=int((right_a & right_b).sum()),
    )


def class_gains(first: Run, second: Run) -> tuple[ClassGain, ...]:
    """What `first` gets right of each class against `second`, the biggest gain first."""
    if not (first.shown_scores and second.shown_scores):
        return ()
    before = {score.name: score.recall for score in second.shown_scores.per_class}
    gains = [
        ClassGain(score.name, before[score.name] or 0.0, score.recall or 0.0)
        for score in first.shown_scores.per_class
        if score.name in before and score.num_images
    ]
    return tuple(sorted(gains, key=lambda gain: -gain.gain))


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


def _disputed(pair: Disagreement, images: SplitImages) -> list[tuple[Run, Run, list[Card]]]:
    """Who alone is right, who is wrong, and images of it."""
    first, second = pair.first, pair.second
    sides = ((first, second, pair.only_first), (second, first, pair.only_second))
    return [(a, b, disputed_cards(ids, a, b, images)) for a, b, ids in sides]


def _predicted(predictions: Predictions) -> NDArray[np.str_]:
    names: NDArray[np.str_] = np.array(predictions.class_names)[predictions.predicted]
    return names
