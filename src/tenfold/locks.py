"""One writer a folder: a lock that goes with its process, and a note of who holds it.

Locks of some network file systems exclude nobody: NFS mounted with `nolock` or `local_lock`, or a
server that says yes to all. There a folder made by `mkdir`, which every file system makes once, is
the lock, and a file in it is written anew every few seconds by who holds it.
"""

import contextlib
import json
import os
import platform
import secrets
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tenfold.errors import HeldError
from tenfold.files import require_writable, write_json

LOCK_FILES = ("lock", "writer.json", "lease", "lease.old")
"""What `hold` may leave in a folder."""

PROBE_SECONDS = 0.25  # How long `hold` waits for another process that only asks `is_held`.
HELD_SECONDS = 60.0  # How long what a killed driver left behind may take to save.
BEAT_SECONDS = 5.0  # Between two signs of life of who holds a lease.
STALE_SECONDS = 60.0  # After the last one another process may take it.
MOUNTS = Path("/proc/self/mounts")


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold `folder`, which is made if need be, as its only writer.

    The lock belongs to the process and goes with it, however it ends; a lease, where locks exclude
    nobody, a minute later. Raises HeldError, naming the process, where another one holds it, and
    TenfoldError where the folder can't be written.
    """
    require_writable(folder)
    note = folder / "writer.json"
    with contextlib.ExitStack() as stack:
        # None where there are no locks in this file system.
        has_lock = _try_lock(folder, stack, seconds=PROBE_SECONDS) is not False
        # A lock that this process can take twice keeps nobody out.
        excludes = not _is_local_to_host(folder) and _try_lock(folder, None, seconds=0) is False
        if not has_lock or not (excludes or _leased(folder, stack)):
            raise HeldError(
                f"{folder} is being written by {_describe_holder(note)}; wait for it to end, or "
                "choose another folder."
            )
        started = datetime.now(UTC).isoformat(timespec="seconds")
        stack.callback(lambda: note.unlink(missing_ok=True))
        write_json(note, {"process": os.getpid(), "host": platform.node(), "started": started})
        yield


def is_held(folder: Path) -> bool:
    """Whether some process holds `folder` now."""
    if (folder / "lease").is_dir() and not _is_stale(folder):
        return True
    try:
        return (folder / "lock").exists() and _try_lock(folder, None, seconds=0) is False
    except PermissionError:  # Somebody else's.
        return True


def wait_until_free(folders: Sequence[Path]) -> None:
    """Wait for the processes that hold `folders`, and save, since their driver is dead."""
    deadline = time.monotonic() + HELD_SECONDS
    while any(map(is_held, folders)) and time.monotonic() < deadline:
        time.sleep(0.1)


def _try_lock(folder: Path, stack: contextlib.ExitStack | None, *, seconds: float) -> bool | None:
    """Take the lock until `stack` ends, or for a moment; None where the file system has none."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "lock", timeout=seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # By which it tells that it takes to another way.
            lock.acquire(poll_interval=PROBE_SECONDS / 10)
    except Timeout:
        return False
    except PermissionError:
        raise
    except (NotImplementedError, OSError, UserWarning):
        return None
    if stack is None:
        lock.release()
    else:
        stack.callback(lock.release)
    return True


def _is_local_to_host(folder: Path) -> bool:
    """Whether it is on a network mount whose locks other machines don't see."""
    try:
        lines = [line.split(" ") for line in MOUNTS.read_text().splitlines()]
    except OSError:
        return False  # Not Linux.
    place = folder.resolve()
    around = [f for f in lines if place.is_relative_to(Path(f[1].replace("\\040", " ")))]
    if not around:
        return False
    _, _, kind, options, *_ = max(around, key=lambda fields: len(fields[1]))
    said = {"nolock", "local_lock=all", "local_lock=flock"} & set(options.split(","))
    return kind.startswith("nfs") and bool(said)


def _leased(folder: Path, stack: contextlib.ExitStack) -> bool:
    """Whether the lease is ours until `stack` ends."""
    place, old = folder / "lease", folder / "lease.old"
    if place.is_dir() and _is_stale(folder):
        # Whoever makes the second folder takes the lease away, if it still is stale then.
        try:
            old.mkdir()
        except FileExistsError:
            if _age(old) > STALE_SECONDS:
                shutil.rmtree(old, ignore_errors=True)  # Its maker was killed here.
            return False
        if _is_stale(folder):
            shutil.rmtree(place, ignore_errors=True)
        old.rmdir()
    try:
        place.mkdir()
    except FileExistsError:
        return False
    stack.enter_context(_beating(place))
    return True


@contextlib.contextmanager
def _beating(place: Path) -> Iterator[None]:
    """Write a sign of life into a lease every few seconds, and give it back in the end; a process
    that was paused for so long that another one has taken it ends."""
    token, beat, over = secrets.token_hex(8), place / "beat", threading.Event()
    beat.write_text(token)

    def go_on() -> None:
        while not over.wait(BEAT_SECONDS):
            try:
                if beat.read_text() != token:
                    raise FileNotFoundError
                os.utime(beat)
            except FileNotFoundError:
                said = (
                    f"error: {place.parent} was taken by another process while this one was "
                    "paused; it has ended, and what it saved before is whole.\n"
                )
                os.write(2, said.encode())
                os._exit(2)
            except OSError:
                continue  # The server is away; whoever else asks finds that too.

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        shutil.rmtree(place, ignore_errors=True)


def _is_stale(folder: Path) -> bool:
    beat = folder / "lease" / "beat"
    return _age(beat if beat.exists() else folder / "lease") > STALE_SECONDS


def _age(path: Path) -> float:
    """Seconds since `path` was written, both by the file server's clock; infinite if it is gone."""
    try:
        with tempfile.TemporaryFile(
            dir=path.parent if path.is_dir() else path.parent.parent
        ) as new:
            new.write(b"-")
            new.flush()
            return os.fstat(new.fileno()).st_mtime - path.stat().st_mtime
    except OSError:
        return float("inf")


def _describe_holder(note: Path) -> str:
    try:
        holder = json.loads(note.read_text(encoding="utf-8"))
        return f"process {holder['process']} on {holder['host']} since {holder['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
