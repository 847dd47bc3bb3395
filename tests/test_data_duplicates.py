import numpy as np
import pytest
from PIL import Image, ImageEnhance

from tenfold.data.duplicates import NEAR_SIMILARITY, NearPairs, exact_groups, joined, near_pairs


def near_groups(parts):
    groups = exact_groups(parts)
    return joined(groups, near_pairs(parts, groups=groups))


def scenes(number, *, seed, side=32):
    """Images like photographs: soft ground, soft random shapes; no two alike."""
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(number):
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        images.append(np.asarray(image))
    return np.stack(images)


def changed(pixels, change):
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in pixels])


def jpeg(image):
    import io

    content = io.BytesIO()
    image.save(content, format="JPEG", quality=40)
    return Image.open(io.BytesIO(content.getvalue())).convert("RGB")


def moved(image):
    """One pixel to the side, with an edge that was not there before."""
    return image.transform(image.size, Image.Transform.AFFINE, (1, 0, 1, 0, 1, 0))


CHANGES = {
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "darkened": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "compressed": jpeg,
    "made smaller and larger again": lambda image: image.resize((20, 20)).resize(image.size),
    "mirrored and compressed": lambda image: jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "moved": moved,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_a_near_duplicate_of_its_original_alone(change):
    originals = scenes(60, seed=0)
    found = near_pairs([originals, changed(originals, CHANGES[change])])
    right = found.second == found.first + 60
    assert right.all()
    assert right.sum() >= 50
    assert found.similarity.min() >= NEAR_SIMILARITY


@pytest.mark.parametrize("side", [20, 32, 64, 100])
def test_images_of_any_size_are_compared(side):
    originals = scenes(12, seed=1, side=side)
    found = near_pairs([originals, changed(originals, CHANGES["darkened"])])
    assert found.first.tolist() == list(range(12))
    assert found.second.tolist() == list(range(12, 24))


def test_the_same_horizon_with_another_ship_is_no_duplicate():
    """What cosines of small images take for the same: they differ in the object alone."""
    sea = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    sea[:, :16], sea[:, 16:] = (150, 190, 230), (20, 60, 110)
    sea[0, 13:17, 4:14] = (60, 20, 20)
    sea[1, 12:17, 15:22] = (200, 200, 190)
    assert len(near_pairs([sea]).first) == 0


def test_different_and_plain_images_are_no_duplicates():
    noise = np.random.default_rng(0).integers(-1, 2, (50, 32, 32, 3))
    assert len(near_pairs([scenes(200, seed=2), (128 + noise).astype(np.uint8)]).first) == 0


def test_enlarged_tiny_images_are_not_compared_beyond_what_they_show():
    """The digits that come with scikit-learn: 8x8, on which two sevens easily look alike."""
    tiny = scenes(20, seed=8, side=8).repeat(4, axis=1).repeat(4, axis=2)
    brighter = changed(tiny, lambda image: ImageEnhance.Brightness(image).enhance(0.95))
    assert len(near_pairs([tiny, brighter]).first) == 0
    assert exact_groups([tiny, tiny]).tolist() == [*range(20), *range(20)]


def test_the_very_same_pixels_are_one_group_named_by_the_first():
    images = scenes(5, seed=3)
    groups = exact_groups([images[[0, 1, 0]], images[[2, 1, 0, 3]]])
    assert groups.tolist() == [0, 1, 0, 3, 1, 0, 6]
    # Equal bytes of another shape are another image.
    flat = np.zeros((1, 8, 2, 3), dtype=np.uint8)
    assert exact_groups([flat, flat.reshape(1, 2, 8, 3)]).tolist() == [0, 1]


def test_many_equal_images_make_no_pairs_among_themselves():
    images = scenes(2, seed=4)
    many = np.repeat(images, 3_000, axis=0)
    assert len(near_pairs([many]).first) == 0
    assert near_groups([many]).tolist() == [0] * 3_000 + [3_000] * 3_000


def test_a_film_of_one_scene_is_one_group():
    """More near duplicates than are looked at for each image still hold together."""
    generator = np.random.default_rng(5)
    film = scenes(1, seed=5).astype(int) + generator.integers(-6, 7, (60, 32, 32, 3))
    groups = near_groups([np.clip(film, 0, 255).astype(np.uint8), scenes(20, seed=6)])
    assert groups.tolist() == [0] * 60 + list(range(60, 80))


def test_groups_join_step_by_step():
    pairs = NearPairs(np.array([3, 0, 2]), np.array([4, 3, 5]), np.ones(3, dtype=np.float32))
    assert joined(np.array([0, 1, 2, 3, 4, 5, 1]), pairs).tolist() == [0, 1, 2, 0, 0, 2, 1]


def test_nothing_at_all_has_no_duplicates():
    nothing = np.empty((0, 32, 32, 3), dtype=np.uint8)
    assert exact_groups([nothing]).tolist() == []
    assert len(near_pairs([nothing]).first) == 0
    assert len(near_pairs([scenes(1, seed=0), nothing]).first) == 0
