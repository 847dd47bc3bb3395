"""A training in stages: each is a recipe of its own on the same network, of which a part learns."""

from dataclasses import replace

from torch import nn

from tenfold.models import Pretrained
from tenfold.recipe import Recipe, StageOptions

WHOLE = StageOptions()
"""What a recipe without stages has: everything learns."""


def stages_of(recipe: Recipe) -> tuple[StageOptions, ...]:
    """The stages of `recipe`, at least one."""
    return recipe.stages or (WHOLE,)


def recipe_of(recipe: Recipe, stage: StageOptions) -> Recipe:
    """`recipe` with the epochs and the rate of `stage`."""
    return replace(
        recipe,
        training=replace(recipe.training, epochs=stage.epochs or recipe.training.epochs),
        optimizer=replace(recipe.optimizer, lr=stage.lr or recipe.optimizer.lr),
    )


def depths_of(model: nn.Module) -> dict[nn.Parameter, int]:
    """How many blocks lie behind each parameter, the head's being at 0; empty where unknown."""
    if not isinstance(model, Pretrained):
        return {}
    groups = model.groups()
    return {p: len(groups) - 1 - place for place, group in enumerate(groups) for p in group}
