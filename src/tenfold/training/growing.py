"""Pictures that grow while training goes on: sizes for pictures of other sizes."""

from tenfold.recipe import Recipe

SMALLEST = 12
"""Side in pixels of the smallest pictures that the fast networks are given."""


def with_sizes_for(recipe: Recipe, side: int) -> Recipe:
    """`recipe` with its sizes, which are those for pictures of 32 pixels, scaled to `side`."""
    training = recipe.training
    sizes = tuple(min(max(round(size * side / 64) * 2, SMALLEST), side) for size in training.sizes)
    return recipe.but(training=training.but(sizes=sizes))
