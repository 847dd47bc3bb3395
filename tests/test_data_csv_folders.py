"""Images whose labels are in CSV files, as Kaggle has them, and CSV files that are wrong."""

import numpy as np
import pytest
from PIL import Image

from tenfold.data.formats import read
from tenfold.errors import TenfoldError

LABELS = ("dog", "cat", "dog", "eel")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path_factory.mktemp("cache")))


def image(number):
    random = np.random.default_rng(number)
    return random.integers(0, 256, (12, 12, 3), dtype=np.uint8)


def save(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image(number)).save(path)


def make_kaggle(folder, *, split="train", labels=LABELS):
    for number in range(1, len(labels) + 1):
        save(folder / split / f"{number}.png", number)
    lines = [f"{number},{label}\n" for number, label in enumerate(labels, start=1)]
    (folder / f"{split}Labels.csv").write_text("id,label\n" + "".join(lines))
    return folder / f"{split}Labels.csv"


def assert_labels(images, labels=LABELS):
    assert [images.class_names[label] for label in images.labels] == list(labels)
    for position, pixels in enumerate(images.pixels):
        np.testing.assert_array_equal(pixels, image(position + 1))


def test_kaggles_layout(tmp_path):
    make_kaggle(tmp_path)
    save(tmp_path / "test" / "1.png", 1)
    dataset = read(tmp_path)
    assert dataset.class_names == ("cat", "dog", "eel")
    assert dataset.train.ids.tolist() == ["train/1", "train/2", "train/3", "train/4"]
    assert_labels(dataset.train)
    assert dataset.test is None
    assert dataset.notes == ("Left out: 1 image that no CSV file labels.",)


@pytest.mark.parametrize("place", [".", "labels.csv", "inside/..", "../birds"])
def test_a_folder_is_the_same_however_it_is_named(place, tmp_path, monkeypatch):
    (tmp_path / "birds" / "inside").mkdir(parents=True)
    for number in range(1, 5):
        save(tmp_path / "birds" / f"{number}.png", number)
    lines = [f"birds/{number}.png,{label}\n" for number, label in enumerate(LABELS, start=1)]
    (tmp_path / "birds" / "labels.csv").write_text("filename,label\n" + "".join(lines))
    monkeypatch.chdir(tmp_path / "birds")
    dataset = read(place)
    assert_labels(dataset.train)
    assert dataset.name == ("labels.csv" if place == "labels.csv" else "birds")


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
    (tmp_path / "labels.csv").write_text("\n".join([*lines, "images/1.png,extra,cat"]))
    with pytest.raises(TenfoldError, match=r"labels\.csv line 6 names the split 'extra'"):
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


@pytest.mark.parametrize(
    "table",
    [
        "\ufeffid,label\n1,dog\n2,cat\n3,dog\n4,eel\n",
        "\ufeffid;label\r\n1;dog\r\n2;cat\r\n3;dog\r\n4;eel\r\n",
        '\ufeff"id","label"\n"1","dog"\n"2","cat"\n"3","dog"\n"4","eel"',
        "id\tlabel\n1\tdog\n\n2\tcat\n3\tdog\n4\teel\n\n",
        " ID , Label \n1,dog\n2,cat\n3,dog\n4,eel",
    ],
    ids=["mark", "mark, semicolons, CRLF", "mark, quotes", "tabs, empty lines", "spaces"],
)
def test_row_27_csv_as_spreadsheets_write_it(tmp_path, table):
    make_kaggle(tmp_path).write_bytes(table.encode())
    assert_labels(read(tmp_path).train)
    (tmp_path / "classes.txt").write_text("\ufeffeel\r\ndog\r\ncat\r\n")
    assert read(tmp_path).class_names == ("eel", "dog", "cat")


