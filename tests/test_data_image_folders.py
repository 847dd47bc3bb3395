"""Folders of image files: classes by name, which folders are splits, sizes, and broken files."""

import gc
import logging
import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tenfold.data import export
from tenfold.data.formats import detect, read
from tenfold.errors import TenfoldError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path_factory.mktemp("cache")))


def save(path: Path, *, size=(16, 16), mode="RGB", seed=0):
    """A file of random pixels, which are returned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return pixels


def make_classes(root: Path, names, *, number=2):
    for name in names:
        for index in range(number):
            save(root / name / f"{index}.png", seed=index)


def labelled(images):
    """id -> class name, which is what must never shift."""
    names = [images.class_names[label] for label in images.labels]
    return dict(zip(images.ids.tolist(), names, strict=True))


def classes_by_split(dataset):
    return {split: set(labelled(images).values()) for split, images in dataset.splits().items()}


# -- FAULTS.md 23: which folders are classes, and which are splits ---------------------------------


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Valid", "VAL"])
def test_row_23_every_spelling_of_validation(tmp_path, validation):
    for split in ("train", validation, "test"):
        make_classes(tmp_path / split, ["cat", "dog"])
    dataset = read(tmp_path)
    assert detect(tmp_path) == "images"
    assert dataset.class_names == ("cat", "dog")
    assert {split: len(own) for split, own in dataset.splits().items()} == {
        "train": 4,
        "validation": 4,
        "test": 4,
    }
    assert dataset.train.ids.tolist()[:2] == ["train/cat/0.png", "train/cat/1.png"]
    assert dataset.validation.ids[0] == f"{validation}/cat/0.png"
    assert dataset.notes == ()


def test_one_folder_without_splits_is_all_training(tmp_path):
    pixels = save(tmp_path / "cat" / "b.png", seed=1)
    save(tmp_path / "cat" / "a.png", seed=2)
    save(tmp_path / "dog" / "young" / "a.jpg", seed=3)
    (tmp_path / "cat" / "b.png").rename(tmp_path / "cat" / "b.jpg")  # Whose name lies.
    dataset = read(tmp_path)
    assert list(dataset.splits()) == ["train"]
    expected = {"cat/a.png": "cat", "cat/b.jpg": "cat", "dog/young/a.jpg": "dog"}
    assert labelled(dataset.train) == expected
    np.testing.assert_array_equal(dataset.train.pixels[1], pixels)


@pytest.mark.parametrize("form", ["images", "folder", "parquet", "npz"])
def test_row_23_a_class_missing_in_one_split_is_mapped_by_name(tmp_path, form):
    make_classes(tmp_path / "in" / "train", ["ant", "bee", "cat"])
    make_classes(tmp_path / "in" / "val", ["bee", "cat"])
    make_classes(tmp_path / "in" / "test", ["cat", "dog"])
    dataset = read(tmp_path / "in")
    if form != "images":
        export(dataset, tmp_path / "out", form)
        dataset = read(tmp_path / "out")
    assert dataset.class_names == ("ant", "bee", "cat", "dog")
    for images in dataset.splits().values():
        assert all(own.split("/")[1] == name for own, name in labelled(images).items())
        assert images.class_names == dataset.class_names
    assert dataset.notes == (
        "The train split has no images of: dog. What only other splits have can't be learned, and "
        "counts as wrong.",
        "The validation split has no images of: ant, dog.",
        "The test split has no images of: ant, bee.",
    )


def test_row_23_hidden_folders_and_litter_are_passed_over(tmp_path):
    make_classes(tmp_path / "train", ["cat", "dog"])
    for place in ("", "train/", "train/cat/"):
        for name in (".hidden/x.png", "__MACOSX/x.png", ".trash/a/x.png", "@eaDir/x.png"):
            save(tmp_path / place / name)
    for litter in (".DS_Store", "train/cat/._0.png", "train/cat/Thumbs.db", "train/desktop.ini"):
        (tmp_path / litter).write_bytes(b"\0\5\26\7")
    dataset = read(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert len(dataset.train) == 4
    assert dataset.notes == ()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "looked for"),
        ([".hidden/cat/1.png", ".hidden/dog/1.png"], "looked for"),
        (["1.png", "2.png"], "looked for"),
        (["cat/1.png"], "only the class 'cat'; at least two"),
        (["train/cat/1.png"], "only the class 'cat'; at least two"),
        (["train/1.png", "train/2.png"], "no classes; at least two"),
        (["test/cat/1.png", "test/dog/1.png", "val/cat/1.png"], "and no train folder"),
        (["train/cat/1.png", "val/cat/1.png", "valid/cat/1.png"], "val and valid, which both mean"),
        (["train/cat/1.png", "training_set/cat/1.png"], "both mean the train split"),
        # A test split without classes, or a class of tests.
        (["cat/1.png", "dog/1.png", "test/1.png"], "test in .* may be a split or a class as cat "),
        (
            ["cat/1.png", "train/1.png", "val/1.png"],
            "train and val in .* may be a split",
        ),
        (["cat/1.png", "dog/1.png", "test/ant/1.png"], "test in .* may be a split or a class as"),
        (["cat/1.png", "dog/1.png", "val/1.png", "test/cat/1.png"], "val in .* may be a split or"),
        (["part/cat/1.png", "part/dog/1.png", "test/cat/1.png"], "test in .* may be a split or a"),
        (
            ["bus/1.png", "car/1.png", "train/a/1.png", "train/b/1.png"],
            "train in .* may be a",
        ),
        (
            ["A/cat/1.png", "A/dog/1.png", "B/cat/1.png", "B/dog/1.png"],
            "A and B in .* each hold",
        ),
        (["a/train/1.png", "a/test/1.png", "b/train/1.png", "b/test/1.png"], "put the split first"),
    ],
)
def test_row_23_folders_that_can_not_be_or_may_be_either_are_an_error(tmp_path, files, message):
    for file in files:
        save(tmp_path / file)
    with pytest.raises(TenfoldError, match=message) as caught:
        read(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_test_folder_without_classes_is_left_out_and_said(tmp_path):
    make_classes(tmp_path / "train", ["cat", "dog"])
    save(tmp_path / "test" / "1.png")
    make_classes(tmp_path / "extra", ["cat"])
    dataset = read(tmp_path)
    assert dataset.test is None
    assert "1 image directly in test" in dataset.notes[0]
    assert "extra" in dataset.notes[1]


def test_what_an_archive_unpacks_to_may_be_nested(tmp_path):
    make_classes(tmp_path / "pets-main" / "pets" / "train", ["cat", "dog"])
    (tmp_path / "__MACOSX").mkdir()
    assert read(tmp_path).train.ids[0] == "train/cat/0.png"


def test_class_folders_that_are_links_are_followed_and_loops_end(tmp_path):
    make_classes(tmp_path / "real", ["cat", "dog"])
    (tmp_path / "linked").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "linked" / name).symlink_to(tmp_path / "real" / name)
    (tmp_path / "real" / "cat" / "loop").symlink_to(tmp_path / "real" / "cat")
    assert len(read(tmp_path / "linked").train) == 4


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ({"training_set": "train", "test_set": "test"}, ("training_set", "test_set")),
        (
            {"seg_train/seg_train": "train", "seg_test/seg_test": "test"},
            ("seg_train/seg_train", "seg_test/seg_test"),
        ),
        ({"Training": "train", "Testing": "test"}, ()),
        ({"train": "train", "dev": "validation", "holdout": "test"}, ("dev", "holdout")),
        ({"train_images": "train", "eval": "validation"}, ("train_images", "eval")),
        ({"TRAIN": "train", "Hold-Out": "test"}, ("Hold-Out",)),
        ({"": "train", "test": "test"}, ("test",)),
        ({"": "train", "val": "validation", "testing_data": "test"}, ("val", "testing_data")),
    ],
)
def test_f2_folders_that_mean_splits_are_read_as_splits_and_it_is_said(
    tmp_path, folders, said, caplog
):
    for folder in folders:
        make_classes(tmp_path / folder, ["cat", "dog"])
    with caplog.at_level(logging.INFO, "tenfold"):
        dataset = read(tmp_path)
    assert classes_by_split(dataset) == {split: {"cat", "dog"} for split in folders.values()}
    sentences = [f"{folder} is the {folders[folder]} split" for folder in said]
    sentences += ["the class folders beside it are the train split"] if "" in folders else []
    for text in (dataset.source, caplog.text):
        assert all(sentence in text for sentence in sentences)
    assert (not caplog.text) == (not said)


def test_f2_a_folder_of_images_to_predict_is_left_out_beside_splits(tmp_path):
    for folder in ("seg_train/seg_train", "seg_test/seg_test"):
        make_classes(tmp_path / folder, ["forest", "sea"])
    save(tmp_path / "seg_pred" / "seg_pred" / "1.png")
    save(tmp_path / "seg_train" / "loose.png")
    dataset = read(tmp_path)
    assert dataset.class_names == ("forest", "sea")
    assert len(dataset.train) == 4
    assert "seg_pred" in " ".join(dataset.notes)


@pytest.mark.parametrize(
    "names",
    [
        ("bicycle", "bus", "car", "train"),
        ("valid", "invalid"),
        ("dev", "ops", "sales"),
        ("training", "rest"),
    ],
)
def test_f2_a_class_that_is_truly_called_as_a_split_is(tmp_path, names, caplog):
    make_classes(tmp_path, names)
    with caplog.at_level(logging.INFO, "tenfold"):
        dataset = read(tmp_path)
    assert dataset.class_names == tuple(sorted(names))
    assert " is a class." in caplog.text
    assert dataset.test is None


def test_folders_within_classes_are_no_splits(tmp_path):
    make_classes(tmp_path, ["cat/young", "cat/old", "dog/young", "eel"])
    assert read(tmp_path).class_names == ("cat", "dog", "eel")


def test_empty_class_folders_are_no_classes_and_that_is_said(tmp_path):
    make_classes(tmp_path / "train", ["cat", "dog"])
    make_classes(tmp_path / "test", ["cat", "dog"])
    for name in ("train/bird", "test/bird", "train/eel"):
        (tmp_path / name).mkdir()
    dataset = read(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.notes == ("Class folders without images were left out: bird and eel.",)


# -- names of classes and files --------------------------------------------------------------------


def test_class_names_that_are_numbers_are_in_order_of_value(tmp_path):
    make_classes(tmp_path, [str(number) for number in range(12)], number=1)
    assert read(tmp_path).class_names == tuple(str(number) for number in range(12))


NFD, NFC = (unicodedata.normalize(form, "café") for form in ("NFD", "NFC"))


@pytest.mark.parametrize(
    ("train", "test", "expected", "notes"),
    [
        (
            ("cat", "dog", "Eel"),
            ("Cat", "Dog", "Eel"),
            ("Eel", "cat", "dog"),
            ("cat and Cat, dog and Dog differ in case alone and are read as one class each.",),
        ),
        (("cat", "dog"), ("cat ", "dog"), ("cat", "dog"), ()),
        ((NFC, "dog"), (NFD, "dog"), (NFC, "dog"), ()),
        (
            ("Cat", "Straße"),
            ("CAT", "strasse"),
            ("Cat", "Straße"),
            (
                "Cat and CAT, Straße and strasse differ in case alone and are read as one class "
                "each.",
            ),
        ),
        (
            ("a", "A", "b"),
            ("a", "A", "b"),
            ("A", "a", "b"),
            ("A and a differ in case alone and stay separate classes.",),
        ),
    ],
)
def test_f10_spellings_of_a_class_in_two_splits_are_one_class(
    tmp_path, train, test, expected, notes
):
    make_classes(tmp_path / "train", train)
    make_classes(tmp_path / "test", test)
    dataset = read(tmp_path)
    assert dataset.class_names == expected
    assert classes_by_split(dataset)["test"] == set(expected)
    assert dataset.notes == notes


def test_row_17_names_with_spaces_unicode_and_length(tmp_path):
    classes = ('a cat, "big"', "Ñandú 猫", "z" * 200)
    make_classes(tmp_path / ("two words " + "y" * 150), classes)
    dataset = read(tmp_path / ("two words " + "y" * 150))
    assert dataset.class_names == tuple(sorted(classes))
    assert len(dataset.train) == 6


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_row_17_a_name_that_is_no_unicode(tmp_path):
    make_classes(tmp_path, ["cat", "dog"])
    odd = os.fsencode(tmp_path) + b"/cat/\xff\xfe.png"
    os.rename(tmp_path / "cat" / "1.png", odd)
    assert "cat/\\xff\\xfe.png" in read(tmp_path).train.ids.tolist()


# -- sizes -----------------------------------------------------------------------------------------


def test_photographs_of_every_size_kind_and_mode(tmp_path):
    kinds = [
        ("a.jpg", (480, 640), "RGB"),
        ("b.JPEG", (640, 480), "L"),
        ("c.jpg", (300, 300), "CMYK"),
        ("d.png", (50, 200), "RGBA"),
        ("e.png", (200, 50), "P"),
        ("f.gif", (90, 100), "P"),
        ("g.webp", (128, 64), "RGB"),
        ("h.bmp", (70, 70), "RGB"),
        ("i.tif", (80, 120), "RGB"),
        ("j.png", (33, 35), "LA"),
        ("k.ppm", (64, 64), "RGB"),
    ]
    for name in ("cat", "dog", "eel"):
        for file, size, mode in kinds:
            save(tmp_path / name / file, size=size, mode=mode)
    dataset = read(tmp_path)
    assert dataset.train.pixels.shape == (33, 64, 64, 3)
    assert dataset.train.original_sizes[:11].tolist() == [list(size) for _, size, _ in kinds]
    assert dataset.notes == ()
    small = read(tmp_path, image_size=20)
    export(small, tmp_path / "out.npz", "npz")
    kept = read(tmp_path / "out.npz")
    assert kept.train.same_as(small.train)
    np.testing.assert_array_equal(kept.train.original_sizes, dataset.train.original_sizes)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(32, 32)] * 4, 32),
        ([(96, 96)] * 4, 96),
        ([(97, 97)] * 4, 64),
        ([(28, 32)] * 4, 32),
        ([(32, 32), (32, 32), (32, 32), (33, 33)], 32),
        ([(48, 90), (48, 60), (40, 400), (600, 700)], 32),
        ([(48, 90), (50, 60), (40, 400), (600, 700)], 64),
    ],
)
def test_the_size_that_is_chosen(tmp_path, sizes, expected):
    for index, size in enumerate(sizes):
        save(tmp_path / "ab"[index % 2] / f"{index}.png", size=size)
    train = read(tmp_path).train
    assert train.size == (expected, expected)
    if all(size == (expected, expected) for size in sizes):
        assert train.original_sizes is None
    else:
        order = [int(Path(own).stem) for own in train.ids]
        assert train.original_sizes.tolist() == [list(sizes[index]) for index in order]


# -- FAULTS.md 26: broken files --------------------------------------------------------------------


BROKEN = {
    "train/cat/cut.png": None,  # Half of a whole one.
    "train/cat/ñandú 鳥.webp": b"RIFF\x24\0\0\0WEBPVP8 ",
    "train/cat/header alone.gif": b"GIF89a",
    "train/dog/empty.jpg": b"",
    "train/dog/page.jpg": b"<html>404</html>",
    "train/dog/zeros.bmp": b"\0" * 500,
    "test/dog/phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
}


@pytest.fixture
def spoilt(tmp_path):
    """A folder of eight good files and eight that are broken in ways that people meet."""
    for split in ("train", "test"):
        make_classes(tmp_path / split, ["cat", "dog"])
    whole = (tmp_path / "train" / "cat" / "0.png").read_bytes()
    for name, content in BROKEN.items():
        (tmp_path / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    (tmp_path / "test" / "dog" / "dangling.png").symlink_to("nowhere.png")
    return tmp_path


@pytest.mark.parametrize("image_size", [0, 8])
def test_row_26_every_broken_file_is_listed_with_a_reason(spoilt, image_size):
    with pytest.raises(TenfoldError, match=r"8 of 16 images .* --skip-broken") as caught:
        read(spoilt, image_size=image_size)
    text = str(caught.value)
    for name in (*BROKEN, "test/dog/dangling.png"):
        assert re.search(rf"{re.escape(name)} \([^()]+", text), name
    assert "train/dog/empty.jpg (is empty (0 bytes))" in text
    assert "train/cat/0.png" not in text


def test_row_26_broken_files_are_skipped_and_counted(spoilt):
    for _ in range(2):  # the second time from the cache
        dataset = read(spoilt, skip_broken=True)
        ids = [f"{name}/{n}.png" for name in ("cat", "dog") for n in (0, 1)]
        assert dataset.train.ids.tolist() == [f"train/{name}" for name in ids]
        assert dataset.test.ids.tolist() == [f"test/{name}" for name in ids]
        assert all(own.split("/")[1] == name for own, name in labelled(dataset.train).items())
        (note,) = dataset.notes
        assert note.startswith("8 of 16")
        assert all(name in note for name in BROKEN)
    with pytest.raises(TenfoldError, match="8 of 16"):
        read(spoilt)


def test_row_26_more_broken_files_than_a_sentence_holds(tmp_path, caplog):
    make_classes(tmp_path, ["cat", "dog"])
    names = [f"cat/broken {index:03}.jpg" for index in range(150)]
    for name in names:
        (tmp_path / name).write_bytes(b"junk")
    with caplog.at_level(logging.WARNING, "tenfold"), pytest.raises(TenfoldError) as caught:
        read(tmp_path)
    assert "150 of 154" in str(caught.value)
    assert "130 more" in str(caught.value)
    assert all(name in caplog.text for name in names)


def test_row_26_a_whole_split_or_everything_is_broken(tmp_path):
    make_classes(tmp_path / "train", ["bee", "cat"])
    for name in ("train/ant/1.png", "test/ant/1.png", "test/cat/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    dataset = read(tmp_path, skip_broken=True)
    assert dataset.class_names == ("ant", "bee", "cat")
    assert set(labelled(dataset.train).values()) == {"bee", "cat"}
    assert dataset.test is None
    assert any("All images of the test split are broken" in note for note in dataset.notes)
    for file in (tmp_path / "train").rglob("*.png"):
        file.write_bytes(b"x")
    with pytest.raises(TenfoldError, match="Every training image"):
        read(tmp_path, skip_broken=True)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_row_26_no_file_stays_open_after_an_error(spoilt):
    for _ in range(2):  # what is opened once and kept, such as codecs, is not counted
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(TenfoldError):
            read(spoilt)
    assert len(os.listdir("/proc/self/fd")) == before
