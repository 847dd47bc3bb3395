"""Row 54 of the fault list: locks that exclude nobody, as on some network file systems."""

import os
import subprocess
import sys
import time

import pytest

from tenfold import locks
from tenfold.errors import HeldError

HOLDER = """
import fcntl, sys, time
from pathlib import Path
from tenfold import locks
from tenfold.errors import TenfoldError

fcntl.flock = lambda descriptor, operation: None  # Yes to everybody.
locks.BEAT_SECONDS = 0.1
try:
    with locks.hold(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except TenfoldError as error:
    print(error, flush=True)
    sys.exit(error.exit_status)
"""


def start(folder):
    """A process that tries to hold `folder` with a lock that lies, until its input is closed."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def holder(tmp_path):
    with start(tmp_path / "run") as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def make_stale(folder):
    long_ago = time.time() - 2 * locks.STALE_SECONDS
    os.utime(folder / "lease/beat", (long_ago, long_ago))


def test_row_54_a_lock_that_lies_lets_no_second_writer_in(holder, tmp_path):
    second = start(tmp_path / "run")
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"is being written by process {holder.pid} on" in said
    assert locks.is_held(tmp_path / "run")
    holder.communicate(timeout=60)
    assert holder.returncode == 0
    assert not locks.is_held(tmp_path / "run")
    with locks.hold(tmp_path / "run"):
        assert locks.is_held(tmp_path / "run")


def test_row_54_the_lease_of_a_killed_process_is_taken_by_one_of_many(holder, tmp_path):
    holder.kill()
    holder.wait()
    folder = tmp_path / "run"
    assert locks.is_held(folder)  # It may only be slow.
    make_stale(folder)
    assert not locks.is_held(folder)
    others = [start(folder) for _ in range(5)]
    said = [process.stdout.readline() for process in others]
    assert said.count("held\n") == 1
    for process in others:
        process.communicate(timeout=60)
    assert sorted(process.returncode for process in others) == [0, 2, 2, 2, 2]
    assert not (folder / "lease").exists()


def test_row_54_who_was_paused_for_too_long_writes_no_more(holder, tmp_path):
    (tmp_path / "run/lease/beat").write_text("another process")
    assert holder.wait(60) == 2
    assert "was taken by another process while this one was paused" in holder.stderr.read()


@pytest.mark.parametrize(
    ("mount", "leases"),
    [
        ("server:/data {} nfs4 rw,local_lock=none 0 0", False),
        ("server:/data {} nfs rw,nolock,local_lock=all 0 0", True),
        ("server:/data {} nfs rw,local_lock=flock 0 0", True),
        ("/dev/sda {} ext4 rw 0 0", False),
    ],
)
def test_row_54_mounts_whose_locks_end_at_the_machine(tmp_path, monkeypatch, mount, leases):
    table = tmp_path / "mounts"
    table.write_text(f"/dev/root / ext4 rw 0 0\n{mount.format(tmp_path / 'shared')}\n")
    monkeypatch.setattr(locks, "MOUNTS", table)
    folder = tmp_path / "shared" / "run"
    with locks.hold(folder):
        assert (folder / "lease").exists() is leases
        with pytest.raises(HeldError), locks.hold(folder):
            pass
    assert not (folder / "lease").exists()


def test_row_54_where_there_are_no_locks_at_all(tmp_path, monkeypatch):
    def none(*arguments):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none)
    with locks.hold(tmp_path), pytest.raises(HeldError), locks.hold(tmp_path):
        pass
