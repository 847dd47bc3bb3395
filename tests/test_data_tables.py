"""Parquet files and npz files as others write them, and wrong ones."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from tenfold.data import Images, export, load
from tenfold.data.formats import read
from tenfold.data.images import Dataset
from tenfold.data.splits import training_data
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
    dataset = read(file)
    assert dataset.train.class_names == tuple(sorted(set(text)))
    assert [dataset.class_names[label] for label in dataset.train.labels] == text
    np.testing.assert_array_equal(dataset.train.pixels, train.pixels)


def test_parquet_with_numbers_and_no_names(tmp_path):
    train = make_split("train", 8, seed=5)
    write_hub_file(tmp_path / "some.parquet", train)
    assert read(tmp_path / "some.parquet").class_names == tuple(
        str(number) for number in sorted(set(train.labels.tolist()))
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
        ({"labels": [0, 1, 2, 4]}, r"row 4 has the label 4, and 0 to 3"),
        ({"labels": [0, -1, 2, 3]}, r"row 2 has the label -1"),
        ({"labels": [0, None, 2, 3]}, r"row 2 has no label"),
    ],
)
def test_row_22_wrong_parquet(tmp_path, options, message):
    images = make_split("train", 4, seed=5)
    write_hub_file(tmp_path / "train.parquet", images, names=list(CLASSES), **options)
    with pytest.raises(TenfoldError, match=message):
        read(tmp_path)


def test_row_26_broken_images_in_parquet(tmp_path):
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


GREY = {"images": np.zeros((2, 8, 8), np.uint8), "labels": np.arange(2)}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": np.zeros(3)}, "train_images and train_labels"),
        ({"images": np.zeros((3, 8, 8, 3)), "labels": np.zeros(3, int)}, "uint8 was expected"),
        (
            {"images": np.zeros((3, 8, 8, 4), np.uint8), "labels": np.zeros(3, int)},
            r"\(3, 8, 8, 4\)",
        ),
        ({"images": np.zeros((3, 8, 8), np.uint8), "labels": np.full(3, 0.5)}, "a whole number"),
        ({"images": np.zeros((3, 8, 8), np.uint8), "labels": np.zeros(4, int)}, r"\(4,\)"),
        *(
            (
                {**GREY, name: np.zeros(shape)},
                f"2 images and {kind} of shape {re.escape(str(shape))}",
            )
            for name, kind, shape in (
                ("train_ids", "ids", ()),
                ("train_groups", "groups", (2, 2)),
                ("train_original_sizes", "original_sizes", (1, 2)),
            )
        ),
        ({**GREY, "labels": np.zeros(2, int)}, "only the class '0'; at least two"),
        ({name: values[:0] for name, values in GREY.items()}, "no classes; at least two"),
        (
            {"images": np.zeros((3, 8, 8), np.uint8), "labels": np.array([0, -1, 1])},
            "has the label -1",
        ),
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
        read(tmp_path / "a.npz")
    assert not canary.exists()


# -- numbers and names of classes ----------------------------------------------------------------


def write_npz_of(path, labels, *, image_size=16, **more):
    """Random images with `labels`; more: arrays besides them."""
    images = np.random.default_rng(0).integers(0, 256, (len(labels), image_size, image_size, 3))
    np.savez(path, x_train=images.astype(np.uint8), y_train=labels, **more)
    return path


def named(images):
    """The name of each image's class, in order."""
    return [images.class_names[label] for label in images.labels]


NUMBERS = [
    ([1, 2, 3, 1, 2, 3], ("1", "2", "3")),
    ([1990, 2010, 2000, 1990], ("1990", "2000", "2010")),
    ([47219, 12, 48662, 12], ("12", "47219", "48662")),
    ([0, 1, 255, 1], ("0", "1", "255")),
    ([0, 2, 3, 2], ("0", "2", "3")),
    ([3, 1, 0, 2, 2], ("0", "1", "2", "3")),
]


@pytest.mark.parametrize(("labels", "names"), NUMBERS)
@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_f8_numbers_are_names_and_no_class_is_empty(tmp_path, kind, labels, names):
    if kind == "npz":
        path = write_npz_of(tmp_path / "a.npz", np.array(labels))
    else:
        path = tmp_path / "a.parquet"
        write_hub_file(path, make_split("train", len(labels), seed=5), labels=labels)
    dataset = read(path)
    assert dataset.class_names == names
    assert named(dataset.train) == [str(label) for label in labels]
    assert bool(dataset.notes) == (255 in labels)


