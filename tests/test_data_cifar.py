"""CIFAR as it is published, from folders, archives and single files, and what is damaged."""

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tenfold.data.cifar import CIFAR10_CLASS_NAMES, CIFAR100_CLASS_NAMES, read_cifar
from tenfold.data.images import Settings
from tenfold.errors import TenfoldError

NUM_TRAIN = 12
NUM_TEST = 4


def make_arrays(*, num_classes=10):
    random = np.random.default_rng(7)
    pixels = random.integers(0, 256, (NUM_TRAIN + NUM_TEST, 32, 32, 3), dtype=np.uint8)
    labels = random.integers(0, num_classes, NUM_TRAIN + NUM_TEST)
    labels[:2] = 0, num_classes - 1
    return pixels, labels


def planes(pixels):
    return pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)


def binary_batch(pixels, labels, *, coarse=False):
    records = [labels.astype(np.uint8)[:, None], planes(pixels)]
    if coarse:
        records.insert(0, np.zeros((len(labels), 1), np.uint8))
    return np.concatenate(records, axis=1).tobytes()


def write_binary10(folder, pixels, labels):
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, NUM_TRAIN, 4):
        part = slice(start, start + 4)
        name = f"data_batch_{start // 4 + 1}.bin"
        (folder / name).write_bytes(binary_batch(pixels[part], labels[part]))
    test = binary_batch(pixels[NUM_TRAIN:], labels[NUM_TRAIN:])
    (folder / "test_batch.bin").write_bytes(test)
    (folder / "batches.meta.txt").write_text("\n".join(CIFAR10_CLASS_NAMES) + "\n\n")


def python2_pickle(batch):
    """As Python 2 wrote the official files: protocol 2, with strings that are bytes."""

    class Writer(pickle._Pickler):  # the C pickler can't be taught to write Python 2 strings
        pass

    def save_string(writer, value):
        content = value if isinstance(value, bytes) else value.encode()
        writer.write(pickle.BINSTRING + len(content).to_bytes(4, "little") + content)
        writer.memoize(value)

    Writer.dispatch = pickle._Pickler.dispatch | {bytes: save_string, str: save_string}
    stream = io.BytesIO()
    Writer(stream, protocol=2).dump(batch)
    return stream.getvalue()


def write_python10(folder, pixels, labels, *, dump):
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, NUM_TRAIN, 4):
        part = slice(start, start + 4)
        batch = {"data": planes(pixels[part]), "labels": labels[part].tolist(), "batch_label": "b"}
        (folder / f"data_batch_{start // 4 + 1}").write_bytes(dump(batch))
    test = {"data": planes(pixels[NUM_TRAIN:]), "labels": labels[NUM_TRAIN:].tolist()}
    (folder / "test_batch").write_bytes(dump(test))
    (folder / "batches.meta").write_bytes(dump({"label_names": list(CIFAR10_CLASS_NAMES)}))


DUMPS = {
    "python 2": python2_pickle,
    "protocol 2": lambda batch: pickle.dumps(batch, protocol=2),
    "protocol 4": lambda batch: pickle.dumps(batch, protocol=4),
    "protocol 5": lambda batch: pickle.dumps(batch, protocol=5),
}


def assert_read(dataset, pixels, labels, class_names):
    assert dataset.class_names == class_names
    assert dataset.validation is None
    for images, part in (
        (dataset.train, slice(0, NUM_TRAIN)),
        (dataset.test, slice(NUM_TRAIN, None)),
    ):
        np.testing.assert_array_equal(images.pixels, pixels[part])
        np.testing.assert_array_equal(images.labels, labels[part])
        assert images.pixels.flags.c_contiguous
        assert images.labels.dtype == np.int64
    assert dataset.train.ids[[0, -1]].tolist() == ["train/1", f"train/{NUM_TRAIN}"]
    assert dataset.test.ids[0] == "test/1"


def pack(folder: Path, archive: Path):
    with tarfile.open(archive, "w:gz" if archive.suffix != ".tar" else "w") as target:
        target.add(folder, folder.name)


def test_binary_folder_is_read_plane_by_plane(tmp_path):
    pixels, labels = make_arrays()
    write_binary10(tmp_path, pixels, labels)
    dataset = read_cifar(tmp_path, Settings())
    assert_read(dataset, pixels, labels, CIFAR10_CLASS_NAMES)
    assert dataset.name == "cifar10"
    assert dataset.notes[0].endswith(
        "of data_batch_1.bin, data_batch_2.bin, data_batch_3.bin alone."
    )


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
@pytest.mark.parametrize("kind", ["binary", "python"])
def test_archives_are_read_without_unpacking(tmp_path, suffix, kind):
    pixels, labels = make_arrays()
    folder = tmp_path / "in" / "cifar-10-batches"
    if kind == "binary":
        write_binary10(folder, pixels, labels)
    else:
        write_python10(folder, pixels, labels, dump=python2_pickle)
    archive = tmp_path / f"archive{suffix}"
    pack(folder, archive)
    before = sorted(tmp_path.rglob("*"))
    assert_read(read_cifar(archive, Settings()), pixels, labels, CIFAR10_CLASS_NAMES)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", DUMPS)
