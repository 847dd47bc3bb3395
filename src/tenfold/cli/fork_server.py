"""The process that `tenfold.processes` has commands forked from: what they import is imported."""

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any

from tenfold.cli import main
from tenfold.processes import MAX_REQUEST

IMPORTED = ("tenfold.cli.train", "tenfold.training.train", "tenfold.evaluation.evaluate")
"""What `tenfold train` needs."""


def serve(connection: socket.socket) -> list[str]:
    """Fork when asked, until nobody is there to ask. Returns in each fork, with its arguments."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # Pages stay shared until a fork ends.
    atexit.register(gc.unfreeze)
    # Schedulers send them to all processes of a job; this one has to say how the others end.
    stopping = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in stopping}
    ends, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        sources: list[Any] = [connection, ends]
        ready, _, _ = select.select(sources, [], [])
        if ends in ready:
            os.read(ends, 1000)
            _tell_of_ended(connection)
        if connection in ready:
            request, files, _, _ = socket.recv_fds(connection, MAX_REQUEST, 3)
            if not request:
                sys.exit()
            if (pid := os.fork()) == 0:
                break
            for descriptor in files:
                os.close(descriptor)
            connection.send(json.dumps((pid, None)).encode())
    signal.set_wakeup_fd(-1)
    for number, handler in (*handlers.items(), (signal.SIGCHLD, signal.SIG_DFL)):
        signal.signal(number, handler)
    os.close(ends)
    os.close(wake)
    connection.close()
    return become(files, **json.loads(request))


def _tell_of_ended(connection: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while (pid_status := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = pid_status
            connection.send(json.dumps((pid, os.waitstatus_to_exitcode(status))).encode())


def become(
    files: list[int], *, arguments: list[str], environment: dict[str, str], folder: str
) -> list[str]:
    """Make this process the one that was asked for."""
    os.setsid()
    for number, descriptor in enumerate(files):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, buffering=1, closefd=False) for number, mode in enumerate("rww")
    )
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    return arguments


if __name__ == "__main__":
    sys.argv = ["tenfold", *serve(socket.socket(fileno=int(sys.argv[1])))]
    main()
