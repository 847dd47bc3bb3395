"""A training in stages: each is a recipe of its own on the same network, of which a part learns."""

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
    training = recipe.training.but(epochs=stage.epochs or recipe.training.epochs)
    optimizer = recipe.optimizer.but(lr=stage.lr) if stage.lr else recipe.optimizer
    return recipe.but(training=training, optimizer=optimizer)


def depths_of(model: nn.Module) -> dict[nn.Parameter, int]:
    """How many blocks lie behind each parameter, the head's being at 0; empty where unknown."""
    if not isinstance(model, Pretrained):
        return {}
    groups = model.groups()
    return {p: len(groups) - 1 - place for place, group in enumerate(groups) for p in group}
