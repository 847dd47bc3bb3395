"""What serving costs: requests a second and answering times, beside ONNX Runtime alone.

    python benchmarks/serving.py runs/fast-91/1/export/model.onnx

Client and server share the machine. Everything goes over loopback and ends by itself.
"""

import argparse
import asyncio
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from tenfold.deployment.predictor import Predictor

UNBATCHED = """
import sys, uvicorn
from fastapi import FastAPI, Request
from tenfold.deployment.predictor import Predictor
predictor, app = Predictor(sys.argv[1]), FastAPI()

@app.post("/predict")
def predict(content: bytes = __import__("fastapi").Body(media_type="image/png")):
    found = predictor.predict(content)
    return {"label": found.label, "confidence": found.confidence}

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error", access_log=False)
"""


def pictures(size: tuple[int, int], number: int = 64) -> list[bytes]:
    """PNG files of smooth noise, a few thousand bytes each as photographs of 32 pixels have."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(number):
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        content = io.BytesIO()
        picture = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
        picture.save(content, "PNG")
        found.append(content.getvalue())
    return found


def alone(model: Path, *, batch_size: int, seconds: float) -> float:
    """Pictures a second of ONNX Runtime in this process."""
    predictor = Predictor(model)
    pixels = np.random.default_rng(0).integers(
        0, 256, (batch_size, *predictor.image_size, 3), dtype=np.uint8
    )
    session = predictor._session
    session.run(None, {"pixels": pixels})
    number, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        session.run(None, {"pixels": pixels})
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


async def one_client(
    port: int, contents: list[bytes], first: int, end: float, seconds: list[float]
) -> None:
    """Ask over one connection, as fast as answers come, until `end`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = first
    while time.perf_counter() < end:
        content = contents[number % len(contents)]
        number += 1
        head = (
            f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        started = time.perf_counter()
        writer.write(head.encode() + content)
        header = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(re.search(rb"content-length: (\d+)", header.lower())[1]))
        if not header.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(header.split(b"\r\n")[0].decode())
        seconds.append(time.perf_counter() - started)
    writer.close()


async def load(port: int, contents: list[bytes], *, clients: int, seconds: float) -> list[float]:
    """Seconds of each answer to so many clients at once."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    await asyncio.gather(*(one_client(port, contents, 7 * i, end, found) for i in range(clients)))
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


def measure(port: int, contents: list[bytes], *, seconds: float) -> dict[str, float]:
    """Requests a second at 64 clients, and milliseconds at 8."""
    asyncio.run(reachable(port))
    asyncio.run(load(port, contents, clients=8, seconds=1.0))
    many = asyncio.run(load(port, contents, clients=64, seconds=seconds))
    few = asyncio.run(load(port, contents, clients=8, seconds=seconds))
    return {
        "requests_per_second": len(many) / seconds,
        "median_ms": 1000 * float(np.median(few)),
        "p99_ms": 1000 * float(np.quantile(few, 0.99)),
    }


def main() -> None:
    """Measure and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a file that `tenfold export` wrote")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    arguments = parser.parse_args()
    contents = pictures(Predictor(arguments.model).image_size)
    rate = alone(arguments.model, batch_size=32, seconds=arguments.seconds)
    own = [sys.executable, "-m", "tenfold", "serve", str(arguments.model), "--port", "0", "--json"]
    with serving(own) as port:
        ours = measure(port, contents, seconds=arguments.seconds)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "unbatched.py"
        script.write_text(UNBATCHED)
        command = [sys.executable, str(script), str(arguments.model), "18765"]
        with serving(command, 18765) as port:
            plain = measure(port, contents, seconds=arguments.seconds)
    found = {"onnxruntime_batch_32": rate, "tenfold": ours, "fastapi_without_batching": plain}
    print(f"ONNX Runtime alone, batches of 32: {rate:,.0f} pictures a second")
    for name, values in (("tenfold serve", ours), ("FastAPI without batching", plain)):
        share = values["requests_per_second"] / rate
        print(
            f"{name}: {values['requests_per_second']:,.0f} requests a second at 64 clients "
            f"({share:.0%} of that), {values['median_ms']:.1f} ms at 8 clients, 99 of 100 within "
            f"{values['p99_ms']:.1f} ms"
        )
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
