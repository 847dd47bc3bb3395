"""Labels mended by a file of corrections: as a new data set in its format, and in training."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tenfold
from tenfold.data import Dataset, Images, export, load
from tenfold.data.corrections import read_corrections
from tenfold.data.relabel import relabel
from tenfold.data.splits import training_data
from tenfold.errors import TenfoldError
from tenfold.evaluation.runs import read_run

NAMES = ("cat", "dog", "owl")


@pytest.fixture
def dataset(make_images):
    """Fifteen training and six test images."""
    train = make_images(15, size=(16, 16), class_names=NAMES)
    test = make_images(6, size=(16, 16), class_names=NAMES, seed=1)
    test = replace(test, ids=np.array([f"test/{number}" for number in range(1, 7)]))
    return Dataset("animals", train, None, test, "made up")


def write_classes(dataset: Dataset, folder: Path) -> Path:
    """As class folders, whose ids are paths."""
    export(dataset, folder.with_name("flat"), "folder")
    for split, images in dataset.splits().items():
        for number, label in enumerate(images.labels, start=1):
            place = folder / split / NAMES[label] / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder.with_name("flat") / split / f"{number}.png", place)
    return folder


def written(dataset: Dataset, layout: str, folder: Path) -> Path:
    if layout == "classes":
        return write_classes(dataset, folder)
    place = folder.with_suffix(".npz") if layout == "npz" else folder
    export(dataset, place, layout)
    return place


def write_corrections(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    lines = ["id,label,action", *(",".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def by_id(images: Images) -> dict[str, tuple[str, bytes]]:
    """The class and the pixels of each image, by the number that its id ends with."""
    return {
        name.rpartition("/")[2].removesuffix(".png"): (images.class_names[label], pixels.tobytes())
        for name, label, pixels in zip(
            images.ids.tolist(), images.labels, images.pixels, strict=True
        )
    }


def contents(folder: Path) -> dict[str, bytes]:
    files = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    return {str(file): file.read_bytes() for file in files if file.is_file()}


@pytest.mark.parametrize("layout", ["classes", "folder", "parquet", "npz"])
def test_corrections_round_trip_through_every_format(
    dataset: Dataset, layout: str, tmp_path: Path
) -> None:
    place = written(dataset, layout, tmp_path / "animals")
    before, old = load(place), contents(place)
    own = {name.rpartition("/")[2].removesuffix(".png"): name for name in before.train.ids.tolist()}
    tests = {n.rpartition("/")[2].removesuffix(".png"): n for n in before.test.ids.tolist()}
    rows = [
        (own["1"], "owl", "correct"),
        (own["2"], "", "drop"),
        (own["3"], "owl", "keep"),
        (own["4"], "cat", "unsure"),
        (tests["2"], "cat", "correct"),
    ]
    corrections = write_corrections(tmp_path / "corrections.csv", rows)
    out = tmp_path / ("new.npz" if layout == "npz" else "new")
    done = relabel(place, corrections, out)
    after = load(done.path)
    assert contents(place) == old, "the old one is as it was"
    expected = by_id(before.train)
    del expected["2"]
    expected["1"] = ("owl", expected["1"][1])
    assert by_id(after.train) == expected
    expected = by_id(before.test)
    expected["2"] = ("cat", expected["2"][1])
    assert by_id(after.test) == expected
    assert set(done.corrected) == {own["1"], tests["2"]}
    assert done.dropped == [own["2"]]
    assert "2 labels corrected, 1 image dropped, 1 kept" in done.note
    assert done.note in after.notes
    if layout != "classes":  # There an image's path is its id, and has its class in it.
        kept = set(before.train.ids.tolist()) - {own["2"]}
        assert set(after.train.ids.tolist()) == kept
    if layout == "npz":
        with np.load(out) as arrays:
            record = json.loads(str(arrays["relabelled"]))
    else:
        record = json.loads((out / "relabelled.json").read_text())
        files = {Path(name).name: content for name, content in contents(out).items()}
        assert layout == "parquet" or set(files.values()) & set(old.values())
    assert record["corrected"][own["1"]] == ["cat", "owl"]
    assert record["dropped"] == [own["2"]]
    with pytest.raises(TenfoldError, match="exists already"):
        relabel(place, corrections, out)


def test_image_bytes_stay_as_they_were(dataset: Dataset, tmp_path: Path) -> None:
    place = write_classes(dataset, tmp_path / "animals")
    corrections = write_corrections(tmp_path / "c.csv", [("train/cat/1.png", "dog", "correct")])
    shutil.copy(place / "train/cat/4.png", place / "train/dog/1.png")
    relabel(place, corrections, tmp_path / "new")
    moved, taken = tmp_path / "new/train/dog/1-2.png", tmp_path / "new/train/dog/1.png"
    assert moved.read_bytes() == (place / "train/cat/1.png").read_bytes()
    assert taken.read_bytes() == (place / "train/dog/1.png").read_bytes(), "not overwritten"
    assert not (tmp_path / "new/train/cat/1.png").exists()


def test_other_columns_of_a_table_stay(tmp_path: Path, dataset: Dataset) -> None:
    export(dataset, tmp_path / "flat", "folder")
    place = tmp_path / "flat"
    for name in ("train", "test"):
        (place / f"{name}Labels.csv").unlink()
    (place / "classes.txt").unlink()
    rows = [f"train/{n}.png;{NAMES[n % 3]};by Ann, in {2000 + n}" for n in range(1, 9)]
    (place / "labels.csv").write_text("filename;label;note\r\n" + "\r\n".join(rows) + "\r\n")
    corrections = write_corrections(
        tmp_path / "c.csv", [("train/1.png", "owl", "correct"), ("train/2.png", "", "drop")]
    )
    done = relabel(place / "labels.csv", corrections, tmp_path / "new")
    lines = (tmp_path / "new/labels.csv").read_bytes().decode().split("\r\n")
    assert lines[:3] == ["filename;label;note", "train/1.png;owl;by Ann, in 2001", rows[2]]
    assert not (tmp_path / "new/train/2.png").exists()
    assert len(load(done.path).train) == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,action\n1,drop\n", "line 1 names the columns id, action"),
        ("id,label,action\n", "has no rows"),
        ("id,label,action\ntrain/1,cat,remove\n", "line 2 has the action 'remove'"),
        ("id,label,action\ntrain/1,,correct\n", "line 2 lacks the class"),
        ("id,label,action\ntrain/1,cat\n", "line 2 has 2 fields"),
        ("id,label,action\ntrain/1,,drop\ntrain/1,,keep\n", "line 3 judges 'train/1' again"),
        ("id,label,action\nx/1,,drop\ntrain/1,,drop\n", "no image with the id 'x/1' (1 of 2 rows"),
        ("id,label,action\ntrain/1,dgo,correct\n", "none of the 3 classes; did you mean 'dog'"),
    ],
)
def test_what_is_wrong_with_corrections_is_said(
    dataset: Dataset, tmp_path: Path, text: str, said: str
) -> None:
    place = written(dataset, "npz", tmp_path / "animals")
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(TenfoldError) as error:
        relabel(place, tmp_path / "c.csv", tmp_path / "new.npz")
    assert said in str(error.value)
    assert not (tmp_path / "new.npz").exists()


def test_other_places_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    place = write_classes(dataset, tmp_path / "animals")
    with pytest.raises(TenfoldError, match="There is no file of corrections"):
        relabel(place, tmp_path / "c.csv", tmp_path / "new")
    corrections = write_corrections(tmp_path / "c.csv", [("train/cat/1.png", "", "drop")])
    for same in (place, place / "train" / ".."):
        with pytest.raises(TenfoldError, match="lies in"):
            relabel(same, corrections, place / "new")
    every = [(name, "", "drop") for name in load(place).test.ids.tolist()]
    write_corrections(corrections, every)
    with pytest.raises(TenfoldError, match="Every image of the test split"):
        relabel(place, corrections, tmp_path / "new")


def test_the_training_split_alone_is_corrected(dataset: Dataset, tmp_path: Path) -> None:
    path = write_corrections(
        tmp_path / "c.csv",
        [("train/1", "owl", "correct"), ("train/2", "", "drop"), ("test/1", "owl", "correct")],
    )
    assert read_corrections(path)["train/1"].label == "owl"
    options = {"train_size": 0, "validation_size": 0, "seed": 0}
    plain = training_data(dataset, **options)
    mended = training_data(dataset, **options, corrections=str(path))
    assert len(mended.train) == len(plain.train) - 1
    assert mended.train.class_names[mended.train.labels[0]] == "owl"
    assert "train/2" not in mended.train.ids
    assert mended.notes[-1] == (
        "c.csv corrected the labels of 1 training image and dropped 1. Of its 3 rows 1 name no "
        "training image and changed nothing."
    )
    assert mended.corrections
    assert not plain.corrections


def test_a_run_says_by_what_its_labels_were_corrected(tmp_path: Path) -> None:
    path = write_corrections(
        tmp_path / "c.csv", [("train/1", "one", "correct"), ("train/2", "", "drop")]
    )
    options = tenfold.TrainOptions(runs=tmp_path / "runs")
    quick = {"epochs": 1, "training__min_steps": 0, "progress": False}
    run = tenfold.train("ann", data="digits", options=options, data__corrections=str(path), **quick)
    found = read_run(run.path)
    assert found.recipe["data"]["corrections"] == str(path)
    assert (run.path / "corrections.csv").read_text() == path.read_text()
    assert any("dropped 1" in note for note in found.data.notes)
    assert found.data.corrections
    write_corrections(path, [("train/99999", "", "drop")])
    with pytest.raises(TenfoldError, match="has no image with the id 'train/99999'"):
        tenfold.train("ann", data="digits", options=options, data__corrections=str(path), **quick)
