"""Many clients at once, slow ones, ones that leave, and a long time of it."""

import asyncio
import contextlib
import json
import random
import re
import resource
import socket
import subprocess
import sys
import time
from itertools import zip_longest

import httpx
import numpy as np
import psutil
import pytest

import served
from tenfold.deployment.predictor import Predictor

SOAK_FLAT_BYTES = 30_000_000
"""What memory may grow by in the second half of a soak."""


@pytest.fixture(scope="module")
def folder(made_once):
    return made_once(served.make_run, served.make_model)


@pytest.fixture(scope="module")
def model(folder):
    return folder / served.MODEL


@pytest.fixture(scope="module")
def server(model, folder, many_files):
    with served.serving(model, folder=folder) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def many_files():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def image(seed, *, side=16):
    return served.encoded(served.noise(seed, side, side))


def request_of(content):
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


async def answer_of(reader):
    """Status, headers and JSON of the next response."""
    header = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", header.lower())[1])
    return int(header.split(b" ")[1]), header.lower(), json.loads(await reader.readexactly(length))


async def ask(server, content, *, connection=None):
    reader, writer = connection or await asyncio.open_connection(server.host, server.port)
    writer.write(request_of(content))
    found = await answer_of(reader)
    writer.close()
    return found


async def crowd(server, contents):
    """All at once: everybody is connected before anybody asks."""
    pairs = [await asyncio.open_connection(server.host, server.port) for _ in contents]
    asked = zip(contents, pairs, strict=True)
    waiting = (ask(server, content, connection=pair) for content, pair in asked)
    return await asyncio.wait_for(asyncio.gather(*waiting), 60)


@pytest.mark.parametrize("number", [200, pytest.param(1000, marks=pytest.mark.long)])
def test_row_43_clients_at_once_get_their_own_predictions(server, model, number):
    contents = [image(seed) for seed in range(number)]
    expected = Predictor(model, threads=1).predict_many(contents)
    found = asyncio.run(crowd(server, contents))
    for (status, header, reply), right in zip(found, expected, strict=True):
        if status == 503:
            assert b"retry-after" in header
            continue
        assert (status, reply["label"]) == (200, right.label)
        assert reply["probabilities"] == pytest.approx(right.probabilities, abs=1e-5)
    assert sum(status == 200 for status, _, _ in found) >= 0.9 * number


async def drip(writer):
    """A byte twice a second, for ever."""
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.5)


async def slow_ones(server, number):
    """Half never finish their headers, half their body, half of each go on byte by byte; they must
    be closed all the same. The statuses of others meanwhile, and the seconds until all are closed.
    """
    beginnings = (
        b"POST /predict HTTP/1.1\r\nHost: local",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\nabc",
    )
    pairs, dripping = [], []
    for index in range(number):
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(beginnings[index % 2])
        pairs.append((reader, writer))
        if index % 4 < 2:
            dripping.append(asyncio.create_task(drip(writer)))
    started, statuses = time.monotonic(), []
    for _ in range(20):  # Meanwhile others are served.
        statuses.append((await ask(server, image(1)))[0])
        await asyncio.sleep(0.2)
    for reader, _ in pairs:
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 15)
    seconds = time.monotonic() - started
    for task, (_, writer) in zip_longest(dripping, pairs):
        if task:
            task.cancel()
        writer.close()
    return statuses, seconds


@pytest.mark.long
def test_row_42_five_hundred_slow_clients_are_closed_and_others_served(server):
    statuses, seconds = asyncio.run(slow_ones(server, 500))
    assert set(statuses) == {200}
    assert seconds < 10


def test_row_42_clients_that_take_nothing_are_closed(server):
    def num_open():
        return served.figures(server)["process_open_fds"]

    before, deadline = num_open(), time.monotonic() + 25
    with contextlib.ExitStack() as opened:
        for _ in range(20):
            connection = opened.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((server.host, server.port))
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400)
        time.sleep(1)
        assert num_open() >= before + 20
        while num_open() > before + 2:
            assert time.monotonic() < deadline
            time.sleep(0.2)


