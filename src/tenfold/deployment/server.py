"""Run the service: who may ask how much, for how long; sockets, signals, and how it ends."""

import asyncio
import contextlib
import hmac
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tenfold.deployment.application import Service, create_application, refusal
from tenfold.deployment.batching import busy
from tenfold.deployment.options import Limits, ServerOptions
from tenfold.deployment.predictor import EVEN, Predictor
from tenfold.errors import TenfoldError

PATIENCE_SECONDS = 9.0  # For headers, for a body, and to take some of what a client was sent.
HEADER_BYTES, MOST_HELD_BYTES = 16_384, 256_000_000  # The latter: of the bodies of all requests.
DRAIN_SECONDS = 6.0  # For the requests that are being answered when the service is to end.
SWITCH_SECONDS = 0.0005  # After which a thread that computes lets one go on that answers.
MOST_CONNECTIONS, MOST_FILES = 2048, 2176
# For whoever runs the service, by any name of the host; like the page, they need no key.
HEALTH_PATHS = ("/v2/health/live", "/v2/health/ready")

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; img-src 'self' data: blob:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}

logger = logging.getLogger("tenfold")


class Guards:
    """An ASGI application around a service's: hosts, origins and key, limits on number and time."""

    def __init__(
        self, service: Service, options: ServerOptions, *, limits: Limits, key: str = ""
    ) -> None:
        # It is part of addresses.
        name = re.sub(r"[^A-Za-z0-9._-]", "-", service.predictor.path.stem)
        self._app = create_application(service, name=name, max_bytes=limits.max_bytes)
        self._answered, self._limits, self._key = service.answered, limits, key
        # A page that a browser holds for another host is refused.
        hosts = {"localhost", "127.0.0.1", "::1", options.host, *(options.host_name or ())}
        self._hosts = {f"[{host}]" if ":" in host else host.lower() for host in hosts}
        self.origins = {origin.lower().rstrip("/") for origin in options.origin or ()}
        self._num_requests = self._num_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        started, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=message["headers"])
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["method"] == "HEAD":  # As GET; the server sends no body.
            scope["method"] = "GET"
        try:
            self._require_allowed(Headers(scope=scope), scope["path"])
            await self._within_limits(scope, receive, sending)
        except HTTPException as error:
            if not status:
                await refusal(error)(scope, receive, sending)
        except Exception:  # The application has answered by 500.
            logger.exception("A request to %s failed.", scope["path"])
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self._answered(path, status, time.perf_counter() - started)

    def _require_allowed(self, headers: Headers, path: str) -> None:
        """Raise HTTPException where a request is not even looked at."""
        host = headers.get("host", "").lower()
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if name not in self._hosts and path not in HEALTH_PATHS:
            wrong = f"This service is not called {name[:80]!r}; name it with --host-name"
            raise HTTPException(421, wrong)
        origin = headers.get("origin", "").lower()
        if origin and origin not in self.origins and origin.split("://", 1)[-1] != host:
            raise HTTPException(403, "Pages of other sites may not ask; name theirs with --origin")
        if self._key and path not in ("/", *HEALTH_PATHS):
            given = headers.get("x-api-key", "")
            if not hmac.compare_digest(given.encode(), self._key.encode()):
                raise HTTPException(401, "The header X-API-Key is missing or wrong")

    async def _within_limits(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._num_requests >= self._limits.max_requests:
            raise busy("Too many requests at once")
        body_by = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        held = 0

        async def receiving() -> Message:
            nonlocal held
            try:
                async with asyncio.timeout_at(body_by):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "The body did not come in time") from None
            number = len(message.get("body", b""))
            held, self._num_bytes = held + number, self._num_bytes + number
            if self._num_bytes > MOST_HELD_BYTES:
                raise busy("Too much is being received")
            return message

        self._num_requests += 1
        try:
            async with asyncio.timeout(self._limits.max_seconds):
                await self._app(scope, receiving, send)
        except TimeoutError:
            raise busy("No answer in time") from None
        finally:
            self._num_requests -= 1
            self._num_bytes -= held