def test_f8_a_class_that_is_declared_may_be_empty(tmp_path):
    names = np.array(["cat", "dog", "crane", "bird"])
    path = write_npz_of(tmp_path / "a.npz", np.array([0, 3, 0]), class_names=names)
    assert named(read(path).train) == ["cat", "bird", "cat"]
    assert read(path).class_names == tuple(names.tolist())
    images = make_split("train", 3, seed=5)
    write_hub_file(tmp_path / "a.parquet", images, names=list(names), labels=[0, 3, 0])
    assert read(tmp_path / "a.parquet").class_names == tuple(names.tolist())


@pytest.mark.parametrize("dtype", [np.int64, np.uint32, np.uint64])
@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_f8_minus_one_is_no_class_with_or_without_its_sign(tmp_path, kind, dtype):
    labels = np.array([0, 1, -1, 1]).astype(dtype)
    shown = str(int(labels[2]))
    if kind == "npz":
        path, place = write_npz_of(tmp_path / "a.npz", labels), r"a\.npz: y_train\[2\]"
    else:
        path, place = tmp_path / "a.parquet", r"a\.parquet row 3"
        write_hub_file(path, make_split("train", 4, seed=5), labels=labels)
    with pytest.raises(TenfoldError, match=f"{place} has the label {shown}"):
        read(path)


def test_f8_a_test_split_of_an_npz_file_without_labels(tmp_path):
    images = np.zeros((2, 16, 16, 3), np.uint8)
    more = {"x_test": images, "y_test": np.array([-1, -1]).astype(np.uint32)}
    dataset = read(write_npz_of(tmp_path / "a.npz", np.array([4, 5]), **more))
    assert dataset.test is None
    assert "no labels" in dataset.notes[0]


def test_a_split_of_an_npz_file_without_images_is_none_and_one_without_labels_is_said(tmp_path):
    images, labels = np.zeros((6, 8, 8, 3), np.uint8), np.arange(6) % 2
    arrays = {"x_train": images, "y_train": labels}
    np.savez(tmp_path / "a.npz", **arrays, x_test=images[:0], y_test=labels[:0])
    assert list(read(tmp_path / "a.npz").splits()) == ["train"]
    assert read(tmp_path / "a.npz").notes == ()
    np.savez(tmp_path / "b.npz", **arrays, x_test=images)
    [note] = read(tmp_path / "b.npz").notes
    assert note == f"The test split of {tmp_path / 'b.npz'} has no labels and was left out."
    np.savez(tmp_path / "c.npz", **arrays, x_test=images, y_test=labels[:0])
    with pytest.raises(TenfoldError, match=r"6 images and labels of shape \(0,\)"):
        read(tmp_path / "c.npz")


def test_f8_numbers_in_one_split_and_the_same_as_text_in_the_other(tmp_path):
    for split, labels in (("train", [1, 2, 3]), ("test", ["3", "1 ", "2"])):
        images = make_split(split, 3, seed=5)
        write_hub_file(tmp_path / f"{split}.parquet", images, labels=labels)
    dataset = read(tmp_path)
    assert named(dataset.train) == ["1", "2", "3"]
    assert named(dataset.test) == ["3", "1", "2"]


@pytest.mark.parametrize(
    ("declared", "names"),
    [
        ([b"cat", b"dog", b"bird"], ("cat", "dog", "bird")),
        (["ñandú 猫".encode(), b"dog", b"a b"], ("ñandú 猫", "dog", "a b")),
        (["cat", "dog", "bird"], ("cat", "dog", "bird")),
    ],
)
def test_f9_class_names_and_ids_as_bytes(tmp_path, declared, names):
    labels, ids = np.array([0, 1, 2]), np.array(["ä/1".encode(), b"2", b"3"])
    more = {"class_names": np.array(declared), "train_ids": ids}
    dataset = read(write_npz_of(tmp_path / "a.npz", labels, **more))
    assert dataset.class_names == names
    assert dataset.train.ids.tolist() == ["ä/1", "2", "3"]


