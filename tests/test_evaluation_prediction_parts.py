"""Predictions of many images in parts: sources, going on after an end, and what is refused."""

import csv
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tenfold.cli.options import chosen_part
from tenfold.data.image_sources import find_parts
from tenfold.errors import TenfoldError
from tenfold.evaluation.image_predictions import predict_parts
from tenfold.evaluation.prediction_parts import (
    Manifest,
    Settings,
    images_checksum,
    predict_here,
    predict_to_folder,
)


class Brightness:
    """Of a class for each of four levels of brightness, sure of one; counts what it has seen."""

    class_names = ("black", "dark", "light", "white")
    image_size = (8, 8)
    window = ()
    operating_points = {}  # noqa: RUF012

    def __init__(self):
        self.num_seen = 0

    def predict_proba(self, pixels):
        """(N, 8, 8, 3) -> (N, 4)."""
        self.num_seen += len(pixels)
        levels = pixels.reshape(len(pixels), -1).mean(axis=1).astype(int) // 64
        return (np.eye(4, dtype=np.float32) * 0.7 + 0.1)[levels] / 1.1


def png(number):
    """An image file whose brightness is `number`'s."""
    content = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), number * 64 % 256, np.uint8)).save(content, "PNG")
    return content.getvalue()


def label(number):
    return Brightness.class_names[number % 4]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with `images/00.png` to `images/24.png`, the eighth broken."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for number in range(25):
        (tmp_path / f"images/{number:02}.png").write_bytes(png(number) if number != 7 else b"no")
    return tmp_path


def predicted(places):
    """What is predicted of each image there: label or error by its name, in order."""
    found = predict_parts(Brightness(), find_parts(list(map(str, places)), size=10))
    return {
        each.path: each.likeliest[0].label if each.likeliest else each.error
        for _, some in found
        for each in some
    }


def into(out, places=("images",), *, model=None, share=(1, 1), on_part=None, **changes):
    parts = find_parts(places, size=10)
    known = {
        "model_sha256": "a",
        "temperature": 1.0,
        "threshold": None,
        "class_names": Brightness.class_names,
        "top": 1,
        "file_format": "csv",
        "images_sha256": images_checksum(parts),
        "num_parts": len(parts),
    }
    manifest = Manifest(model="m", images=tuple(places), settings=Settings(**known | changes))
    predict = predict_here(model or Brightness(), manifest.settings)
    return predict_to_folder(predict, parts, out, manifest=manifest, share=share, on_part=on_part)


def rows_in(out):
    rows = []
    for file in sorted(out.glob("part-*.csv")):
        with open(file, encoding="utf-8", newline="") as opened:
            rows += list(csv.DictReader(opened))
    return rows


