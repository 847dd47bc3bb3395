"""Recipes: everything that decides what a run does."""

from tenfold.recipe.load import (
    from_keywords,
    load_recipe,
    recipe_from_dict,
    require_effect,
    shipped_recipes,
    without_places,
)
from tenfold.recipe.models import (
    AugmentationOptions,
    DataOptions,
    DistillationOptions,
    EvaluationOptions,
    Recipe,
    StageOptions,
    TrainingOptions,
)
from tenfold.registry import Options, PartOptions

__all__ = [
    "AugmentationOptions",
    "DataOptions",
    "DistillationOptions",
    "EvaluationOptions",
    "Options",
    "PartOptions",
    "Recipe",
    "StageOptions",
    "TrainingOptions",
    "from_keywords",
    "load_recipe",
    "recipe_from_dict",
    "require_effect",
    "shipped_recipes",
    "without_places",
]
