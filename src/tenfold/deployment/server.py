"""Run the service: sockets, signals, slow clients, and how it ends."""

import asyncio
import contextlib
import http
import ipaddress
import json
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tenfold.deployment.application import Service, create_application
from tenfold.deployment.guards import Guards, Limits
from tenfold.deployment.predictor import Predictor
from tenfold.errors import TenfoldError

HEADER_SECONDS = 9.0
"""Until a client must have sent a request's headers, or taken some of what it was sent, and between
its requests."""

DRAIN_SECONDS = 6.0
"""For the requests that are being answered when the service is to end."""

STOP_SECONDS = 2.0
"""For the thread that computes, after that."""

SWITCH_SECONDS = 0.0005
"""After which a thread that computes in Python lets another go on: answers are not to wait."""

MOST_CONNECTIONS = 2048

SPARE_FILES = 128
"""Open files that are no connections."""

EVEN = 0.5
"""The calibrated confidence below which an answer is likelier wrong than right."""


@dataclass(frozen=True)
class ServerOptions:
    """host, port: where to listen. key: what the header X-API-Key must say. allow_remote: whether
    others than this machine may connect, for which a key is needed. hosts: further names that the
    Host header may have. origins: sites whose pages may ask. threads: of ONNX Runtime, 0 for all
    cores. accuracy: call answers unsure where fewer would be right; None where they are likelier
    wrong than right. one_view: look at each picture once."""

    host: str = "127.0.0.1"
    port: int = 8000
    key: str = ""
    allow_remote: bool = False
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    threads: int = 0
    accuracy: float | None = None
    one_view: bool = False
    limits: Limits = field(default_factory=Limits)


class _ImpatientProtocol(H11Protocol):
    """HTTP over a connection whose client must send each request's headers in time, and take what
    it gets."""

    _deadline: asyncio.TimerHandle | None = None
    _reading_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self._write_and_close(503, "Too many connections; try again.", b"retry-after: 1\r\n")
            return
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_waiting_for_reading()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Called by asyncio when more waits to be taken than should."""
        super().pause_writing()
        self._stop_waiting_for_reading()
        self._reading_deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Called by asyncio when the client has taken enough."""
        self._stop_waiting_for_reading()
        super().resume_writing()

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # A request that came together with the one before is being answered already.
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for_headers()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the form of all other refusals."""
        self._write_and_close(400, "This is no HTTP request that can be understood.")

    def _write_and_close(self, status: int, reason: str, header: bytes = b"") -> None:
        body = json.dumps({"error": reason}).encode()
        phrase = http.HTTPStatus(status).phrase.encode()
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"%sconnection: close\r\n\r\n%s" % (status, phrase, len(body), header, body)
        )
        self.transport.close()
        self._wait_for_headers()

    def _wait_for_headers(self) -> None:
        """Closed or not: what a client does not take keeps a closed connection too."""
        self._stop_waiting()
        self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _stop_waiting_for_reading(self) -> None:
        if self._reading_deadline is not None:
            self._reading_deadline.cancel()


class _Server(uvicorn.Server):
    """uvicorn's, which would end the process by the signal that asked it to finish."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(path: Path, options: ServerOptions, *, ready: Callable[[str], None]) -> int:
    """Serve the model at `path` until a signal ends it; the exit status.

    ready: is called with the address once it answers. Raises TenfoldError where the file is no
    model, where the port is taken, and where others could connect without a key.
    """
    _require_key(options)
    sys.setswitchinterval(SWITCH_SECONDS)
    predictor = Predictor(
        path,
        threads=options.threads,
        accuracy=options.accuracy,
        one_view=options.one_view,
        shares_cores=True,
    )
    if options.accuracy is None:
        predictor.threshold = EVEN
    # It is part of addresses.
    name = re.sub(r"[^A-Za-z0-9._-]", "-", path.stem)
    _allow_many_files()
    listening = _listen(options)
    failed = False

    def died() -> None:
        nonlocal failed
        failed = True
        server.should_exit = True

    service = Service(predictor, max_pixels=options.limits.max_pixels, on_death=died)
    application = Guards(
        create_application(service, name=name),
        limits=options.limits,
        hosts=_own_names(options),
        origins=frozenset(origin.lower().rstrip("/") for origin in options.origins),
        key=options.key,
        answered=service.measures.answered,
    )
    server = _Server(
        uvicorn.Config(
            application,
            http=_ImpatientProtocol,
            ws="none",
            loop="asyncio",
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=False,
            backlog=MOST_CONNECTIONS,
            timeout_keep_alive=round(HEADER_SECONDS),
            timeout_graceful_shutdown=round(DRAIN_SECONDS),
            h11_max_incomplete_event_size=16_384,
        )
    )
    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
    asyncio.run(_run(server, listening, lambda: ready(address)))
    service.stop(seconds=STOP_SECONDS)
    return 1 if failed else 0


async def _run(server: uvicorn.Server, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Until the server is to end; uvicorn takes the signals itself."""
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    if server.started:
        ready()
    await task


def _require_key(options: ServerOptions) -> None:
    if _is_loopback(options.host):
        return
    if not options.allow_remote:
        raise TenfoldError(
            f"{options.host} can be reached by others; add --allow-remote and --key-file FILE to "
            "serve them, or leave --host at 127.0.0.1."
        )
    if not options.key:
        raise TenfoldError(
            "Others may connect, so a key is needed; write one into a file and give it with "
            "--key-file FILE."
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _own_names(options: ServerOptions) -> frozenset[str]:
    """What the Host header may say; a page that a browser holds for another host is refused."""
    names = {"localhost", "127.0.0.1", "::1", options.host, *options.hosts}
    return frozenset(f"[{name}]" if ":" in name else name.lower() for name in names)


def _allow_many_files() -> None:
    """As many open files as connections need, where the system lets us."""
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _listen(options: ServerOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # With its protocol named, asyncio sends answers without waiting for more to send.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((options.host, options.port))
        listening.listen(MOST_CONNECTIONS)
    except (OSError, OverflowError) as error:
        listening.close()
        raise TenfoldError(
            f"{options.host}:{options.port} can't be listened on ({error}); choose another --port, "
            "or 0 for any."
        ) from error
    return listening
