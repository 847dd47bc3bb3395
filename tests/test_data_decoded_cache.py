"""The cache of decoded images: used, renewed, and never in the way."""

import json
import logging
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tenfold.cli.app import app
from tenfold.data import decoded as resizing
from tenfold.data.decoded import resize_images
from tenfold.data.decoding import resize_pixels
from tenfold.data.formats import read


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TENFOLD_CACHE", str(folder))
    return folder


@pytest.fixture
def pictures(tmp_path):
    random = np.random.default_rng(0)
    for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(5):
            pixels = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{index}.png")
    return tmp_path / "data"


def labels_read(folder, **options):
    """The data set, and what the reading reported to be doing."""
    labels = []
    dataset = read(folder, progress=lambda label, *_: labels.append(label), **options)
    return dataset, set(labels)


def entries(cache):
    return sorted((cache / "decoded").glob("*/*"))


def is_mapped(array):
    while array is not None and not isinstance(array, np.memmap):
        array = array.base if isinstance(array, np.ndarray) else None
    return array is not None


def test_the_second_reading_opens_no_image(pictures, cache):
    first, labels = labels_read(pictures)
    assert labels == {"Decoding images"}
    second, labels = labels_read(pictures)
    assert labels == {"Reading the cache"}
    for split, images in first.splits().items():
        assert second.splits()[split].same_as(images)
        assert is_mapped(second.splits()[split].pixels)
        assert not second.splits()[split].pixels.flags.writeable
        assert second.splits()[split].pixels.flags.c_contiguous
    assert len(entries(cache)) == 1


@pytest.mark.parametrize("change", ["content", "time", "added", "removed", "renamed"])
def test_any_change_of_the_folder_is_noticed(pictures, cache, change):
    read(pictures)
    file = pictures / "train" / "cat" / "2.png"
    if change == "content":
        Image.new("RGB", (24, 24), (9, 9, 9)).save(file)
    elif change == "time":
        os.utime(file, ns=(1, 1))
    elif change == "added":
        shutil.copy2(file, file.with_name("9.png"))
    elif change == "removed":
        file.unlink()
    else:
        file.rename(file.with_name("new.png"))
    dataset, labels = labels_read(pictures)
    assert "Decoding images" in labels
    shutil.rmtree(cache)
    assert dataset.train.same_as(read(pictures).train)
    assert len(entries(cache)) == 1  # what the folder held before is dropped


@pytest.mark.parametrize("way", ["written over", "renamed onto", "copied onto"])
def test_a_file_replaced_by_one_of_the_same_size_and_time_is_noticed(pictures, tmp_path, way):
    for file in pictures.rglob("*.png"):  # Uncompressed, so that all have one size.
        Image.open(file).save(file, "BMP")
    file, new = pictures / "train/cat/2.png", tmp_path / "new.png"
    Image.new("RGB", (24, 24), (9, 9, 9)).save(new, "BMP")
    status = file.stat()
    assert new.stat().st_size == status.st_size
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    read(pictures)
    if way == "written over":
        file.write_bytes(new.read_bytes())
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif way == "renamed onto":
        new.replace(file)
    else:
        shutil.copy2(new, file)
    assert file.stat().st_mtime_ns == status.st_mtime_ns
    assert (read(pictures).train.pixels[2] == 9).all()


def test_the_cache_can_be_left_alone(pictures, cache, monkeypatch):
    first = read(pictures)
    [entry] = entries(cache)
    np.zeros((20, 24, 24, 3), np.uint8).tofile(entry / "pixels.bin")  # What a stale one is.
    assert not read(pictures).train.pixels.any()
    monkeypatch.setenv("TENFOLD_NO_CACHE", "1")
    assert read(pictures).train.same_as(read(pictures).train)
    assert read(pictures).train.pixels.any()
    assert not is_mapped(read(pictures).train.pixels)
    assert len(first.train) == 10


