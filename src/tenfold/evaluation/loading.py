"""The data set that a recipe is about, at the size that its network is best served with."""

from tenfold.data import Dataset, load
from tenfold.data.images import PHOTO_SIZE
from tenfold.models.pretrained import preprocessing_of
from tenfold.progress import Progress
from tenfold.recipe import Recipe


def load_data(
    recipe: Recipe, *, skip_broken: bool = False, progress: Progress | None = None
) -> Dataset:
    """What `recipe.data` names. Where its image_size is 0, small images keep their size and
    photographs are brought to `photo_size`.

    Raises TenfoldError as `tenfold.data.load` does.
    """
    return load(
        recipe.data.name,
        image_size=recipe.data.image_size,
        photo_size=photo_size(recipe),
        skip_broken=skip_broken,
        window=recipe.data.window,
        progress=progress,
    )


def photo_size(recipe: Recipe) -> int:
    """The side in pixels that photographs are brought to: the input size of a pretrained network,
    or 64 for one that learns from these images alone."""
    if recipe.model.name == "pretrained":
        return preprocessing_of(recipe.model.backbone, recipe.model.input_size).side
    return PHOTO_SIZE
