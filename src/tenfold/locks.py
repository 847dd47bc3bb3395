"""One writer a folder: a lock that goes with its process, and a note of who holds it."""

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tenfold.errors import HeldError
from tenfold.files import require_writable, write_json

LOCK_FILES = ("lock", "writer.json")
"""What `hold` may leave in a folder."""

PROBE_SECONDS = 0.25
"""How long `hold` waits, so that another process that only asks `is_held` is no hindrance."""

HELD_SECONDS = 60.0
"""How long folders may still be held by what a killed driver left behind, while that saves."""


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold `folder`, which is made if need be, as its only writer.

    The lock belongs to the process and goes with it, however it ends. Raises HeldError, naming
    the process, where another one holds it, and TenfoldError where the folder can't be written.
    """
    from filelock import FileLock, Timeout

    require_writable(folder)
    lock = FileLock(folder / "lock", timeout=PROBE_SECONDS)
    note = folder / "writer.json"
    try:
        lock.acquire(poll_interval=PROBE_SECONDS / 10)
    except Timeout:
        raise HeldError(
            f"{folder} is being written by {_describe_holder(note)}; wait for it to end, or "
            "choose another folder."
        ) from None
    started = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        write_json(note, {"process": os.getpid(), "host": platform.node(), "started": started})
        yield
    finally:
        with contextlib.suppress(OSError):
            note.unlink()
        lock.release()


def is_held(folder: Path) -> bool:
    """Whether some process holds `folder` now."""
    from filelock import FileLock, Timeout

    if not (folder / "lock").exists():
        return False
    try:
        with FileLock(folder / "lock", timeout=0):
            return False
    except (Timeout, OSError):
        return True


def wait_until_free(folders: Sequence[Path]) -> None:
    """Wait for the processes that hold `folders`, and save, since their driver is dead."""
    deadline = time.monotonic() + HELD_SECONDS
    while any(map(is_held, folders)) and time.monotonic() < deadline:
        time.sleep(0.1)


def _describe_holder(note: Path) -> str:
    try:
        holder = json.loads(note.read_text(encoding="utf-8"))
        return f"process {holder['process']} on {holder['host']} since {holder['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
