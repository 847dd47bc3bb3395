"""What is written is read back as it was; and a format is told by looking, not by a suffix."""

import io
import pickle
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tenfold.data import export, load
from tenfold.data.formats import detect, read
from tenfold.data.images import Dataset, Images, numbered_ids
from tenfold.data.writing import WRITERS
from tenfold.errors import TenfoldError

CLASS_NAMES = ("猫", "ñandú, the bird", 'a "quoted" one', "Ωmega; x", "never seen")
DETECTED = {"folder": "csv", "parquet": "parquet", "npz": "npz"}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path_factory.mktemp("cache")))


def random_images(number, *, split, class_names=("cat", "ant", "bee"), own_ids=False, seed=0):
    """Random pictures; the names are out of order, so that sorting them would show."""
    generator = np.random.default_rng([seed, number])
    ids = numbered_ids(split, number)
    if own_ids:
        ids = np.array([f"{split}/größe {i}/tóm, 猫 #{i}.jpg" for i in range(number)][::-1])
    return Images(
        generator.integers(0, 256, (number, 16, 16, 3), dtype=np.uint8),
        generator.integers(0, min(3, len(class_names)), number),
        class_names,
        ids,
    )


def two_splits():
    train, test = random_images(25, split="train"), random_images(9, split="test")
    return Dataset("two", train, None, test, "made up")


def three_splits():
    options = {"class_names": CLASS_NAMES, "own_ids": True}
    return Dataset(
        "three",
        random_images(25, split="train", **options),
        random_images(7, split="validation", **options),
        random_images(9, split="test", **options),
        "made up",
    )


def one_split():
    return Dataset("one", random_images(12, split="train"), None, None, "made up")


def assert_same(got, wanted):
    assert got.splits().keys() == wanted.splits().keys()
    for split, images in wanted.splits().items():
        assert got.splits()[split].same_as(images), split
        assert got.splits()[split].labels.dtype == np.int64
        assert got.splits()[split].pixels.flags.c_contiguous


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("make", [one_split, two_splits, three_splits])
def test_what_is_written_is_read_back(tmp_path, form, make):
    dataset = make()
    path = tmp_path / "my data 猫" / ("out.npz" if form == "npz" else "out")
    path.parent.mkdir()
    export(dataset, path, form)
    assert detect(path) == DETECTED[form]
    for _ in range(2):  # the second time, pictures come from the cache
        assert_same(load(path), dataset)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("first", WRITERS)
@pytest.mark.parametrize("second", WRITERS)
def test_from_each_format_to_each(tmp_path, first, second):
    dataset = three_splits()
    export(dataset, tmp_path / "first", first)
    export(load(tmp_path / "first"), tmp_path / "second", second)
    assert_same(load(tmp_path / "second"), dataset)


@pytest.mark.parametrize("form", WRITERS)
def test_checksums_are_those_of_the_content_not_of_the_format(tmp_path, form):
    path = tmp_path / ("out.npz" if form == "npz" else "out")
    export(two_splits(), path, form)
    export(two_splits(), tmp_path / "reference.npz", "npz")
    assert load(path).checksums == load(tmp_path / "reference.npz").checksums


@pytest.mark.parametrize("form", WRITERS)
def test_digits_survive_every_format(tmp_path, form):
    digits = load("digits")
    few = replace(
        digits, train=digits.train.take(np.arange(150)), test=digits.test.take(np.arange(60))
    )
    path = tmp_path / ("digits.npz" if form == "npz" else "digits")
    export(few, path, form)
    assert_same(load(path), few)


def test_a_whole_set_of_digits(tmp_path):
    digits = load("digits")
    export(digits, tmp_path / "digits", "folder")
    assert_same(load(tmp_path / "digits"), digits)


@pytest.mark.parametrize("form", WRITERS)
def test_what_is_there_is_not_written_over(tmp_path, form):
    path = tmp_path / "out"
    path.write_text("mine")
    with pytest.raises(TenfoldError, match="exists already"):
        export(two_splits(), path, form)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_another_format_is_refused(tmp_path):
    with pytest.raises(TenfoldError, match="'csv' can't be written; choose folder"):
        export(two_splits(), tmp_path / "out", "csv")


def write_tree(root: Path, images: Images, *, split: str | None) -> dict[str, int]:
    """PNG files in class folders; which picture each id means."""
    rows = {}
    for row, label in enumerate(images.labels):
        path = f"{images.class_names[label]}/{row:03}.png"
        path = f"{split}/{path}" if split else path
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.pixels[row]).save(root / path)
        rows[path] = row
    return rows


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("train",), (None,)])
def test_a_folder_of_class_folders_is_read_as_it_was_drawn(tmp_path, splits):
    names = ("Zebra", "猫", "ant")
    drawn = {split: random_images(20, split="x", class_names=names, seed=1) for split in splits}
    rows = {split: write_tree(tmp_path, images, split=split) for split, images in drawn.items()}
    assert detect(tmp_path) == "images"
    dataset = load(tmp_path)
    assert dataset.class_names == ("Zebra", "ant", "猫")
    for split, images in drawn.items():
        got = dataset.splits()[{"val": "validation", None: "train"}.get(split, split)]
        assert got.ids.tolist() == sorted(rows[split])
        order = [rows[split][name] for name in got.ids]
        np.testing.assert_array_equal(got.pixels, images.pixels[order])
        assert [got.class_names[label] for label in got.labels] == [
            names[label] for label in images.labels[order]
        ]


