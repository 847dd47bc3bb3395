"""Which options of a recipe's tables go together."""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenfold.recipe.models import Recipe


_OF_FEATURES = "where the head trains alone, on features that are computed before"


def combinations(recipe: "Recipe") -> Iterator[tuple[str, bool, str]]:
    """What one table asks of another: a field, whether it holds there, and what is expected."""
    model, training, stages = recipe.model, recipe.training, recipe.stages
    is_pretrained = model.name == "pretrained"
    has_norms = getattr(model, "norm", "batch") != "none"
    yield (
        "data.normalisation",
        is_pretrained or recipe.data.normalisation != "pretrained",
        "another than 'pretrained' unless model.name is 'pretrained'",
    )
    yield (
        "stages",
        is_pretrained or not stages,
        "[] (--set stages=[]) unless model.name is 'pretrained'",
    )
    yield (
        "training.milestones",
        not (stages and training.milestones),
        "empty where there are stages",
    )
    yield (
        "training.time_limit_seconds",
        not (stages and training.time_limit_seconds),
        "0 where there are stages",
    )
    is_taught = bool(stages and recipe.distillation.teacher)
    yield "distillation.teacher", not is_taught, "empty where there are stages"
    if stages and all(stage.trains == "head" for stage in stages):
        for name in ("cutout", "random_erasing", "mixup", "cutmix", "also"):
            words = f"{'[]' if name == 'also' else 0} {_OF_FEATURES}"
            yield f"augmentation.{name}", not getattr(recipe.augmentation, name), words
    yield (
        "optimizer.name",
        recipe.optimizer.name != "muon" or (has_norms and model.part.muon),
        "another than muon, which is for convolutions that a norm follows",
    )
    yield (
        "training.sizes",
        model.name != "speedrun"
        or all((size - model.whitening_size + 1) >> len(model.widths) for size in training.sizes),
        "sizes that the model can halve as often as it has widths",
    )
    yield (
        "training.sizes",
        model.part.any_size or not training.sizes,
        f"empty with the model {model.name}, which takes images of one size",
    )
    yield (
        "training.label_smoothing",
        recipe.loss.name == "cross_entropy" or not training.label_smoothing,
        "0 unless loss.name is 'cross_entropy'",
    )
    if training.milestones:
        yield from _of_milestones(recipe)


def _of_milestones(recipe: "Recipe") -> Iterator[tuple[str, bool, str]]:
    training, schedule = recipe.training, recipe.schedule
    milestones = training.milestones
    rising = all(a < b for a, b in itertools.pairwise((0, *milestones)))
    yield (
        "training.milestones",
        rising and milestones[-1] <= training.epochs,
        f"rising numbers from 1 to training.epochs, which is {training.epochs}",
    )
    constant = schedule.name == "constant" and schedule.warmup_epochs <= milestones[0]
    yield (
        "training.milestones",
        constant and training.early_stopping == 0 and training.time_limit_seconds == 0,
        "empty unless schedule.name is 'constant', with no warm-up after the first milestone, and "
        "early_stopping and the time limit are 0, since only then is a milestone the same as a run "
        "of its own",
    )
