"""Formats: told by looking, read back as they were written, and written whole or not at all."""

import dataclasses
import os
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tenfold.data import Dataset, Images, export, load
from tenfold.data.formats import detect, read
from tenfold.errors import TenfoldError

CLASSES = ("zebra", 'a, "quoted" cat', "ñandú 猫", " spaced ")
LAYOUTS = ("folder", "parquet", "npz")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TENFOLD_CACHE", str(folder))
    return folder


def make_split(split, number, *, seed, ids=None, size=(16, 16), class_names=CLASSES):
    random = np.random.default_rng(seed)
    own = [f"{split}/{position}" for position in range(1, number + 1)] if ids is None else ids
    return Images(
        random.integers(0, 256, (number, *size, 3), dtype=np.uint8),
        random.integers(0, len(class_names), number),
        class_names,
        np.array(own),
    )


def make_dataset(*, validation=True, ids=None):
    return Dataset(
        "made up",
        make_split("train", 20, seed=1, ids=ids),
        make_split("validation", 6, seed=2) if validation else None,
        make_split("test", 9, seed=3),
        "nowhere",
    )


def assert_same(dataset, expected):
    assert dataset.splits().keys() == expected.splits().keys()
    for split, images in expected.splits().items():
        assert dataset.splits()[split].same_as(images), split
        assert dataset.splits()[split].original_sizes is None


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("validation", [True, False])
def test_what_is_written_is_read_back_the_same(tmp_path, layout, validation):
    dataset = make_dataset(validation=validation)
    export(dataset, tmp_path / "out", layout)
    first, second = load(tmp_path / "out"), load(tmp_path / "out")
    assert_same(first, dataset)
    assert_same(second, dataset)
    assert all("has no images of" in note for note in first.notes)  # of a declared class
    assert first.checksums == second.checksums


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ids_of_their_own_survive(tmp_path, layout):
    ids = [f"train/cats, {number}/tom\n{number}.jpg" for number in range(20)]
    dataset = make_dataset(ids=ids)
    export(dataset, tmp_path / "out", layout)
    assert_same(load(tmp_path / "out"), dataset)


def test_checksums_do_not_depend_on_the_format(tmp_path):
    dataset = make_dataset()
    sums = []
    for layout in LAYOUTS:
        export(dataset, tmp_path / layout, layout)
        sums.append(load(tmp_path / layout).checksums)
    assert sums[0] == sums[1] == sums[2]
    assert set(sums[0]) == {
        f"{split}-{array}"
        for split in ("train", "validation", "test")
        for array in ("images", "labels")
    }


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


