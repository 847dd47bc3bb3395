"""Files over HTTP, for hosts that are slow, break off, or aren't there."""

import contextlib
import json
import os
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tenfold.errors import TenfoldError
from tenfold.files import require_writable, write_json
from tenfold.progress import Progress

if TYPE_CHECKING:
    import httpx


_WORTHWHILE_BYTES = 1 << 20


class SourceError(Exception):
    """Why a source gave nothing, in a few words; never reaches the user on its own."""


class SlowSourceError(SourceError):
    """The source answers, but so slowly that another should be tried first."""


@dataclass(frozen=True)
class Limits:
    """How patient a download is.

    slow_bytes_per_second: a source that stays below this for `slow_seconds` yields to the next.
    connect_seconds, read_seconds: the longest wait for a connection, and for the next bytes.
    total_seconds: the longest time for one file, and for one call of npm.
    attempts: how many connections in a row may break off without bringing the file forward.
    """

    slow_bytes_per_second: float = 300_000
    slow_seconds: float = 15
    connect_seconds: float = 10
    read_seconds: float = 30
    total_seconds: float = 3 * 3600
    attempts: int = 3
    pause_seconds: float = 1


class SpeedWatch:
    """Raises once the bytes of the last `slow_seconds` amount to less than they should."""

    def __init__(self, limits: Limits, *, yields: bool) -> None:
        self._limits = limits
        self._yields = yields
        self._started = time.monotonic()
        self._received = 0
        self._seen: deque[tuple[float, int]] = deque([(self._started, 0)])

    def add(self, num_bytes: int) -> None:
        """Told of bytes that came, or of none. Raises SlowSourceError or SourceError."""
        now = time.monotonic()
        if now - self._started > self._limits.total_seconds:
            raise SourceError(f"took longer than {self._limits.total_seconds:.0f} s")
        self._received += num_bytes
        self._seen.append((now, self._received))
        window = self._limits.slow_seconds
        while len(self._seen) > 1 and now - self._seen[1][0] >= window:
            self._seen.popleft()
        since, before = self._seen[0]
        if self._yields and now - since >= window:
            rate = (self._received - before) / (now - since)
            if rate < self._limits.slow_bytes_per_second:
                raise SlowSourceError(f"too slow, {rate / 1000:.0f} kB/s")


@dataclass(frozen=True)
class Request:
    """A file to be had; of what the host sends, no more than `max_bytes` is read."""

    url: str
    path: Path
    max_bytes: int
    headers: Mapping[str, str] = field(default_factory=dict)


def download(
    request: Request,
    *,
    limits: Limits,
    yields: bool,
    label: str,
    progress: Progress | None = None,
) -> bool:
    """Fetch a file to `request.path`, resuming what is there; whether anything was there.

    The file grows as `<name>.part` and gets its name once it is complete, so that a complete file
    is never fetched twice. Raises SlowSourceError, leaving the partial file, when `yields` and the
    host is slow; SourceError, with the reason in short, for anything else the host does wrong; and
    TenfoldError where the disk can't be written.
    """
    if request.path.exists():
        return True
    partial = _Partial(request)
    partial.make_folder()
    resumed = partial.size() > 0
    watch = SpeedWatch(limits, yields=yields)
    failures, furthest = 0, partial.size()
    with _client(limits, yields=yields) as client:
        while True:
            try:
                _transfer(client, partial, watch=watch, label=label, progress=progress)
                break
            except _CutOffError as error:
                if partial.size() >= furthest + _WORTHWHILE_BYTES:
                    failures, furthest = 0, partial.size()
                failures += 1
                if failures >= limits.attempts:
                    raise SourceError(f"broke off: {error}") from error
                time.sleep(limits.pause_seconds * failures)
            except _StalledError as error:
                kind = SlowSourceError if yields else SourceError
                raise kind("stopped sending") from error
    partial.keep()
    return resumed


class _CutOffError(Exception):
    """The host closed the connection before it had sent what it announced."""


class _StalledError(Exception):
    """The host keeps the connection and sends nothing."""