def test_f9_names_that_are_not_utf_8(tmp_path):
    more = {"class_names": np.array([b"caf\xe9", b"bar"])}
    with pytest.raises(TenfoldError, match=r"a\.npz holds the name b'caf.*not UTF-8"):
        read(write_npz_of(tmp_path / "a.npz", np.array([0, 1]), **more))


@pytest.mark.parametrize("names", [["crane", "cat", "crane"], ["dog", "dog ", "cat"], ["", " "]])
@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_f5_two_classes_of_one_name(tmp_path, kind, names):
    labels = np.array([0, 1, 0])
    if kind == "npz":
        path = write_npz_of(tmp_path / "a.npz", labels, class_names=np.array(names))
    else:
        path = tmp_path / "a.parquet"
        write_hub_file(path, make_split("train", 3, seed=5), names=names, labels=labels)
    with pytest.raises(TenfoldError, match=rf"a\.{kind} calls 2 classes '{names[0]}'; give each"):
        read(path)


def test_f5_two_classes_of_one_name_in_arrays_of_a_program(make_images):
    with pytest.raises(ValueError, match="no two classes"):
        make_images(4, class_names=("crane", "cat", "crane"))


# -- label columns of parquet --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([[2], [0], [2]], ["2", "0", "2"]),
        ([["cat"], ["dog"], ["cat"]], ["cat", "dog", "cat"]),
        ([1.0, 3.0, 2.0], ["1", "3", "2"]),
        ([b"cat", "ñandú".encode(), b"cat"], ["cat", "ñandú", "cat"]),
        ([True, False, True], ["1", "0", "1"]),
        (["dog", "dog ", "cat"], ["dog", "dog", "cat"]),
    ],
)
def test_f7_labels_that_can_be_read(tmp_path, labels, names):
    write_hub_file(tmp_path / "a.parquet", make_split("train", 3, seed=5), labels=labels)
    assert named(read(tmp_path / "a.parquet").train) == names


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([[0, 1], [1], [0]], r"row 1 has the label \[0, 1\], where a whole"),
        ([{"id": 0}, {"id": 1}, {"id": 0}], r"row 1 has the label {'id': 0}, where a whole"),
        ([0.0, 1.5, 1.0], r"row 2 has the label 1\.5, where a whole"),
        ([0.0, float("nan"), 1.0], r"row 2 has no label"),
        ([[0], [None], [1]], r"row 2 has no label"),
        ([b"caf\xe9", b"a", b"b"], r"holds the name b'caf.*not UTF-8"),
        (["cat", " ", "dog"], r"row 2 has the label ' '"),
    ],
)
def test_f7_labels_that_can_not_be_read(tmp_path, labels, words):
    write_hub_file(tmp_path / "a.parquet", make_split("train", 3, seed=5), labels=labels)
    with pytest.raises(TenfoldError, match=rf"a\.parquet.*{words}"):
        read(tmp_path / "a.parquet")


