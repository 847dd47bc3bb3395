"""Files are written whole or not at all, on disks and folders that do and don't cooperate."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tenfold.errors import TenfoldError
from tenfold.files import (
    atomic_file,
    read_json,
    require_writable,
    write_bytes,
    write_json,
    write_text,
)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_with_its_folders_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    with atomic_file(path) as file:
        file.write(b"\x00content\xff")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"\x00content\xff"
    assert names_in(path.parent) == ["file"]


def test_text_is_utf8_and_json_keeps_every_value(tmp_path):
    write_text(tmp_path / "text", "Ωμέγα 猫\n")
    assert (tmp_path / "text").read_bytes() == "Ωμέγα 猫\n".encode()
    value = {"猫": [1, 0.1, 1e-300, None, True, "\n\"'"], "nested": {"a": []}}
    write_json(tmp_path / "json", value)
    assert read_json(tmp_path / "json") == value
    assert json.loads((tmp_path / "json").read_text(encoding="utf-8")) == value


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_a_block_that_raises_changes_nothing(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail():
        with atomic_file(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


def test_a_value_that_is_not_json_changes_nothing(tmp_path):
    write_json(tmp_path / "file", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "file", {"deep": [object()]})
    assert read_json(tmp_path / "file") == {"old": 1}
    assert names_in(tmp_path) == ["file"]


def test_a_folder_in_the_place_of_the_file_and_a_file_in_that_of_the_folder_are_named(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(TenfoldError, match="folder is a folder; give the name of a file in it"):
        write_text(tmp_path / "folder", "content")
    (tmp_path / "file").write_text("I am a file")
    for action in (write_text, lambda path, _: require_writable(path.parent)):
        with pytest.raises(TenfoldError, match="can't be written"):
            action(tmp_path / "file" / "file", "content")
    assert names_in(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("name", ["with some spaces", "Bilder-für-Ωμέγα-猫", "x" * 200, "ü" * 100])
def test_row_17_names_with_spaces_unicode_and_200_characters(tmp_path, name):
    path = tmp_path / name / name
    require_writable(path.parent)
    write_json(path, {"name": name})
    assert read_json(path) == {"name": name}


FULL_DISK = """
mount -t tmpfs -o size=256k tmpfs "$1"
"$PYTHON" - "$1" <<'END'
import sys
from pathlib import Path
from tenfold.errors import TenfoldError
from tenfold.files import require_writable, write_bytes

path = Path(sys.argv[1]) / "weights"
write_bytes(path, b"old" * 1000)
def attempt(size):
    try:
        write_bytes(path, b"x" * size)
    except TenfoldError as error:
        print(error)
    assert path.read_bytes() == b"old" * 1000
    assert [p.name for p in path.parent.iterdir() if p.name != "filler"] == ["weights"]
attempt(1_000_000)
attempt(100_000_000)
with open(path.with_name("filler"), "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(b"x" * 4096)
    except OSError:
        pass
attempt(5_000)
try:
    require_writable(path.parent)
except TenfoldError as error:
    print(error)
assert sorted(p.name for p in path.parent.iterdir()) == ["filler", "weights"]
path.with_name("filler").unlink()
require_writable(path.parent)
write_bytes(path, b"new")
assert path.read_bytes() == b"new"
END
"""


def test_row_06_a_full_disk_keeps_the_old_file_and_says_so(tmp_path, run_with_mounts):
    done = run_with_mounts(FULL_DISK, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.startswith(f"The disk is full: {tmp_path}")
        assert "free some space" in line


READ_ONLY = """
import os, sys
from pathlib import Path
from tenfold.errors import TenfoldError
from tenfold.files import require_writable, write_text
from tenfold.run import RunFolder

folder = Path(sys.argv[1])

def hold():
    with RunFolder(folder).writer():
        pass

if "drop" in sys.argv and os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
for action in (
    lambda: require_writable(folder),
    lambda: require_writable(folder / "sub" / "folder"),
    lambda: write_text(folder / "file", "new"),
    hold,
):
    try:
        action()
    except TenfoldError as error:
        print(error)
"""


def assert_refused(done, folder):
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stdout
    for line in lines:
        assert line.startswith(str(folder))
        assert "can't be written (" in line
        assert "choose another folder" in line
    assert names_in(folder) == ["file"]
    assert (folder / "file").read_text() == "old"


def test_row_07_a_folder_that_belongs_to_someone_else(tmp_path, run_python):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("old")
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and parent.name.startswith(("pytest-", "test_")):
            parent.chmod(0o755)  # so that what stops the other user is this folder
    folder.chmod(0o555)
    done = run_python(READ_ONLY, folder, "drop")
    folder.chmod(0o755)
    assert_refused(done, folder)
    assert "Permission denied" in done.stdout


def test_row_07_a_read_only_file_system(tmp_path, run_with_mounts):
    (tmp_path / "file").write_text("old")
    script = """
    mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"
    "$PYTHON" -c "$2" "$1"
    """
    done = run_with_mounts(script, tmp_path, READ_ONLY)
    assert_refused(done, tmp_path)
    assert "Read-only file system" in done.stdout


KILLED = """
import os, signal, sys
from pathlib import Path
from tenfold import files

with files.atomic_file(Path(sys.argv[1])) as file:
    file.write(b"new" * 100_000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path, run_python):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    assert run_python(KILLED, path).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


WRITER = """
import sys
from pathlib import Path
from tenfold.files import write_bytes

for round in range(40):
    for letter in (b"a", b"b"):
        write_bytes(Path(sys.argv[1]), letter * 200_000)
"""


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a" * 200_000)
    seen = set()
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as writer:
        while writer.poll() is None:
            content = path.read_bytes()
            assert len(content) == 200_000
            seen.add(content[:1])
            assert set(content[::4096]) == {content[0]}
    assert writer.returncode == 0
    assert seen == {b"a", b"b"}


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"{'single': 1}", b"[" * 100_000, b'{"a": 1} rest']
)
def test_a_file_that_is_not_json_is_named(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(TenfoldError, match=r"state\.json can't be read as JSON"):
        read_json(path)


def test_a_missing_file_and_a_folder_are_distinguished(tmp_path):
    with pytest.raises(TenfoldError, match="absent does not exist"):
        read_json(tmp_path / "absent")
    with pytest.raises(TenfoldError, match="can't be read as JSON"):
        read_json(tmp_path)


def test_the_proof_of_writability_leaves_nothing_behind(tmp_path):
    require_writable(tmp_path / "new" / "folder")
    assert names_in(tmp_path / "new" / "folder") == []