@pytest.mark.parametrize(
    ("table", "line", "words"),
    [
        ("id,label\n1,cat\n2\n3,cat\n", 3, ["1 field ", "has 2"]),
        ("id,label\n1,cat\n2,dog,extra\n3,cat\n", 3, ["3 fields", "has 2"]),
        ("id,label\n1,cat\n2,dgo\n3,cat\n", 3, ["'dgo'", "mean 'dog'"]),
        ("id,label\n1,cat\n2,\n3,cat\n", 3, ["lacks an image or a label"]),
        ("id,label\n1,cat\n,dog\n3,cat\n", 3, ["lacks an image or a label"]),
        ('id,label\n1,cat\n2,"dog\n3,cat\n', 4, ["can't be read as CSV"]),
        ("number,kind\n1,cat\n", 1, ["number, kind", "id or filename"]),
        ("1,cat\n2,dog\n", 1, ["names the columns 1, cat, where id"]),
        ("", 1, ["(none)"]),
        (b"id,label\n1,cat\n2,\xf1and\xfa\n3,cat\n", 3, ["is not UTF-8"]),
        ("id,label\n1,cat\n2,dog\n3,cat\n17,dog\n", 5, ["'17'", "no train/17", "1 of 4"]),
        ("id,label\n1,cat\n../secret,dog\n", 3, ["'../secret'", "there is no"]),
        ("id,label\n1,cat\n/etc/passwd,dog\n", 3, ["'/etc/passwd'", "there is no"]),
        ("id,label\n1,cat\n2,dog\n1,dog\n", 4, ["'train/1.png' again", "line 2"]),
        ("id,label\n1,cat\n2,dog\n1.png,dog\n", 4, ["'train/1.png' again", "line 2"]),
        ("id,label\n1,cat\n2,dog\ntrain/1,dog\n", 4, ["'train/1.png' again", "line 2"]),
        ("id,label,original_id\n1,cat,x\n2,dog,y\n3,cat,x\n", 4, ["id 'x' again", "line 2"]),
        ("id,label\n1,cat\n4,dog\n", 3, ["'4', which may be train/4.", "and train/4."]),
    ],
)
def test_row_27_what_is_wrong_in_a_csv_file_is_said_with_its_line(tmp_path, table, line, words):
    save(tmp_path / "secret.png", 9)
    file = make_kaggle(tmp_path / "data")
    save(tmp_path / "data" / "train" / "4.bmp", 4)
    (tmp_path / "data" / "classes.txt").write_text("cat\ndog\n")
    file.write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(TenfoldError) as caught:
        read(tmp_path / "data")
    assert f"{file} line {line} " in str(caught.value)
    assert all(word in str(caught.value) for word in words)


def test_row_27_a_name_that_images_of_two_folders_have_and_a_class_named_twice(tmp_path):
    for name in ("a/1.png", "b/1.png"):
        save(tmp_path / name, 1)
    (tmp_path / "labels.csv").write_text("filename,label\na/1,cat\nb/1,dog\n1,cat\n")
    with pytest.raises(TenfoldError, match=r"labels\.csv line 4 .*a/1\.png and b/1\.png"):
        read(tmp_path)
    (tmp_path / "labels.csv").write_text("filename,label\na/1,cat\nb/1,dog\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\ncat\neel\n")
    with pytest.raises(TenfoldError, match=r"classes\.txt names the class 'cat' twice"):
        read(tmp_path)


def test_row_23_one_class_and_no_rows(tmp_path):
    file = make_kaggle(tmp_path, labels=("dog", "dog"))
    with pytest.raises(TenfoldError, match="only the class 'dog'"):
        read(tmp_path)
    file.write_text("id,label\n")
    with pytest.raises(TenfoldError, match="no classes"):
        read(tmp_path)


def test_two_csv_files_for_one_split(tmp_path):
    file = make_kaggle(tmp_path)
    (tmp_path / "train_labels.csv").write_text(file.read_text())
    with pytest.raises(TenfoldError, match="both label the train split"):
        read(tmp_path)


def test_row_26_broken_images_are_named_by_their_file(tmp_path):
    make_kaggle(tmp_path)
    (tmp_path / "train" / "3.png").write_bytes(b"junk")
    with pytest.raises(TenfoldError, match=r"1 of 4 .* train/3\.png"):
        read(tmp_path)
    dataset = read(tmp_path, skip_broken=True)
    assert dataset.train.ids.tolist() == ["train/1", "train/2", "train/4"]
    assert dataset.class_names == ("cat", "dog", "eel")


