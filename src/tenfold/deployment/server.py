"""Run the service: sockets, signals, slow clients, and how it ends."""

import asyncio
import contextlib
import ipaddress
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from tenfold.deployment.application import Service, create_application
from tenfold.deployment.guards import Guards
from tenfold.deployment.options import Limits, ServerOptions
from tenfold.deployment.predictor import EVEN, Predictor
from tenfold.errors import TenfoldError

HEADER_SECONDS = 9.0
"""Until a client must have sent a request's headers, or taken some of what it was sent, and between
its requests."""

HEADER_BYTES = 16_384

DRAIN_SECONDS = 6.0
"""For the requests that are being answered when the service is to end."""

SWITCH_SECONDS = 0.0005
"""After which a thread that computes in Python lets another go on: answers are not to wait."""

MOST_CONNECTIONS = 2048

SPARE_FILES = 128
"""Open files that are no connections."""


def serve(
    path: Path, options: ServerOptions, *, limits: Limits, ready: Callable[[str], None]
) -> int:
    """Serve the model at `path` until a signal ends it; the exit status.

    ready: is called with the address once it answers. Raises TenfoldError where the file is no
    model, where the port is taken, and where others could connect without a key.
    """
    key = read_key(options.key_file)
    _require_key(options, key)
    sys.setswitchinterval(SWITCH_SECONDS)
    predictor = Predictor(
        path,
        threads=options.threads or 0,
        accuracy=options.accuracy / 100 if options.accuracy is not None else None,
        sets=options.sets / 100 if options.sets is not None else None,
        one_view=options.one_view,
        shares_cores=True,
    )
    if options.accuracy is None:
        predictor.threshold = EVEN
    _allow_many_files()
    host, port = _free_address(options)
    service = Service(predictor, limits=limits)
    application = _application(service, options, limits, key)
    return asyncio.run(_run(service, application, host, port, ready))


async def _run(
    service: Service, application: ASGIApp, host: str, port: int, ready: Callable[[str], None]
) -> int:
    """Until a signal, or the death of the thread that computes; the exit status."""
    ends = asyncio.Event()
    service.batcher.on_death = ends.set
    server = Server(
        application,
        host,
        port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=round(1000 * HEADER_SECONDS), max_buffer_size=HEADER_BYTES
        ),
        websockets=False,
        backlog=MOST_CONNECTIONS,
        backpressure=MOST_CONNECTIONS,
        log_enabled=False,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(ends.set))
    serving = asyncio.create_task(server.serve())
    serving.add_done_callback(lambda _: ends.set())
    await _listens(host, port, serving)
    _close_those_who_take_nothing()
    ready(f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/")
    await ends.wait()
    status = int(serving.done() or not service.batcher.is_alive)  # Ended by itself.
    server.stop()
    await asyncio.wait({serving}, timeout=DRAIN_SECONDS)
    if not serving.done() or service.batcher.is_busy:
        # Threads that hang would be waited for.
        sys.stdout.flush()
        os._exit(status)
    service.stop()
    return status


def _application(service: Service, options: ServerOptions, limits: Limits, key: str) -> ASGIApp:
    # It is part of addresses.
    name = re.sub(r"[^A-Za-z0-9._-]", "-", service.predictor.path.stem)
    # A page that a browser holds for another host is refused.
    hosts = {"localhost", "127.0.0.1", "::1", options.host, *(options.host_name or ())}
    origins = frozenset(origin.lower().rstrip("/") for origin in options.origin or ())
    guarded = Guards(
        create_application(service, name=name, max_bytes=limits.max_bytes),
        limits=limits,
        hosts=frozenset(f"[{host}]" if ":" in host else host.lower() for host in hosts),
        origins=origins,
        key=key,
        answered=service.answered,
    )
    if not origins:
        return guarded
    return CORSMiddleware(
        guarded,
        allow_origins=tuple(origins),
        allow_methods=("GET", "POST"),
        allow_headers=("content-type", "x-api-key", "inference-header-content-length"),
        expose_headers=("inference-header-content-length",),
    )


def _free_address(options: ServerOptions) -> tuple[str, int]:
    """Host as a number, and port, any free one for 0. Raises TenfoldError where somebody listens
    there already, which the server, whose processes may share a port, would not notice."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((options.host, options.port))
            trial.listen()
        except (OSError, OverflowError) as error:
            raise TenfoldError(
                f"{options.host}:{options.port} can't be listened on ({error}); choose another "
                "--port, or 0 for any."
            ) from error
        host, port = trial.getsockname()[:2]
        return host, port


async def _listens(host: str, port: int, serving: "asyncio.Task[None]") -> None:
    """Wait until the server, which starts on a thread of its own, takes connections."""
    while not serving.done():
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return
        await asyncio.sleep(0.01)


def _close_those_who_take_nothing() -> None:
    """Let the system close connections whose clients don't take what they are sent, where it can
    (Linux): connections inherit it from the socket that listens, which the server keeps to itself.
    """
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    milliseconds = round(1000 * HEADER_SECONDS)
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if not str(file.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(file.name))) as each:
                if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _require_key(options: ServerOptions, key: str) -> None:
    with contextlib.suppress(ValueError):
        if options.host == "localhost" or ipaddress.ip_address(options.host).is_loopback:
            return
    if not options.allow_remote:
        raise TenfoldError(
            f"{options.host} can be reached by others; add --allow-remote and --key-file FILE to "
            "serve them, or leave --host at 127.0.0.1."
        )
    if not key:
        raise TenfoldError(
            "Others may connect, so a key is needed; write one into a file and give it with "
            "--key-file FILE."
        )


def _allow_many_files() -> None:
    """As many open files as connections need, where the system lets us."""
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted, infinity = MOST_CONNECTIONS + SPARE_FILES, resource.RLIM_INFINITY
    if infinity != soft < wanted:
        most = wanted if hard == infinity else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def read_key(file: Path | None) -> str:
    """The key in `file`, or none. Raises TenfoldError where it can't be read or is too short."""
    if file is None:
        return ""
    try:
        key = file.read_text(encoding="utf-8-sig").strip()  # Some editors put a mark at the start.
    except (OSError, UnicodeDecodeError) as error:
        raise TenfoldError(f"The key can't be read from {file} ({error}).") from error
    if len(key) < 16:
        raise TenfoldError(f"The key in {file} is shorter than 16 letters; write a longer one.")
    return key
