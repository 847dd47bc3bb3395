"""Formats: told by looking, read back as they were written, and written whole or not at all."""

import os
import tarfile
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tenfold.data import Dataset, Images, export, load
from tenfold.data.formats import detect, read
from tenfold.data.images import numbered_ids
from tenfold.errors import TenfoldError

CLASSES = ("zebra", 'a, "quoted" cat', "ñandú 猫", " spaced ", "never seen")
DETECTED = {"folder": "csv", "parquet": "parquet", "npz": "npz"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path_factory.mktemp("cache")))


def make_split(split, number, *, seed, own_ids=False):
    random = np.random.default_rng(seed)
    ids = numbered_ids(split, number)
    if own_ids:
        ids = np.array([f"{split}/größe {i}/tóm, 猫\n#{i}.jpg" for i in range(number)][::-1])
    pixels = random.integers(0, 256, (number, 16, 16, 3), dtype=np.uint8)
    return Images(pixels, random.integers(0, 4, number), CLASSES, ids)


def make_dataset(*, validation=True, test=True, own_ids=False):
    return Dataset(
        "made up",
        make_split("train", 20, seed=1, own_ids=own_ids),
        make_split("validation", 6, seed=2) if validation else None,
        make_split("test", 9, seed=3, own_ids=own_ids) if test else None,
        "nowhere",
    )


def assert_same(dataset, expected):
    assert dataset.splits().keys() == expected.splits().keys()
    for split, images in expected.splits().items():
        own = dataset.splits()[split]
        assert own.same_as(images), split
        assert own.original_sizes is None
        assert own.labels.dtype == np.int64
        assert own.pixels.flags.c_contiguous


@pytest.mark.parametrize("layout", DETECTED)
@pytest.mark.parametrize(
    "splits", [{}, {"validation": False}, {"validation": False, "test": False}, {"own_ids": True}]
)
def test_what_is_written_is_read_back_the_same(tmp_path, layout, splits):
    dataset = make_dataset(**splits)
    path = tmp_path / "two words 猫" / ("y" * 200) / "out"  # FAULTS.md 17
    path.parent.mkdir(parents=True)
    export(dataset, path, layout)
    assert detect(path) == DETECTED[layout]
    first, second = load(path), load(path)  # The second time from the cache.
    assert_same(first, dataset)
    assert_same(second, dataset)
    assert all("has no images of" in note for note in first.notes)  # of a declared class
    assert first.checksums == second.checksums
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("second", DETECTED)
@pytest.mark.parametrize("first", DETECTED)
def test_from_each_format_to_each_checksums_stay(tmp_path, first, second):
    dataset = make_dataset(own_ids=True)
    export(dataset, tmp_path / "first", first)
    export(load(tmp_path / "first"), tmp_path / "second", second)
    assert_same(load(tmp_path / "second"), dataset)
    sums = load(tmp_path / "second").checksums
    assert sums == load(tmp_path / "first").checksums
    kinds = ("images", "labels")
    assert set(sums) == {f"{s}-{kind}" for s in ("train", "validation", "test") for kind in kinds}


def test_a_whole_set_of_digits(tmp_path):
    digits = load("digits")
    export(digits, tmp_path / "digits", "folder")
    assert_same(load(tmp_path / "digits"), digits)


def test_the_folder_is_laid_out_as_kaggle_does(tmp_path):
    export(make_dataset(validation=False), tmp_path / "out", "folder")
    names = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")
    }
    assert {"train/1.png", "train/20.png", "test/9.png", "trainLabels.csv"} <= names
    assert "validationLabels.csv" not in names
    lines = (tmp_path / "out" / "testLabels.csv").read_text().splitlines()
    assert lines[0] == "id,label"
    assert len(lines) == 10