def write_shard(path, numbers, mode="w"):
    with tarfile.open(path, mode) as archive:
        for number in numbers:
            for suffix, content in (("png", png(number)), ("cls", b"3")):
                member = tarfile.TarInfo(f"{number:05}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


# -- where images are ----------------------------------------------------------------------------


def test_a_list_names_files_one_a_line(folder):
    (folder / "list.txt").write_text("\ufeffimages/03.png\n\nimages/none.png\nimages/03.png\n")
    assert predicted(["list.txt"]) == {
        "images/03.png": label(3),
        "images/none.png": "no such file or directory",
    }
    (folder / "empty.txt").write_text("\n")
    with pytest.raises(TenfoldError, match=r"empty\.txt names no image"):
        find_parts(["empty.txt"])


@pytest.mark.parametrize("rows_a_group", [4, 100])
def test_rows_of_parquet_have_their_numbers_or_ids(folder, rows_a_group):
    images = [{"bytes": png(n) if n != 5 else b"no", "path": None} for n in range(23)]
    pq.write_table(pa.table({"image": images}), "a.parquet", row_group_size=rows_a_group)
    ids = [f"id {n}" for n in range(23)]
    pq.write_table(pa.table({"img": images, "id": ids}), "b.parquet")
    found = predicted(["a.parquet", "b.parquet"])
    names = [f"a.parquet#{n}" for n in range(1, 24)] + ids
    assert list(found) == names
    labels = [label(n) if n != 5 else "is no image of a kind that can be read" for n in range(23)]
    assert list(found.values()) == labels * 2
    assert [part.num_images for part in find_parts(["a.parquet"], size=10)] == [10, 10, 3]


@pytest.mark.parametrize(("name", "mode"), [("s.tar", "w"), ("s.tar.gz", "w:gz")])
def test_tar_shards_are_read_from_front_to_back(folder, name, mode):
    (folder / "shards").mkdir()
    write_shard(f"shards/{name}", range(30), mode)
    found = predicted(["shards"])
    assert found == {f"shards/{name}/{n:05}.png": label(n) for n in range(30)}
    content = (folder / "shards" / name).read_bytes()
    (folder / "shards" / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(TenfoldError, match="can't be read as a tar archive"):
        predicted(["shards"])


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz"])
def test_a_shard_of_which_a_byte_was_altered_is_refused(folder, name):
    content = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(content, "BMP")  # It has no sum itself.
    member = tarfile.TarInfo("a.bmp")
    member.size = len(content.getvalue())
    with tarfile.open(name, "w:gz", compresslevel=0) as archive:
        archive.addfile(member, io.BytesIO(content.getvalue()))
    whole = (folder / name).read_bytes()
    assert list(predicted([name])) == [f"{name}/a.bmp"]
    altered = whole.replace(bytes(20 * [7]), bytes(20 * [200]))
    for damaged in (altered, whole[:-4]):
        (folder / name).write_bytes(damaged)
        with pytest.raises(TenfoldError, match="can't be read as a tar archive"):
            predicted([name])


def test_addresses_are_read_as_paths_are(folder):
    import fsspec

    memory = fsspec.filesystem("memory")
    for number in range(12):
        memory.pipe_file(f"/bucket/images/{number:02}.png", png(number))
    memory.pipe_file("/bucket/list.txt", b"memory://bucket/images/01.png\nmemory://bucket/no.png\n")
    write_shard("s.tar", range(3))
    memory.put_file("s.tar", "/bucket/s.tar")
    pq.write_table(pa.table({"image": [png(2)]}), "t.parquet")
    memory.put_file("t.parquet", "/bucket/t.parquet")
    images = {f"memory:///bucket/images/{n:02}.png": label(n) for n in range(12)}
    assert predicted(["memory://bucket/images"]) == images
    assert predicted(["memory://bucket/list.txt"]) == {
        "memory://bucket/images/01.png": label(1),
        "memory://bucket/no.png": "no such file or directory",
    }
    assert list(predicted(["memory://bucket/s.tar"]).values()) == [label(n) for n in range(3)]
    assert predicted(["memory://bucket/t.parquet"]) == {"memory://bucket/t.parquet#1": label(2)}
    assert predicted([(folder / "images/01.png").as_uri()])  # file://
    with pytest.raises(TenfoldError, match="no file or folder memory://bucket/none"):
        find_parts(["memory://bucket/none"])
    with pytest.raises(TenfoldError, match=r"nothing://a can't be read"):
        find_parts(["nothing://a"])


# -- parts ---------------------------------------------------------------------------------------


def test_a_folder_has_every_image_once_and_counts(folder):
    written = []
    done = into(folder / "out", on_part=lambda *each: written.append(each))
    out = folder / "out"
    assert [(file.name, t.num_images, t.num_broken) for file, t in written] == [
        *(("part-00000.csv", 10, 1), ("part-00001.csv", 10, 0), ("part-00002.csv", 5, 0)),
    ]
    rows = rows_in(out)
    assert [row["id"] for row in rows] == [f"images/{n:02}.png" for n in range(25)]
    assert all(row["label"] == label(n) for n, row in enumerate(rows) if n != 7)
    assert rows[7]["error"].startswith("is no image")
    finished = json.loads((out / "manifest.json").read_text())["finished"]
    assert finished == {"num_parts": 3, "num_images": 25, "num_broken": 1}
    assert done.is_complete


def test_run_again_it_does_what_is_missing_alone(folder):
    out = folder / "out"

    class EndsError(Exception):
        pass

    class Ending(Brightness):
        def predict_proba(self, pixels):
            if self.num_seen >= 15:
                raise EndsError
            return super().predict_proba(pixels)

    with pytest.raises(EndsError):
        into(out, model=Ending())
    assert sorted(file.name for file in out.iterdir()) == ["manifest.json", "part-00000.csv"]
    before = (out / "part-00000.csv").stat()
    rest = Brightness()
    assert into(out, model=rest).is_complete
    assert rest.num_seen == 15
    after = (out / "part-00000.csv").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert len(rows_in(out)) == 25


def test_processes_share_the_parts(folder):
    models = [Brightness(), Brightness()]
    first = into(folder / "out", model=models[0], share=(1, 2))
    assert not first.is_complete
    assert into(folder / "out", model=models[1], share=(2, 2)).is_complete
    assert [model.num_seen for model in models] == [14, 10]


def test_a_manifest_that_another_process_writes_meanwhile_is_taken(folder, monkeypatch):
    read_text = Path.read_text

    def too_early(path, **options):
        try:
            return read_text(path, **options)
        except FileNotFoundError:
            monkeypatch.setattr(Path, "read_text", read_text)
            into(folder / "out", share=(1, 2))
            raise

    monkeypatch.setattr(Path, "read_text", too_early)
    assert into(folder / "out", share=(2, 2)).is_complete
    assert len(rows_in(folder / "out")) == 25


def test_parquet_has_the_same_as_csv(folder):
    asked = {"threshold": 0.8, "set_threshold": 0.2}
    into(folder / "a", **asked)
    into(folder / "b", **asked, file_format="parquet")
    table = pa.concat_tables(
        [pq.read_table(file) for file in sorted((folder / "b").glob("*.parquet"))]
    )
    assert table.column_names == ["id", "label", "probability", "unsure", "set", "error"]
    for mine, other in zip(table.to_pylist(), rows_in(folder / "a"), strict=True):
        assert (mine["id"], mine["label"] or "") == (other["id"], other["label"])
        assert mine["probability"] == (float(other["probability"]) if other["label"] else None)
        assert mine["unsure"] == (other["unsure"] == "yes") == (mine["error"] is None)
        assert "|".join(mine["set"] or ()) == other["set"]
        assert (mine["label"] or "") == other["set"].partition("|")[0]
    manifests = [json.loads((folder / name / "manifest.json").read_text()) for name in "ab"]
    assert manifests[0]["finished"] == manifests[1]["finished"]


def test_other_predictions_are_not_mixed(folder):
    out = folder / "out"
    into(out)
    with pytest.raises(TenfoldError, match=r"another model \(m\)"):
        into(out, model_sha256="b")
    os.remove("images/03.png")
    with pytest.raises(TenfoldError, match=r"of other images \(images\)"):
        into(out)
    (folder / "images/03.png").write_bytes(png(3))
    with pytest.raises(TenfoldError, match="top 1, where now it is 2"):
        into(out, top=2)
    with pytest.raises(TenfoldError, match="images holds something else"):
        into(folder / "images")
    (out / "manifest.json").write_text("{")
    with pytest.raises(TenfoldError, match="can't be read as a manifest"):
        into(out)


# -- which part ----------------------------------------------------------------------------------


def test_a_part_is_named_or_asked_of_the_scheduler(monkeypatch):
    assert chosen_part(None) is None
    assert chosen_part("2/5") == (2, 5)
    for name, value in {"ID": "14", "MIN": "10", "COUNT": "8"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert chosen_part("auto") == (5, 8)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    assert chosen_part("auto/3") == (1, 3)
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    for text in ("auto", "0/3", "4/3", "x"):
        with pytest.raises(TenfoldError, match=f"--part '{text}' must be"):
            chosen_part(text)