def test_python_batches_of_every_pickle_protocol(tmp_path, kind):
    pixels, labels = make_arrays()
    write_python10(tmp_path / "cifar-10-batches-py", pixels, labels, dump=DUMPS[kind])
    assert_read(read_cifar(tmp_path, Settings()), pixels, labels, CIFAR10_CLASS_NAMES)


def test_cifar100_uses_the_fine_labels(tmp_path):
    pixels, labels = make_arrays(num_classes=100)
    split = {"train": slice(0, NUM_TRAIN), "test": slice(NUM_TRAIN, None)}
    binary, python = tmp_path / "binary", tmp_path / "python"
    binary.mkdir()
    python.mkdir()
    for name, part in split.items():
        content = binary_batch(pixels[part], labels[part], coarse=True)
        (binary / f"{name}.bin").write_bytes(content)
        batch = {
            "data": planes(pixels[part]),
            "fine_labels": labels[part].tolist(),
            "coarse_labels": [0] * len(labels[part]),
        }
        (python / name).write_bytes(python2_pickle(batch))
    (binary / "fine_label_names.txt").write_text("\n".join(CIFAR100_CLASS_NAMES))
    meta = {"fine_label_names": list(CIFAR100_CLASS_NAMES), "coarse_label_names": ["x"] * 20}
    (python / "meta").write_bytes(python2_pickle(meta))
    for dataset in (read_cifar(binary, Settings()), read_cifar(python, Settings())):
        assert dataset.name == "cifar100"
        assert_read(dataset, pixels, labels, CIFAR100_CLASS_NAMES)


def test_one_batch_alone(tmp_path):
    pixels, labels = make_arrays()
    write_binary10(tmp_path / "batches", pixels, labels)
    second = tmp_path / "batches" / "data_batch_2.bin"
    dataset = read_cifar(second, Settings())
    np.testing.assert_array_equal(dataset.train.pixels, pixels[4:8])
    assert dataset.test is None
    assert dataset.notes == ("The train split is made of data_batch_2.bin alone.",)
    test = read_cifar(tmp_path / "batches" / "test_batch.bin", Settings())
    np.testing.assert_array_equal(test.train.pixels, pixels[NUM_TRAIN:])
    assert test.notes == ("The train split is made of test_batch.bin alone.",)


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class BuiltinCanary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w')",)


@pytest.mark.parametrize("kind", [Canary, BuiltinCanary])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_row_11_a_pickle_given_as_a_batch_is_never_executed(tmp_path, kind, protocol):
    canary = tmp_path / "canary"
    pixels, labels = make_arrays()
    folder = tmp_path / "in" / "cifar-10-batches-py"
    write_python10(folder, pixels, labels, dump=python2_pickle)
    batch = {"data": planes(pixels[:4]), "labels": [0] * 4, "extra": kind(canary)}
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=protocol))
    archive = tmp_path / "archive.tar.gz"
    pack(folder, archive)
    for path in (folder, archive, folder / "data_batch_1"):
        with pytest.raises(TenfoldError, match="nothing in it was run"):
            read_cifar(path, Settings())
    assert not canary.exists()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_row_22_a_pickle_that_is_cut_off_names_the_byte(tmp_path, share):
    pixels, labels = make_arrays()
    folder = tmp_path / "cifar-10-batches-py"
    write_python10(folder, pixels, labels, dump=python2_pickle)
    path = folder / "data_batch_1"
    content = path.read_bytes()
    cut = content[: int(len(content) * share)]
    path.write_bytes(cut)
    with pytest.raises(
        TenfoldError, match=rf"data_batch_1: .*at byte {len(cut):,} of {len(cut):,}"
    ):
        read_cifar(folder, Settings())


