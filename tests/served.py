"""A tiny trained and exported run, and real servers of it, for the tests of deployment."""

import io
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

import commands

NAME = "model"
RUN = "runs/tiny/1"
MODEL = f"{RUN}/export/model.onnx"


def make_run(folder: Path) -> None:
    """RUN in `folder`, trained so little that it makes mistakes."""
    commands.write_tiny_recipe(folder)
    data = commands.write_tiny_data(folder / "tiny.npz")
    changes = ["--set", "training.epochs=1", "--set", "optimizer.lr=0.003"]
    command = commands.run(
        ["train", "tiny.toml", "--data", str(data), "--no-report", *changes], folder=folder
    )
    assert command.wait() == 0, command.output


def make_model(folder: Path) -> None:
    """MODEL, the ONNX file of the run in `folder`, with maps."""
    command = commands.run(["export", RUN, "--maps", "--samples", "4"], folder=folder)
    assert command.wait() == 0, command.output


def noise(seed: int = 0, height: int = 16, width: int = 16) -> np.ndarray:
    """Pixels (H, W, 3) uint8, the same for a seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """Pixels as a file's bytes."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


@contextmanager
def in_process(predictor, **options):
    """A client of the application of `predictor`, without a server."""
    from starlette.testclient import TestClient

    from tenfold.deployment.application import Service, create_application
    from tenfold.deployment.options import Limits

    service = Service(predictor, limits=Limits())
    app = create_application(service, name="model", max_bytes=10**7)
    yield TestClient(app, **options)


class Server:
    """A running `tenfold serve`."""

    def __init__(self, command: commands.Command, address: str) -> None:
        self.command = command
        self.address = address
        host, port = address.removeprefix("http://").rstrip("/").rsplit(":", 1)
        self.host, self.port = host, int(port)

    def send(self, content: bytes, *, seconds: float = 20) -> bytes:
        """Raw bytes over a socket, and everything that comes back until it is closed."""
        with socket.create_connection((self.host, self.port), timeout=seconds) as connection:
            connection.sendall(content)
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts)


@contextmanager
def serving(model: Path, *arguments: str, folder: Path) -> Iterator[Server]:
    """A server of `model` on a free port, ended with SIGTERM."""
    command = commands.start(
        ["serve", str(model), "--port", "0", "--threads", "1", "--json", *arguments], folder=folder
    )
    command.wait_for(lambda: '"serving"' in command.output)
    line = next(line for line in command.output.splitlines() if '"serving"' in line)
    try:
        yield Server(command, json.loads(line)["address"])
    finally:
        command.signal(15)
        deadline = time.monotonic() + 20
        while command.process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        if command.process.is_alive():
            command.kill()


def figures(server: Server) -> dict[str, float]:
    """What /metrics says, by name."""
    lines = httpx.get(server.address + "metrics").text.splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}