def test_no_cache_is_an_option_where_data_are_read(pictures, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_NO_CACHE", "")  # So that it is put back.
    out = tmp_path / "look"
    for command in (["info"], ["eda", "--out", str(out)], ["export", str(tmp_path / "x.npz")]):
        name, *more = command
        arguments = ["data", name, str(pictures), *more, "--no-cache", "--json"]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        assert not entries(cache)
    for command in ("train", "evaluate"):
        assert "--no-cache" in CliRunner().invoke(app, [command, "--help"]).output


def sixteen_bits(folder, level, *, number=12, kind="png", dark=False):
    """Grey pictures by class whose values are at most `level`; the same ones for every level."""
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for index in range(number):
            grey = random.integers(0, 256, (24, 24)).astype(np.uint16)
            values = (grey.astype(float) / 255 * level / (4 if dark else 1)).round()
            Image.fromarray(values.astype(np.uint16)).save(folder / label / f"{index}.{kind}")
    return folder


@pytest.mark.parametrize(
    ("level", "kind"), [(255, "png"), (1023, "tif"), (4095, "png"), (16383, "tif"), (65535, "png")]
)
def test_files_that_use_few_of_sixteen_bits_are_no_darker(tmp_path, level, kind, caplog):
    folder = sixteen_bits(tmp_path / "data", level, kind=kind)
    full = read(sixteen_bits(tmp_path / "full", 65535), image_size=24)
    for _ in range(2):  # The second time from the cache.
        with caplog.at_level(logging.INFO, "tenfold"):
            dataset = read(folder)
        np.testing.assert_array_equal(dataset.train.pixels, full.train.pixels)
        assert dataset.window == (0, level)
        assert any(f"up to {level:,}" in note for note in dataset.notes) == (level < 65535)
    assert (f"up to {level:,}" in caplog.text) == (level < 65535)


def test_files_of_eight_bits_have_no_level(pictures):
    assert (read(pictures).window, read(pictures).notes) == ((), ())


def test_one_range_holds_for_all_files_of_a_data_set(tmp_path):
    folder = sixteen_bits(tmp_path / "data", 4095)
    sixteen_bits(tmp_path / "dark", 4095, dark=True)
    for file in (tmp_path / "dark/cat").iterdir():
        shutil.move(file, folder / "cat" / f"dark {file.name}")
    dataset = read(folder, image_size=24)
    assert dataset.window == (0, 4095)
    dark = [i for i, name in enumerate(dataset.train.ids) if "dark" in name]
    assert dataset.train.pixels[dark].max() == 64


def test_the_range_of_other_data_can_be_asked_for(tmp_path, cache):
    folder = sixteen_bits(tmp_path / "data", 1023)
    for _ in range(2):
        found = read(folder, window=(0, 4095))
        assert found.train.pixels.max() == 64
        assert found.window == (0, 4095)
        assert read(folder).train.pixels.max() == 255
    assert read(folder, window=(0, 1023)).train.same_as(read(folder).train)
    assert len(entries(cache)) == 3  # One for each window.


def test_many_images_are_resized_once(cache, make_images, monkeypatch):
    monkeypatch.setattr(resizing, "MIN_KEPT", 40)
    images = make_images(40, size=(12, 12))
    calls = []
    small = resize_images(images, image_size=8, progress=lambda *call: calls.append(call))
    assert calls[-1] == ("Resizing images", 40, 40)
    np.testing.assert_array_equal(small.pixels, resize_pixels(images.pixels, image_size=8))
    assert (small.original_sizes == 12).all()
    again = resize_images(images, image_size=8, progress=lambda *call: pytest.fail("resized"))
    assert again.same_as(small)
    assert is_mapped(again.pixels)
    other = make_images(40, size=(12, 12), seed=1)
    assert not resize_images(other, image_size=8).same_as(small)
    assert resize_images(images, image_size=9).size == (9, 9)
    assert len(entries(cache)) == 3
    monkeypatch.setenv("TENFOLD_NO_CACHE", "1")
    assert resize_images(images, image_size=8).same_as(small)


def test_each_size_has_its_own_entry(pictures, cache):
    assert read(pictures, image_size=8).train.size == (8, 8)
    assert read(pictures).train.size == (24, 24)
    assert labels_read(pictures, image_size=8)[0].train.size == (8, 8)
    assert len(entries(cache)) == 2
    assert (labels_read(pictures, image_size=8)[0].train.original_sizes == 24).all()


@pytest.mark.parametrize("damage", ["cut off", "no description", "other sizes", "empty"])
def test_a_damaged_entry_is_made_anew(pictures, cache, caplog, damage):
    before = read(pictures)
    pixels = np.array(before.train.pixels)
    (entry,) = entries(cache)
    if damage == "cut off":
        os.truncate(entry / "pixels.bin", 5000)
    elif damage == "no description":
        (entry / "entry.json").write_text("{")
    elif damage == "other sizes":
        described = json.loads((entry / "entry.json").read_text())
        (entry / "entry.json").write_text(json.dumps(described | {"sizes": [[24, 24]]}))
    else:
        for file in entry.iterdir():
            file.write_bytes(b"")
    with caplog.at_level(logging.WARNING, "tenfold"):
        dataset, labels = labels_read(pictures)
    assert "damaged" in caplog.text
    assert "Decoding images" in labels
    np.testing.assert_array_equal(dataset.train.pixels, pixels)
    assert labels_read(pictures)[1] == {"Reading the cache"}


def test_row_7_a_cache_that_can_not_be_written_costs_a_warning(
    pictures, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING, "tenfold"):
        dataset = read(pictures)
    assert "can't be kept in the cache" in caplog.text
    assert len(dataset.train) == 10


FULL_DISK = """
import logging, sys
logging.basicConfig(stream=sys.stdout)
from tenfold.data import load
first, second = load(sys.argv[1], image_size=64), load(sys.argv[1], image_size=64)
assert first.train.same_as(second.train) and len(first.train) == 10
print(first.train.pixels.mean())
"""


@pytest.mark.parametrize("kilobytes", [4, 60, 130, 220])
def test_row_6_a_disk_that_fills_up_midway_costs_a_warning(pictures, run_with_mounts, kilobytes):
    expected = read(pictures, image_size=64).train.pixels.mean()
    script = (
        f'mkdir "$1/../c" && mount -t tmpfs -o size={kilobytes}k tmpfs "$1/../c" && '
        'TENFOLD_CACHE="$1/../c" "$PYTHON" -c "$2" "$1" && ls -A "$1/../c/decoded/"*'
    )
    result = run_with_mounts(script, pictures, FULL_DISK)
    assert result.returncode == 0, result.stderr
    assert "can't be kept in the cache" in result.stdout
    assert f"{expected}" in result.stdout
    assert result.stdout.splitlines()[-1] == f"{expected}"  # the folder is empty


def test_a_reading_that_is_broken_off_leaves_nothing(pictures, cache):
    def progress(label, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(pictures, progress=progress)
    assert entries(cache) == []


def test_what_killed_processes_left_is_removed_in_time(pictures, cache):
    read(pictures)
    folder = entries(cache)[0].parent
    for name, age in (("old", 100_000), ("new", 10)):
        leftover = folder / f".{name}.tmp"
        leftover.mkdir()
        os.utime(leftover, (leftover.stat().st_mtime - age,) * 2)
    os.utime(pictures / "train" / "cat" / "2.png", ns=(1, 1))
    read(pictures)
    assert {entry.name for entry in folder.iterdir() if entry.suffix == ".tmp"} == {".new.tmp"}