def test_class_folders_with_numbers_are_in_the_order_of_their_values(tmp_path):
    names = tuple(str(number) for number in range(11))
    images = replace(
        random_images(11, split="x", class_names=names), labels=np.arange(11, dtype=np.int64)
    )
    write_tree(tmp_path, images, split=None)
    dataset = load(tmp_path)
    assert dataset.class_names == names
    np.testing.assert_array_equal(
        dataset.train.pixels[dataset.train.labels.argsort()], images.pixels
    )


def test_original_sizes_and_ids_of_class_folders_survive_npz(tmp_path):
    for number, name in enumerate(("cat", "dog", "cat", "dog")):
        (tmp_path / "tree" / name).mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (40 + number, 30), (number, 0, 0))
        picture.save(tmp_path / "tree" / name / f"{number}.png")
    dataset = load(tmp_path / "tree", image_size=16)
    export(dataset, tmp_path / "out.npz", "npz")
    got = load(tmp_path / "out.npz")
    assert_same(got, dataset)
    assert got.train.original_sizes.tolist() == [[30, 40], [30, 42], [30, 41], [30, 43]]


MISNAMED = ["data.bin", "data.zip", "data.csv", "data.jpg", "data", "data.tar.gz"]


@pytest.mark.parametrize("name", MISNAMED)
@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_a_misnamed_file_is_told_by_its_content(tmp_path, form, name):
    dataset = one_split()
    path = tmp_path / ("out.npz" if form == "npz" else "out")
    export(dataset, path, form)
    source = path if form == "npz" else next(path.glob("*.parquet"))
    misnamed = tmp_path / "in" / name
    misnamed.parent.mkdir()
    shutil.copyfile(source, misnamed)
    assert detect(misnamed) == form
    assert_same(read(misnamed), dataset)


@pytest.mark.parametrize("name", ["data", "data.dat", "data.txt", "data.npz.old"])
def test_a_misnamed_batch_is_told_by_its_content(tmp_path, name):
    generator = np.random.default_rng(0)
    planes = generator.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(6)
    records = np.concatenate([labels.astype(np.uint8)[:, None], planes.reshape(6, -1)], axis=1)
    batch = {"data": planes.reshape(6, -1), "labels": labels.tolist()}
    contents = [records.tobytes(), pickle.dumps(batch, protocol=2)]
    for content in contents:
        file = tmp_path / name
        file.write_bytes(content)
        assert detect(file) == "cifar"
        dataset = read(file)
        np.testing.assert_array_equal(dataset.train.pixels, planes.transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(dataset.train.labels, labels)


def test_a_misnamed_archive_is_told_by_its_content(tmp_path):
    content = bytes(3073) * 2
    archive = tmp_path / "batches.dat"
    with tarfile.open(archive, "w:xz") as target:
        member = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        member.size = len(content)
        target.addfile(member, io.BytesIO(content))
    assert detect(archive) == "cifar"
    assert len(read(archive).train) == 2


def test_pictures_whose_names_lie_are_read_by_their_content(tmp_path):
    images = random_images(20, split="x")
    rows = write_tree(tmp_path, images, split=None)
    for path in rows:
        (tmp_path / path).rename((tmp_path / path).with_suffix(".jpg"))
    got = load(tmp_path).train
    order = [rows[name.replace(".jpg", ".png")] for name in got.ids]
    np.testing.assert_array_equal(got.pixels, images.pixels[order])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"some words\n"),
        ("nothing", b""),
        ("empty.npz", b""),
        ("empty.parquet", b""),
        ("words.npz", b"some words\n"),
        ("cut.npz", b"PK\x03\x04 and no more"),
        ("cut.parquet", b"PAR1 and no more"),
        ("picture.png", b"\x89PNG\r\n\x1a\n"),
        ("batches.tar.gz", b"\x1f\x8b and no more"),
    ],
)
def test_files_that_hold_no_data_set_are_named(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(TenfoldError) as caught:
        load(file)
    assert str(file) in str(caught.value)


def test_reading_needs_no_torch(run_python, tmp_path):
    export(two_splits(), tmp_path / "out", "folder")
    code = "import sys; from tenfold.data import load; load(sys.argv[1])"
    got = run_python(f"{code}; print('torch' in sys.modules)", tmp_path / "out")
    assert got.stdout == "False\n", got.stderr
