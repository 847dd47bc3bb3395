"""Rows 22, 23, 26 and 27 of the fault list: what a data set holds on disk is wrong.

Rows 11 and 22 for CIFAR batches in folders are in test_data_cifar.py.
"""

import gc
import io
import logging
import os
import pickle
import re
import tarfile
import unicodedata
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tenfold.console.summaries import show_metrics
from tenfold.data import export, formats
from tenfold.data.images import Dataset
from tenfold.errors import TenfoldError
from tenfold.evaluation.metrics import compare_labels
from tenfold.results.runs import Metrics

RECORD = 3073


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(shade: int, *, kind: str = "PNG", size: int = 8) -> bytes:
    """A picture of one grey, which tells it from the others."""
    stream = io.BytesIO()
    Image.new("RGB", (size, size), (shade, shade, shade)).save(stream, kind)
    return stream.getvalue()


def write(root: Path, files: dict[str, bytes | str | int]) -> Path:
    """Files by path below `root`; a number stands for a picture of that grey."""
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            file.write_bytes(content.encode())
        else:
            file.write_bytes(picture(content) if isinstance(content, int) else content)
    return root


def named(dataset: Dataset, split: str = "train") -> dict[int, str]:
    """The class name of each picture of a split by its grey."""
    images = dataset.splits()[split]
    names = [images.class_names[label] for label in images.labels]
    return dict(zip(images.pixels[:, 0, 0, 0].tolist(), names, strict=True))


def message(path: Path, **options) -> str:
    with pytest.raises(TenfoldError) as caught:
        formats.read(path, **options)
    return str(caught.value)


# Row 22


def pack(archive: Path, name: str, content: bytes) -> Path:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
            target.writestr(name, content)
        return archive
    with tarfile.open(archive, "w:gz") as target:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        target.addfile(member, io.BytesIO(content))
    return archive


def binary_batch(*, label: int = 3, length: int = 4 * RECORD) -> bytes:
    records = np.zeros((4, RECORD), np.uint8)
    records[2, 0] = label
    return records.tobytes()[:length]


def python_batch(*, label: int = 3, num_pixels: int = 3072) -> bytes:
    data = np.zeros((4, num_pixels), np.uint8)
    return pickle.dumps({b"data": data, b"labels": [0, 1, label, 2]}, protocol=2)


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("data_batch_1.bin", binary_batch(length=4 * RECORD - 5), "record at byte 9219 has 3068"),
        ("data_batch_1.bin", binary_batch(label=10), "label at byte 6146 is 10"),
        ("train.bin", b"\0" * 3074 + b"\0\x64" + b"\0" * 3072, "label at byte 3075 is 100"),
        ("data_batch_1", python_batch(label=10), "entry 2 of key 'labels' is 10"),
        ("data_batch_1", python_batch(num_pixels=3071), "(3071,)"),
        ("data_batch_1", python_batch()[:-40], "nothing in it was run"),
    ],
)
def test_row_22_damaged_batches_in_archives(tmp_path, suffix, name, content, place):
    archive = pack(tmp_path / f"batches{suffix}", f"cifar-batches/{name}", content)
    text = message(archive)
    assert f"{archive}: {name}" in text
    assert place in text


def test_row_22_a_python_fine_label_above_ninety_nine(tmp_path):
    batch = {"data": np.zeros((2, 3072), np.uint8), "fine_labels": [99, 100]}
    write(tmp_path, {"train": pickle.dumps(batch)})
    text = message(tmp_path)
    assert str(tmp_path / "train") in text or f"{tmp_path}: train" in text
    assert "entry 1 of key 'fine_labels' is 100" in text


# Row 23


@pytest.mark.parametrize(
    "files",
    [{}, {".hidden/cat/1.png": 1, ".hidden/dog/1.png": 2}, {"notes.txt": "no pictures here"}],
    ids=["empty", "hidden alone", "other files"],
)
def test_row_23_a_folder_with_nothing_in_it(tmp_path, files):
    folder = write(tmp_path / "pictures", files)
    folder.mkdir(exist_ok=True)
    text = message(folder)
    assert str(folder) in text
    assert "train/cat/1.jpg" in text


