"""Data sets of the hub, of torchvision and of one's own readers, by stand-ins of their layout."""

import io
import json
import shutil
import struct

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tenfold.cli.options import require_data
from tenfold.data import load
from tenfold.errors import TenfoldError
from tenfold.recipe import load_recipe
from tenfold.training.train import TrainOptions, train


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def images(number, side=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, side, side, 3), dtype=np.uint8)


def png_bytes(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def write_table(path, number, *, image="photo", label="species", names=("cat", "dog")):
    path.parent.mkdir(parents=True, exist_ok=True)
    features = {
        image: {"_type": "Image"},
        label: {"_type": "ClassLabel", "names": list(names)},
        "caption": {"dtype": "string", "_type": "Value"},
    }
    rows = {
        "caption": pa.array(["words"] * number),
        image: pa.array([{"bytes": png_bytes(each), "path": None} for each in images(number)]),
        label: pa.array([row % len(names) for row in range(number)]),
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table(rows).replace_schema_metadata(metadata), path)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """What the hub has, by revision; `snapshot_download` gives a copy of what is asked for."""
    import huggingface_hub
    from huggingface_hub.errors import RevisionNotFoundError
    from huggingface_hub.utils import filter_repo_objects

    asked, branches = [], {None: tmp_path / "hub"}
    branches[None].mkdir()

    def snapshot_download(name, *, repo_type, revision, allow_patterns):
        asked.append((name, revision))
        assert repo_type == "dataset"
        if revision not in branches:
            request = httpx.Request("GET", "http://hub")
            response = httpx.Response(404, request=request)
            raise RevisionNotFoundError("no such branch", response=response)
        files = [
            p.relative_to(branches[revision]).as_posix() for p in branches[revision].rglob("*.*")
        ]
        place = tmp_path / f"snapshot-{len(asked)}"
        place.mkdir()
        for file in filter_repo_objects(files, allow_patterns=allow_patterns):
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(branches[revision] / file, place / file)
        return str(place)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return branches


def test_a_hub_data_set_of_parquet_files_has_its_columns_and_splits_found(hub):
    write_table(hub[None] / "data/train-00000-of-00001.parquet", 12)
    write_table(hub[None] / "data/test-00000-of-00001.parquet", 4)
    dataset = load("hf:somebody/pets")
    assert (len(dataset.train), len(dataset.test)) == (12, 4)
    assert dataset.class_names == ("cat", "dog")
    np.testing.assert_array_equal(dataset.train.pixels, images(12))


def test_one_of_several_configurations_is_chosen(hub):
    for configuration, number in (("small", 6), ("large", 10)):
        write_table(hub[None] / f"{configuration}/train-00000-of-00001.parquet", number)
    assert len(load("hf:somebody/pets/large").train) == 10
    with pytest.raises(TenfoldError, match="several data sets"):
        load("hf:somebody/pets")


def test_the_parquet_files_that_the_hub_makes_are_taken_of_other_formats(hub, tmp_path):
    (hub[None] / "pets.zip").write_bytes(b"PK")
    hub["refs/convert/parquet"] = tmp_path / "converted"
    write_table(hub["refs/convert/parquet"] / "default/train/0000.parquet", 8)
    write_table(hub["refs/convert/parquet"] / "default/validation/0000.parquet", 4)
    dataset = load("hf:somebody/pets")
    assert (len(dataset.train), len(dataset.validation)) == (8, 4)


def test_a_hub_data_set_of_folders_is_read_as_folders(hub):
    for split, name in (("train", "cat"), ("train", "dog"), ("test", "cat"), ("test", "dog")):
        folder = hub[None] / split / name
        folder.mkdir(parents=True)
        for number in range(3):
            Image.fromarray(images(1, side=40, seed=number)[0]).save(folder / f"{number}.jpg")
    dataset = load("hf:somebody/pets", image_size=32)
    assert (len(dataset.train), len(dataset.test)) == (6, 6)


@pytest.mark.parametrize("name", ["hf:somebody/pets", "mnist", "mine.py:load", "digits"])
def test_every_name_that_is_read_can_be_given_to_a_command(name):
    require_data(name)


@pytest.mark.parametrize("name", ["hf:", "hf:pets", "hf:/pets", "hf:somebody/"])
def test_row_e_another_form_of_name_is_said(hub, name):
    with pytest.raises(TenfoldError, match="hf:OWNER/NAME"):
        load(name)


def test_row_e_what_the_hub_refuses_is_one_sentence(hub, monkeypatch):
    import huggingface_hub

    def refuse(*args, **more):
        raise OSError("404 Client Error.\nRepository Not Found for url")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(
        TenfoldError, match=r"hf:a/b can't be fetched \(404 Client Error\)"
    ) as raised:
        load("hf:a/b")
    assert "\n" not in str(raised.value)


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")]
)
def test_mnist_by_torchvision(cache, name, folder):
    pytest.importorskip("torchvision")
    raw = cache / "torchvision" / folder / "raw"
    greys = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    for split, number in (("train", 60), ("t10k", 20)):
        write_idx(raw / f"{split}-images-idx3-ubyte", greys[:number])
        write_idx(raw / f"{split}-labels-idx1-ubyte", np.arange(number, dtype=np.uint8) % 10)
    dataset = load(name)
    assert (len(dataset.train), len(dataset.test), dataset.train.num_classes) == (60, 20, 10)
    np.testing.assert_array_equal(dataset.train.pixels[..., 1], greys)
    assert dataset.train.labels[:12].tolist() == [*range(10), 0, 1]


