"""Pictures whose labels are in CSV files, as Kaggle has them, and CSV files that are wrong."""

import numpy as np
import pytest
from PIL import Image

from tenfold.data.formats import read
from tenfold.errors import TenfoldError

LABELS = ("dog", "cat", "dog", "eel")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(number):
    random = np.random.default_rng(number)
    return random.integers(0, 256, (12, 12, 3), dtype=np.uint8)


def save(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(number)).save(path)


def make_kaggle(folder, *, split="train", labels=LABELS):
    for number in range(1, len(labels) + 1):
        save(folder / split / f"{number}.png", number)
    lines = [f"{number},{label}\n" for number, label in enumerate(labels, start=1)]
    (folder / f"{split}Labels.csv").write_text("id,label\n" + "".join(lines))
    return folder / f"{split}Labels.csv"


def assert_labels(images, labels=LABELS):
    assert [images.class_names[label] for label in images.labels] == list(labels)
    for position, pixels in enumerate(images.pixels):
        np.testing.assert_array_equal(pixels, picture(position + 1))


def test_kaggles_layout(tmp_path):
    make_kaggle(tmp_path)
    save(tmp_path / "test" / "1.png", 1)
    dataset = read(tmp_path)
    assert dataset.class_names == ("cat", "dog", "eel")
    assert dataset.train.ids.tolist() == ["train/1", "train/2", "train/3", "train/4"]
    assert_labels(dataset.train)
    assert dataset.test is None
    assert dataset.notes == ("Left out: 1 picture that no CSV file labels.",)


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_three_splits_and_every_spelling(tmp_path, validation):
    for split in ("train", validation, "test"):
        make_kaggle(tmp_path, split=split)
    dataset = read(tmp_path)
    assert list(dataset.splits()) == ["train", "validation", "test"]
    for images in dataset.splits().values():
        assert_labels(images)
    assert dataset.validation.ids[0] == "validation/1"


def test_a_csv_file_may_be_given_itself(tmp_path):
    file = make_kaggle(tmp_path)
    assert read(file).train.same_as(read(tmp_path).train)


@pytest.mark.parametrize("name", ["labels.csv", "metadata.csv"])
@pytest.mark.parametrize("place", ["", "images/", "deep/er/"])
def test_one_csv_file_that_names_files(tmp_path, name, place):
    lines = ["file_name,label"]
    for number, label in enumerate(LABELS, start=1):
        save(tmp_path / place / f"p{number}.png", number)
        lines.append(f"p{number}.png,{label}")
    (tmp_path / name).write_text("\n".join(lines))
    dataset = read(tmp_path)
    assert_labels(dataset.train)
    assert dataset.train.ids[0] == f"{place}p1.png"


def test_one_csv_file_with_a_column_of_splits(tmp_path):
    lines = ["filename,split,label"]
    for number, split in enumerate(("train", "train", "val", "test"), start=1):
        save(tmp_path / "images" / f"{number}.png", number)
        lines.append(f"images/{number}.png,{split},{LABELS[number % 2]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    dataset = read(tmp_path)
    assert {split: len(images) for split, images in dataset.splits().items()} == {
        "train": 2,
        "validation": 1,
        "test": 1,
    }
    (tmp_path / "labels.csv").write_text("\n".join([*lines, "images/1.png,dev,cat"]))
    with pytest.raises(TenfoldError, match=r"labels\.csv line 6 names the split 'dev'"):
        read(tmp_path)


def test_a_file_of_classes_decides_their_order(tmp_path):
    make_kaggle(tmp_path)
    (tmp_path / "classes.txt").write_text("yak\neel\ndog\ncat\n")
    dataset = read(tmp_path)
    assert dataset.class_names == ("yak", "eel", "dog", "cat")
    assert_labels(dataset.train)


def test_a_csv_file_about_something_else_is_no_obstacle(tmp_path):
    for name in ("cat", "dog"):
        save(tmp_path / "train" / name / "1.png", 1)
    (tmp_path / "train.csv").write_text("epoch,loss\n1,2.3\n")
    assert read(tmp_path).class_names == ("cat", "dog")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_row_27_byte_order_mark_and_the_ways_of_spreadsheets(tmp_path, newline, delimiter, mark):
    file = make_kaggle(tmp_path)
    text = file.read_text().replace(",", delimiter).replace("\n", newline)
    file.write_bytes((mark + text + newline).encode())
    assert_labels(read(tmp_path).train)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3,dog,extra", r"trainLabels\.csv line 4 has 3 fields where the first line has 2"),
        ("3", r"trainLabels\.csv line 4 has 1 fields"),
        ("3,", r"trainLabels\.csv line 4 lacks a picture or a label"),
        (",dog", r"trainLabels\.csv line 4 lacks a picture or a label"),
        (
            "77,dog",
            r"line 4 names the picture '77', but there is no train/77 .* 1 of 4 are",
        ),
        ("../3,dog", r"line 4 names the picture '\.\./3', but there is no"),
        ("/etc/passwd,dog", r"line 4 names the picture '/etc/passwd', but there is no"),
        ("1,dog", r"line 4 has the picture 'train/1\.png' again, after line 2"),
        ("1.png,dog", r"line 4 has the picture 'train/1\.png' again, after line 2"),
        ('3,"dog', r"trainLabels\.csv line 5 can't be read as CSV"),
    ],
)
def test_row_27_wrong_lines_are_named(tmp_path, line, message):
    file = make_kaggle(tmp_path)
    lines = file.read_text().splitlines()
    lines[3] = line
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(TenfoldError, match=message):
        read(tmp_path)