class _Partial:
    """The part of a file that has arrived, and which version of the file that is a part of."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.path = request.path.with_name(f"{request.path.name}.part")
        self._note = request.path.with_name(f"{request.path.name}.part.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def resume_headers(self) -> dict[str, str]:
        headers = {**self.request.headers, "Accept-Encoding": "identity"}
        if self.size():
            headers["Range"] = f"bytes={self.size()}-"
            version = self._version()
            if version:
                headers["If-Range"] = version
        return headers

    def _version(self) -> str | None:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            return str(note["version"]) if note["url"] == self.request.url else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def restart(self, response: "httpx.Response") -> None:
        etag = response.headers.get("etag", "")
        version = response.headers.get("last-modified", "") if etag[:2] in ("", "W/") else etag
        self.discard()
        if version:
            write_json(self._note, {"url": self.request.url, "version": version})

    def discard(self) -> None:
        for path in (self.path, self._note):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def make_folder(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _write_error(self.path.parent, error) from error

    def keep(self) -> None:
        if self.size() == 0:
            raise SourceError("sent an empty file")
        try:
            os.replace(self.path, self.request.path)
        except OSError as error:
            raise _write_error(self.request.path, error) from error
        with contextlib.suppress(FileNotFoundError):
            self._note.unlink()


@contextlib.contextmanager
def _client(limits: Limits, *, yields: bool) -> Iterator["httpx.Client"]:
    import httpx

    # A host that stalls must be noticed when it is slow, not only when it is dead.
    read_seconds = min(limits.read_seconds, limits.slow_seconds) if yields else limits.read_seconds
    timeout = httpx.Timeout(read_seconds, connect=limits.connect_seconds)
    try:
        client = httpx.Client(timeout=timeout, follow_redirects=True, max_redirects=10)
    except (ValueError, ImportError, OSError) as error:  # a proxy or certificate setting is wrong
        raise SourceError(f"no connection can be set up: {_short(error)}") from error
    with client:
        yield client


def _transfer(
    client: "httpx.Client",
    partial: _Partial,
    *,
    watch: SpeedWatch,
    label: str,
    progress: Progress | None,
) -> None:
    """One connection's worth of the file, with what can go wrong in our own terms."""
    import httpx

    url, headers = partial.request.url, partial.resume_headers()
    try:
        with client.stream("GET", url, headers=headers) as response:
            if _is_more_to_come(response, partial):
                _receive(response, partial, watch=watch, label=label, progress=progress)
    except httpx.ConnectTimeout as error:
        raise SourceError("no connection in time") from error
    except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
        raise _StalledError from error
    except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
        if isinstance(error, httpx.ConnectError):
            raise SourceError(_short(error)) from error
        raise _CutOffError(_short(error)) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SourceError(_short(error)) from error


def _is_more_to_come(response: "httpx.Response", partial: _Partial) -> bool:
    """Whether the response brings bytes that follow those we have; makes room for them."""
    span, _, whole = response.headers.get("content-range", "").partition("/")
    if response.status_code == 200:
        partial.restart(response)
        return True
    if response.status_code == 206 and span.strip().startswith(f"bytes {partial.size()}-"):
        return True
    if response.status_code == 416 and whole == str(partial.size()):
        return False  # killed after the last byte and before the renaming
    if response.status_code in (206, 416):
        partial.discard()
        raise _CutOffError("the host has another file than the one begun")
    raise SourceError(f"HTTP {response.status_code} {response.reason_phrase}".strip())


def _receive(
    response: "httpx.Response",
    partial: _Partial,
    *,
    watch: SpeedWatch,
    label: str,
    progress: Progress | None,
) -> None:
    done = partial.size()
    length = response.headers.get("content-length", "")
    total = done + int(length) if length.isdecimal() else None
    try:
        with open(partial.path, "ab") as file:
            for chunk in response.iter_raw():
                file.write(chunk)
                done += len(chunk)
                if done > partial.request.max_bytes:
                    partial.discard()
                    raise SourceError(f"sent more than {partial.request.max_bytes} bytes")
                watch.add(len(chunk))
                if progress:
                    progress(label, done, total)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _write_error(partial.path, error) from error
    if total is not None and done != total:
        raise _CutOffError(f"{done} of {total} bytes came")


def _write_error(path: Path, error: OSError) -> TenfoldError:
    require_writable(path.parent)  # says it better where the disk is full or the folder read-only
    return TenfoldError(f"{path} can't be written ({error}); check the path and the disk.")


def _short(error: Exception) -> str:
    text = re.sub(r"^\[[^]]*\] |\.$", "", " ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 120 else f"{text[:117]}..."