def test_eurosat_by_torchvision_has_its_test_held_out(cache):
    pytest.importorskip("torchvision")
    for name in ("Forest", "River"):
        folder = cache / "torchvision/eurosat/2750" / name
        folder.mkdir(parents=True)
        for number, pixels in enumerate(images(5, side=64, seed=len(name))):
            Image.fromarray(pixels).save(folder / f"{name}_{number}.jpg")
    dataset = load("eurosat")
    assert dataset.class_names == ("Forest", "River")
    assert len(dataset.train) == 10


def test_row_e_what_torchvision_cannot_fetch_is_one_sentence(cache, monkeypatch):
    pytest.importorskip("torchvision")
    from torchvision import datasets

    def refuse(*args, **more):
        raise RuntimeError("Error downloading")

    monkeypatch.setattr(datasets, "SVHN", refuse)
    with pytest.raises(TenfoldError, match=r"svhn can't be fetched .*put its files into"):
        load("svhn")


READER = """
import numpy as np

def load():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)
    labels = np.array(["left", "right"])[np.arange(40) % 2]
    return {"train": (pixels[:30], labels[:30]), "test": (pixels[30:], labels[30:])}

def wrong():
    return 3

def float():
    return {"train": (np.zeros((6, 4, 4), np.uint8), np.full(6, 0.5))}
"""


def test_a_reader_of_ones_own_is_named_as_data_and_trained_on(tmp_path):
    (tmp_path / "mine.py").write_text(READER)
    dataset = load("mine.py:load")
    assert dataset.class_names == ("left", "right")
    assert dataset.train.pixels.shape == (30, 16, 16, 3)
    recipe = load_recipe(
        "ann", ["data.name=mine.py:load", "training.epochs=1", "training.min_steps=0"]
    )
    run = train(recipe, options=TrainOptions(runs=tmp_path / "runs")).run
    assert run.is_finished()


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ("np.array(['b', 'a'] * 3, dtype=object)", ("a", "b")),
        ("['b', 'a'] * 3", ("a", "b")),
        ("np.array([7, 5] * 3, np.uint8)", ("5", "7")),
    ],
)
def test_labels_of_a_reader_of_ones_own_are_numbers_or_names(tmp_path, labels, names):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        f"def load():\n    return {{'train': (np.zeros((6, 4, 4), np.uint8), {labels})}}\n"
    )
    dataset = load("mine.py:load")
    assert dataset.class_names == names
    assert dataset.train.labels.tolist() == [1, 0] * 3


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine.py:float", r"train labels\[0\] has the label 0\.5, where a whole number or a name"),
        ("mine.py:wrong", "returned int, where"),
        ("mine.py:lod", r"no function 'lod' \(did you mean 'load'"),
        ("other.py:load", "there is no file other.py"),
    ],
)
def test_row_e_a_reader_that_gives_nothing_is_said(tmp_path, name, said):
    (tmp_path / "mine.py").write_text(READER)
    with pytest.raises(TenfoldError, match=said):
        load(name)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{'train': X}", "returned ndarray as 'train', where a pair"),
        ("{'train': (X,)}", "returned tuple as 'train', where a pair"),
        ("{'train': (X, Y), 'test': (X, Y, Y)}", "returned tuple as 'test', where a pair"),
        ("{'train': ([[1, 2], [3]], Y)}", "holds no arrays"),
        ("{'train': (X, Y), 'class_names': 2}", "2 as 'class_names', where a list of names"),
        ("{'train': (X, Y), 'class_names': 'ab'}", "'ab' as 'class_names', where a list of names"),
    ],
)
def test_row_e_a_reader_that_gives_something_else_is_said(tmp_path, given, said):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "X, Y = np.zeros((2, 4, 4), np.uint8), [0, 1]\n"
        f"def load():\n    return {given}\n"
    )
    with pytest.raises(TenfoldError, match=f"mine.py:load .*{said}"):
        load("mine.py:load")


@pytest.mark.parametrize("kind", ["a Dataset", "arrays"])
def test_a_reader_of_ones_own_is_looked_at_as_files_are(tmp_path, kind):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nfrom tenfold.data import Dataset, Images\n"
        "X, Y, NAMES = np.zeros((4, 4, 4, 3), np.uint8), np.array([0, 1, 0, 1]), ('a', 'b', 'c')\n"
        "def load(kind='a Dataset', twice=False):\n"
        "    if kind == 'arrays':\n"
        "        return {'train': (X, Y), 'test': (X, 2 * Y), 'class_names': NAMES}\n"
        "    ids = np.array(list('1111' if twice else '1234'))\n"
        "    train, test = (Images(X, each, NAMES, ids) for each in (Y, 2 * Y))\n"
        "    return Dataset('mine', train, None, test, 'me')\n"
        "def arrays(): return load('arrays')\n"
        "def twice(): return load(twice=True)\n"
    )
    dataset = load("mine.py:arrays" if kind == "arrays" else "mine.py:load")
    assert dataset.train.ids.tolist() == [f"train/{number}" for number in range(1, 5)]
    assert dataset.test.ids.tolist() == [f"test/{number}" for number in range(1, 5)]
    assert dataset.notes[0].startswith("The train split has no images of: c.")
    assert dataset.notes[1] == "The test split has no images of: b."
    with pytest.raises(TenfoldError, match="4 images of the train split have the id '1'"):
        load("mine.py:twice")
