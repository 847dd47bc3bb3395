"""Folders of real picture files: classes by name, sizes of every kind, broken ones told."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tenfold.data.formats import read
from tenfold.errors import TenfoldError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TENFOLD_CACHE", str(folder))
    return folder


def save(path: Path, *, size=(16, 16), mode="RGB", seed=0, **options):
    """A picture of random pixels, of which those read from a lossless kind are returned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return pixels


def make_classes(root: Path, names, *, number=2, **options):
    for name in names:
        for index in range(number):
            save(root / name / f"{index}.png", seed=index, **options)


def labelled(images):
    """id -> class name, which is what must never shift."""
    return {
        str(own): images.class_names[label]
        for own, label in zip(images.ids, images.labels, strict=True)
    }


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Valid"])
def test_row_23_every_spelling_of_validation(tmp_path, validation):
    for split in ("train", validation, "test"):
        make_classes(tmp_path / split, ["cat", "dog"])
    dataset = read(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert [len(images) for images in dataset.splits().values()] == [4, 4, 4]
    assert list(dataset.splits()) == ["train", "validation", "test"]
    assert dataset.train.ids.tolist()[:2] == ["train/cat/0.png", "train/cat/1.png"]
    assert dataset.validation.ids[0] == f"{validation}/cat/0.png"
    assert dataset.notes == ()


def test_row_23_two_spellings_of_one_split(tmp_path):
    for split in ("train", "val", "valid"):
        make_classes(tmp_path / split, ["cat", "dog"])
    with pytest.raises(TenfoldError, match="val and valid, which both mean the validation split"):
        read(tmp_path)


def test_one_folder_without_splits_is_all_training(tmp_path):
    pixels = save(tmp_path / "cat" / "b.png", seed=1)
    save(tmp_path / "cat" / "a.png", seed=2)
    save(tmp_path / "dog" / "young" / "a.png", seed=3)
    dataset = read(tmp_path)
    assert list(dataset.splits()) == ["train"]
    assert labelled(dataset.train) == {
        "cat/a.png": "cat",
        "cat/b.png": "cat",
        "dog/young/a.png": "dog",
    }
    np.testing.assert_array_equal(dataset.train.pixels[1], pixels)


def test_row_23_a_class_missing_in_one_split_is_mapped_by_name(tmp_path):
    make_classes(tmp_path / "train", ["ant", "bee", "cat"])
    make_classes(tmp_path / "val", ["bee", "cat"])
    make_classes(tmp_path / "test", ["cat", "dog"])
    dataset = read(tmp_path)
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
    for litter in (".hidden/x.png", "__MACOSX/x.png", "cat/._0.png", "cat/.thumbs/x.png"):
        save(tmp_path / "train" / litter)
    for litter in (".DS_Store", "train/.DS_Store", "train/cat/Thumbs.db", "train/cat/desktop.ini"):
        (tmp_path / litter).write_bytes(b"litter")
    dataset = read(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert len(dataset.train) == 4


@pytest.mark.parametrize("within", [".", "train"])
def test_row_23_a_folder_with_one_class(tmp_path, within):
    make_classes(tmp_path / within, ["cat"])
    with pytest.raises(TenfoldError, match="only the class 'cat'"):
        read(tmp_path)


def test_row_23_an_empty_folder_and_empty_class_folders(tmp_path):
    with pytest.raises(TenfoldError, match="looked for"):
        read(tmp_path)
    for name in ("train/cat", "train/dog"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(TenfoldError, match="looked for"):
        read(tmp_path)
    save(tmp_path / "train" / "cat" / "1.png")
    with pytest.raises(TenfoldError, match="only the class 'cat'"):
        read(tmp_path)


def test_row_23_pictures_without_class_folders(tmp_path):
    for index in range(3):
        save(tmp_path / "train" / f"{index}.png")
    with pytest.raises(TenfoldError, match="no classes; at least two class folders"):
        read(tmp_path)


def test_row_23_no_training_pictures(tmp_path):
    make_classes(tmp_path / "test", ["cat", "dog"])
    make_classes(tmp_path / "val", ["cat", "dog"])
    with pytest.raises(TenfoldError, match="no train folder"):
        read(tmp_path)


def test_a_test_folder_without_classes_is_left_out_and_said(tmp_path):
    make_classes(tmp_path / "train", ["cat", "dog"])
    save(tmp_path / "test" / "1.png")
    make_classes(tmp_path / "extra", ["cat"])
    dataset = read(tmp_path)
    assert dataset.test is None
    assert "1 image directly in test" in dataset.notes[0]
    assert "extra" in dataset.notes[1]


def test_class_names_that_are_numbers_are_in_order_of_value(tmp_path):
    make_classes(tmp_path, [str(number) for number in range(12)], number=1)
    assert read(tmp_path).class_names == tuple(str(number) for number in range(12))


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


def test_photographs_of_every_size_kind_and_mode(tmp_path):
    kinds = [
        ("a.jpg", (480, 640), "RGB", {}),
        ("b.JPEG", (640, 480), "L", {}),
        ("c.jpg", (300, 300), "CMYK", {}),
        ("d.png", (50, 200), "RGBA", {}),
        ("e.png", (200, 50), "P", {}),
        ("f.gif", (90, 100), "P", {}),
        ("g.webp", (128, 64), "RGB", {}),
        ("h.bmp", (70, 70), "RGB", {}),
        ("i.tif", (80, 120), "RGB", {}),
        ("j.png", (33, 35), "LA", {}),
        ("k.ppm", (64, 64), "RGB", {}),
    ]
    for name in ("cat", "dog", "eel"):
        for file, size, mode, options in kinds:
            save(tmp_path / name / file, size=size, mode=mode, **options)
    dataset = read(tmp_path)
    assert dataset.train.pixels.shape == (33, 64, 64, 3)
    assert dataset.train.original_sizes[:11].tolist() == [list(size) for _, size, *_ in kinds]
    assert dataset.notes == ()
    assert read(tmp_path, image_size=20).train.size == (20, 20)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(32, 32)] * 4, 32),
        ([(96, 96)] * 4, 96),
        ([(28, 28)] * 4, 28),
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


def spoil(folder: Path):
    """Broken in ways that people meet: cut off, empty, another kind, and a name that misleads."""
    whole = (folder / "train" / "cat" / "0.png").read_bytes()
    broken = {
        "train/cat/cut.png": whole[: len(whole) // 2],
        "train/dog/empty.jpg": b"",
        "train/dog/page.jpg": b"<html>404</html>",
        "test/dog/phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    return sorted(broken)


def test_row_26_every_broken_picture_is_listed(tmp_path):
    for split in ("train", "test"):
        make_classes(tmp_path / split, ["cat", "dog"])
    broken = spoil(tmp_path)
    with pytest.raises(TenfoldError, match=r"4 of 12 images .* --skip-broken") as caught:
        read(tmp_path)
    assert all(name in str(caught.value) for name in broken)


def test_row_26_empty_files_are_called_empty(tmp_path):
    make_classes(tmp_path, ["cat", "dog"])
    for name in ("cat/8.png", "dog/9.jpg"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(TenfoldError, match=r"2 of 6 .*: cat/8\.png \(is empty \(0 bytes\)\); "):
        read(tmp_path)


def test_row_26_broken_pictures_are_skipped_and_counted(tmp_path):
    for split in ("train", "test"):
        make_classes(tmp_path / split, ["cat", "dog"])
    intact = read(tmp_path)
    broken = spoil(tmp_path)
    for _ in range(2):  # the second time from the cache
        dataset = read(tmp_path, skip_broken=True)
        assert dataset.train.same_as(intact.train)
        assert dataset.test.same_as(intact.test)
        (note,) = dataset.notes
        assert note.startswith("4 of 12")
        assert all(name in note for name in broken)
    with pytest.raises(TenfoldError, match="4 of 12"):
        read(tmp_path)


def test_row_26_more_broken_pictures_than_a_sentence_holds(tmp_path, caplog):
    make_classes(tmp_path, ["cat", "dog"])
    names = [f"cat/broken {index:02}.jpg" for index in range(25)]
    for name in names:
        (tmp_path / name).write_bytes(b"junk")
    with caplog.at_level(logging.WARNING, "tenfold"), pytest.raises(TenfoldError) as caught:
        read(tmp_path)
    assert "25 of 29" in str(caught.value)
    assert "5 more" in str(caught.value)
    assert all(name in caplog.text for name in names)


def test_row_26_nothing_but_broken_pictures(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"junk")
    with pytest.raises(TenfoldError, match="Every training image"):
        read(tmp_path, skip_broken=True)


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


def test_accents_written_in_two_ways_are_one_class(tmp_path):
    make_classes(tmp_path / "train", ["caf\u00e9", "dog"])
    make_classes(tmp_path / "test", ["cafe\u0301", "dog"])
    assert read(tmp_path).class_names == ("caf\u00e9", "dog")


def labels_by_split(dataset):
    return {split: set(labelled(images).values()) for split, images in dataset.splits().items()}


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
def test_folders_that_mean_splits_are_read_as_splits_and_it_is_said(
    tmp_path, folders, said, caplog
):
    for folder in folders:
        make_classes(tmp_path / folder, ["cat", "dog"])
    with caplog.at_level(logging.INFO, "tenfold"):
        dataset = read(tmp_path)
    assert labels_by_split(dataset) == {split: {"cat", "dog"} for split in folders.values()}
    told = [f"{folder} is the {folders[folder]} split" for folder in said]
    told += ["the class folders beside it are the train split"] if "" in folders else []
    for text in (dataset.source, caplog.text):
        assert all(sentence in text for sentence in told)
    assert (not caplog.text) == (not said)


def test_a_folder_of_pictures_to_predict_is_left_out_beside_splits(tmp_path):
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
def test_a_class_that_is_truly_called_as_a_split_is(tmp_path, names, caplog):
    make_classes(tmp_path, names)
    with caplog.at_level(logging.INFO, "tenfold"):
        assert read(tmp_path).class_names == tuple(sorted(names))
    assert " is a class." in caplog.text
    assert read(tmp_path).test is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        # A test split without classes, or a class of tests.
        (["cat", "dog", "test"], "test in .* may be a split or a class as cat and dog beside it"),
        (["cat", "train", "val"], "train and val in .* may be a split or a class as cat"),
        (["cat", "dog", "test/ant"], "test in .* may be a split or a class as cat and dog"),
        (["cat", "dog", "val", "test/cat"], "val in .* may be a split or a class as cat and dog"),
        (["part/cat", "part/dog", "test/cat"], "test in .* may be a split or a class as part"),
        (["bus", "car", "train/steam", "train/diesel"], "train in .* may be the train split or a"),
        (["A/cat", "A/dog", "B/cat", "B/dog"], "A and B in .* each hold cat and dog: if they are"),
        (["cat/train", "cat/test", "dog/train", "dog/test"], "put the split first"),
        (["train/cat", "train/dog", "training_set/cat"], "both mean the train split"),
    ],
)
def test_folders_that_may_be_splits_or_classes_are_an_error(tmp_path, files, message):
    make_classes(tmp_path, files)
    with pytest.raises(TenfoldError, match=message):
        read(tmp_path)


def test_folders_within_classes_are_no_splits(tmp_path):
    make_classes(tmp_path, ["cat/young", "cat/old", "dog/young", "eel"])
    assert read(tmp_path).class_names == ("cat", "dog", "eel")


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
def test_spellings_of_a_class_in_two_splits_are_one_class(tmp_path, train, test, expected, notes):
    make_classes(tmp_path / "train", train)
    make_classes(tmp_path / "test", test)
    dataset = read(tmp_path)
    assert dataset.class_names == expected
    assert labels_by_split(dataset)["test"] == set(expected)
    assert dataset.notes == notes


def test_empty_class_folders_are_no_classes_and_that_is_said(tmp_path):
    make_classes(tmp_path / "train", ["cat", "dog"])
    make_classes(tmp_path / "test", ["cat", "dog"])
    for name in ("train/bird", "test/bird", "train/eel"):
        (tmp_path / name).mkdir()
    dataset = read(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.notes == ("Class folders without images were left out: bird and eel.",)