def make_table(folder, header, rows, *, name="labels.csv"):
    """A CSV file of `rows`, each a text of fields, and of every picture that `rows` maps to."""
    for position, file in enumerate(rows.values(), start=1):
        save(folder / file, position)
    (folder / name).write_text("\n".join([header, *rows]))


def classes_of(folder):
    """id -> class, of the training images."""
    train = read(folder).train
    return {
        own: train.class_names[label]
        for own, label in zip(train.ids.tolist(), train.labels.tolist(), strict=True)
    }


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("id,file_name,label", "{number},{file},{label}"),
        ("image_id,label,path", "{number},{label},./pictures/{file}"),
        ("id,filename,label", "{number}.0,{stem},{label}"),
        ("file,image,label", "shot {number}.raw,{file},{label}"),
        ("ID,File Name,Class", "{number},{file},{label}"),
    ],
)
def test_the_column_that_names_files_wins_over_one_of_row_numbers(tmp_path, header, line):
    wanted, lines = {}, {}
    for number, other in enumerate([3, 0, 2, 1]):
        file, label = f"{other}.png", ("cat", "dog")[other % 2]
        wanted[f"pictures/{file}"] = label
        fields = {"number": number, "file": file, "stem": other, "label": label}
        lines[line.format(**fields)] = f"pictures/{file}"
    make_table(tmp_path, header, lines, name="metadata.csv")
    assert classes_of(tmp_path) == wanted


@pytest.mark.parametrize(
    ("columns", "fields"),
    [
        (("filename", "image"), ("0.png", "1.png")),
        (("id", "path"), ("0", "1")),
        (("image_id", "file_name"), ("1.png", "0.PNG")),
    ],
)
def test_two_columns_that_name_different_files_are_an_error(tmp_path, columns, fields):
    one, two = fields
    lines = {f"{one},{two},cat": "0.png", f"{two},{one},dog": "1.png"}
    make_table(tmp_path, ",".join([*columns, "label"]), lines)
    with pytest.raises(TenfoldError) as caught:
        read(tmp_path)
    message = str(caught.value)
    assert "labels.csv line 2" in message
    assert all(f"in the column {columns[0]}" in message and name in message for name in columns)


def test_two_columns_that_name_the_same_files_are_none(tmp_path):
    lines = {f"{n},{n}.png,{label}": f"{n}.png" for n, label in enumerate(LABELS)}
    make_table(tmp_path, "id,filename,label", lines)
    assert list(classes_of(tmp_path).values()) == list(LABELS)


def test_a_missing_file_is_not_made_up_for_by_a_row_number(tmp_path):
    lines = {f"{n},{3 - n}.png,{label}": f"{3 - n}.png" for n, label in enumerate(LABELS)}
    make_table(tmp_path, "id,filename,label", lines)
    (tmp_path / "2.png").unlink()
    with pytest.raises(TenfoldError, match=r"line 3 names the image '2\.png', but there is no"):
        read(tmp_path)


@pytest.mark.parametrize("place", ["images", "a/b"])
@pytest.mark.parametrize("moved", [False, True])
def test_absolute_paths_are_read_also_where_the_folder_was_moved(tmp_path, place, moved):
    root = tmp_path / "set"
    files = {root / place / f"{n}.png": label for n, label in enumerate(LABELS)}
    make_table(root, "path,label", {f"{path},{label}": path for path, label in files.items()})
    if moved:
        (tmp_path / "elsewhere").mkdir()
        root = root.rename(tmp_path / "elsewhere" / "renamed")
    assert list(classes_of(root)) == [f"{place}/{n}.png" for n in range(4)]


def test_absolute_paths_of_windows_and_of_images_elsewhere(tmp_path):
    lines = {f"C:\\mine\\images\\{n}.png,{LABELS[n]}": f"images/{n}.png" for n in range(4)}
    make_table(tmp_path / "set", "path,label", lines)
    assert list(classes_of(tmp_path / "set").values()) == list(LABELS)
    save(tmp_path / "other" / "0.png", 9)
    table = tmp_path / "set" / "labels.csv"
    table.write_text(f"path,label\n{tmp_path}/other/0.png,cat\n{tmp_path}/other/1.png,dog\n")
    with pytest.raises(TenfoldError, match=r"line 2 names the image .*other/0\.png"):
        read(tmp_path / "set")


