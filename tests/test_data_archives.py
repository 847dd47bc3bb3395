"""Archives are read into memory, and hostile ones are refused by name."""

import contextlib
import gzip
import io
import resource
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tenfold.data.formats.archives import is_archive, iterate_members, read_members
from tenfold.errors import TenfoldError

ALL = {"a.bin": 100, "b.bin": 100}


def everything(member: str) -> int:
    return 1_000


def member(name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.type = kind
    return info


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


def write_zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_wanted_members_come_with_their_full_path(tmp_path: Path, mode: str) -> None:
    path = write_tar(
        tmp_path / "archive",
        (member("top/", kind=tarfile.DIRTYPE), b""),
        (member("top/a.bin", b"aaa"), b"aaa"),
        (member("top/other.bin", b"zz"), b"zz"),
        (member("./b.bin", b"bb"), b"bb"),
        mode=mode,
    )
    assert is_archive(path)
    assert read_members(path, ALL) == {"top/a.bin": b"aaa", "b.bin": b"bb"}
    assert list(iterate_members(path, {"top/other.bin": 9})) == [("top/other.bin", b"zz")]


def test_zip_members_come_the_same_way(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", ("top/a.bin", b"aaa"), ("top/", b""), ("c", b"c"))
    assert is_archive(path)
    assert read_members(path, ALL) == {"top/a.bin": b"aaa"}
    assert read_members(path, everything) == {"top/a.bin": b"aaa", "c": b"c"}


def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "page.tar.gz"
    for content in (b"", b"<html>not found</html>", b"\x1f\x8b\x08damaged", bytes(200)):
        path.write_bytes(content)
        assert not is_archive(path)
        with pytest.raises(TenfoldError, match=r"page\.tar\.gz can't be read"):
            read_members(path, ALL)
    with pytest.raises(TenfoldError, match="does not exist"):
        read_members(tmp_path / "missing.tar", ALL)
    assert not is_archive(tmp_path)


@pytest.mark.parametrize(
    "name", ["../a.bin", "top/../../a.bin", "/a.bin", "C:\\a.bin", "..\\a.bin", "\\\\host\\s\\a"]
)
def test_row_21_members_that_climb_out_are_refused(tmp_path: Path, name: str) -> None:
    archives = [
        write_tar(tmp_path / "a.tar", (member(name, b"x"), b"x")),
        write_zip(tmp_path / "a.zip", (name, b"x")),
    ]
    for path in archives:
        with pytest.raises(TenfoldError, match="leads out of the archive") as caught:
            read_members(path, {})
        assert str(path) in str(caught.value)
        assert sorted(tmp_path.parent.glob("*.bin")) == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "is a device"),
        (tarfile.BLKTYPE, "is a device"),
        (tarfile.FIFOTYPE, "is a device or special file"),
    ],
)
def test_row_21_links_and_devices_are_refused(tmp_path: Path, kind: bytes, said: str) -> None:
    info = member("top/a.bin", kind=kind)
    info.linkname = "/etc/passwd"
    path = write_tar(tmp_path / "a.tar", (info, b""))
    with pytest.raises(TenfoldError, match=f"'top/a.bin' {said}"):
        read_members(path, ALL)


@pytest.mark.parametrize(
    ("kind", "said"), [(stat.S_IFLNK, "is a link"), (stat.S_IFCHR, "is a device")]
)
def test_row_21_links_and_devices_in_a_zip_are_refused(
    tmp_path: Path, kind: int, said: str
) -> None:
    info = zipfile.ZipInfo("a.bin")
    info.external_attr = (kind | 0o644) << 16
    path = write_zip(tmp_path / "a.zip", (info, b"/etc/passwd"))
    with pytest.raises(TenfoldError, match=f"'a.bin' {said}"):
        read_members(path, ALL)


def test_row_21_members_larger_than_expected_are_refused(tmp_path: Path) -> None:
    for path in (
        write_tar(tmp_path / "a.tgz", (member("a.bin", bytes(101)), bytes(101)), mode="w:gz"),
        write_zip(tmp_path / "a.zip", ("a.bin", bytes(101))),
    ):
        with pytest.raises(TenfoldError, match=r"'a\.bin' holds 101 bytes where at most 100"):
            read_members(path, ALL)


def test_row_21_bombs_among_unwanted_members_are_refused(tmp_path: Path) -> None:
    zeros = bytes(3_000_000)
    for path in (
        write_tar(tmp_path / "a.tgz", (member("x", zeros), zeros), mode="w:gz"),
        write_zip(tmp_path / "a.zip", ("x", zeros)),
    ):
        assert path.stat().st_size < 10_000
        with pytest.raises(TenfoldError, match=path.name):
            read_members(path, ALL, max_total_bytes=1_000_000)


def test_row_21_a_stream_longer_than_its_tar_says_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", (member("a.bin", b"x"), b"x"))
    path.write_bytes(gzip.compress(path.read_bytes() + bytes(5_000_000)))
    with pytest.raises(TenfoldError, match="unpacks to more than"):
        read_members(path, ALL, max_total_bytes=1_000_000)


def test_row_21_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", ("a.bin", bytes(1_000_000)))
    content = path.read_bytes()
    true_size, false_size = (1_000_000).to_bytes(4, "little"), (50).to_bytes(4, "little")
    path.write_bytes(content.replace(true_size, false_size))
    with pytest.raises(TenfoldError, match=r"a\.zip"):
        read_members(path, ALL)


def test_row_21_a_bomb_in_a_header_takes_no_memory(tmp_path: Path) -> None:
    info = member("x", kind=tarfile.XHDTYPE)
    info.size = 900_000_000
    path = tmp_path / "a.tgz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(90):
            file.write(bytes(10_000_000))
    script = (
        "import sys; from pathlib import Path\n"
        "from tenfold.data.formats.archives import read_members\n"
        "from tenfold.errors import TenfoldError\n"
        "try: read_members(Path(sys.argv[1]), {})\n"
        "except TenfoldError as error: print(error)\n"
    )

    def small_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (700_000_000, 700_000_000))

    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        preexec_fn=small_memory,
        env={"OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert "a header record claims 900000000 bytes" in done.stdout, done.stderr


def test_the_same_member_twice_is_refused(tmp_path: Path) -> None:
    twice = (member("a.bin", b"x"), b"x"), (member("./a.bin", b"y"), b"y")
    with pytest.raises(TenfoldError, match=r"'a\.bin' occurs twice"):
        read_members(write_tar(tmp_path / "a.tar", *twice), ALL)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_cut_off_anywhere_never_gives_half_a_member(tmp_path: Path, mode: str) -> None:
    content = bytes(range(256)) * 8
    path = write_tar(tmp_path / "a.tar", (member("a.bin", content), content), mode=mode)
    whole = path.read_bytes()
    for length in range(0, len(whole), max(len(whole) // 40, 1)):
        path.write_bytes(whole[:length])
        with contextlib.suppress(TenfoldError):
            assert read_members(path, {"a.bin": 5_000}) in ({}, {"a.bin": content})


def test_a_flipped_byte_in_a_compressed_archive_is_noticed(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8
    path = write_tar(tmp_path / "a.tgz", (member("a.bin", content), content), mode="w:gz")
    whole = path.read_bytes()
    for place in range(20, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(TenfoldError, match=r"a\.tgz"):
            read_members(path, {"a.bin": 5_000})
