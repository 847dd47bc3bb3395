"""What stands before the application: limits on size, time and number, hosts, origins and keys."""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

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

OPEN_PATHS = ("/v2/health/live", "/v2/health/ready")
"""That need no key, so that whoever runs the service can look after it."""


@dataclass(frozen=True)
class Limits:
    """max_bytes: of a body. body_seconds: until it must have come. answer_seconds: until an answer
    must have gone. max_requests: that are worked on at once."""

    max_bytes: int = 20_000_000
    body_seconds: float = 10.0
    answer_seconds: float = 30.0
    max_requests: int = 1024


class _TooLargeError(Exception):
    pass


class _TooSlowError(Exception):
    pass


class Guards:
    """An ASGI application around another.

    hosts: names in the Host header that are ours, empty for any. origins: other sites whose pages
    may ask. key: what the header X-API-Key must say; empty for no key.
    """

    def __init__(
        self,
        app: App,
        *,
        limits: Limits,
        hosts: frozenset[str],
        origins: frozenset[str] = frozenset(),
        key: str = "",
    ) -> None:
        self._app, self._limits = app, limits
        self._hosts, self._origins, self._key = hosts, origins, key
        self._num_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the application's start and end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        send = self._marked(send, self._allowed_origin(headers))
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        if self._num_requests >= self._limits.max_requests:
            await _refuse(send, 503, "Too many requests at once; try again.", retry=True)
            return
        self._num_requests += 1
        try:
            await self._within_limits(scope, receive, send)
        finally:
            self._num_requests -= 1

    async def _within_limits(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            body = await asyncio.wait_for(self._body(receive), self._limits.body_seconds)
        except _TooLargeError:
            await _refuse(send, 413, f"A body may have {self._limits.max_bytes:,} bytes.")
            return
        except TimeoutError:
            await _refuse(send, 408, "The body did not come in time.")
            return
        if body is None:  # The client has gone.
            return
        is_given = False

        async def receiving() -> Message:
            nonlocal is_given
            if not is_given:
                is_given = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        try:
            await asyncio.wait_for(
                self._app(scope, receiving, sending), self._limits.answer_seconds
            )
        except TimeoutError:
            if not started:
                await _refuse(send, 503, "No answer in time; try again.", retry=True)

    async def _body(self, receive: Receive) -> bytes | None:
        """All of it; None where the client has gone. Raises _TooLargeError."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            size += len(part)
            if size > self._limits.max_bytes:
                raise _TooLargeError
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """Status and reason, where a request is not even looked at."""
        host = headers.get(b"host", b"").decode("latin-1")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if self._hosts and name.lower() not in self._hosts:
            return 421, "This is not that host."
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin not in self._origins and origin.split("://", 1)[-1] != host:
            return 403, "Pages of other sites may not ask."
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit():
            return 400, "Content-Length is not a number."
        if int(declared) > self._limits.max_bytes:
            return 413, f"A body may have {self._limits.max_bytes:,} bytes."
        if self._key and scope["path"] not in OPEN_PATHS:
            given = headers.get(b"x-api-key", b"")
            if not hmac.compare_digest(given, self._key.encode()):
                return 401, "The header X-API-Key is missing or wrong."
        return None

    def _allowed_origin(self, headers: dict[bytes, bytes]) -> bytes | None:
        origin = headers.get(b"origin", b"")
        return origin if origin.decode("latin-1") in self._origins else None

    def _marked(self, send: Send, origin: bytes | None) -> Send:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), *SECURITY_HEADERS]
                if origin is not None:
                    headers += [(b"access-control-allow-origin", origin), (b"vary", b"origin")]
                message = {**message, "headers": headers}
            await send(message)

        return marked


async def _refuse(send: Send, status: int, reason: str, *, retry: bool = False) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if retry:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