@pytest.mark.parametrize("above", ["", "train/"])
def test_row_23_a_folder_with_one_class(tmp_path, above):
    write(tmp_path, {f"{above}cat/1.png": 1, f"{above}cat/2.png": 2})
    text = message(tmp_path)
    assert str(tmp_path) in text
    assert "only the class 'cat'" in text


def test_row_23_splits_without_training_pictures(tmp_path):
    write(tmp_path, {"test/cat/1.png": 1, "test/dog/1.png": 2})
    assert "no train folder" in message(tmp_path)


def test_row_23_empty_class_folders_are_no_classes(tmp_path):
    write(tmp_path, {"train/cat/1.png": 1, "train/dog/1.png": 2})
    (tmp_path / "train" / "bird").mkdir()
    assert formats.read(tmp_path).class_names == ("cat", "dog")


def test_row_23_hidden_folders_and_files_are_passed_over(tmp_path):
    litter = {
        f"{place}{name}": 9
        for place in ("", "train/", "train/cat/")
        for name in (".ipynb_checkpoints/x.png", "__MACOSX/x.png", ".trash/a/x.png", "@eaDir/x.png")
    }
    litter |= {"train/cat/._1.png": b"\0\5\26\7", "train/cat/Thumbs.db": b"x", ".DS_Store": b"x"}
    write(tmp_path, litter | {"train/cat/1.png": 1, "train/dog/1.png": 2})
    dataset = formats.read(tmp_path)
    assert named(dataset) == {1: "cat", 2: "dog"}
    assert dataset.notes == ()


@pytest.mark.parametrize("spelling", ["val", "valid", "validation", "Valid", "VAL"])
def test_row_23_spellings_of_validation(tmp_path, spelling):
    files = {"train/cat/1.png": 1, "train/dog/1.png": 2, f"{spelling}/dog/1.png": 3}
    write(tmp_path, files | {f"{spelling}/cat/1.png": 4})
    dataset = formats.read(tmp_path)
    assert named(dataset) == {1: "cat", 2: "dog"}
    assert named(dataset, "validation") == {3: "dog", 4: "cat"}
    assert dataset.test is None


def test_row_23_two_spellings_of_one_split_are_refused(tmp_path):
    write(
        tmp_path,
        {
            f"{split}/{name}/1.png": 1
            for split in ("train", "val", "valid")
            for name in ("cat", "dog")
        },
    )
    text = message(tmp_path)
    assert "val and valid" in text


@pytest.mark.parametrize("form", ["images", "csv", "parquet", "npz"])
@pytest.mark.parametrize(
    ("missing", "split"),
    [("ant", "test"), ("bee", "test"), ("ant", "train"), ("bee", "train")],
)
def test_row_23_a_class_missing_in_one_split_is_mapped_by_name(tmp_path, form, missing, split):
    wanted = {"train": {}, "test": {}}
    for number, part in enumerate(wanted):
        for shade, name in enumerate(("ant", "bee", "cat"), start=1 + 10 * number):
            if (part, name) != (split, missing):
                wanted[part][shade] = name
    tree = write(
        tmp_path / "tree",
        {
            f"{part}/{name}/{shade}.png": shade
            for part, own in wanted.items()
            for shade, name in own.items()
        },
    )
    dataset = formats.read(tree)
    assert any(f"{split} split has no images of: {missing}" in note for note in dataset.notes)
    if form != "images":
        target = tmp_path / ("out.npz" if form == "npz" else "out")
        export(dataset, target, "folder" if form == "csv" else form)
        dataset = formats.read(target)
    assert dataset.class_names == ("ant", "bee", "cat")
    assert {part: named(dataset, part) for part in wanted} == wanted