def test_resized_images_keep_their_first_sizes_in_npz(tmp_path):
    dataset = make_dataset()
    sizes = np.arange(40, dtype=np.int32).reshape(20, 2)
    train = replace(dataset.train, original_sizes=sizes)
    export(replace(dataset, train=train), tmp_path / "out.npz", "npz")
    np.testing.assert_array_equal(load(tmp_path / "out.npz").train.original_sizes, sizes)


@pytest.mark.parametrize("layout", DETECTED)
def test_every_format_is_brought_to_size(tmp_path, layout):
    export(make_dataset(), tmp_path / "out", layout)
    for size in (8, 24):
        for images in load(tmp_path / "out", image_size=size).splits().values():
            assert images.size == (size, size)
            assert (images.original_sizes == 16).all()
    assert load(tmp_path / "out", image_size=16).train.same_as(make_dataset().train)
    with pytest.raises(TenfoldError, match="-1"):
        read(tmp_path / "out", image_size=-1)


@pytest.mark.parametrize("layout", DETECTED)
def test_a_place_that_is_taken_is_left_alone(tmp_path, layout):
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    (folder / "thesis.txt").write_text("five years")
    file.write_text("mine")
    for target in (folder, file):
        with pytest.raises(TenfoldError, match=f"{target.name} exists already"):
            export(make_dataset(), target, layout)
    assert (folder / "thesis.txt").read_text() == "five years"
    assert file.read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == [file, folder]


@pytest.mark.parametrize("layout", ["folder", "parquet"])
def test_an_empty_folder_may_be_written_to(tmp_path, layout):
    (tmp_path / "out").mkdir()
    export(make_dataset(), tmp_path / "out", layout)
    assert_same(load(tmp_path / "out"), make_dataset())


