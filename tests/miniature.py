"""A data set of 1,600 pictures in the form of CIFAR-10, and a server that hands it out badly."""

import contextlib
import hashlib
import io
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np

from tenfold.data.cifar import CIFAR10_CLASS_NAMES
from tenfold.data.sources.origins import Description, from_address

NUM_TRAIN, NUM_TEST = 1_500, 100


def _arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(7)
    arrays = {}
    for split, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        shape = (count, 32, 32, 3)
        arrays[f"{split}-images"] = generator.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{split}-labels"] = (np.arange(count) % 10).astype(np.uint8)
    return arrays


ARRAYS = _arrays()
SUMS = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in ARRAYS.items()}


def archive(mode: str = "w:gz") -> bytes:
    """The data set as the official archive has it: five binary batches and a test batch."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, start, stop, split in (
            *((f"data_batch_{n + 1}.bin", n * 300, n * 300 + 300, "train") for n in range(5)),
            ("test_batch.bin", 0, NUM_TEST, "test"),
        ):
            pixels = ARRAYS[f"{split}-images"][start:stop]
            labels = ARRAYS[f"{split}-labels"][start:stop, None]
            planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
            content = np.concatenate([labels, planes], axis=1).tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def description(*urls: str, name: str = "miniature") -> Description:
    """The data set, to be had from archives at these URLs in this order."""
    return Description(
        name=name,
        class_names=CIFAR10_CLASS_NAMES,
        num_train=NUM_TRAIN,
        num_test=NUM_TEST,
        sums=SUMS,
        origins={
            f"source {number}": partial(from_address, url, None)
            for number, url in enumerate(urls, start=1)
        },
    )


@dataclass(frozen=True)
class Served:
    """How the server answers for one path.

    cut_at: bytes after which the first `num_bad` connections are closed.
    bytes_per_second: of the first `num_bad` connections; 0 means that nothing is ever sent.
    """

    content: bytes = b""
    status: int = 200
    location: str | None = None
    cut_at: int | None = None
    bytes_per_second: float | None = None
    num_bad: int = 1_000
    ranges: bool = True
    etag: str | None = '"one"'


@dataclass
class Server:
    """A local HTTP server: what it serves by path, and the requests it has seen."""

    url: str
    served: dict[str, Served] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def add(self, path: str, served: Served) -> str:
        self.served[path] = served
        return f"{self.url}{path}"

    def change(self, path: str, **changes: object) -> None:
        self.served[path] = replace(self.served[path], **changes)

    def ranges(self, path: str) -> list[str | None]:
        """The Range header of each request for `path`."""
        return [headers.get("range") for seen, headers in self.requests if seen == path]


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server on a free local port, gone when the block is left."""
    server = Server("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {key.lower(): value for key, value in self.headers.items()}
            server.requests.append((self.path, headers))
            served = server.served.get(self.path, Served(status=404))
            is_bad = len(server.ranges(self.path)) <= served.num_bad
            _answer(self, served, headers, is_bad=is_bad)
            self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    class Listener(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *arguments: object) -> None:
            pass  # a client that hangs up is what these tests are about

    with Listener(("127.0.0.1", 0), Handler) as listener:
        server.url = f"http://127.0.0.1:{listener.server_port}"
        thread = Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()


def _answer(
    handler: BaseHTTPRequestHandler, served: Served, headers: dict[str, str], *, is_bad: bool
) -> None:
    start, status = 0, served.status
    same = headers.get("if-range") in (None, served.etag)
    if served.ranges and same and status == 200 and "range" in headers:
        start = int(headers["range"].removeprefix("bytes=").removesuffix("-"))
        status = 206 if start < len(served.content) else 416
    body = served.content[start:] if status in (200, 206) else b""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.send_header("Connection", "close")
    if status in (206, 416):
        span = "*" if status == 416 else f"{start}-{len(served.content) - 1}"
        handler.send_header("Content-Range", f"bytes {span}/{len(served.content)}")
    if served.etag:
        handler.send_header("ETag", served.etag)
    if served.location:
        handler.send_header("Location", served.location)
    handler.send_header("X-Repo-Commit", "a" * 40)  # As the Hugging Face hub does.
    handler.end_headers()
    if handler.command == "HEAD":
        return
    if is_bad and served.cut_at is not None:
        body = body[: served.cut_at]
    if is_bad and served.bytes_per_second is not None:
        _drip(handler, body, served.bytes_per_second)
    else:
        handler.wfile.write(body)


def _drip(handler: BaseHTTPRequestHandler, body: bytes, bytes_per_second: float) -> None:
    if bytes_per_second == 0:
        time.sleep(3)
        return
    step = max(int(bytes_per_second / 50), 1)
    for start in range(0, len(body), step):
        handler.wfile.write(body[start : start + step])
        time.sleep(step / bytes_per_second)


def is_right(dataset: object) -> bool:
    """Whether a data set holds exactly the miniature's arrays, ids and names."""
    from tenfold.data.images import Dataset

    assert isinstance(dataset, Dataset)
    assert dataset.test is not None
    return (
        np.array_equal(dataset.train.pixels, ARRAYS["train-images"])
        and np.array_equal(dataset.train.labels, ARRAYS["train-labels"])
        and np.array_equal(dataset.test.pixels, ARRAYS["test-images"])
        and np.array_equal(dataset.test.labels, ARRAYS["test-labels"])
        and dataset.train.ids[[0, -1]].tolist() == ["train/1", f"train/{NUM_TRAIN}"]
        and dataset.test.ids[-1] == f"test/{NUM_TEST}"
        and dataset.class_names == CIFAR10_CLASS_NAMES
        and dict(dataset.checksums) == SUMS
    )


def tree(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, by its relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
