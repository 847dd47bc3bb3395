"""What stands before the application: hosts, origins and keys, and limits on number and time."""

import asyncio
import hmac
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tenfold.deployment.options import Limits

logger = logging.getLogger("tenfold")

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; img-src 'self' data: blob:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}

HEALTH_PATHS = ("/v2/health/live", "/v2/health/ready")
"""For whoever runs the service, by whatever name it is reached."""

OPEN_PATHS = ("/", *HEALTH_PATHS)
"""That need no key: the page asks for it, for a browser can't send one when it opens a page."""

OTHER = "other"
"""What requests are counted under that lead nowhere."""

BODY_SECONDS = 9.0
"""Until a body must have come."""

MOST_HELD_BYTES = 256_000_000
"""Of the bodies of all requests."""


@dataclass
class Guards:
    """An ASGI application around another.

    hosts: names in the Host header that are ours. origins: other sites whose pages may ask. key:
    what the header X-API-Key must say; empty for no key. answered: is told path, status and seconds
    of each request.
    """

    app: ASGIApp
    limits: Limits
    hosts: frozenset[str]
    origins: frozenset[str]
    key: str
    answered: Callable[[str, int, float], None]
    _num_requests: int = field(default=0, init=False)
    _num_bytes: int = field(default=0, init=False)

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
            self._require_allowed(scope)
            await self._within_limits(scope, receive, sending)
        except HTTPException as error:
            if not status:
                await refusal(error)(scope, receive, sending)
        except Exception:  # The application has answered by 500.
            logger.exception("A request to %s failed.", scope["path"])
        finally:
            path = getattr(scope.get("route"), "path", OTHER)
            self.answered(path, status, time.perf_counter() - started)

    async def _within_limits(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._num_requests >= self.limits.max_requests:
            raise busy("Too many requests at once")
        body_by = asyncio.get_running_loop().time() + BODY_SECONDS
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
            async with asyncio.timeout(self.limits.max_seconds):
                await self.app(scope, receiving, send)
        except TimeoutError:
            raise busy("No answer in time") from None
        finally:
            self._num_requests -= 1
            self._num_bytes -= held

    def _require_allowed(self, scope: Scope) -> None:
        """Raise HTTPException where a request is not even looked at."""
        headers, path = Headers(scope=scope), scope["path"]
        host = headers.get("host", "").lower()
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if name not in self.hosts and path not in HEALTH_PATHS:
            raise HTTPException(
                421, f"This service is not called {name[:80]!r}; name it with --host-name"
            )
        origin = headers.get("origin", "").lower()
        if origin and origin not in self.origins and origin.split("://", 1)[-1] != host:
            raise HTTPException(403, "Pages of other sites may not ask; name theirs with --origin")
        if self.key and path not in OPEN_PATHS:
            given = headers.get("x-api-key", "")
            if not hmac.compare_digest(given.encode(), self.key.encode()):
                raise HTTPException(401, "The header X-API-Key is missing or wrong")


def busy(reason: str) -> HTTPException:
    """A request that had better come again."""
    return HTTPException(503, f"{reason}; try again", {"retry-after": "1"})


def refusal(error: HTTPException) -> JSONResponse:
    """The form of all of them."""
    return JSONResponse({"error": f"{error.detail}."}, error.status_code, error.headers)
