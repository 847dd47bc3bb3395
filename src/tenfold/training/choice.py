"""A recipe for images of one's own, from how many there are and how large."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tenfold.data import Dataset, Images
from tenfold.data.splits import TrainingData, training_data
from tenfold.errors import install_command
from tenfold.evaluation.evaluate import splitting
from tenfold.evaluation.loading import load_data, photo_size
from tenfold.models.pretrained import has_weights
from tenfold.progress import Progress
from tenfold.recipe import Recipe, load_recipe

TRANSFER, SCRATCH = "transfer-lite0", "fast-91"

ENOUGH = 30_000
"""Small images that a network of their own learns as much from as from ImageNet, and faster."""

SMALL = 48
"""Side in pixels below which enlarging for a pretrained network shows no more than there is."""

PASSES = 8_000
"""Images that the whole network is fine-tuned on, each time counted: minutes on two cores."""

MOST_EPOCHS = 6

UNBALANCED = 3
"""Times as many images that one class has as another, from which on it is said."""

PIXELS_AT_ONCE = 16 * 160**2
"""Of a batch that the whole network learns from: some 600 MB of activations. A larger one is
computed in parts, to the same result but for rounding, for the norms keep their statistics."""

FEWEST_STEPS = 400
"""Of a network that begins with nothing, however few the images."""


SMALLEST = 12
"""Side in pixels of the smallest images that the fast networks are given."""


class Choice(NamedTuple):
    """A recipe, why it was chosen, in a sentence, and its data where that is loaded already."""

    recipe: Recipe
    reason: str
    dataset: Dataset | None = None


def choose_recipe(
    overrides: Sequence[str] = (), *, skip_broken: bool = False, progress: Progress | None = None
) -> Choice:
    """What to train on the data set that `overrides` name with `data.name`.

    What they say is done; the rest is chosen. Raises TenfoldError as `load_data` does.
    """
    is_there = says("model.", overrides) or has_pretrained()
    wanted = load_recipe(TRANSFER if is_there else SCRATCH, overrides)
    dataset = load_data(wanted, skip_broken=skip_broken, progress=progress)
    data = training_data(dataset, **splitting(wanted.data))
    chosen = _chosen(wanted, data, overrides, is_there=is_there)
    is_same = (chosen.recipe.data, chosen.recipe.model) == (wanted.data, wanted.model)
    return chosen._replace(dataset=dataset if is_same else None)


def has_pretrained() -> bool:
    """Whether the network of TRANSFER and its weights are installed."""
    return has_weights(str(load_recipe(TRANSFER).model.backbone))


def _chosen(
    wanted: Recipe, data: TrainingData, overrides: Sequence[str], *, is_there: bool
) -> Choice:
    """For `data`, beginning with the recipe `wanted`; is_there: a network that was trained."""
    number, side = len(data.train), min(data.train.size)
    facts = (
        f"{number:,} images of {side} pixels in {data.train.num_classes} classes{_balance(data)}"
    )
    if is_best_from_scratch(data.train) and not says("model.", overrides):
        reason = f"{facts}: {SCRATCH}, since so many small ones are best learnt from scratch."
        return Choice(with_sizes_for(load_recipe(SCRATCH, overrides), side), reason)
    if not is_there:
        why = (
            "there is no pretrained network here (in a clone of tenfold, "
            f"{install_command('pretrained')} brings one)"
        )
        reason = f"{facts}: {SCRATCH}, since {why}."
        chosen = wanted
        if not says("training.min_steps", overrides):
            chosen = chosen.but(training=chosen.training.but(min_steps=FEWEST_STEPS))
        return Choice(with_sizes_for(chosen, side), reason)
    if says("stages", overrides) or says("training.epochs", overrides):
        return Choice(wanted, f"{facts}: {wanted.name}, with the stages and epochs asked for.")
    return _fine_tuned(in_parts(wanted, number, overrides), number, facts)


def is_best_from_scratch(images: Images) -> bool:
    """Whether a network of their own learns as much from so many of this size as from ImageNet,
    and faster."""
    return min(images.size) < SMALL and len(images) >= ENOUGH


def _balance(data: TrainingData) -> str:
    """How many images the classes have, where some have many more than others."""
    counts = np.bincount(data.train.labels, minlength=data.train.num_classes)
    if counts.max() < UNBALANCED * counts.min():
        return ""
    names = data.train.class_names
    return (
        f", {counts.max():,} of {names[counts.argmax()]} and {counts.min():,} of "
        f"{names[counts.argmin()]} (training.balance=true makes them count alike)"
    )


def says(prefix: str, overrides: Sequence[str]) -> bool:
    """Whether one of `overrides` is of a field that begins with `prefix`."""
    return any(override.strip().startswith(prefix) for override in overrides)


def in_parts(recipe: Recipe, number: int, overrides: Sequence[str]) -> Recipe:
    """`recipe` with each batch of `number` images or fewer in parts that bound its memory."""
    training = recipe.training
    if says("training.accumulate", overrides) or recipe.model.name != "pretrained":
        return recipe
    batch = min(training.batch_size, number)
    parts = -(-batch * photo_size(recipe) ** 2 // PIXELS_AT_ONCE)
    return recipe.but(training=training.but(accumulate=max(1, min(parts, batch // 2))))


def _fine_tuned(recipe: Recipe, number: int, facts: str) -> Choice:
    """The head alone, and then as much of the whole network as minutes allow."""
    epochs = min(PASSES // number, MOST_EPOCHS)
    head, *others = recipe.stages
    why = "a network that has seen a million photographs needs few of yours"
    if epochs == 0:
        chosen = recipe.but(stages=(head,))
        return Choice(chosen, f"{facts}: the head of {recipe.name} alone, since {why}.")
    stages = (head, *(stage.but(epochs=epochs) for stage in others))
    return Choice(
        recipe.but(stages=stages),
        f"{facts}: {recipe.name}, its head and then all of it for {epochs} epochs, since {why}.",
    )


def with_sizes_for(recipe: Recipe, side: int) -> Recipe:
    """`recipe` with its sizes, which are those for images of 32 pixels, scaled to `side`."""
    training = recipe.training
    sizes = tuple(min(max(round(size * side / 64) * 2, SMALLEST), side) for size in training.sizes)
    return recipe.but(training=training.but(sizes=sizes))
