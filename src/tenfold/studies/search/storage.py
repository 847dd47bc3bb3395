"""Where the trials of a search are kept: a journal file, or any storage that Optuna can open."""

import contextlib
import os
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import optuna
from filelock import BaseFileLock, FileLock, Timeout
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend

from tenfold.errors import HeldError, TenfoldError
from tenfold.files import require_writable

BUSY_SECONDS = 120.0
"""How long to wait for another process to finish what takes it milliseconds."""

NEW_DATA_BASE_ATTEMPTS, NEW_DATA_BASE_SECONDS = 10, 0.5
"""How often, and how long apart, a new data base is opened while another process makes it."""

JOURNAL_START = b'{"op_code"'
"""How every journal begins; nothing else is touched."""

SQLITE_SECONDS = 60.0
"""How long SQLite waits while another process writes; its own default is five seconds."""


def open_storage(url_or_path: str) -> BaseStorage:
    """The storage at a URL such as `sqlite:///trials.db`, or the journal file at a path.

    Raises TenfoldError where it can't be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if re.match(r"postgres\b", url_or_path):
        raise TenfoldError(
            f"--storage {without_password(url_or_path)} begins with postgres, which Optuna does "
            "not know; write postgresql instead."
        )
    try:
        if "://" not in url_or_path:
            return _open_journal(Path(url_or_path))
        return _open_url(url_or_path)
    except TenfoldError:
        raise
    except Exception as error:
        # Every data base has its own exceptions, and none of them may show the password.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise TenfoldError(
            f"--storage {without_password(url_or_path)} can't be opened "
            f"({reason.replace(url_or_path, 'the URL')}); check it, or leave it out for a journal "
            "file in the folder."
        ) from None


def without_password(url_or_path: str) -> str:
    """A storage's URL as it may be shown and kept; a journal file's absolute path."""
    if "://" not in url_or_path:
        return str(Path(url_or_path).resolve())
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url_or_path).render_as_string(hide_password=True)
    except ArgumentError:
        return url_or_path.partition("://")[0] + "://…"


def missing_file(url_or_path: str) -> Path | None:
    """The file of a journal or of SQLite where it does not exist; None for everything else."""
    file: str | None = url_or_path
    if "://" in url_or_path:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            url = make_url(url_or_path)
        except ArgumentError:
            return None
        file = url.database if url.get_backend_name() == "sqlite" else None
    if not file or file == ":memory:" or file.startswith("file:") or Path(file).exists():
        return None
    return Path(file).resolve()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """What is done in this context, no other process does with the same folder at the same time."""
    lock = FileLock(folder / "search.lock", timeout=BUSY_SECONDS)
    _acquire(lock)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's remarks on features that may change, which no user can act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="optuna")
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Turn a storage that has gone, or whose disk is full, into a sentence."""
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        raise TenfoldError(
            f"The storage of the trials failed ({str(error).partition(chr(10))[0]}); mend that and "
            "run the same command again, which goes on from here."
        ) from error


def _open_url(url: str) -> BaseStorage:
    for _ in range(NEW_DATA_BASE_ATTEMPTS):
        try:
            if url.startswith("sqlite"):
                wait = {"connect_args": {"timeout": SQLITE_SECONDS}}
                return RDBStorage(url, engine_kwargs=wait)
            return get_storage(url)
        except Exception as error:
            # Two processes make the tables of a new data base at the same moment.
            if not re.search("already exists|unique|duplicate|locked", str(error).lower()):
                raise
            time.sleep(NEW_DATA_BASE_SECONDS)
    return get_storage(url)


def _open_journal(path: Path) -> BaseStorage:
    if path.is_dir():
        raise TenfoldError(f"--storage {path} is a folder; name a file in it.")
    require_writable(path.parent)
    if path.exists() and not JOURNAL_START.startswith(_head(path)):
        raise TenfoldError(f"{path} is not a journal of trials; name another file as --storage.")
    lock = _JournalLock(path)
    backend = JournalFileBackend(str(path), lock_obj=cast(Any, lock))
    lock.acquire()  # Mends what a crash may have left, ahead of the first reading.
    lock.release()
    return JournalStorage(backend)


class _JournalLock:
    """A lock that goes with its process.

    Optuna's own one stays when its process is killed, and holds up all others for half a minute.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(f"{path}.lock", timeout=BUSY_SECONDS)

    def acquire(self) -> bool:
        _acquire(self._lock)
        try:
            self._drop_torn_line()
        except BaseException:
            self._lock.release()
            raise
        return True

    def release(self) -> None:
        self._lock.release()

    def _drop_torn_line(self) -> None:
        """Cut off a last line without its end, after which a journal can't be read any more."""
        with open(self._path, "rb+") as file:
            size = file.seek(0, os.SEEK_END)
            if size == 0 or _byte_before(file, size) == b"\n":
                return
            while size > 0 and _byte_before(file, size) != b"\n":
                size -= 1
            file.truncate(size)


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(len(JOURNAL_START))


def _byte_before(file: IO[bytes], position: int) -> bytes:
    file.seek(position - 1)
    return file.read(1)


def _acquire(lock: BaseFileLock) -> None:
    try:
        lock.acquire()
    except Timeout:
        raise HeldError(
            f"Another process has held {lock.lock_file} for {BUSY_SECONDS:.0f} seconds; end that "
            "process and run the same command again."
        ) from None
