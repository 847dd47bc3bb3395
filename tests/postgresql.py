"""A PostgreSQL server of its own on loopback, where Debian's package has put the programs."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of an empty data base, whose server ends with the block."""
    assert PROGRAMS is not None
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    if user is not None:
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = str(folder / "data")
    control = [str(PROGRAMS / "pg_ctl"), "-D", data, "-l", str(folder / "log"), "-w"]
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder}"

    def run(*command: str) -> None:
        subprocess.run(
            command, user=user, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=60
        )

    try:
        run(str(PROGRAMS / "initdb"), "-D", data, "-U", "tenfold", "--auth=trust")
        run(*control, "-o", options, "start")
        try:
            yield f"postgresql+psycopg2://tenfold@127.0.0.1:{port}/postgres"
        finally:
            run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
