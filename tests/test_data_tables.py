"""Parquet files and npz files as others write them, and wrong ones."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from tenfold.data import Images
from tenfold.data.formats import read, read_npz, read_parquet
from tenfold.errors import TenfoldError

CLASSES = ("zebra", "cat", "ñandú 猫", "ant")


def make_split(split, number, *, seed, class_names=CLASSES):
    random = np.random.default_rng(seed)
    return Images(
        random.integers(0, 256, (number, 16, 16, 3), dtype=np.uint8),
        random.integers(0, len(class_names), number),
        class_names,
        np.array([f"{split}/{position}" for position in range(1, number + 1)]),
    )


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def write_hub_file(path, images, *, label="label", image="img", names=None, labels=None, raw=False):
    import pyarrow as pa
    import pyarrow.parquet as pq

    contents = [png(pixels) for pixels in images.pixels]
    pictures = contents if raw else [{"bytes": content, "path": None} for content in contents]
    table = pa.table({image: pictures, label: images.labels.tolist() if labels is None else labels})
    if names:
        features = {image: {"_type": "Image"}, label: {"_type": "ClassLabel", "names": names}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def test_parquet_of_the_hub(tmp_path):
    train, test = make_split("train", 8, seed=5), make_split("test", 4, seed=6)
    folder = tmp_path / "cifar10" / "plain_text"
    write_hub_file(folder / "train-00000-of-00001.parquet", train, names=list(CLASSES))
    write_hub_file(folder / "test-00000-of-00001.parquet", test, names=list(CLASSES))
    dataset = read(tmp_path / "cifar10")
    assert dataset.train.same_as(train)
    assert dataset.test.same_as(test)


def test_parquet_in_several_files_and_in_folders_by_split(tmp_path):
    train = make_split("train", 8, seed=5)
    first, second = (train.take(np.arange(start, start + 4)) for start in (0, 4))
    for folder, names in (
        ("a", ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet")),
        ("b", ("train/0000.parquet", "train/0001.parquet")),
    ):
        for name, images in zip(names, (first, second), strict=True):
            write_hub_file(tmp_path / folder / name, images, names=list(CLASSES))
        assert read(tmp_path / folder).train.same_as(train)


def test_parquet_with_raw_bytes_fine_labels_and_labels_as_text(tmp_path):
    train = make_split("train", 8, seed=5, class_names=("a", "b", "c"))
    text = [train.class_names[label] for label in train.labels]
    file = tmp_path / "some.parquet"
    write_hub_file(file, train, image="image", label="fine_label", labels=text, raw=True)
    dataset = read_parquet(file)
    assert dataset.train.class_names == tuple(sorted(set(text)))
    assert [dataset.class_names[label] for label in dataset.train.labels] == text
    np.testing.assert_array_equal(dataset.train.pixels, train.pixels)


def test_parquet_with_numbers_and_no_names(tmp_path):
    train = make_split("train", 8, seed=5)
    write_hub_file(tmp_path / "some.parquet", train)
    assert read_parquet(tmp_path / "some.parquet").class_names == tuple(
        str(number) for number in range(int(train.labels.max()) + 1)
    )


def test_parquet_whose_test_split_has_no_labels(tmp_path):
    names = list(CLASSES)
    write_hub_file(tmp_path / "train-0.parquet", make_split("train", 8, seed=5), names=names)
    test = make_split("test", 3, seed=6)
    write_hub_file(tmp_path / "test-0.parquet", test, names=names, labels=[-1] * 3)
    dataset = read(tmp_path)
    assert dataset.test is None
    assert "no labels" in dataset.notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0, 1, 2, 4]}, r"row 4: the label is 4, and 0 to 3"),
        ({"labels": [0, -1, 2, 3]}, r"row 2: the label is -1"),
        ({"labels": [0, None, 2, 3]}, r"row 2 has no label"),
        ({"label": "colour"}, r"no label column: .* img, colour"),
        ({"image": "photo"}, r"no picture column"),
    ],
)
def test_row_22_wrong_parquet(tmp_path, options, message):
    images = make_split("train", 4, seed=5)
    write_hub_file(tmp_path / "train.parquet", images, names=list(CLASSES), **options)
    with pytest.raises(TenfoldError, match=message):
        read(tmp_path)


def test_row_26_broken_pictures_in_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = make_split("train", 6, seed=5)
    contents = [png(pixels) for pixels in images.pixels]
    contents[2], contents[4] = b"junk", None
    labels = images.labels.tolist()
    pq.write_table(pa.table({"img": contents, "label": labels}), tmp_path / "train.parquet")
    with pytest.raises(TenfoldError, match=r"2 of 6 .*row 3 .*row 5 .*--skip-broken"):
        read(tmp_path)
    dataset = read(tmp_path, skip_broken=True)
    assert dataset.train.ids.tolist() == ["train/1", "train/2", "train/4", "train/6"]
    assert "2 of 6" in dataset.notes[0]


def test_parquet_of_two_data_sets_is_ambiguous(tmp_path):
    for folder in ("one", "two"):
        write_hub_file(tmp_path / folder / "train.parquet", make_split("train", 4, seed=5))
    with pytest.raises(TenfoldError, match="several data sets"):
        read(tmp_path)


@pytest.mark.parametrize(
    "keys",
    [
        {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")},
        {
            "train": ("train_images", "train_labels"),
            "validation": ("val_images", "val_labels"),
            "test": ("test_images", "test_labels"),
        },
        {"train": ("images", "labels")},
    ],
)
def test_npz_of_others(tmp_path, keys):
    random = np.random.default_rng(3)
    arrays = {}
    for images, labels in keys.values():
        arrays[images] = random.integers(0, 256, (5, 28, 28), dtype=np.uint8)
        arrays[labels] = np.arange(5, dtype=np.uint8)[:, None]
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    dataset = read(tmp_path / "a.npz")
    assert set(dataset.splits()) == set(keys)
    for split, (images, _) in keys.items():
        own = dataset.splits()[split]
        for channel in range(3):
            np.testing.assert_array_equal(own.pixels[..., channel], arrays[images])
        assert own.labels.tolist() == [0, 1, 2, 3, 4]
    assert dataset.class_names == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": np.zeros(3)}, "train_images and train_labels"),
        ({"images": np.zeros((3, 8, 8, 3)), "labels": np.zeros(3, int)}, "uint8 was expected"),
        (
            {"images": np.zeros((3, 8, 8, 4), np.uint8), "labels": np.zeros(3, int)},
            r"\(3, 8, 8, 4\)",
        ),
        ({"images": np.zeros((3, 8, 8), np.uint8), "labels": np.zeros(3)}, "whole numbers"),
        ({"images": np.zeros((3, 8, 8), np.uint8), "labels": np.zeros(4, int)}, "4 labels"),
        ({"images": np.zeros((3, 8, 8), np.uint8), "labels": np.array([0, -1, 1])}, "label -1"),
    ],
)
def test_row_22_wrong_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(TenfoldError, match=message):
        read(tmp_path / "a.npz")


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w')",)


def test_row_11_a_pickle_within_npz_is_never_executed(tmp_path):
    canary = tmp_path / "canary"
    objects = np.array([Canary(canary)], dtype=object)
    np.savez(tmp_path / "a.npz", images=objects, labels=np.zeros(1, int))
    with pytest.raises(TenfoldError, match=r"a\.npz"):
        read_npz(tmp_path / "a.npz")
    assert not canary.exists()
