"""What several runs show together: groups of seeds, differences and disagreements."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.evaluation.predictions import Predictions
from tenfold.evaluation.runs import Run
from tenfold.recipe.dotted import flatten
from tenfold.reporting.comparison_figures import ClassGain

_Z = 1.959963984540054  # 95 % of a normal distribution lies within this many deviations


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one recipe that differ in nothing but the seed, best first."""

    label: str
    runs: tuple[Run, ...]

    @property
    def accuracies(self) -> list[float]:
        """The accuracy of each run that has one."""
        return [run.shown_scores.accuracy for run in self.runs if run.shown_scores]

    @property
    def mean(self) -> float | None:
        """Their mean, or None where no run has been evaluated."""
        return statistics.fmean(self.accuracies) if self.accuracies else None

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation over seeds, or None for fewer than two."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def typical(self) -> Run:
        """The run in the middle, so that nothing is shown on the luckiest seed."""
        scored = [run for run in self.runs if run.shown_scores]
        return scored[len(scored) // 2] if scored else self.runs[0]


@dataclass(frozen=True, eq=False)
class Disagreement:
    """How two runs answer the same pictures.

    only_first, only_second: ids of the pictures that this run alone gets right.
    differing: on how many pictures the answers differ, be they right or wrong.
    """

    first: Run
    second: Run
    num_images: int
    differing: int
    only_first: NDArray[np.str_]
    only_second: NDArray[np.str_]
    both_right: int

    @property
    def share(self) -> float:
        """The share of the pictures on which the answers differ."""
        return self.differing / self.num_images

    @property
    def both_wrong(self) -> int:
        """On how many pictures neither is right."""
        return self.num_images - self.both_right - len(self.only_first) - len(self.only_second)

    @property
    def difference(self) -> float:
        """The first's accuracy less the second's."""
        return (len(self.only_first) - len(self.only_second)) / self.num_images

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of that difference, for paired answers (Agresti, Categorical Data
        Analysis, section on dependent proportions)."""
        first, second = len(self.only_first), len(self.only_second)
        variance = first + second - (first - second) ** 2 / self.num_images
        half = _Z * math.sqrt(max(variance, 0.0)) / self.num_images
        return max(-1.0, self.difference - half), min(1.0, self.difference + half)

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        low, high = self.interval
        return low > 0 or high < 0


@dataclass(frozen=True)
class Setting:
    """A field of the recipe that differs, with each group's value."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several runs, grouped by recipe, the best group first."""

    groups: tuple[Group, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, group by group."""
        return tuple(run for group in self.groups for run in group.runs)

    @cached_property
    def same_pictures(self) -> bool:
        """Whether every evaluated run was scored on the same pictures of the same split."""
        known = [run for run in self.runs if run.shown_scores]
        kinds = {(run.shown_split, run.data_name, _test_checksum(run)) for run in known}
        ids = [np.sort(run.shown_answers.ids) for run in known if run.shown_answers]
        return len(kinds) == 1 and all(np.array_equal(ids[0], other) for other in ids[1:])

    @cached_property
    def pair(self) -> Disagreement | None:
        """The best group's typical run against the next one's that answered the same pictures.

        For a single group, the best seed against the worst.
        """
        runs = [group.typical for group in self.groups if group.mean is not None]
        if len(self.groups) == 1:
            runs = [run for run in self.runs if run.shown_scores]
            runs = [runs[0], runs[-1]] if len(runs) > 1 else []
        found = (disagreement(runs[0], other) for other in runs[1:])
        return next((pair for pair in found if pair), None)

    @cached_property
    def matrix(self) -> tuple[tuple[float | None, ...], ...]:
        """The share of pictures on which each two runs differ; None where they can't be matched."""
        runs = self.runs
        shares: dict[tuple[int, int], float | None] = {}
        for i, first in enumerate(runs):
            for j in range(i + 1, len(runs)):
                pair = disagreement(first, runs[j])
                shares[i, j] = shares[j, i] = pair.share if pair else None
        return tuple(tuple(shares.get((i, j)) for j in range(len(runs))) for i in range(len(runs)))

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """The fields of the recipes that differ between groups."""
        recipes = [as_texts(group.runs[0].recipe) for group in self.groups]
        keys = dict.fromkeys(key for recipe in recipes for key in recipe)
        return tuple(
            Setting(key, values)
            for key in keys
            if key not in ("name", "description", "seed")
            and len(set(values := tuple(recipe.get(key, "–") for recipe in recipes))) > 1
        )


def compare(runs: Sequence[Run]) -> Comparison:
    """Group `runs` by recipe and sort groups, and runs in them, by accuracy, best first."""
    by_recipe: dict[str, list[Run]] = {}
    for run in runs:
        by_recipe.setdefault(_recipe_without_seed(run), []).append(run)
    labels = _group_labels([members[0] for members in by_recipe.values()])
    groups = [
        Group(label, tuple(sorted(members, key=_badness)))
        for label, members in zip(labels, by_recipe.values(), strict=True)
    ]
    return Comparison(tuple(sorted(groups, key=lambda group: -(group.mean or -1.0))))


def disagreement(first: Run, second: Run) -> Disagreement | None:
    """How two runs answer the pictures that both answered, matched by id and by class name.

    None where they were scored on different splits or share no pictures.
    """
    a, b = first.shown_answers, second.shown_answers
    if a is None or b is None or first.shown_split != second.shown_split:
        return None
    if first.data_name != second.data_name:
        return None
    ids, in_a, in_b = np.intersect1d(a.ids, b.ids, return_indices=True)
    if not len(ids):
        return None
    right_a, right_b = a.right[in_a], b.right[in_b]
    return Disagreement(
        first=first,
        second=second,
        num_images=len(ids),
        differing=int((_answer_names(a)[in_a] != _answer_names(b)[in_b]).sum()),
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


def as_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested tables as dotted keys, with values as a recipe would write them."""
    found: dict[str, str] = {}
    for key, value in flatten(values).items():
        if key.endswith("_size") and isinstance(value, float) and value.is_integer():
            value = int(value)  # A number of images, where a share might have stood.
        found[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found


def _badness(run: Run) -> float:
    return -run.shown_scores.accuracy if run.shown_scores else 1.0


def _recipe_without_seed(run: Run) -> str:
    recipe = {key: value for key, value in run.recipe.items() if key != "seed"}
    return json.dumps([recipe, run.data.name, _test_checksum(run)], sort_keys=True)


def _test_checksum(run: Run) -> str:
    return json.dumps(run.data.checksums, sort_keys=True) if run.data.checksums else ""


def _group_labels(firsts: Sequence[Run]) -> list[str]:
    """Each recipe's name, with what sets it apart from others of the same name."""
    names = [str(run.recipe.get("name") or run.label) for run in firsts]
    recipes = [as_texts(run.recipe) for run in firsts]
    labels = []
    for name, recipe, run in zip(names, recipes, firsts, strict=True):
        namesakes = [other for other, theirs in zip(recipes, names, strict=True) if theirs == name]
        differing = [
            f"{key.rpartition('.')[2]} {value}"
            for key, value in recipe.items()
            if key not in ("description", "seed")
            and any(other.get(key) != value for other in namesakes)
        ]
        labels.append(f"{name}, {', '.join(differing[:3])}" if differing else name)
        if not differing and len(namesakes) > 1:
            labels[-1] = run.label
    return labels


def _answer_names(answers: Predictions) -> NDArray[np.str_]:
    names: NDArray[np.str_] = np.array(answers.class_names)[answers.predicted]
    return names
