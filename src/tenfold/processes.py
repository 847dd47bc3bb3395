"""Commands of ours as processes of this machine: new ones, or forks of one with its imports done.

Imports take a command two seconds. Forks are for Linux alone: elsewhere libraries don't stand them.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import IO

MAX_REQUEST = 1 << 20
"""Bytes of arguments and environment."""


Spawn = Callable[..., "Fork | subprocess.Popen[bytes]"]
"""Starts a command, as `spawn` does."""

TENFOLD = (sys.executable, "-P", "-m", "tenfold")
"""-P keeps modules in the user's folder from standing in for others."""


def spawn(
    arguments: Sequence[str],
    *,
    stderr: IO[bytes],
    environment: Mapping[str, str],
    command: Sequence[str] = TENFOLD,
) -> "subprocess.Popen[bytes]":
    """A new process of `command` with `arguments`, and pipes for its input and output."""
    return subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**environment},
        # Ctrl-C reaches all processes of a terminal; the driver tells its own itself.
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def quick_spawn() -> Spawn:
    """What starts each of several commands the soonest here."""
    return ForkServer().spawn if sys.platform == "linux" else spawn


class ForkServer:
    """A process that waits, with its imports done, to fork. It ends when this object has gone.

    A fork of multiprocessing's forkserver would run the user's script again, and end without what
    is registered with atexit, by which trackers finish.
    """

    def __init__(self) -> None:
        self._connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_REQUEST)
        with other:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tenfold.cli.fork_server", str(other.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                start_new_session=True,
            )
        self._asked: list[Fork] = []
        self._forks: dict[int, Fork] = {}
        weakref.finalize(self, _leave, self._connection, process)

    def spawn(
        self, arguments: Sequence[str], *, stderr: IO[bytes], environment: Mapping[str, str]
    ) -> "Fork | subprocess.Popen[bytes]":
        """As the function of this name: `tenfold` in a fork, or anew where the server has died."""
        request = {"arguments": [*arguments], "environment": {**environment}, "folder": os.getcwd()}
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        fork = Fork(self, os.fdopen(ours_in, "wb", buffering=0), os.fdopen(ours_out, "rb"))
        try:
            files = [theirs_in, theirs_out, stderr.fileno()]
            socket.send_fds(self._connection, [json.dumps(request).encode()], files)
        except OSError:
            fork.stdin.close()
            fork.stdout.close()
            return spawn(arguments, stderr=stderr, environment=environment)
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self._asked.append(fork)
        return fork

    def hear(self, seconds: float | None = 0.0) -> None:
        """Take in what has become of the forks; wait so long for news, None for any time."""
        while select.select([self._connection], [], [], seconds)[0]:
            with contextlib.suppress(ConnectionError):
                if message := self._connection.recv(1000):
                    pid, status = json.loads(message)
                    if status is None:
                        self._forks[pid] = self._asked.pop(0)
                        self._forks[pid].pid = pid
                    else:
                        self._forks.pop(pid).returncode = status
                    seconds = 0.0
                    continue
            return self._give_up()

    def _give_up(self) -> None:
        """Without the server nobody learns how a fork ends: end them all."""
        for pid, fork in self._forks.items():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            fork.returncode = -signal.SIGKILL
        for fork in self._asked:
            fork.returncode = -signal.SIGKILL
        self._forks, self._asked = {}, []


def _leave(connection: socket.socket, process: "subprocess.Popen[bytes]") -> None:
    connection.close()
    process.kill()  # It may still import; its forks go on.
    process.wait()


class Fork:
    """A command under way; what it has in common with subprocess.Popen means the same."""

    def __init__(self, server: ForkServer, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self._server = server
        self.stdin, self.stdout = stdin, stdout
        self.pid: int | None = None
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status, minus a signal that ended it; None while it runs."""
        if self.returncode is None:
            self._server.hear()
        return self.returncode

    def wait(self) -> int:
        """The same, once it has ended."""
        while self.returncode is None:
            self._server.hear(None)
        return self.returncode

    def kill(self) -> None:
        """End it at once."""
        while self.pid is None and self.returncode is None:
            self._server.hear(None)
        if self.poll() is None and self.pid is not None:
            with contextlib.suppress(ProcessLookupError):  # It has just ended.
                os.kill(self.pid, signal.SIGKILL)