@pytest.mark.parametrize("layout", DETECTED)
def test_a_write_that_fails_leaves_nothing(tmp_path, layout):
    def progress(label, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(make_dataset(), tmp_path / "out", layout, progress=progress)
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import sys, pathlib
import numpy as np
from tenfold.data import Dataset, Images, export
from tenfold.errors import TenfoldError
random = np.random.default_rng(0)
pixels = random.integers(0, 256, (1000, 32, 32, 3), dtype=np.uint8)
ids = np.array([f"train/{i}" for i in range(1, 1001)])
images = Images(pixels, np.arange(1000) % 2, ("a", "b"), ids)
folder = pathlib.Path(sys.argv[1])
for layout in ("folder", "parquet", "npz"):
    try:
        export(Dataset("x", images, None, None, "here"), folder / layout, layout)
    except TenfoldError as error:
        print(error)
    assert list(folder.iterdir()) == [], list(folder.iterdir())
"""


def test_row_6_a_full_disk_while_exporting(tmp_path, run_with_mounts):
    script = 'mount -t tmpfs -o size=2m tmpfs "$1" && "$PYTHON" -c "$2" "$1"'
    result = run_with_mounts(script, tmp_path, FULL_DISK)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 3
    assert "free some space" in result.stdout.lower()


def test_an_unknown_format_names_those_that_are(tmp_path):
    with pytest.raises(TenfoldError, match="'zarr' can't be written; choose folder, parquet, npz"):
        export(make_dataset(), tmp_path / "out", "zarr")


@pytest.mark.parametrize("name", ["data.bin", "data.csv", "data.jpg", "data", "data.tar.gz"])
@pytest.mark.parametrize("layout", ["npz", "parquet"])
def test_a_misnamed_file_is_told_by_its_content(tmp_path, layout, name):
    dataset = make_dataset(validation=False, test=False)
    path = tmp_path / ("out.npz" if layout == "npz" else "out")
    export(dataset, path, layout)
    source = path if layout == "npz" else next(path.glob("*.parquet"))
    misnamed = source.rename(tmp_path / name)
    assert detect(misnamed) == layout
    assert_same(read(misnamed), dataset)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"some words\n"),
        ("nothing", b""),
        ("empty.npz", b""),
        ("words.npz", b"some words\n"),
        ("cut.npz", b"PK\x03\x04 and no more"),
        ("empty.parquet", b""),
        ("cut.parquet", b"PAR1 and no more"),
        ("image.png", b"\x89PNG\r\n\x1a\n"),
        ("batches.tar.gz", b"\x1f\x8b and no more"),
        *((name, b"PK\x03\x04 no") for name in ("a.parquet", "a.zip", "a.bin", "data_batch_1")),
    ],
)
def test_files_that_are_damaged_or_hold_no_data_set_are_named(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(TenfoldError) as caught:
        load(file)
    assert str(file) in str(caught.value)


def test_nothing_known_says_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(TenfoldError, match=r"CIFAR batches .* parquet .* CSV .* class folders"):
            read(path)
    with pytest.raises(TenfoldError, match="does not exist"):
        read(tmp_path / "nowhere")


def test_an_archive_of_images_is_to_be_unpacked(tmp_path):
    with tarfile.open(tmp_path / "images.tar.gz", "w:gz") as archive:
        archive.add(__file__, "cats/1.jpg")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.write(__file__, "cats/1.jpg")
    for name in ("images.tar.gz", "images.zip"):
        with pytest.raises(TenfoldError, match="unpack it"):
            read(tmp_path / name)


@pytest.mark.parametrize("layout", ["parquet", "npz"])
def test_cut_off_files_are_named(tmp_path, layout):
    export(make_dataset(), tmp_path / "out", layout)
    file = tmp_path / "out" if layout == "npz" else next((tmp_path / "out").glob("train*"))
    content = file.read_bytes()
    for length in (len(content) // 3, len(content) - 5):
        file.write_bytes(content[:length])
        with pytest.raises(TenfoldError, match=file.name):
            read(tmp_path / "out")


def test_load_finds_names_paths_and_near_misses(tmp_path, monkeypatch):
    export(make_dataset(), tmp_path / "digits-of-mine.npz", "npz")
    monkeypatch.chdir(tmp_path)
    assert load("digits-of-mine.npz").name == "digits-of-mine"
    with pytest.raises(TenfoldError, match="did you mean cifar10"):
        load("cifra10")
    with pytest.raises(TenfoldError, match="neither a path that exists nor one of cifar10"):
        load("/no/such/place")


@pytest.mark.parametrize("layout", DETECTED)
def test_progress_of_reading_and_writing_ends_complete(tmp_path, layout):
    last = {}

    def progress(label, done, total):
        last[label] = done, total

    export(make_dataset(), tmp_path / "out", layout, progress=progress)
    num_writing = len(last)
    read(tmp_path / "out", progress=progress)
    assert 0 < num_writing < len(last)
    assert all(done == total for done, total in last.values())


def test_importing_the_package_is_light_and_reading_needs_no_torch(tmp_path, run_python):
    export(make_dataset(), tmp_path / "out", "folder")
    code = (
        "import sys, tenfold.data; heavy = 'torch matplotlib pyarrow sklearn httpx PIL'.split(); "
        "print([name for name in heavy if name in sys.modules]); "
        "tenfold.data.load(sys.argv[1]); print('torch' in sys.modules)"
    )
    found = run_python(code, tmp_path / "out")
    assert found.stdout.split() == ["[]", "False"], found.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_a_folder_that_may_not_be_read_is_an_error_in_words(run_python):
    code = (
        "import os, sys; from tenfold.data.formats import read; "
        "os.geteuid() or os.setuid(65534)\n"
        "from tenfold.errors import TenfoldError\n"
        "try: read(sys.argv[1])\n"
        "except TenfoldError as error: print(error)"
    )
    with tempfile.TemporaryDirectory() as folder:  # tmp_path lies in folders closed to others
        os.chmod(folder, 0o755)
        closed = Path(folder) / "out"
        closed.mkdir()
        closed.chmod(0)
        result = run_python(code, closed)
    assert "check its permissions" in result.stdout, result.stderr
