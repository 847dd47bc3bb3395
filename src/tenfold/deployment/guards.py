"""What stands before the application: limits on size, time and number, hosts, origins and keys."""

import asyncio
import contextlib
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Answered = Callable[[str, int, float], None]

logger = logging.getLogger("tenfold")

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; img-src 'self' data: blob:; style-src 'unsafe-inline'; "
        b"script-src 'unsafe-inline'; connect-src 'self' data:; base-uri 'none'; "
        b"form-action 'none'; frame-ancestors 'none'",
    ),
)

HEALTH_PATHS = ("/v2/health/live", "/v2/health/ready")
"""For whoever runs the service, by whatever name it is reached."""

OPEN_PATHS = ("/", *HEALTH_PATHS)
"""That need no key: the page asks for it, for a browser can't send one when it opens a page."""

ALLOWED_HEADERS = b"content-type, x-api-key, inference-header-content-length"

OTHER = "other"
"""What requests are counted under that lead nowhere."""


@dataclass(frozen=True)
class Limits:
    """max_bytes: of a body. max_pixels: of a picture that is decoded. body_seconds: until it must
    have come. answer_seconds: until an answer must have gone. max_requests: that are worked on at
    once. max_held_bytes: of the bodies of all of them."""

    max_bytes: int = 20_000_000
    max_pixels: int = 1 << 23
    body_seconds: float = 9.0
    answer_seconds: float = 30.0
    max_requests: int = 1024
    max_held_bytes: int = 256_000_000


GONE = 499
"""The status under which requests are counted whose client did not wait."""


class _Refusal(Exception):
    """A request that is not answered: status and reason, and whether to try again."""

    def __init__(self, status: int, reason: str, *, retry: bool = False) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry = status, reason, retry


