"""The cache: whole entries or none, whoever is killed and however many come at once."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from miniature import PATIENT, Served, Server, archive, description, is_right, serving
from tenfold.data import sources
from tenfold.data.images import Dataset, Images, numbered_ids
from tenfold.data.sources import cache
from tenfold.errors import TenfoldError

TESTS = Path(__file__).parent
WHOLE = archive()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TENFOLD_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TESTS,
    )


def wait(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, error = process.communicate(timeout=60)
    return process.returncode, output + error


FETCH = """
import sys
from miniature import PATIENT, description, is_right
from tenfold.data import sources
dataset = sources.fetch(description(sys.argv[1]), limits=PATIENT)
print(is_right(dataset), dataset.source)
"""

# Every opening, renaming and removing of a file in the cache is a moment to be killed at.
KILLED_AT = """
import os, signal, sys
moments = 0
def count(event, arguments):
    global moments
    if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
        return
    if os.environ["TENFOLD_CACHE"] not in str(arguments[0]):
        return
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
        return
    moments += 1
    if moments == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
"""


def count_moments(url: str) -> int:
    status, output = wait(child(f"{KILLED_AT}{FETCH}print(moments)", url, "0"))
    assert status == 0, output
    return int(output.split()[-1])


def test_row_19_a_process_killed_at_any_step_leaves_nothing_that_looks_whole(
    server: Server, folder: Path
) -> None:
    url = server.add("/data.tar.gz", Served(WHOLE))
    num_moments = count_moments(url)
    assert num_moments > 20
    for moment in np.unique(np.linspace(1, num_moments, 14).astype(int)):
        cache_is_empty(folder)
        status, output = wait(child(KILLED_AT + FETCH, url, str(moment)))
        assert status == -signal.SIGKILL, output
        left = cache.load("miniature")
        assert left is None or is_right(left.dataset), "nothing, or all of it"
        assert is_right(sources.fetch(description(url), limits=PATIENT))
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
        assert not (folder / "downloads" / "miniature").exists()


def cache_is_empty(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def test_row_19_a_process_killed_in_the_middle_of_writing(server: Server, folder: Path) -> None:
    url = server.add("/data.tar.gz", Served(WHOLE))
    code = """
import os, signal
import tenfold.data.sources.cache as cache
def half(file, array):
    file.write(array.data.cast("B")[: array.nbytes // 2])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
cache._write_array = half
"""
    status, _ = wait(child(code + FETCH, url))
    assert status == -signal.SIGKILL
    assert list(folder.glob(".miniature-*"))
    assert cache.load("miniature") is None
    assert is_right(sources.fetch(description(url), limits=PATIENT))
    assert len(server.requests) == 1, "what was downloaded before is not downloaded again"
    assert not list(folder.glob(".miniature-*"))


def test_row_19_a_process_killed_while_it_downloads_is_resumed(
    server: Server, folder: Path
) -> None:
    url = server.add("/data.tar.gz", Served(WHOLE, bytes_per_second=4_000_000, num_bad=1))
    process = child(FETCH, url)
    partial = folder / "downloads" / "miniature" / "source-1" / "data.tar.gz.part"
    while not partial.exists() or partial.stat().st_size < 500_000:
        assert process.poll() is None, wait(process)
        time.sleep(0.01)
    process.kill()
    wait(process)
    assert is_right(sources.fetch(description(url), limits=PATIENT))
    first, second = server.ranges("/data.tar.gz")
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").removesuffix("-")) >= 500_000


def test_two_processes_at_once_download_once(server: Server) -> None:
    url = server.add("/data.tar.gz", Served(WHOLE, bytes_per_second=4_000_000))
    processes = [child(FETCH, url) for _ in range(3)]
    outputs = [wait(process) for process in processes]
    assert [status for status, _ in outputs] == [0, 0, 0], outputs
    assert all(output.startswith("True") for _, output in outputs)
    assert len(server.requests) == 1


def test_the_lock_of_a_dead_process_is_free(server: Server, folder: Path) -> None:
    url = server.add("/data.tar.gz", Served(WHOLE))
    code = """
import os, signal
from tenfold.data.sources import cache
with cache.lock("miniature", wait_seconds=0):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    status, _ = wait(child(code))
    assert status == -signal.SIGKILL
    assert (folder / "miniature.lock").exists()
    assert is_right(sources.fetch(description(url), limits=PATIENT))


def test_a_lock_that_is_held_for_too_long_is_an_error() -> None:
    with (
        cache.lock("miniature", wait_seconds=0),
        pytest.raises(TenfoldError, match=r"miniature\.lock for 0 s"),
        cache.lock("miniature", wait_seconds=0.1),
    ):
        pass


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "train-images.npy").write_bytes(b""),
        lambda entry: (entry / "train-images.npy").unlink(),
        lambda entry: os.truncate(entry / "train-images.npy", 100_000),
        lambda entry: os.truncate(entry / "test-labels.npy", 90),
        lambda entry: (entry / "manifest.json").write_text('{"format": 1'),
        lambda entry: (entry / "manifest.json").write_text("[]"),
        lambda entry: (entry / "manifest.json").unlink(),
        lambda entry: np.save(entry / "test-labels.npy", np.full(100, 99, dtype=np.uint8)),
        lambda entry: np.save(entry / "test-labels.npy", np.zeros(100, dtype=np.int64)),
    ],
)
def test_a_damaged_entry_is_replaced(server: Server, folder: Path, damage: object) -> None:
    url = server.add("/data.tar.gz", Served(WHOLE))
    sources.fetch(description(url), limits=PATIENT)
    assert callable(damage)
    damage(folder / "miniature")
    assert is_right(sources.fetch(description(url), limits=PATIENT))
    assert len(server.requests) == 2


