"""A training in stages: each is a recipe of its own on the same network, of which a part learns."""

from torch import nn

from tenfold.evaluation.metrics import wilson_interval
from tenfold.formatting import percent
from tenfold.models import Pretrained
from tenfold.recipe import Recipe, StageOptions

FEWEST, GOOD_ENOUGH = 100, 0.99
"""Validation images, and the share of them that the head must have right, to stop at it."""

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


def why_stop(recipe: Recipe, *, trains: str, accuracy: float | None, num_images: int) -> str:
    """Why no stage need follow the one in which `trains` learned, or nothing where one should.

    accuracy: on `num_images` of validation. Where the interval of Wilson (1927) about a faultless
    network reaches down to it, no network can be shown to be better.
    """
    if not recipe.training.stop_at_head or trains != "head" or num_images < FEWEST:
        return ""
    least = max(GOOD_ENOUGH, wilson_interval(num_images, num_images).low)
    if accuracy is None or accuracy < least:
        return ""
    return (
        f"the head alone is right on {percent(accuracy, 2)} of {num_images:,} validation images, "
        "too many to show that more training helps (training.stop_at_head)"
    )


def depths_of(model: nn.Module) -> dict[nn.Parameter, int]:
    """How many blocks lie behind each parameter, the head's being at 0; empty where unknown."""
    if not isinstance(model, Pretrained):
        return {}
    groups = model.groups()
    return {p: len(groups) - 1 - place for place, group in enumerate(groups) for p in group}