async def deserters(server):
    """Some ask and leave, some send what is broken; what the others get."""
    for seed in range(60):
        _, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(request_of(image(seed)))
        await writer.drain()
        writer.transport.abort()
    contents = [image(seed) if seed % 3 else b"nothing" for seed in range(30)]
    return contents, await crowd(server, contents)


def test_row_44_who_leaves_or_is_broken_harms_nobody(server, model):
    contents, found = asyncio.run(deserters(server))
    values = served.figures(server)
    rss = psutil.Process(server.command.process.pid).memory_info().rss
    expected = Predictor(model, threads=1).predict_many(contents)
    for right, (status, _, reply) in zip(expected, found, strict=True):
        assert status == (415 if right.error else 200)
        assert reply.get("label", "") == right.label
    assert values["tenfold_waiting"] == 0
    # Its figures are of the very process.
    assert abs(values["process_resident_memory_bytes"] - rss) < 50e6


DYING = """
import sys
from pathlib import Path
from tenfold.deployment import predictor, server
from tenfold.deployment.options import Limits, ServerOptions

real = predictor.Predictor.logits

def logits(self, pixels):
    if (pixels == 255).all(axis=(1, 2, 3)).any():
        raise SystemExit("as if the thread had died")
    return real(self, pixels)

predictor.Predictor.logits = logits
options, path = ServerOptions(port=0, threads=1), Path(sys.argv[1])
server.serve(path, options, limits=Limits(), ready=lambda a: print(a, flush=True))
"""


def test_row_45_a_dead_thread_ends_the_service_with_an_error(model):
    process = subprocess.Popen(
        [sys.executable, "-c", DYING, str(model)], stdout=subprocess.PIPE, text=True
    )
    try:
        address = process.stdout.readline().strip()
        assert httpx.post(address + "predict", content=image(0)).status_code == 200
        white = served.encoded(np.full((16, 16, 3), 255, dtype=np.uint8))
        assert httpx.post(address + "predict", content=white).status_code == 503
        assert process.wait(10) == 1
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def soak(server, seconds):
    """Eight clients that send all kinds of things for so long; the figures every second."""
    sound = [image(seed, side=side) for seed, side in enumerate((16, 40, 300, 1000) * 4)]
    unsound = [b"nothing", sound[0][:60], b""]
    end = time.monotonic() + seconds
    statuses: dict[int, int] = {}

    async def client(seed):
        chance = random.Random(seed)
        while time.monotonic() < end:
            content = chance.choice(sound if chance.random() < 0.9 else unsound)
            status, _, _ = await ask(server, content)
            statuses[status] = statuses.get(status, 0) + 1
            if chance.random() < 0.05:  # And leaves in the middle of a question.
                _, writer = await asyncio.open_connection(server.host, server.port)
                writer.write(request_of(sound[0])[: chance.randrange(80)])
                await writer.drain()
                writer.transport.abort()

    memory, files = [], []

    async def watch():
        process = psutil.Process(server.command.process.pid)
        while time.monotonic() < end:
            await asyncio.sleep(1)
            memory.append(process.memory_info().rss)
            files.append(process.num_fds())

    await asyncio.gather(watch(), *(client(seed) for seed in range(8)))
    return statuses, memory, files


@pytest.mark.long
def test_row_49_memory_and_files_stay_flat(server, pytestconfig):
    seconds = pytestconfig.getoption("--soak-seconds")
    statuses, memory, files = asyncio.run(soak(server, seconds))
    half = len(memory) // 2
    # Shown with -rP.
    grown = f"{memory[half] / 1e6:.0f} to {memory[-1] / 1e6:.0f} MB"
    sys.stdout.write(f"{statuses}, {grown}, {files[-1]} files\n")
    assert set(statuses) <= {200, 400, 415, 503}
    assert statuses[200] > 10 * seconds
    assert max(memory[half:]) - max(memory[:half]) < SOAK_FLAT_BYTES
    assert max(files[half:]) <= max(files[:half]) + 20
