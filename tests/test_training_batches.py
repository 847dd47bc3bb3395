"""Batches: every picture once an epoch, and nothing that depends on who else is in the batch."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from tenfold.augment import shrink
from tenfold.data.images import Images
from tenfold.data.normalisation import Normalisation, normalisation_of
from tenfold.recipe import AugmentationOptions
from tenfold.training import batches as batches_module
from tenfold.training.batches import (
    TrainingImages,
    batch_sizes,
    derive_seed,
    epoch_batches,
    hardest,
    has_room,
    num_selected,
    seeded_generator,
    unseen_losses,
)

CPU = torch.device("cpu")
UNIT = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
EVERYTHING = AugmentationOptions(
    flip=True,
    translate=2,
    cutout=4,
    brightness=0.2,
    contrast=0.2,
    saturation=0.2,
    hue=0.1,
    trivialaugment=True,
    random_erasing=0.5,
)


def pictures(images, augmentation=None, *, normalisation=UNIT, seed=0, epoch=0):
    result = TrainingImages(
        images,
        augmentation=augmentation or AugmentationOptions(),
        normalisation=normalisation,
        device=CPU,
        seed=seed,
    )
    result.start_epoch(epoch)
    return result


def part(training, indices, *, step=0, number=0, batch_size=None):
    indices = torch.tensor(indices)
    return training.part(indices, step=step, batch_size=batch_size or len(indices), number=number)


# -- seeds and order -----------------------------------------------------------------------------


def test_no_two_purposes_share_a_seed():
    keys = [
        (seed, *parts)
        for seed in (0, 1, 11, -1, 10**30)
        for parts in (
            (),
            (1,),
            (11,),
            (1, 1),
            ("order", 0),
            ("order", 1),
            ("mix", 0),
            ("1",),
            ("",),
        )
    ]
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_the_same_in_every_process_and_version():
    # Recorded: another value would break the resuming of every run that is under way.
    assert derive_seed(0, "order", 0) == derive_seed(0, "order", 0)
    assert derive_seed(3, "mix", 1, 2) == 5_871_453_067_331_777_709
    assert torch.equal(
        torch.rand(5, generator=seeded_generator(1, "a")),
        torch.rand(5, generator=seeded_generator(1, "a")),
    )


@pytest.mark.parametrize("batch_size", [2, 3, 7, 64, 100])
@pytest.mark.parametrize("number", [2, 3, 4, 7, 8, 63, 64, 65, 99, 100, 101, 129])
def test_every_picture_comes_once_an_epoch(number, batch_size):
    batches = epoch_batches(number, batch_size, seed=0, epoch=0)
    assert sorted(torch.cat(batches).tolist()) == list(range(number))
    assert len(batches) == len(batch_sizes(number, batch_size))
    assert all(batch.dtype == torch.int64 for batch in batches)
    sizes = [len(batch) for batch in batches]
    assert min(sizes) >= 2
    assert max(sizes) <= batch_size + 1
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)


def test_row_29_a_single_picture_left_over_joins_the_batch_before():
    assert [len(b) for b in epoch_batches(9, 4, seed=0, epoch=0)] == [4, 5]
    assert [len(b) for b in epoch_batches(10, 4, seed=0, epoch=0)] == [4, 4, 2]
    assert [len(b) for b in epoch_batches(5, 64, seed=0, epoch=0)] == [5]
    assert [len(b) for b in epoch_batches(3, 2, seed=0, epoch=0)] == [3]


@pytest.mark.parametrize("least", [2, 4, 8])
@pytest.mark.parametrize("number", [8, 9, 63, 64, 65, 67, 68, 71, 72, 129])
def test_row_29_every_batch_can_be_split_into_parts_of_two(number, least):
    batches = epoch_batches(number, 16, seed=0, epoch=0, least=least)
    assert sorted(torch.cat(batches).tolist()) == list(range(number))
    assert len(batches) == len(batch_sizes(number, 16, least=least))
    assert min(map(len, batches)) >= least
    assert max(map(len, batches)) < 16 + least


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch, batch_size=10):
        return torch.cat(epoch_batches(500, batch_size, seed=seed, epoch=epoch)).tolist()

    assert order(0, 0) == order(0, 0) == order(0, 0, batch_size=64)
    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(o) for o in orders}) == 6
    assert all(o != sorted(o) for o in orders)


# -- pictures ------------------------------------------------------------------------------------


def test_without_augmentation_pictures_are_only_normalised(make_images):
    images = make_images(10)
    mean, std = (np.array(v) for v in normalisation_of(images, "standardise"))
    training = pictures(images, normalisation=normalisation_of(images, "standardise"))
    found = part(training, [7, 0, 3], batch_size=12)
    expected = ((images.pixels[[7, 0, 3]] / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found.inputs.numpy(), expected, atol=1e-5)
    assert found.inputs.is_contiguous(memory_format=torch.channels_last)
    assert found.inputs.dtype == torch.float32
    assert found.labels.tolist() == images.labels[[7, 0, 3]].tolist()
    assert found.weight == pytest.approx(3 / 12)
    assert found.mix is None
    assert len(training) == 10


def test_augmentation_is_a_function_of_seed_epoch_and_index(make_images):
    images = make_images(30)
    training = pictures(images, EVERYTHING)
    whole = part(training, list(range(30))).inputs
    for indices in ([4], [29, 4, 4, 0], list(range(29, -1, -1))):
        for step, number in ((0, 0), (3, 1)):
            found = part(training, indices, step=step, number=number).inputs
            torch.testing.assert_close(found, whole[indices], atol=0, rtol=0)
    again = part(pictures(images, EVERYTHING), list(range(30))).inputs
    assert torch.equal(again, whole)
    for other in (
        pictures(images, EVERYTHING, seed=1),
        pictures(images, EVERYTHING, epoch=1),
    ):
        assert not torch.equal(part(other, list(range(30))).inputs, whole)


def test_an_epoch_can_be_taken_up_again(make_images):
    images = make_images(30)
    training = pictures(images, EVERYTHING)
    first = part(training, [1, 2, 3]).inputs
    training.start_epoch(5)
    fifth = part(training, [1, 2, 3]).inputs
    training.start_epoch(0)
    assert torch.equal(part(training, [1, 2, 3]).inputs, first)
    assert torch.equal(part(pictures(images, EVERYTHING, epoch=5), [1, 2, 3]).inputs, fifth)


@pytest.mark.parametrize("first", [0, 1, 7])
@pytest.mark.parametrize("options", [AugmentationOptions(), EVERYTHING], ids=["plain", "augmented"])
def test_pictures_that_were_made_ahead_are_the_same(make_images, monkeypatch, options, first):
    images = make_images(60)
    batches = epoch_batches(60, 8, seed=0, epoch=3)  # The last has four.
    picture_bytes = 3 * images.size[0] * images.size[1] * 4
    monkeypatch.setattr(batches_module, "READ_AHEAD_BYTES", 3 * 8 * picture_bytes + 1)
    ahead = pictures(images, options)
    made = []
    real = batches_module.batch_gather

    def gather(pixels, indices, draws):
        made.append(len(indices))
        return real(pixels, indices, draws)

    monkeypatch.setattr(batches_module, "batch_gather", gather)
    ahead.start_epoch(3, batches)
    found = [ahead.part(b, step=0, batch_size=8, number=0) for b in batches[first:]]
    # Three batches at once, in blocks that lie where they would without an interruption.
    assert made == [24, 24, 12][first // 3 :]
    expected = [part(pictures(images, options, epoch=3), b.tolist()) for b in batches[first:]]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.labels, other.labels)
        assert one.inputs.is_contiguous(memory_format=torch.channels_last)


def test_large_pictures_are_not_made_ahead(make_images, monkeypatch):
    images = make_images(20)
    monkeypatch.setattr(batches_module, "READ_AHEAD_BYTES", 1)
    batches = epoch_batches(20, 8, seed=0, epoch=0)
    ahead = pictures(images)
    ahead.start_epoch(0, batches)
    made = []
    real = batches_module.batch_normalise
    monkeypatch.setattr(
        batches_module, "batch_normalise", lambda p, *more: made.append(len(p)) or real(p, *more)
    )
    for batch in batches:
        found = ahead.part(batch, step=0, batch_size=8, number=0).labels
        assert found.tolist() == images.labels[batch].tolist()
    assert made == [8, 8, 4]


@pytest.mark.parametrize(
    "options",
    [
        AugmentationOptions(flip=True),
        AugmentationOptions(alternate=True, flip=True),
        AugmentationOptions(translate=3),
        AugmentationOptions(cutout=5),
        AugmentationOptions(brightness=0.5),
        AugmentationOptions(contrast=0.5),
        AugmentationOptions(saturation=0.5),
        AugmentationOptions(hue=0.3),
        AugmentationOptions(mixup=0.8),
        AugmentationOptions(cutmix=0.8),
    ],
    ids=lambda options: next(f for f, v in vars(options).items() if v),
)
def test_every_option_reaches_the_pictures(make_images, options):
    images = make_images(20)
    indices = list(range(20))
    plain = part(pictures(images), indices)
    changed = part(pictures(images, options), indices)
    assert not torch.equal(changed.inputs, plain.inputs)
    assert torch.equal(changed.labels, plain.labels)
    assert changed.inputs.shape == plain.inputs.shape
    assert changed.inputs.is_contiguous(memory_format=torch.channels_last)
    assert (changed.mix is not None) == bool(options.mixup or options.cutmix)


@pytest.mark.parametrize(
    "options", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}]
)
def test_mixing_is_a_function_of_seed_epoch_step_and_part(make_images, options):
    images = make_images(16)
    mixing = AugmentationOptions(**options)
    training = pictures(images, mixing)
    indices = list(range(16))
    first = part(training, indices, step=2, number=1)
    again = part(pictures(images, mixing), indices, step=2, number=1)
    assert torch.equal(first.inputs, again.inputs)
    assert first.mix.share == again.mix.share
    others = [
        part(training, indices, step=3, number=1),
        part(training, indices, step=2, number=0),
        part(pictures(images, mixing, seed=1), indices, step=2, number=1),
        part(pictures(images, mixing, epoch=1), indices, step=2, number=1),
    ]
    for other in others:
        assert not torch.equal(other.mix.partner, first.mix.partner)
        assert other.mix.share != first.mix.share
    assert first.inputs is first.mix.inputs


def test_alternating_flips_show_every_picture_from_both_sides(make_images):
    images = make_images(40)
    options = AugmentationOptions(flip=True, alternate=True)
    indices = list(range(40))
    plain = part(pictures(images), indices).inputs
    epochs = [part(pictures(images, options, epoch=e), indices).inputs for e in range(4)]
    flipped = [(epoch == plain.flip(3)).all(dim=(1, 2, 3)) for epoch in epochs]
    assert 8 < flipped[0].sum() < 32
    assert torch.equal(flipped[1], ~flipped[0])
    assert torch.equal(flipped[2], flipped[0])
    assert torch.equal(flipped[3], flipped[1])
    other = part(pictures(images, options, seed=1), indices).inputs
    assert not torch.equal(other, epochs[0])


def test_pictures_are_shrunk_to_the_size_of_their_step(make_images, monkeypatch):
    images = make_images(60)
    side = min(images.size)
    batches = epoch_batches(60, 8, seed=0, epoch=3)
    sizes = [10, 10, 10, 10, 13, side, side, side]
    options = AugmentationOptions(flip=True, translate=4, cutout=6)
    picture_bytes = 3 * images.size[0] * images.size[1] * 4
    monkeypatch.setattr(batches_module, "READ_AHEAD_BYTES", 3 * 8 * picture_bytes + 1)
    ahead = pictures(images, options)
    ahead.start_epoch(3, batches)
    found = [
        ahead.part(b, step=0, batch_size=8, number=0, size=size).inputs
        for b, size in zip(batches, sizes, strict=True)
    ]
    assert [min(inputs.shape[2:]) for inputs in found] == sizes
    monkeypatch.setattr(batches_module, "READ_AHEAD_BYTES", 1)
    alone = pictures(images, options)
    alone.start_epoch(3, batches)
    for first in (0, 4, 6):  # As after an interruption.
        for place in range(first, len(batches)):
            inputs = alone.part(
                batches[place], step=0, batch_size=8, number=0, size=sizes[place]
            ).inputs
            assert torch.equal(inputs, found[place])
            assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_a_shrunk_picture_is_that_of_pillow(make_images):
    images = make_images(5)
    height, width = images.size
    found = shrink(torch.from_numpy(images.pixels), 8)
    shape = (round(height * 8 / min(height, width)), round(width * 8 / min(height, width)))
    for pixels, small in zip(images.pixels, found, strict=True):
        picture = Image.fromarray(pixels).resize(shape[::-1], Image.Resampling.BILINEAR)
        difference = small.int() - torch.from_numpy(np.array(picture)).int()
        assert difference.abs().max() <= 1


def test_the_data_set_is_never_changed(make_images):
    images = make_images(12)
    before = images.pixels.copy()
    for options in (AugmentationOptions(), EVERYTHING, AugmentationOptions(mixup=1.0, cutmix=1.0)):
        found = part(pictures(images, options), [0, 1, 2, 3])
        found.inputs.zero_()
    np.testing.assert_array_equal(images.pixels, before)


def test_memory_mapped_pictures_are_used_without_a_word(tmp_path, make_images):
    images = make_images(6)
    np.save(tmp_path / "pixels.npy", images.pixels)
    np.save(tmp_path / "labels.npy", images.labels)
    mapped = Images(
        np.load(tmp_path / "pixels.npy", mmap_mode="r"),
        np.load(tmp_path / "labels.npy", mmap_mode="r"),
        images.class_names,
        images.ids,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = part(pictures(mapped, EVERYTHING), [5, 1])
    assert torch.equal(found.inputs, part(pictures(images, EVERYTHING), [5, 1]).inputs)


def test_pictures_that_a_gpu_has_no_room_for_stay_on_the_host(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    assert has_room(50, gpu)
    assert not has_room(51, gpu)
    assert has_room(10**15, torch.device("cpu"))


def test_all_are_seen_before_any_is_chosen_by_its_loss():
    losses = unseen_losses(8, device=CPU)
    first = hardest(losses, 6, seed=0, epoch=0)
    losses[1, first] = torch.arange(6.0)
    # Within the epoch nothing changes, so that it can be gone on with.
    assert torch.equal(hardest(losses, 6, seed=0, epoch=0), first)
    losses[0] = losses[1]
    second = hardest(losses, 6, seed=0, epoch=1)
    unseen = set(range(8)) - set(first.tolist())
    assert set(second[:2].tolist()) == unseen
    assert set(second[2:].tolist()) == set(first[2:].tolist())


def test_the_highest_losses_come_first():
    losses = torch.tensor([[0.5, 3.0, 0.1, 2.0], [9.0, 9.0, 9.0, 9.0]])
    assert hardest(losses, 3, seed=0, epoch=2).tolist() == [1, 3, 0]


def test_among_equals_the_seed_decides():
    losses = unseen_losses(100, device=CPU)
    drawn = [hardest(losses, 50, seed=seed, epoch=0) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert len(set(drawn[0].tolist())) == 50


def test_how_many():
    assert num_selected(100, 0.75) == 75
    assert num_selected(10, 0.01) == 2
    assert num_selected(1, 0.5) == 1