def test_f7_a_list_of_one_declared_class(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"labels": {"feature": {"_type": "ClassLabel", "names": ["cat", "dog"]}}}
    table = pa.table({"image": [png(make_split("train", 1, seed=5).pixels[0])], "labels": [[1]]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    assert named(read(tmp_path / "a.parquet").train) == ["dog"]


# -- pictures beside their table -----------------------------------------------------------------


def write_paths(file, paths, *, form):
    """A parquet file of `paths` and no bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = {
        "text": paths,
        "struct": [{"bytes": None, "path": path} for path in paths],
        "path alone": [{"path": path} for path in paths],
    }[form]
    pq.write_table(pa.table({"image": images, "label": list(range(len(paths)))}), file)
    return file


@pytest.mark.parametrize("form", ["text", "struct", "path alone"])
@pytest.mark.parametrize("above", ["", "images/", "images\\", "/somewhere/else/", "{}/images/"])
def test_f20_paths_without_bytes_are_found_beside_the_table(tmp_path, form, above):
    folder = tmp_path / "images" if "images" in above else tmp_path
    folder.mkdir(exist_ok=True)
    images = make_split("train", 3, seed=5)
    for number, pixels in enumerate(images.pixels):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    paths = [f"{above.format(tmp_path)}{number}.png" for number in range(3)]
    dataset = read(write_paths(tmp_path / "a.parquet", paths, form=form))
    np.testing.assert_array_equal(dataset.train.pixels, images.pixels)


@pytest.mark.parametrize("form", ["text", "struct", "path alone"])
def test_f20_paths_of_images_that_are_not_there(tmp_path, form):
    file = write_paths(tmp_path / "a.parquet", ["/somewhere/0.png", "1.png"], form=form)
    with pytest.raises(
        TenfoldError, match=r"a\.parquet: column image holds no bytes but the paths"
    ):
        read(file)
    Image.fromarray(make_split("train", 1, seed=5).pixels[0]).save(tmp_path / "1.png")
    with pytest.raises(TenfoldError, match=r"1 of 2 .*a\.parquet row 1"):
        read(file)
    assert named(read(file, skip_broken=True).train) == ["1"]


# -- sizes and ids of several splits -------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "found"), [((32, 28), 32), ((20, 32), 32), ((100, 60), 64), ((16, 200), 32)]
)
def test_f18_splits_of_unequal_sizes_are_brought_to_one(tmp_path, sizes, found):
    train, test = sizes
    more = {"x_test": np.zeros((2, test, test), np.uint8), "y_test": np.array([0, 1])}
    write_npz_of(tmp_path / "a.npz", np.array([0, 1, 0]), image_size=train, **more)
    dataset = load(tmp_path / "a.npz")
    assert dataset.train.size == dataset.test.size == (found, found)
    assert "differ in size" in dataset.notes[0]
    assert load(tmp_path / "a.npz", image_size=24).test.size == (24, 24)


def test_f18_arrays_of_a_program_are_refused_before_training(make_images):
    dataset = Dataset("mine", make_images(9), None, make_images(3, size=(9, 9)), "made up")
    with pytest.raises(TenfoldError, match="test images of mine have 9x9 pixels"):
        training_data(dataset, train_size=0, validation_size=0.2, seed=0)


@pytest.mark.parametrize("kind", ["npz", "parquet", "folder"])
def test_row_55_ids_that_splits_share_get_the_split_in_front(tmp_path, kind):
    splits = [make_split(split, 4, seed=seed) for seed, split in enumerate(("train", "test"))]
    same = np.array([f"img{number}" for number in range(4)])
    train, test = (Images(own.pixels, own.labels, own.class_names, same) for own in splits)
    path = tmp_path / ("a.npz" if kind == "npz" else "a")
    if kind == "folder":
        for split, images in (("train", train), ("test", test)):
            for name, pixels, label in zip(images.ids, images.pixels, named(images), strict=True):
                (path / split / label).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path / split / label / f"{name}.png")
    else:
        export(Dataset("a", train, None, test, "made up"), path, kind)
    dataset = read(path)
    for split, own in dataset.splits().items():
        assert all(name.startswith(f"{split}/") for name in own.ids.tolist())
        assert {name.rpartition("/")[2].removesuffix(".png") for name in own.ids.tolist()} == set(
            same.tolist()
        )


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_row_55_an_id_that_two_images_of_a_split_have(tmp_path, kind):
    train = make_split("train", 4, seed=5)
    ids = np.array(["a", "b", "a", "c"])
    images = Images(train.pixels, train.labels, CLASSES, ids)
    path = tmp_path / ("a.npz" if kind == "npz" else "a")
    export(Dataset("a", images, None, None, "made up"), path, kind)
    with pytest.raises(TenfoldError, match="2 images of the train split have the id 'a'"):
        read(path)


def test_parquet_of_which_some_files_have_no_ids(tmp_path):
    images = make_split("train", 4, seed=5)
    export(Dataset("a", images, None, None, "made up"), tmp_path / "a", "parquet")
    file = next((tmp_path / "a").glob("*.parquet"))
    file.rename(tmp_path / "a/train-00000-of-00002.parquet")
    second = tmp_path / "a/train-00001-of-00002.parquet"
    write_hub_file(second, images, names=list(CLASSES))
    ids = read(tmp_path / "a").train.ids.tolist()
    assert ids == [f"train/{number}" for number in range(1, 9)]