class Guards:
    """An ASGI application around another.

    hosts: names in the Host header that are ours, empty for any. origins: other sites whose pages
    may ask. key: what the header X-API-Key must say; empty for no key. answered: is told path,
    status and seconds of each request.
    """

    def __init__(
        self,
        app: App,
        *,
        limits: Limits,
        hosts: frozenset[str],
        origins: frozenset[str] = frozenset(),
        key: str = "",
        answered: Answered = lambda path, status, seconds: None,
    ) -> None:
        self._app, self._limits = app, limits
        self._hosts, self._origins, self._key = hosts, origins, key
        self._answered = answered
        self._num_requests = self._num_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the application's start and end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        response = _Response(send, self._allowed_origin(headers))
        started = time.perf_counter()
        try:
            if not await self._preflight(scope, headers, response):
                self._require_allowed(scope, headers)
                await self._within_limits(scope, receive, response)
        except _Refusal as refusal:
            await response.refuse(refusal.status, refusal.reason, retry=refusal.retry)
        except asyncio.CancelledError:  # The service ends, and its patience has.
            await response.refuse(503, "The service ends; try again.", retry=True)
        except Exception:
            logger.exception("A request to %s failed.", scope["path"])
            await response.refuse(500, "Something went wrong here; it is in the service's log.")
        finally:
            path = getattr(scope.get("route"), "path", OTHER)
            self._answered(path, response.status or GONE, time.perf_counter() - started)

    async def _within_limits(self, scope: Scope, receive: Receive, response: "_Response") -> None:
        if self._num_requests >= self._limits.max_requests:
            raise _Refusal(503, "Too many requests at once; try again.", retry=True)
        self._num_requests += 1
        parts: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(self._limits.body_seconds):
                    is_there = await self._read(receive, parts)
            except TimeoutError:
                raise _Refusal(408, "The body did not come in time.") from None
            if is_there:
                parts[:] = [b"".join(parts)]  # And nothing of it twice.
                await self._answer(scope, receive, response, parts[0])
        finally:
            self._num_requests -= 1
            self._num_bytes -= sum(map(len, parts))

    async def _read(self, receive: Receive, parts: list[bytes]) -> bool:
        """Add all that comes to `parts`; False where the client has gone."""
        length = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            part = message.get("body", b"")
            length += len(part)
            if length > self._limits.max_bytes:
                raise self._too_large()
            if self._num_bytes + len(part) > self._limits.max_held_bytes:
                raise _Refusal(503, "Too much is being received; try again.", retry=True)
            parts.append(part)
            self._num_bytes += len(part)
            if not message.get("more_body", False):
                return True

    async def _answer(
        self, scope: Scope, receive: Receive, response: "_Response", body: bytes
    ) -> None:
        """The application's answer, unless it takes too long or nobody waits for it any more."""
        given = iter([{"type": "http.request", "body": body, "more_body": False}])
        gone = asyncio.ensure_future(_until_gone(receive))

        async def receiving() -> Message:
            found: Message | None = next(given, None)
            if found is None:
                await gone
                found = {"type": "http.disconnect"}
            return found

        work = asyncio.ensure_future(self._app(scope, receiving, response.send))
        try:
            done, _ = await asyncio.wait(
                {work, gone},
                timeout=self._limits.answer_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work in done:
                await work
            elif not done:
                raise _Refusal(503, "No answer in time; try again.", retry=True)
        finally:
            for task in (work, gone):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await work

    def _require_allowed(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Raise _Refusal where a request is not even looked at."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if self._hosts and name not in self._hosts and scope["path"] not in HEALTH_PATHS:
            raise _Refusal(
                421, f"This service is not called {name[:80]!r}; name it with --host-name."
            )
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        if origin and origin not in self._origins and origin.split("://", 1)[-1] != host:
            raise _Refusal(403, "Pages of other sites may not ask; name theirs with --origin.")
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit():
            raise _Refusal(400, "Content-Length is not a number.")
        if int(declared) > self._limits.max_bytes:
            raise self._too_large()
        if b"content-length" in headers and b"transfer-encoding" in headers:
            raise _Refusal(400, "A body has a length or comes in chunks, not both.")
        has_body = int(declared) > 0 or b"transfer-encoding" in headers
        if has_body and (scope["method"] != "POST" or scope["path"] in OPEN_PATHS):
            raise _Refusal(400, f"A {scope['method'][:20]} of this path has no body.")
        if self._key and scope["path"] not in OPEN_PATHS:
            given = headers.get(b"x-api-key", b"")
            if not hmac.compare_digest(given, self._key.encode()):
                raise _Refusal(401, "The header X-API-Key is missing or wrong.")

    async def _preflight(
        self, scope: Scope, headers: dict[bytes, bytes], response: "_Response"
    ) -> bool:
        """Answer a browser that asks for a page of a site that was named whether it may ask."""
        asks = scope["method"] == "OPTIONS" and b"access-control-request-method" in headers
        if not asks or self._allowed_origin(headers) is None:
            return False
        allowed = [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", ALLOWED_HEADERS),
            (b"access-control-max-age", b"600"),
        ]
        await response.send({"type": "http.response.start", "status": 204, "headers": allowed})
        await response.send({"type": "http.response.body", "body": b""})
        return True

    def _allowed_origin(self, headers: dict[bytes, bytes]) -> bytes | None:
        origin = headers.get(b"origin", b"")
        return origin if origin.decode("latin-1").lower() in self._origins else None

    def _too_large(self) -> _Refusal:
        return _Refusal(413, f"A body may have {self._limits.max_bytes:,} bytes.")


class _Response:
    """What goes out, with our headers, and what has become of it."""

    def __init__(self, send: Send, origin: bytes | None) -> None:
        self._send, self._origin = send, origin
        self.status = 0
        """0 until something has gone out."""

    async def send(self, message: Message) -> None:
        """A message of the application, on its way to the client."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", []), *SECURITY_HEADERS]
            if self._origin is not None:
                headers += [
                    (b"access-control-allow-origin", self._origin),
                    (b"access-control-expose-headers", b"inference-header-content-length"),
                    (b"vary", b"origin"),
                ]
            message = {**message, "headers": headers}
        await self._send(message)

    async def refuse(self, status: int, reason: str, *, retry: bool = False) -> None:
        """Say why there is no answer, unless one has begun."""
        if self.status:
            return
        body = json.dumps({"error": reason}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if retry:
            headers.append((b"retry-after", b"1"))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


async def _until_gone(receive: Receive) -> None:
    """Wait until the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
