"""What serving costs: requests a second and answering times, beside ONNX Runtime alone.

    python benchmarks/serving.py [--runs runs/bench/runs] [--out runs/bench/serving.json]

Exports the newest run of fast-91 in `--runs`, training one where there is none, serves it and asks
it for pictures of the test set as PNG, with 64 clients and with 8. Client and server share the
machine; everything goes over loopback and ends by itself. Beside it: the same in eight bits, ONNX
Runtime in one process on batches of 32, and FastAPI that answers each request by itself.
"""

import argparse
import asyncio
import io
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from accuracy import tenfold
from tenfold.data import load as load_data
from tenfold.deployment.predictor import Predictor, open_session
from tenfold.run import describe_environment, runs_of

RECIPE = "fast-91"
NUM_PICTURES = 1000

TITLES = {
    "one_view": "tenfold serve --one-view",
    "tenfold": "tenfold serve, views as the run has",
    "int8": "tenfold serve --one-view, in eight bits",
    "unbatched": "FastAPI without batching, one view",
}

UNBATCHED = """
import sys
import uvicorn
from fastapi import Body, FastAPI
from tenfold.deployment.predictor import Predictor
predictor, app = Predictor(sys.argv[1], one_view=True), FastAPI()

@app.post("/predict")
def predict(content: bytes = Body(media_type="image/png")):
    found = predictor.predict(content)
    return {"label": found.label, "confidence": found.confidence}

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error", access_log=False)
"""


def pictures() -> list[bytes]:
    """The first pictures of CIFAR-10's test set, as PNG files."""
    found = []
    for pixels in load_data("cifar10").test.pixels[:NUM_PICTURES]:
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG")
        found.append(content.getvalue())
    return found


def exported(runs: Path) -> tuple[Path, Path]:
    """The ONNX files of the newest finished run of the recipe in `runs`, made if need be: in floats
    and in eight bits."""
    finished = [run for run in runs_of(runs, RECIPE) if run.is_finished()]
    if not finished:
        tenfold("train", RECIPE, "--cpu", "--runs", str(runs))
        finished = runs_of(runs, RECIPE)
    found = []
    for name, options in (("model.onnx", []), ("model-int8.onnx", ["--int8"])):
        path = finished[0].path / "export" / name
        if not path.exists():
            tenfold("export", str(finished[0].path), *options)
        found.append(path)
    return found[0], found[1]


def alone(model: Path, *, batch_size: int, seconds: float) -> float:
    """Pictures a second of ONNX Runtime in this process."""
    predictor = Predictor(model)
    pixels = np.random.default_rng(0).integers(
        0, 256, (batch_size, *predictor.image_size, 3), dtype=np.uint8
    )
    session = open_session(model)
    session.run(["logits"], {"pixels": pixels})
    number, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        session.run(["logits"], {"pixels": pixels})
        number += batch_size
    return number / (time.perf_counter() - started)


@contextmanager
def serving(command: list[str], port: int | None = None) -> Iterator[int]:
    """The port of a server that runs until the block ends."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if port is None:
            assert process.stdout is not None
            line = next(line for line in process.stdout if '"serving"' in line)
            port = int(re.search(r":(\d+)/", json.loads(line)["address"])[1])
        yield port
    finally:
        process.terminate()
        process.wait(30)


class Client(asyncio.Protocol):
    """Asks over one connection, as fast as answers come, until `end`; then `done` is set.

    As lean as Python allows, for it runs on the server's cores.
    """

    def __init__(self, requests: list[bytes], first: int, end: float, seconds: list[float]) -> None:
        self._requests, self._number, self._end = requests, first, end
        self._seconds, self._received = seconds, b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first question."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        self._received += data
        header, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        place = header.index(b"content-length:") + len(b"content-length:")
        if len(body) < int(header[place : place + 8].split(b"\r\n")[0]):
            return
        self._seconds.append(time.perf_counter() - self._started)
        if not header.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(RuntimeError(header.split(b"\r\n")[0].decode()))
        elif time.perf_counter() < self._end:
            self._ask()
        else:
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server has hung up."""
        if not self.done.done():
            self.done.set_exception(RuntimeError("The server closed a connection."))

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def _ask(self) -> None:
        self._received = b""
        self._number += 1
        self._started = time.perf_counter()
        self._transport.write(self._requests[self._number % len(self._requests)])


def request_of(content: bytes) -> bytes:
    """The whole request that sends a picture."""
    head = (
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def load(port: int, requests: list[bytes], *, clients: int, seconds: float) -> list[float]:
    """Seconds of each answer to so many clients at once."""
    found: list[float] = []
    end, loop = time.perf_counter() + seconds, asyncio.get_running_loop()
    connected = [
        await loop.create_connection(
            lambda number=number: Client(requests, 7 * number, end, found), "127.0.0.1", port
        )
        for number in range(clients)
    ]
    await asyncio.gather(*(client.done for _, client in connected))
    for _, client in connected:
        client.close()
    return found


async def reachable(port: int) -> None:
    """Wait until somebody listens."""
    for _ in range(300):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        writer.close()
        return
    raise RuntimeError("The server does not listen.")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measure(port: int, contents: list[bytes], *, seconds: float) -> dict[str, float]:
    """Requests a second at 64 clients, and milliseconds at 8."""
    requests = [request_of(content) for content in contents]
    asyncio.run(reachable(port))
    asyncio.run(load(port, requests, clients=8, seconds=1.0))
    many = asyncio.run(load(port, requests, clients=64, seconds=seconds))
    few = asyncio.run(load(port, requests, clients=8, seconds=seconds))
    return {
        "rate": len(many) / seconds,
        "median_ms": 1000 * float(np.median(few)),
        "p99_ms": 1000 * float(np.quantile(few, 0.99)),
    }


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/bench/runs"))
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/serving.json"))
    options = parser.parse_args()
    (model, int8), contents = exported(options.runs), pictures()
    found: dict[str, Any] = {"recipe": RECIPE, "environment": describe_environment()}
    for key, path, kind in (
        ("onnxruntime", model, "floats"),
        ("onnxruntime_int8", int8, "eight bits"),
    ):
        found[key] = alone(path, batch_size=32, seconds=options.seconds)
        print(f"ONNX Runtime alone, batches of 32, {kind}: {found[key]:,.0f} images a second")
    own = [sys.executable, "-m", "tenfold", "serve", "--port", "0", "--json"]
    served = {"one_view": [model, "--one-view"], "tenfold": [model], "int8": [int8, "--one-view"]}
    for name, arguments in served.items():
        with serving([*own, *map(str, arguments)]) as port:
            found[name] = measure(port, contents, seconds=options.seconds)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "unbatched.py"
        script.write_text(UNBATCHED)
        port = free_port()
        with serving([sys.executable, str(script), str(model), str(port)], port):
            found["unbatched"] = measure(port, contents, seconds=options.seconds)
    for name, title in TITLES.items():
        values = found[name]
        most = found["onnxruntime_int8" if name == "int8" else "onnxruntime"]
        print(
            f"{title}: {values['rate']:,.0f} requests a second at 64 clients "
            f"({values['rate'] / most:.0%} of that), {values['median_ms']:.1f} ms "
            f"at 8 clients, 99 of 100 within {values['p99_ms']:.1f} ms"
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
