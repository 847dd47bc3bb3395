"""The finished runs of a study, by variant and seed; and any runs as a study."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tenfold.evaluation.runs import END, Run, read_run
from tenfold.formatting import listed
from tenfold.recipe.dotted import as_texts
from tenfold.results.studies import Machine, PlannedVariant, StudyPlan, read_plan
from tenfold.studies.running import Record, read_records


@dataclass(frozen=True, eq=False)
class VariantRuns:
    """A variant of a study, what was planned and what is finished, by seed; recipe: its first
    trial's."""

    planned: PlannedVariant
    recipe: Mapping[str, Any]
    num_planned: int
    runs: Mapping[int, Run]

    @property
    def label(self) -> str:
        """What tables and charts call it."""
        return self.planned.label

    @property
    def last_epoch(self) -> int:
        """How many epochs its longest run was trained for, or is to be."""
        known = [run.training.epochs for run in self.runs.values() if run.training]
        return max(known) if known else int(self.recipe.get("training", {}).get("epochs", 0))

    @property
    def milestones(self) -> list[int]:
        """The epochs on the way after which a run was evaluated, or is to be."""
        epochs = {int(epoch) for epoch in self.recipe.get("training", {}).get("milestones") or []}
        epochs.update(*(run.milestones for run in self.runs.values()))
        return sorted(epoch for epoch in epochs if epoch < self.last_epoch)

    def accuracies(
        self, split: str, *, epoch: int = END, in_training_mode: bool = False
    ) -> dict[int, float]:
        """The accuracy on `split` after `epoch` of each seed that has one."""
        found = {
            seed: run.accuracy(split, epoch=epoch, in_training_mode=in_training_mode)
            for seed, run in self.runs.items()
        }
        return {seed: value for seed, value in found.items() if value is not None}

    @property
    def typical(self) -> Run | None:
        """The evaluated run in the middle, so that nothing is shown on the luckiest seed."""
        scored = sorted(
            (run.shown_scores.accuracy, seed) for seed, run in self.runs.items() if run.shown_scores
        )
        return self.runs[scored[len(scored) // 2][1]] if scored else None

    def num_images(self, split: str) -> int | None:
        """How many images `split` has, as its first run that knows says."""
        return next((n for run in self.runs.values() if (n := run.num_images(split))), None)


@dataclass(frozen=True, eq=False)
class StudyRuns:
    """A study as it stands; failed: the records of the trials that failed."""

    plan: StudyPlan
    variants: tuple[VariantRuns, ...]
    failed: tuple[Record, ...]

    @property
    def runs(self) -> list[Run]:
        """All finished runs, variant by variant."""
        return [run for variant in self.variants for run in variant.runs.values()]

    @property
    def machines(self) -> tuple[Machine, ...]:
        """Those that its runs name, each once."""
        found = dict.fromkeys(Machine.of(run.provenance) for run in self.runs)
        return tuple(m for m in found if any(value is not None for _, value in m))

    @cached_property
    def split(self) -> str:
        """The split that results are of: test, or validation where no run has a test."""
        has_test = any("test" in run.scores for run in self.runs)
        return "test" if has_test or not self.runs else "validation"


def read_study_runs(folder: Path) -> StudyRuns:
    """The study in `folder`, with the runs that are finished by now.

    Raises TenfoldError where there is no study, or where a file of it is damaged.
    """
    plan = read_plan(folder)
    records = read_records(folder, plan.trials)
    variants = []
    for variant in plan.variants:
        planned = [trial for trial in plan.trials if trial.variant == variant.label]
        runs = {
            # Of large data, the predictions of all runs together may not fit into memory.
            trial.seed: replace(read_run(folder / record.run), label=trial.trial, answers={})
            for trial in sorted(planned, key=lambda trial: trial.seed)
            if (record := records.get(trial.trial)) and record.status == "finished"
        }
        recipe = planned[0].recipe if planned else {}
        variants.append(VariantRuns(variant, recipe, len(planned), runs))
    name = plan.name or folder.resolve().name
    return StudyRuns(
        plan=plan.model_copy(update={"name": name, "title": plan.title or name}),
        variants=tuple(variants),
        failed=tuple(record for record in records.values() if record.status == "failed"),
    )


def are_of_same_images(runs: Sequence[Run]) -> bool:
    """Whether all runs were scored on the same data, as far as they say."""
    kinds = {
        (str(run.data.image_size), json.dumps(dict(run.data.checksums), sort_keys=True))
        for run in runs
    }
    return len({run.data_name for run in runs}) == 1 and len(kinds) == len(dict(kinds))


def as_study(runs: Sequence[Run]) -> StudyRuns:
    """`runs` as a study: a variant for each recipe, of which the first is the baseline.

    A run that repeats recipe, data and seed of another is a variant of its own: counted as one
    more seed, it would make the result look surer than it is.
    """
    groups: dict[tuple[str, int], dict[int, Run]] = {}
    for run in runs:
        recipe = {key: value for key, value in run.recipe.items() if key != "seed"}
        key = json.dumps([recipe, run.data_name, dict(run.data.checksums)], sort_keys=True)
        seed, number = run.seed or 0, 0
        while seed in groups.get((key, number), {}):
            number += 1
        groups.setdefault((key, number), {})[seed] = run
    firsts = [next(iter(group.values())) for group in groups.values()]
    labels = _labels(firsts)
    variants = tuple(
        VariantRuns(PlannedVariant(label=label), first.recipe, len(group), group)
        for label, first, group in zip(labels, firsts, groups.values(), strict=True)
    )
    title = listed(labels) if len(labels) <= 3 else f"{len(labels)} recipes compared"
    baseline = labels[0] if len(labels) > 1 else None
    return StudyRuns(StudyPlan(title=title, baseline=baseline, trials=()), variants, ())


def _labels(firsts: Sequence[Run]) -> list[str]:
    """Each recipe's name, with what sets it apart from others of the same name."""
    recipes = [(str(run.recipe.get("name") or run.label), as_texts(run.recipe)) for run in firsts]
    labels = []
    for (name, recipe), run in zip(recipes, firsts, strict=True):
        namesakes = [other for theirs, other in recipes if theirs == name]
        differing = [
            f"{key.rpartition('.')[2]} {value}"
            for key, value in recipe.items()
            if key not in ("description", "seed")
            and any(other.get(key) != value for other in namesakes)
        ]
        alone = name if len(namesakes) == 1 else run.label
        labels.append(f"{name}, {', '.join(differing[:3])}" if differing else alone)
    return labels if len(set(labels)) == len(labels) else [run.label for run in firsts]