def test_row_27_a_label_that_is_unknown(tmp_path):
    make_kaggle(tmp_path, labels=("dog", "cat", "dgo", "eel"))
    (tmp_path / "classes.txt").write_text("cat\ndog\neel\n")
    message = r"trainLabels\.csv line 4 has the label 'dgo', .* did you mean 'dog'"
    with pytest.raises(TenfoldError, match=message):
        read(tmp_path)


def test_row_27_text_that_is_not_utf8(tmp_path):
    file = make_kaggle(tmp_path, labels=("dog", "cat", "chat noiré", "eel"))
    file.write_bytes(file.read_text().encode("latin-1"))
    with pytest.raises(TenfoldError, match=r"trainLabels\.csv line 4 is not UTF-8"):
        read(tmp_path)


def test_row_27_no_line_of_column_names(tmp_path):
    file = make_kaggle(tmp_path)
    file.write_text("\n".join(file.read_text().splitlines()[1:]))
    with pytest.raises(TenfoldError, match=r"line 1 names the columns 1, dog, where id"):
        read(tmp_path)


def test_row_27_an_original_id_twice(tmp_path):
    file = make_kaggle(tmp_path)
    lines = file.read_text().splitlines()
    own = ["original_id", "a", "b", "a", "c"]
    file.write_text("\n".join(f"{line},{name}" for line, name in zip(lines, own, strict=True)))
    with pytest.raises(TenfoldError, match="line 4 has the id 'a' again, after line 2"):
        read(tmp_path)


def test_row_27_a_class_named_twice_and_a_name_with_two_pictures(tmp_path):
    make_kaggle(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\ndog\ncat\neel\n")
    with pytest.raises(TenfoldError, match=r"classes\.txt names the class 'cat' twice"):
        read(tmp_path)
    (tmp_path / "classes.txt").unlink()
    save(tmp_path / "train" / "2.bmp", 2)
    with pytest.raises(TenfoldError, match="line 3 names '2', which may be train/2"):
        read(tmp_path)


def test_row_23_one_class_and_no_rows(tmp_path):
    file = make_kaggle(tmp_path, labels=("dog", "dog"))
    with pytest.raises(TenfoldError, match="only the class 'dog'"):
        read(tmp_path)
    for content in ("id,label\n", ""):
        file.write_text(content)
        with pytest.raises(TenfoldError, match=r"no classes|line 1"):
            read(tmp_path)


def test_two_csv_files_for_one_split(tmp_path):
    file = make_kaggle(tmp_path)
    (tmp_path / "train_labels.csv").write_text(file.read_text())
    with pytest.raises(TenfoldError, match="both label the train split"):
        read(tmp_path)


def test_row_26_broken_pictures_are_named_by_their_file(tmp_path):
    make_kaggle(tmp_path)
    (tmp_path / "train" / "3.png").write_bytes(b"junk")
    with pytest.raises(TenfoldError, match=r"1 of 4 .* train/3\.png"):
        read(tmp_path)
    dataset = read(tmp_path, skip_broken=True)
    assert dataset.train.ids.tolist() == ["train/1", "train/2", "train/4"]
    assert dataset.class_names == ("cat", "dog", "eel")
