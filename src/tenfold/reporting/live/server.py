"""Serve a live page to browsers of this machine: two paths, read-only, by the standard library."""

import base64
import hashlib
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tenfold.errors import TenfoldError
from tenfold.interruption import ending_on
from tenfold.reporting.live.page import LOOK_SECONDS, LivePage

LOOPBACK = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost", "[::1]")
"""Of this machine, by which a browser may ask; another name is that of a page which has had its
own name lead here."""

MOST_CONNECTIONS = 32
CLIENT_SECONDS = 10.0
"""Until a client must have sent its request, or taken what it was sent."""

BEAT_SECONDS = 15.0
"""After which a silent stream says that it lives, and learns whether the browser does."""

END_SECONDS = 3.0
"""For the last pieces to go out."""


def require_port(port: int) -> int:
    """`port`, or a free one for 0. Raises TenfoldError where somebody listens there."""
    with socket.socket() as trial:
        if os.name == "posix":  # Where it doesn't mean that two may listen.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((LOOPBACK, port))
            trial.listen()
        except OSError as error:
            raise _taken(port, error) from error
        found: int = trial.getsockname()[1]
        return found


def serve(folder: Path, port: int, *, ready: Callable[[str], None]) -> None:
    """Serve the page about the runs in `folder` until SIGINT or SIGTERM comes.

    ready: is called with the address once it answers. Raises TenfoldError where there is no such
    folder, and where the port is taken.
    """
    page = LivePage(folder)
    try:
        server = _Server((LOOPBACK, port), page)
    except OSError as error:
        raise _taken(port, error) from error
    with server, ending_on("SIGINT", "SIGTERM"):
        ready(f"http://{LOOPBACK}:{server.server_port}/")
        # Signals end it at once, but for Windows.
        server.serve_forever(poll_interval=60.0 if os.name == "posix" else 0.5)
    server.end()


def _taken(port: int, error: OSError) -> TenfoldError:
    return TenfoldError(
        f"{LOOPBACK}:{port} can't be listened on ({error.strerror}); choose another port, or 0 for "
        "any free one."
    )


class _Server(ThreadingHTTPServer):
    """Threads for a few connections; more are closed."""

    daemon_threads = True
    allow_reuse_address = os.name == "posix"

    def __init__(self, address: tuple[str, int], page: LivePage) -> None:
        super().__init__(address, _Handler)
        self.page, self.ends = page, threading.Event()
        self.room = threading.BoundedSemaphore(MOST_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """See BaseServer."""
        if self.room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """See ThreadingMixIn."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """See BaseServer; a client that has gone is no error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def end(self) -> None:
        """Let the streams say how it ended, and wait until they have."""
        self.ends.set()
        for _ in range(MOST_CONNECTIONS):
            if not self.room.acquire(timeout=END_SECONDS / MOST_CONNECTIONS):
                break


class _Handler(BaseHTTPRequestHandler):
    """`/`, the page, and `/events`, what changes in it."""

    server: _Server
    timeout = CLIENT_SECONDS
    server_version, sys_version = "tenfold", ""

    def do_GET(self) -> None:
        """See BaseHTTPRequestHandler."""
        asked = urlsplit(self.path)
        chosen = parse_qs(asked.query).get("run", [""])[-1]
        if refusal := self._refusal():
            self._send(*refusal)
        elif asked.path == "/":
            page = self.server.page.html()
            self._send(200, page, kind="text/html", policy=_policy_of(page))
        elif asked.path == "/events":
            self._stream(chosen)
        else:
            self._send(404, "There is nothing else here than the page at /.")

    def log_message(self, format: str, *values: Any) -> None:
        """Nothing: standard error is for people."""

    def _refusal(self) -> tuple[int, str] | None:
        hosts = self.headers.get_all("Host") or [""]
        name = re.sub(r":\d+$", "", hosts[0].lower())
        if len(hosts) > 1 or name not in NAMES:
            return 421, "This page is served to this machine alone, as localhost."
        origin = self.headers.get("Origin")
        if origin and origin.lower().partition("://")[2] != hosts[0].lower():
            return 403, "Pages of other sites may not ask."
        return None

    def _send(self, status: int, text: str, *, kind: str = "text/plain", policy: str = "") -> None:
        content = text.encode()
        self._begin(status, kind, policy)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _begin(self, status: int, kind: str, policy: str = "") -> None:
        self.send_response(status)
        headers = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Cache-Control": "no-store",
            "Content-Security-Policy": f"default-src 'none'; {policy}base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            self.send_header(name, value)

    def _stream(self, chosen: str) -> None:
        """Send the pieces that have changed, as long as somebody takes them."""
        self._begin(200, "text/event-stream")
        self.end_headers()
        sent: dict[str, str] = {}
        silent, ends = 0.0, self.server.ends
        while True:
            is_over = ends.is_set()
            found = self.server.page.pieces(chosen, at_once=is_over)
            changed = {name: text for name, text in found.items() if sent.get(name) != text}
            if changed:
                self._tell(f"data: {json.dumps(changed)}")
                sent, silent = found, 0.0
            elif silent >= BEAT_SECONDS:
                self._tell(":")
                silent = 0.0
            if is_over:
                self._tell("event: end\ndata:")
                return
            silent += LOOK_SECONDS
            ends.wait(LOOK_SECONDS)

    def _tell(self, text: str) -> None:
        self.wfile.write(f"{text}\n\n".encode())


def _policy_of(page: str) -> str:
    """What the page may do: run its own scripts, draw, and ask here."""
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    sums = (base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts)
    allowed = " ".join(f"'sha256-{each}'" for each in sums)
    return f"script-src {allowed}; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