def test_row_23_a_csv_folder_without_a_list_of_classes(tmp_path):
    write(
        tmp_path,
        {
            "trainLabels.csv": "id,label\n1,cat\n2,dog\n",
            "testLabels.csv": "id,label\n1,dog\n2,bee\n",
            "train/1.png": 1,
            "train/2.png": 2,
            "test/1.png": 3,
            "test/2.png": 4,
        },
    )
    dataset = formats.read(tmp_path)
    assert named(dataset) == {1: "cat", 2: "dog"}
    assert named(dataset, "test") == {3: "dog", 4: "bee"}


def test_row_23_accents_written_in_two_ways_are_one_class(tmp_path):
    apart, composed = (unicodedata.normalize(form, "café") for form in ("NFD", "NFC"))
    write(
        tmp_path,
        {"train/a/1.png": 1, f"train/{composed}/1.png": 2, f"test/{apart}/1.png": 3},
    )
    dataset = formats.read(tmp_path)
    assert dataset.class_names == ("a", composed)
    assert named(dataset, "test") == {3: composed}


# Row 26

NOISE = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)


def noisy(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(NOISE).save(stream, kind)
    return stream.getvalue()


BROKEN = {
    "empty.png": b"",
    "text.jpg": b"<html>404 Not Found</html>",
    "cut off.png": noisy("PNG")[:3000],
    "cut off.jpg": noisy("JPEG")[:900],
    "header alone.gif": b"GIF89a",
    "drawing.svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "photo.heic": b"\0\0\0\x18ftypheic" + b"\0" * 40,
    "zeros.bmp": b"\0" * 500,
    "ñandú 鳥.webp": b"RIFF\x24\0\0\0WEBPVP8 ",
}
GOOD = {
    f"train/{name}/{number}.png": shade
    for shade, (name, number) in enumerate(
        [("cat", 1), ("cat", 2), ("dog", 1), ("dog", 2)], start=1
    )
}


def mixed(root: Path, *, link: bool = True) -> tuple[Path, list[str]]:
    """Good pictures with broken ones among them, and the paths of the broken ones."""
    write(root, GOOD | {f"train/cat/{name}": content for name, content in BROKEN.items()})
    paths = [f"train/cat/{name}" for name in BROKEN]
    if link:
        (root / "train" / "dog" / "dangling.png").symlink_to("nowhere.png")
        paths.append("train/dog/dangling.png")
    return root, paths


@pytest.mark.parametrize("image_size", [0, 8])
def test_row_26_every_broken_picture_is_listed(tmp_path, image_size):
    root, paths = mixed(tmp_path)
    text = message(root, image_size=image_size)
    assert f"{len(paths)} of {len(paths) + len(GOOD)} images" in text
    assert "--skip-broken" in text
    for path in paths:
        assert re.search(rf"{re.escape(path)} \([^()]+", text), path
    assert not any(path in text for path in GOOD)


def test_row_26_broken_pictures_are_skipped_and_counted(tmp_path):
    root, paths = mixed(tmp_path)
    for _ in range(2):  # decoded, and from the cache
        dataset = formats.read(root, skip_broken=True)
        assert named(dataset) == {1: "cat", 2: "cat", 3: "dog", 4: "dog"}
        assert dataset.train.ids.tolist() == sorted(GOOD)
        (note,) = dataset.notes
        assert f"{len(paths)} of {len(paths) + len(GOOD)} images" in note
        assert all(path in note for path in paths)
    assert "can't be read" in message(root)


def test_row_26_pictures_that_a_csv_names_are_broken(tmp_path):
    write(
        tmp_path,
        {
            "labels.csv": "filename,label\n"
            + "".join(f"{path},{path.split('/')[1]}\n" for path in sorted(GOOD))
            + "".join(f"train/cat/{name},cat\n" for name in BROKEN),
        },
    )
    root, _ = mixed(tmp_path, link=False)
    text = message(root)
    assert all(f"train/cat/{name}" in text for name in BROKEN)
    dataset = formats.read(root, skip_broken=True)
    assert named(dataset) == {1: "cat", 2: "cat", 3: "dog", 4: "dog"}
    assert any(f"{len(BROKEN)} of {len(BROKEN) + 4} images" in note for note in dataset.notes)


def test_row_26_pictures_in_parquet_are_broken(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    contents = [picture(1), b"", picture(2), b"no picture", None]
    table = pa.table({"image": pa.array(contents, pa.binary()), "label": ["a", "a", "b", "b", "b"]})
    file = tmp_path / "train.parquet"
    pq.write_table(table, file)
    text = message(file)
    assert "3 of 5 images" in text
    assert all(f"row {row} (" in text for row in (2, 4, 5))
    dataset = formats.read(file, skip_broken=True)
    assert named(dataset) == {1: "a", 2: "b"}
    assert "3 of 5 images" in dataset.notes[0]


def test_row_26_hundreds_of_broken_pictures_are_all_in_the_log(tmp_path, caplog):
    names = [f"cat/{number:03}.png" for number in range(150)]
    write(tmp_path, dict.fromkeys(names, b"broken") | {"cat/good.png": 1, "dog/good.png": 2})
    with caplog.at_level(logging.WARNING, logger="tenfold"):
        text = message(tmp_path)
    assert "150 of 152 images" in text
    assert len(text) < 5000
    assert all(name in caplog.text for name in names)


def test_row_26_nothing_but_broken_pictures(tmp_path):
    write(tmp_path, {"cat/1.png": b"x", "dog/1.png": b"x"})
    assert "Every training image" in message(tmp_path, skip_broken=True)


def test_row_26_a_whole_split_or_class_is_broken(tmp_path):
    write(
        tmp_path,
        {
            "train/ant/1.png": b"x",
            "train/bee/1.png": 1,
            "train/cat/1.png": 2,
            "test/ant/1.png": b"x",
            "test/cat/1.png": b"x",
        },
    )
    dataset = formats.read(tmp_path, skip_broken=True)
    assert dataset.class_names == ("ant", "bee", "cat")
    assert named(dataset) == {1: "bee", 2: "cat"}
    assert dataset.test is None
    assert any("All images of the test split are broken" in note for note in dataset.notes)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_row_26_no_file_stays_open_after_an_error(tmp_path):
    root, _ = mixed(tmp_path)
    message(root)  # what is opened once and kept, such as codecs, is not counted
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    message(root)
    assert len(os.listdir("/proc/self/fd")) == before


# Row 27

PICTURES = {"train/1.png": 1, "train/2.png": 2, "train/3.png": 3}
WANTED = {1: "cat", 2: "dog", 3: "cat"}


@pytest.mark.parametrize(
    "table",
    [
        "\ufeffid,label\n1,cat\n2,dog\n3,cat\n",
        "\ufeffid;label\r\n1;cat\r\n2;dog\r\n3;cat\r\n",
        '\ufeff"id","label"\n"1","cat"\n"2","dog"\n"3","cat"',
        "id\tlabel\n1\tcat\n\n2\tdog\n3\tcat\n\n",
        " ID , Label \n3,cat\n1,cat\n2,dog\n",
    ],
    ids=["mark", "mark, semicolons, CRLF", "mark, quotes", "tabs, empty lines", "spaces"],
)
def test_row_27_csv_as_spreadsheets_write_it(tmp_path, table):
    write(tmp_path, PICTURES | {"trainLabels.csv": table})
    assert named(formats.read(tmp_path)) == WANTED


def test_row_27_a_mark_before_the_class_names(tmp_path):
    table = "\ufeffid,label\n1,cat\n2,dog\n3,cat\n"
    write(tmp_path, PICTURES | {"trainLabels.csv": table, "classes.txt": "\ufeffdog\r\ncat\r\n"})
    dataset = formats.read(tmp_path)
    assert dataset.class_names == ("dog", "cat")
    assert named(dataset) == WANTED


@pytest.mark.parametrize(
    ("table", "line", "words"),
    [
        ("id,label\n1,cat\n2\n3,cat\n", 3, ["1 fields", "has 2"]),
        ("id,label\n1,cat\n2,dog,extra\n3,cat\n", 3, ["3 fields", "has 2"]),
        ("id,label\n1,cat\n2,dgo\n3,cat\n", 3, ["'dgo'", "mean 'dog'"]),
        ("id,label\n1,cat\n2,dog\n3,cat\n17,dog\n", 5, ["'17'", "train/17", "1 of 4"]),
        ("id,label\n1,cat\n2,dog\n3,cat\n1,dog\n", 5, ["'train/1", "line 2"]),
        ("id,label\n1,cat\n2,\n3,cat\n", 3, ["lacks an image or a label"]),
        ("id,label\n1,cat\n,dog\n3,cat\n", 3, ["lacks an image or a label"]),
        ('id,label\n1,cat\n2,"dog\n3,cat\n', 4, ["can't be read as CSV"]),
        ("number,kind\n1,cat\n", 1, ["number, kind", "id or filename"]),
        ("", 1, ["(none)"]),
        ("id,label\n1,cat\n../secret,dog\n", 3, ["'../secret'"]),
        (
            "id,label,original_id\n1,cat,x\n2,dog,y\n3,cat,x\n",
            4,
            ["the id 'x' again", "line 2"],
        ),
    ],
    ids=[
        *("too short", "too long", "unknown label", "missing picture", "duplicate", "no label"),
        *("no name", "open quote", "other columns", "empty file", "outside", "duplicate own id"),
    ],
)
def test_row_27_what_is_wrong_in_a_csv_file_is_told_with_its_line(tmp_path, table, line, words):
    write(tmp_path, {"secret.png": 9})
    root = write(
        tmp_path / "data", PICTURES | {"trainLabels.csv": table, "classes.txt": "cat\ndog\n"}
    )
    text = message(root)
    assert f"{root / 'trainLabels.csv'} line {line} " in text
    for word in words:
        assert word in text


def test_row_27_text_in_another_encoding(tmp_path):
    write(tmp_path, PICTURES)
    (tmp_path / "trainLabels.csv").write_bytes(b"id,label\n1,cat\n2,\xf1and\xfa\n3,cat\n")
    text = message(tmp_path)
    assert f"{tmp_path / 'trainLabels.csv'} line 3 is not UTF-8" in text


def test_row_27_a_split_that_is_none(tmp_path):
    table = "filename,label,split\n1.png,cat,train\n2.png,dog,trian\n3.png,cat,test\n"
    write(tmp_path, PICTURES | {"labels.csv": table})
    text = message(tmp_path)
    assert f"{tmp_path / 'labels.csv'} line 3 " in text
    assert "'trian'" in text


def test_row_27_two_lines_for_one_picture_by_two_names(tmp_path):
    write(tmp_path, PICTURES | {"labels.csv": "filename,label\n1.png,cat\n2,dog\ntrain/1,dog\n"})
    text = message(tmp_path)
    assert f"{tmp_path / 'labels.csv'} line 4 " in text
    assert "line 2" in text


def test_row_27_a_name_that_two_pictures_have(tmp_path):
    write(tmp_path, {"labels.csv": "filename,label\na/1,cat\nb/1,dog\n1,cat\n"})
    write(tmp_path, {"a/1.png": 1, "b/1.png": 2})
    text = message(tmp_path)
    assert f"{tmp_path / 'labels.csv'} line 4 " in text
    assert "a/1.png" in text
    assert "b/1.png" in text


def test_a_class_without_images_is_named_beside_the_accuracy():
    metrics = compare_labels(np.array([0, 0]), np.array([0, 2]), class_names=["ant", "bee", "cat"])
    said = []
    output = SimpleNamespace(say=lambda text, **_: said.append(text))
    show_metrics(output, "test", Metrics.model_construct(**dict(metrics), loss=0.5))
    assert said[1:] == ["test: no images of bee, cat"]
