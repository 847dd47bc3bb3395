"""Archives are read into memory, and hostile ones are refused by name."""

import contextlib
import gzip
import io
import tarfile

import pytest

from tenfold.data import archives
from tenfold.data.archives import is_archive, read_archive
from tenfold.errors import TenfoldError


def read(path, *names):
    return dict(read_archive(path, lambda name: not names or name in names))


def member(name, content=b"", *, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    return info, content


def write_tar(path, *members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_wanted_members_come_with_their_path(tmp_path, mode):
    path = tmp_path / "archive"
    folder = member("top/", kind=tarfile.DIRTYPE)
    write_tar(path, folder, member("top/a.bin", b"aaa"), member("other", b"z"), mode=mode)
    assert is_archive(path)
    assert read(path) == {"top/a.bin": b"aaa", "other": b"z"}
    assert read(path, "other") == {"other": b"z"}


def test_what_is_no_archive_is_said_to_be_none(tmp_path):
    for content in (b"", b"<html>not found</html>", b"\x1f\x8b\x08damaged", bytes(200)):
        (tmp_path / "page.dat").write_bytes(content)
        assert not is_archive(tmp_path / "page.dat")
    (tmp_path / "page.tar.gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(TenfoldError, match=r"page\.tar\.gz can't be read as a tar"):
        read(tmp_path / "page.tar.gz")


@pytest.mark.parametrize(
    "name", ["../a.bin", "top/../../a.bin", "/a.bin", "C:\\a.bin", "..\\a.bin", "\\\\host\\s\\a"]
)
def test_row_21_members_that_climb_out_are_refused(tmp_path, name):
    path = write_tar(tmp_path / "a.tar", member(name, b"x"))
    with pytest.raises(TenfoldError, match="leads out of it") as caught:
        read(path, "nothing")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["SYMTYPE", "LNKTYPE", "CHRTYPE", "BLKTYPE", "FIFOTYPE"])
def test_row_21_links_and_devices_are_refused(tmp_path, kind):
    info, _ = member("top/a.bin", kind=getattr(tarfile, kind))
    info.linkname = "/etc/passwd"
    path = write_tar(tmp_path / "a.tar", (info, b""))
    with pytest.raises(TenfoldError, match=r"'top/a\.bin' is a link or a device"):
        read(path)


def test_row_21_bombs_are_refused_wanted_or_not(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 1_000_000)
    zeros = bytes(600_000)
    tar = write_tar(tmp_path / "a.tgz", member("x", zeros), member("y", zeros), mode="w:gz")
    one = write_tar(tmp_path / "b.tgz", member("x", 2 * zeros), mode="w:gz")
    for path in (tar, one):
        assert path.stat().st_size < 10_000
        with pytest.raises(TenfoldError, match=f"{path.name}.*(1,000,000|1,200,000) bytes"):
            read(path, "nothing")


def test_row_21_a_bomb_in_a_header_is_not_read(tmp_path):
    info, _ = member("x", kind=tarfile.XHDTYPE)
    info.size = 900_000_000
    (tmp_path / "a.tgz").write_bytes(gzip.compress(info.tobuf(tarfile.USTAR_FORMAT)))
    with pytest.raises(TenfoldError, match="a header claims 900,000,000 bytes"):
        read(tmp_path / "a.tgz")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_cut_off_anywhere_never_gives_half_a_member(tmp_path, mode):
    content = bytes(range(256)) * 8
    path = write_tar(tmp_path / "a.tar", member("a.bin", content), mode=mode)
    whole = path.read_bytes()
    for length in range(0, len(whole), max(len(whole) // 40, 1)):
        path.write_bytes(whole[:length])
        with contextlib.suppress(TenfoldError):
            assert read(path) in ({}, {"a.bin": content})


def test_a_flipped_byte_in_a_compressed_archive_is_noticed(tmp_path):
    content = bytes(range(256)) * 8
    path = write_tar(tmp_path / "a.tgz", member("a.bin", content), mode="w:gz")
    whole = path.read_bytes()
    for place in range(20, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(TenfoldError, match=r"a\.tgz"):
            read(path)