def test_resized_pictures_keep_their_first_sizes_in_npz(tmp_path):
    dataset = make_dataset()
    sizes = np.arange(40, dtype=np.int32).reshape(20, 2)
    train = dataclasses.replace(dataset.train, original_sizes=sizes)
    export(dataclasses.replace(dataset, train=train), tmp_path / "out.npz", "npz")
    np.testing.assert_array_equal(load(tmp_path / "out.npz").train.original_sizes, sizes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_format_is_brought_to_size(tmp_path, layout):
    export(make_dataset(), tmp_path / "out", layout)
    for size in (8, 24):
        for images in load(tmp_path / "out", image_size=size).splits().values():
            assert images.size == (size, size)
            assert (images.original_sizes == 16).all()
    assert load(tmp_path / "out", image_size=16).train.same_as(make_dataset().train)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_place_that_is_taken_is_left_alone(tmp_path, layout):
    target = tmp_path / "out"
    target.mkdir()
    (target / "thesis.txt").write_text("five years")
    with pytest.raises(TenfoldError, match="out exists already"):
        export(make_dataset(), target, layout)
    assert (target / "thesis.txt").read_text() == "five years"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("layout", ["folder", "parquet"])
def test_an_empty_folder_may_be_written_to(tmp_path, layout):
    (tmp_path / "out").mkdir()
    export(make_dataset(), tmp_path / "out", layout)
    assert_same(load(tmp_path / "out"), make_dataset())


@pytest.mark.parametrize("layout", LAYOUTS)
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
    with pytest.raises(TenfoldError, match="folder, parquet, npz"):
        export(make_dataset(), tmp_path / "out", "zarr")


def test_detect_looks_at_the_content(tmp_path):
    for layout in ("parquet", "npz"):
        export(make_dataset(), tmp_path / layout, layout)
    assert detect(tmp_path / "npz") == "npz"
    assert detect(tmp_path / "parquet") == "parquet"
    (tmp_path / "renamed.dat").write_bytes(
        (tmp_path / "parquet" / "train-00000-of-00001.parquet").read_bytes()
    )
    assert detect(tmp_path / "renamed.dat") == "parquet"


def test_nothing_known_says_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(TenfoldError, match=r"CIFAR batches .* parquet .* CSV .* class folders"):
            read(path)
    (tmp_path / "empty").touch()
    with pytest.raises(TenfoldError, match="looked for"):
        read(tmp_path / "empty")
    with pytest.raises(TenfoldError, match="does not exist"):
        read(tmp_path / "nowhere")


def test_an_archive_of_pictures_is_to_be_unpacked(tmp_path):
    with tarfile.open(tmp_path / "pictures.tar.gz", "w:gz") as archive:
        archive.add(__file__, "cats/1.jpg")
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.write(__file__, "cats/1.jpg")
    for name in ("pictures.tar.gz", "pictures.zip"):
        with pytest.raises(TenfoldError, match="unpack it"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["a.parquet", "a.npz", "a.zip", "a.tar.gz", "a.bin", "data_batch_1"]
)
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(TenfoldError, match=name):
        read(tmp_path / name)


@pytest.mark.parametrize("layout", ["parquet", "npz"])
def test_cut_off_and_altered_files_are_named(tmp_path, layout):
    export(make_dataset(), tmp_path / "out", layout)
    file = tmp_path / "out" if layout == "npz" else next((tmp_path / "out").glob("train*"))
    content = file.read_bytes()
    for length in (len(content) // 3, len(content) - 5):
        file.write_bytes(content[:length])
        with pytest.raises(TenfoldError, match=file.name):
            read(tmp_path / "out")


def test_load_finds_names_paths_and_near_misses(tmp_path, monkeypatch):
    export(make_dataset(), tmp_path / "digits-of-mine.npz", "npz")
    assert len(load(tmp_path / "digits-of-mine.npz").train) == 20
    monkeypatch.chdir(tmp_path)
    assert load("digits-of-mine.npz").name == "digits-of-mine"
    with pytest.raises(TenfoldError, match="did you mean cifar10"):
        load("cifra10")
    with pytest.raises(TenfoldError, match="neither a path that exists nor one of cifar10"):
        load("/no/such/place")


def test_a_negative_size_is_refused(tmp_path):
    with pytest.raises(TenfoldError, match="-1"):
        read(tmp_path, image_size=-1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_progress_of_reading_and_writing_ends_complete(tmp_path, layout):
    last = {}

    def progress(label, done, total):
        last[label] = done, total

    export(make_dataset(), tmp_path / "out", layout, progress=progress)
    num_writing = len(last)
    read(tmp_path / "out", progress=progress)
    assert 0 < num_writing < len(last)
    assert all(done == total for done, total in last.values())


def test_row_17_paths_with_spaces_unicode_and_length(tmp_path):
    folder = tmp_path / "two words" / "Müller 猫" / ("y" * 200)
    for layout in LAYOUTS:
        export(make_dataset(), folder / f"ü {layout}", layout)
        assert_same(load(folder / f"ü {layout}"), make_dataset())


def test_importing_the_package_is_light(run_python):
    code = (
        "import sys, tenfold.data; heavy = 'torch matplotlib pyarrow sklearn httpx PIL'.split(); "
        "print([name for name in heavy if name in sys.modules])"
    )
    assert run_python(code).stdout.strip() == "[]"


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