def test_an_entry_with_other_sums_than_the_known_ones_does_not_count(server: Server) -> None:
    url = server.add("/data.tar.gz", Served(WHOLE))
    dataset = sources.fetch(description(url), limits=PATIENT)
    with cache.lock("miniature", wait_seconds=0):
        assert cache.load("miniature", sums=dataset.checksums)
        assert cache.load("miniature", sums={**dataset.checksums, "test-labels": "0"}) is None


def test_verification_finds_one_flipped_byte(server: Server, folder: Path) -> None:
    url = server.add("/data.tar.gz", Served(WHOLE))
    with pytest.raises(TenfoldError, match="holds no complete copy of miniature"):
        cache.verify("miniature")
    dataset = sources.fetch(description(url), limits=PATIENT)
    assert cache.verify("miniature") == dict(dataset.checksums)
    path = folder / "miniature" / "test-images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(TenfoldError, match=r"test-images\.npy in .* changed since"):
        cache.verify("miniature")
    cache.remove("miniature")
    assert cache.load("miniature") is None


def test_sixty_thousand_pictures_open_in_under_half_a_second(folder: Path) -> None:
    def images(split: str, count: int) -> Images:
        pixels = np.zeros((count, 32, 32, 3), dtype=np.uint8)
        labels = np.arange(count, dtype=np.int64) % 2
        return Images(pixels, labels, ("a", "b"), numbered_ids(split, count))

    dataset = Dataset("big", images("train", 50_000), None, images("test", 10_000), "here")
    sums = {name: hashlib.sha256(name.encode()).hexdigest() for name in cache.ARRAYS}
    dataset = Dataset("big", dataset.train, None, dataset.test, "here", sums)
    with cache.lock("big", wait_seconds=0):
        cache.store(dataset, origin="here")
    seconds = []
    for _ in range(3):
        started = time.process_time()  # Others may be at work too.
        entry = cache.load("big")
        seconds.append(time.process_time() - started)
    assert entry is not None
    assert entry.dataset.source == "cache (here)"
    assert entry.dataset.train.pixels.shape == (50_000, 32, 32, 3)
    assert min(seconds) < 0.5


def test_an_entry_can_be_read_while_it_is_replaced(server: Server) -> None:
    url = server.add("/data.tar.gz", Served(WHOLE))
    dataset = sources.fetch(description(url), limits=PATIENT)
    stop = threading.Event()

    def replace_again_and_again() -> None:
        while not stop.is_set():
            cache.store(dataset, origin="again")

    thread = threading.Thread(target=replace_again_and_again)
    thread.start()
    try:
        found = [cache.load("miniature") for _ in range(60)]
    finally:
        stop.set()
        thread.join()
    assert all(entry is None or is_right(entry.dataset) for entry in found)
    assert is_right(dataset), "an open memory map outlives the entry"


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENFOLD_CACHE", "~/some where")
    assert cache.cache_folder() == Path.home() / "some where"
    monkeypatch.delenv("TENFOLD_CACHE")
    assert cache.cache_folder().name == "tenfold"
    assert cache.cache_folder().is_absolute()