@pytest.mark.parametrize("folder", ["train_images", "images", "train", "Training_Set/deeper"])
def test_train_csv_beside_a_folder_of_its_images(tmp_path, folder):
    lines = {f"{n}.png,{label}": f"{folder}/{n}.png" for n, label in enumerate(LABELS)}
    make_table(tmp_path, "image_id,label", lines, name="train.csv")
    for number in range(4):
        save(tmp_path / "test_images" / f"{number}.png", 10 + number)
    dataset = read(tmp_path)
    assert_labels(dataset.train)
    assert dataset.train.ids[0] == "train/0.png"
    assert dataset.test is None


def test_a_training_image_is_never_taken_from_the_test_folder(tmp_path):
    make_kaggle(tmp_path)
    (tmp_path / "train" / "3.png").rename(tmp_path / "moved.png")
    save(tmp_path / "test" / "3.png", 3)
    with pytest.raises(TenfoldError, match="line 4 names the image '3', but there is no train/3"):
        read(tmp_path)


@pytest.mark.parametrize("named", ["{}.jpg", "IMAGES/{}.Jpg", "{}"])
def test_names_in_another_case(tmp_path, named):
    lines = {f"{named.format(f'img{n}')},{LABELS[n]}": f"images/Img{n}.JPG" for n in range(4)}
    make_table(tmp_path, "filename,label", lines)
    assert list(classes_of(tmp_path)) == [f"images/Img{n}.JPG" for n in range(4)]
    save(tmp_path / "images" / "IMG2.JPG", 7)
    with pytest.raises(TenfoldError, match=r"line 4 names .* which may be images/IMG2\.JPG and"):
        read(tmp_path)


@pytest.mark.parametrize("splits", [("train", "test"), ("Train", "validation", "test_set")])
@pytest.mark.parametrize("name", ["metadata.csv", "labels.csv"])
def test_a_table_in_the_folder_of_each_split(tmp_path, splits, name):
    for split in splits:
        lines = {f"{n}.png,{label}": f"{n}.png" for n, label in enumerate(LABELS)}
        make_table(tmp_path / split, "file_name,label", lines, name=name)
    dataset = read(tmp_path)
    assert len(dataset.splits()) == len(splits)
    for images in dataset.splits().values():
        assert_labels(images)


@pytest.mark.parametrize("places", [("",), ("train/", "test/"), ("seg_train/", "seg_test/")])
@pytest.mark.parametrize(
    "text",
    ["ClassId,Name\n0,Speed 20\n1,Stop\n2,Yield\n", "id,label\n0,a\n1,b\n2,c\n", "Name\n0\n1\n2"],
)
def test_a_table_that_names_classes_alone_is_no_obstacle(tmp_path, places, text):
    for place in places:
        for name in "012":
            save(tmp_path / place / name / "0.png", 1)
    (tmp_path / "labels.csv").write_text(text)
    dataset = read(tmp_path)
    assert dataset.class_names == ("0", "1", "2")
    assert len(dataset.splits()) == len(places)


@pytest.mark.parametrize("labels", [("1", "2", "3", "1"), ("1990", "2000", "2010", "2000")])
def test_labels_that_are_numbers_are_names(tmp_path, labels):
    make_kaggle(tmp_path, labels=labels)
    assert read(tmp_path).class_names == tuple(sorted(set(labels)))
    assert_labels(read(tmp_path).train, labels)


def test_labels_in_two_spellings_are_one_class_where_no_split_has_both(tmp_path):
    make_kaggle(tmp_path, labels=("cat", "dog ", "caf\u00e9", "dog"))
    make_kaggle(tmp_path, split="test", labels=("Cat", "dog", "cafe\u0301", "dog"))
    dataset = read(tmp_path)
    assert dataset.class_names == ("caf\u00e9", "cat", "dog")
    assert_labels(dataset.test, ("cat", "dog", "caf\u00e9", "dog"))
    assert dataset.notes == ("cat and Cat differ in case alone and are read as one class each.",)
