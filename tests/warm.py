"""Processes of a study or search under test, without the import of torch in each.

`python -S warm.py ARGUMENTS` is a `tenfold ARGUMENTS` that a server, which has imported the
library, runs in a fork of itself, with this process's input, outputs, environment and folder. It
ends as that one does, and that one is killed with it.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path

SERVER = "TENFOLD_TEST_SERVER"
"""The variable of the environment that has the server's address."""


def main() -> None:
    """Have the command run, and end as it does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[SERVER])
        request = {"argv": sys.argv[1:], "cwd": os.getcwd(), "environment": dict(os.environ)}
        socket.send_fds(connection, [b"."], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("r") as answers:
            pid = int(answers.readline())
            signal.signal(signal.SIGTERM, lambda number, _: os.kill(pid, number))
            line = answers.readline()
            status = int(line) if line else -signal.SIGKILL
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


def serve(address: Path) -> None:
    """Run commands until this process is killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen(16)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _look_after(connection)
            connection.close()


def _look_after(connection: socket.socket) -> None:
    """Fork the command, and tell how it ended; kill it where nobody asks any more."""
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    reader = connection.makefile("r")
    request = json.loads(reader.readline())
    pid = os.fork()
    if pid == 0:
        _run(request, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    connection.sendall(f"{pid}\n".encode())
    is_watched = True
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        if is_watched and select.select([connection], [], [], 0.02)[0]:
            is_watched = False
            os.kill(pid, signal.SIGKILL)
    try:
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    finally:
        os._exit(0)


def _run(request: dict, descriptors: list[int]) -> None:
    from tenfold.cli.fork_server import become

    gc.freeze()  # As in commands.
    become(
        descriptors,
        arguments=request["argv"],
        environment=request["environment"],
        folder=request["cwd"],
    )
    os.closerange(3, 256)
    sys.argv = ["tenfold", *request["argv"]]
    status = 1
    try:
        import torch

        from tenfold.cli import main as run

        torch.set_num_threads(1)  # As in conftest.
        run()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
