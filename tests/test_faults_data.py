"""Row 22 of the fault list in archives of CIFAR, and what is said of a class without images.

Other rows of data on disk are in test_data_image_folders.py, test_data_csv_folders.py,
test_data_tables.py and test_data_cifar.py.
"""

import io
import pickle
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest

from tenfold.console.summaries import show_metrics
from tenfold.data.formats import read
from tenfold.errors import TenfoldError
from tenfold.evaluation.metrics import compare_labels
from tenfold.results.runs import Metrics

RECORD = 3073


def binary_batch(*, label: int = 3, length: int = 4 * RECORD) -> bytes:
    records = np.zeros((4, RECORD), np.uint8)
    records[2, 0] = label
    return records.tobytes()[:length]


def python_batch(*, label: int = 3, num_pixels: int = 3072) -> bytes:
    data = np.zeros((4, num_pixels), np.uint8)
    return pickle.dumps({b"data": data, b"labels": [0, 1, label, 2]}, protocol=2)


@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("data_batch_1.bin", binary_batch(length=4 * RECORD - 5), "record at byte 9219 has 3068"),
        ("data_batch_1.bin", b"", "record at byte 0 has 0 bytes instead of 3073"),
        ("data_batch_1.bin", binary_batch(label=10), "label at byte 6146 is 10"),
        ("train.bin", b"\0" * 3074 + b"\0\x64" + b"\0" * 3072, "label at byte 3075 is 100"),
        ("data_batch_1", python_batch(label=10), "entry 2 of key 'labels' is 10"),
        ("data_batch_1", python_batch(num_pixels=3071), "(3071,)"),
        ("data_batch_1", python_batch()[:-40], "nothing in it was run"),
        (
            "train",
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "fine_labels": [99, 100]}),
            "entry 1 of key 'fine_labels' is 100",
        ),
    ],
)
def test_row_22_damaged_batches(tmp_path, is_packed, name, content, place):
    path = tmp_path / "batches.tar.gz" if is_packed else tmp_path
    if is_packed:
        with tarfile.open(path, "w:gz") as target:
            member = tarfile.TarInfo(f"cifar-batches/{name}")
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    else:
        (path / name).write_bytes(content)
    with pytest.raises(TenfoldError) as caught:
        read(path)
    assert f"{path}: {name}" in str(caught.value)
    assert place in str(caught.value)


def test_a_class_without_images_is_named_beside_the_accuracy():
    metrics = compare_labels(np.array([0, 0]), np.array([0, 2]), class_names=["ant", "bee", "cat"])
    said = []
    output = SimpleNamespace(say=lambda text, **_: said.append(text))
    show_metrics(output, "test", Metrics.model_construct(**dict(metrics), loss=0.5))
    assert said[1:] == ["test: no images of bee, cat"]