def test_row_11_what_a_batch_may_use_can_not_be_altered_or_misused(tmp_path):
    attacks = {
        "encoding": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x05\x00\x00\x00rot13\x86R.",
        "attribute": b"\x80\x02c_codecs\nencode\nN}X\x01\x00\x00\x00aK\x01s\x86b.",
        "subclass": b"\x80\x02cnumpy\nmatrix\n)R.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"\x80\x02X\x01\x00\x00\x00xQ.",
        "not a dictionary": b"\x80\x02]q\x00.",
        "cut off": b"\x80\x02}q\x00(U\x04da",
    }
    for content in attacks.values():
        file = tmp_path / "data_batch_1"
        file.write_bytes(content)
        with pytest.raises(TenfoldError, match="data_batch_1"):
            read_cifar(file, Settings())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros((4, 3071), np.uint8)}, r"key 'data' holds \(3071,\)"),
        ({"data": np.zeros((4, 3072), np.float32)}, "float32"),
        ({"data": np.array([None] * 4, dtype=object)}, "object"),
        ({"data": None}, "key 'data' holds NoneType"),
        ({"data": [1, 2]}, "key 'data' holds list"),
        ({"labels": [0, 1, 2]}, "there are 3 labels of key 'labels' for 4 images"),
        ({"labels": [0, 1, 10, 2]}, "entry 2 of key 'labels' is 10"),
        ({"labels": [0, 1, -1, 2]}, "entry 2 of key 'labels' is -1"),
        ({"labels": ["cat"] * 4}, "no whole numbers"),
    ],
)
def test_row_22_wrong_python_batch(tmp_path, change, message):
    batch = {"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 2, 3]} | change
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch))
    with pytest.raises(TenfoldError, match=message):
        read_cifar(tmp_path, Settings())


def test_row_17_paths_with_spaces_unicode_and_length(tmp_path):
    folder = tmp_path / "my pictures 猫 ñ" / ("x" * 200) / "cifar-10-batches-bin"
    pixels, labels = make_arrays()
    write_binary10(folder, pixels, labels)
    assert_read(read_cifar(folder.parent, Settings()), pixels, labels, CIFAR10_CLASS_NAMES)


def test_folders_that_hold_nothing_or_two_things(tmp_path):
    with pytest.raises(TenfoldError, match=r"data_batch_1\.bin"):
        read_cifar(tmp_path, Settings())
    with pytest.raises(TenfoldError, match="holds no CIFAR batches"):
        read_cifar(tmp_path / "missing", Settings())
    write_binary10(tmp_path / "cifar-10-a", *make_arrays())
    write_binary10(tmp_path / "cifar-10-b", *make_arrays())
    with pytest.raises(TenfoldError, match="the one that is meant"):
        read_cifar(tmp_path, Settings())


def write_package(folder, pixels, labels):
    folder.mkdir(parents=True)
    for name, part in {
        **{f"data_batch_{n + 1}": slice(4 * n, 4 * n + 4) for n in range(3)},
        "test_batch": slice(NUM_TRAIN, None),
    }.items():
        Image.fromarray(pixels[part].reshape(-1, 1024, 3)).save(folder / f"{name}.png")
    (folder / "train_lables.json").write_text(json.dumps(labels[:NUM_TRAIN].tolist()))
    (folder / "test_lables.json").write_text(json.dumps(labels[NUM_TRAIN:].tolist()))
    return folder


def test_the_npm_package_is_read_from_archive_and_folder(tmp_path):
    pixels, labels = make_arrays()
    folder = write_package(tmp_path / "in" / "package", pixels, labels)
    pack(folder, tmp_path / "tfjs.tgz")
    for path in (folder, folder.parent, tmp_path / "tfjs.tgz"):
        assert_read(read_cifar(path, Settings()), pixels, labels, CIFAR10_CLASS_NAMES)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("test_batch.png", b"GIF89a", "test_batch.png: it is no sound PNG"),
        ("test_batch.png", (1024, 20_000), "it is 1024x20000 RGB"),
        ("test_batch.png", (512, 8), "it is 512x8 RGB"),
        ("test_lables.json", b"[1, 2", "test_lables.json: "),
        ("test_lables.json", b"[" * 100_000, "test_lables.json: "),
        ("test_lables.json", b"[1.5, 1, 1, 1]", "no whole numbers"),
        ("test_lables.json", b"[1, 1]", "there are 2 labels for 4 images"),
        ("test_lables.json", b"[1, 10, 1, 1]", "entry 1 is 10 where 0 to 9"),
        ("test_lables.json", None, "test_lables.json"),
    ],
)
def test_row_22_a_wrong_package_is_refused_with_the_file_in_it(tmp_path, name, content, said):
    folder = write_package(tmp_path / "package", *make_arrays())
    if content is None:
        (folder / name).unlink()
    elif isinstance(content, tuple):
        Image.new("RGB", content).save(folder / name)
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(TenfoldError, match=said):
        read_cifar(folder, Settings())