def serve(
    path: Path, options: ServerOptions, *, limits: Limits, ready: Callable[[str], None]
) -> NoReturn:
    """Serve the model at `path` until a signal comes, then end this process: 0, or 1 where the
    service ended by itself.

    ready: is called with the address once it answers. Raises TenfoldError where the file is no
    model, where the port is taken, and where others could connect without a key.
    """
    key = read_key(options)
    sys.setswitchinterval(SWITCH_SECONDS)
    accuracy, sets = (each and each / 100 for each in (options.accuracy, options.sets))
    known: Any = {"accuracy": accuracy, "sets": sets, "one_view": options.one_view}
    predictor = Predictor(path, threads=options.threads or 0, shares_cores=True, **known)
    if accuracy is None:
        predictor.threshold = EVEN
    _allow_many_files()
    host, port = _free_address(options)
    service = Service(predictor, limits=limits)
    guards = Guards(service, options, limits=limits, key=key)
    application = CORSMiddleware(
        guards,
        allow_origins=tuple(guards.origins),
        allow_methods=("GET", "POST"),
        allow_headers=("content-type", "x-api-key", "inference-header-content-length"),
        expose_headers=("inference-header-content-length",),
    )
    asyncio.run(_run(service, application, host, port, ready))


async def _run(
    service: Service, application: ASGIApp, host: str, port: int, ready: Callable[[str], None]
) -> NoReturn:
    """Until a signal, or the death of the thread that computes."""
    ends, loop = asyncio.Event(), asyncio.get_running_loop()
    service.batcher.on_death = ends.set
    server = Server(
        application,
        host,
        port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=round(1000 * PATIENCE_SECONDS), max_buffer_size=HEADER_BYTES
        ),
        websockets=False,
        backlog=MOST_CONNECTIONS,
        backpressure=MOST_CONNECTIONS,
        log_enabled=False,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(ends.set))
    serving = asyncio.create_task(server.serve())
    serving.add_done_callback(lambda _: ends.set())
    while not ends.is_set():  # It starts on a thread of its own.
        with contextlib.suppress(OSError):
            (await asyncio.open_connection(host, port))[1].close()
            break
        await asyncio.sleep(0.01)
    _close_those_who_take_nothing()
    ready(f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/")
    await ends.wait()
    status = int(serving.done() or not service.batcher.is_alive)  # Ended by itself.
    server.stop()
    await asyncio.wait({serving}, timeout=DRAIN_SECONDS)
    # Threads that hang would be waited for, and the server's own abort the process where they
    # come back into an interpreter that is being taken down.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


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
            where = f"{options.host}:{options.port} can't be listened on"
            raise TenfoldError(f"{where} ({error}); choose another --port, or 0.") from error
        host, port = trial.getsockname()[:2]
        return host, port


def _close_those_who_take_nothing() -> None:
    """Let the system close connections whose clients don't take what they are sent, where it can
    (Linux): connections inherit it from the socket that listens, which the server keeps to itself.
    """
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if not str(file.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(file.name))) as each:
                if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    milliseconds = round(1000 * PATIENCE_SECONDS)
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _allow_many_files() -> None:
    """As many open files as connections need, where the system has a limit and lets us."""
    with contextlib.suppress(ImportError):  # On Windows.
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
        if soft != resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def read_key(options: ServerOptions) -> str:
    """The key that clients must send; empty for none. Raises TenfoldError where its file can't be
    read or is too short, and where others could connect without a key."""
    key, file = "", options.key_file
    if file is not None:
        try:  # Some editors put a mark at the start.
            key = file.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise TenfoldError(f"The key can't be read from {file} ({error}).") from error
        if not (key.isascii() and key.isprintable()):
            wrong = f"The key in {file} has letters that a header can't hold"
            raise TenfoldError(f"{wrong}; write one line of ASCII letters, digits and signs.")
        if len(key) < 16:
            raise TenfoldError(f"The key in {file} is shorter than 16 letters; write a longer one.")
    is_local = re.fullmatch(r"localhost|127\.[0-9.]+|::1", options.host)
    if not is_local and not (options.allow_remote and key):
        wrong = f"{options.host} can be reached by others, so a key is needed"
        raise TenfoldError(f"{wrong}; add --allow-remote and --key-file FILE.")
    return key
