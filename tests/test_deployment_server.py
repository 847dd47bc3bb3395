"""A real server over real sockets: what it answers, what it refuses, and how it ends."""

import asyncio
import base64
import concurrent.futures
import contextlib
import gzip
import io
import json
import re
import socket
import struct
import threading
import time
import zlib
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import commands
import served
from tenfold.deployment import application
from tenfold.deployment.options import Limits, ServerOptions
from tenfold.deployment.predictor import Predictor
from tenfold.deployment.server import _application, read_key


@pytest.fixture(scope="module")
def folder(made_once):
    return made_once(served.make_run, served.make_model)


@pytest.fixture(scope="module")
def model(folder):
    return folder / served.MODEL


@pytest.fixture(scope="module")
def server(model, folder):
    with served.serving(model, folder=folder) as running:
        yield running
        assert httpx.get(running.address + "v2/health/ready").json() == {"ready": True}


@pytest.fixture(scope="module")
def known(model):
    """Some pictures, as files, with what an offline predictor says of them."""
    generator = np.random.default_rng(3)
    predictor = Predictor(model, threads=1)
    found = []
    for _ in range(20):
        pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG")
        found.append((content.getvalue(), predictor.predict(content.getvalue())))
    return found


def png_of(level):
    content = io.BytesIO()
    Image.new("RGB", (16, 16), (level,) * 3).save(content, "PNG")
    return content.getvalue()


def healthy(server, known):
    content, expected = known[0]
    reply = httpx.post(server.address + "predict", content=content)
    assert reply.status_code == 200
    assert reply.json()["label"] == expected.label


def test_a_picture_gets_the_answer_of_the_model(server, known):
    for content, expected in known:
        reply = httpx.post(server.address + "predict", content=content).json()
        assert reply["label"] == expected.label
        assert reply["confidence"] == pytest.approx(expected.confidence, abs=1e-5)
        assert list(reply["probabilities"]) == list(expected.probabilities)


def test_details_show_what_the_model_saw(server, known):
    reply = httpx.post(server.address + "predict?details=1", content=known[0][0]).json()
    assert reply["seen"].startswith("data:image/png;base64,")
    assert max(max(row) for row in reply["where"]) <= 1


def test_row_43_every_client_gets_its_own_answer(server, known):
    limits = httpx.Limits(max_connections=64)
    with httpx.Client(limits=limits, timeout=60) as client:

        def ask(index):
            content, expected = known[index % len(known)]
            reply = client.post(server.address + "predict", content=content)
            if reply.status_code == 503:
                assert reply.headers["retry-after"] == "1"
                return 503
            assert reply.status_code == 200
            assert reply.json()["confidence"] == pytest.approx(expected.confidence, abs=1e-5)
            return 200

        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            found = list(pool.map(ask, range(1000)))
    assert found.count(200) > 900


DATA_URI = "data:image/png;base64,"
COMPRESSIONS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("field", ["file", "image"])
def test_an_image_in_a_form_or_in_json(server, known, field):
    address = server.address + "predict"
    for content, expected in known[:3]:
        text = base64.b64encode(content).decode()
        replies = [
            httpx.post(address, files={"note": b"x", field: ("a b.png", content, "image/png")}),
            httpx.post(address, files={field: content}, data={"other": "y"}),
            httpx.post(address, json={field: text}),
            httpx.post(address, json={field: DATA_URI + text, "id": 7}),
        ]
        for reply in replies:
            assert reply.status_code == 200, reply.text
            assert reply.json()["confidence"] == pytest.approx(expected.confidence, abs=1e-5)


@pytest.mark.parametrize("encoding", [*COMPRESSIONS, "identity"])
def test_a_compressed_body(server, known, encoding):
    content, expected = known[0]
    body = COMPRESSIONS.get(encoding, bytes)(content)
    headers = {"Content-Encoding": encoding}
    reply = httpx.post(server.address + "predict", content=body, headers=headers)
    assert reply.json()["label"] == expected.label


def test_row_41_the_limit_counts_what_comes_out_of_a_compressed_body(server, known):
    before = served.figures(server)["process_resident_memory_bytes"]
    body = gzip.compress(bytes(500_000_000), 9)
    assert len(body) < 1_000_000
    headers = {"Content-Encoding": "gzip"}
    reply = httpx.post(server.address + "predict", content=body, headers=headers, timeout=30)
    assert reply.status_code == 413
    assert "uncompressed" in reply.json()["error"]
    assert peak_bytes(server) - before < 300e6
    for wrong, status in (("br", 415), ("gzip", 400), ("deflate", 400)):
        headers = {"Content-Encoding": wrong}
        reply = httpx.post(server.address + "predict", content=b"nothing", headers=headers)
        assert (reply.status_code, set(reply.json())) == (status, {"error"})
    cut = httpx.post(
        server.address + "predict", content=body[:-20], headers={"Content-Encoding": "gzip"}
    )
    assert cut.status_code in (400, 413)
    healthy(server, known)


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("multipart/form-data", b"x", "no boundary"),
        ("multipart/form-data; boundary=b", b"x", "no part of the name file or image"),
        ("multipart/form-data; boundary=b", b"--b\r\n" * 200_000, "no part of the name"),
        ("application/json", b"{}", "in base64"),
        ("application/json", b'{"image": "*"}', "in base64"),
        ("application/json", b'{"image": null}', "in base64"),
        ("application/json", b"[" * 2_000_000, "more than an image"),
        ("application/json", b'{"image": ""}', "no image in the body"),
    ],
)
def test_forms_and_json_without_an_image_are_refused(server, known, kind, body, reason):
    headers = {"Content-Type": kind}
    reply = httpx.post(server.address + "predict", content=body, headers=headers)
    assert reply.status_code == 400
    assert reason in reply.json()["error"]
    healthy(server, known)


def test_details_are_asked_for_by_a_boolean(server, known):
    for text in ("151052298670395", "", "maybe"):
        reply = httpx.post(server.address + f"predict?details={text}", content=known[0][0])
        assert reply.status_code == 400
        assert "details" in reply.json()["error"]


def test_head_is_get_without_a_body_and_trace_is_not_allowed(server):
    for path in ("v2/health/live", "v2/health/ready", "metrics", ""):
        reply = httpx.head(server.address + path)
        assert (reply.status_code, reply.content) == (200, b"")
    assert httpx.head(server.address + "predict").status_code == 405
    assert httpx.request("TRACE", server.address + "v2/health/live").status_code == 405


def test_the_list_of_what_can_be_asked(server):
    page = httpx.get(server.address + "docs").text
    assert "POST /predict" in page
    assert "https:" not in page  # It needs no network.


# -- the open inference protocol -----------------------------------------------------------------


def test_health_and_metadata(server):
    base = server.address + "v2"
    assert httpx.get(base).json()["name"] == "tenfold"
    assert httpx.get(base + "/health/live").json() == {"live": True}
    assert httpx.get(base + f"/models/{served.NAME}/ready").status_code == 200
    found = httpx.get(base + f"/models/{served.NAME}").json()
    assert found["inputs"] == [{"name": "pixels", "datatype": "UINT8", "shape": [-1, 16, 16, 3]}]


def test_tensors_as_json(server, model):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    tensor = {
        "name": "pixels",
        "datatype": "UINT8",
        "shape": list(pixels.shape),
        "data": pixels.ravel().tolist(),
    }
    reply = httpx.post(
        server.address + f"v2/models/{served.NAME}/infer", json={"id": "7", "inputs": [tensor]}
    ).json()
    assert reply["id"] == "7"
    outputs = {output["name"]: output for output in reply["outputs"]}
    expected = Predictor(model, threads=1).probabilities(pixels)
    found = np.array(outputs["probabilities"]["data"]).reshape(outputs["probabilities"]["shape"])
    assert np.allclose(found, expected, atol=1e-5)


def test_the_public_client_works(server, model):
    client_module = pytest.importorskip("tritonclient.http")
    client = client_module.InferenceServerClient(f"{server.host}:{server.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(served.NAME)
    pixels = np.random.default_rng(1).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    tensor = client_module.InferInput("pixels", list(pixels.shape), "UINT8")
    expected = Predictor(model, threads=1).probabilities(pixels)
    for binary in (True, False):
        tensor.set_data_from_numpy(pixels, binary_data=binary)
        outputs = [client_module.InferRequestedOutput("probabilities", binary_data=binary)]
        for compression in (None, "gzip", "deflate"):
            reply = client.infer(
                served.NAME,
                [tensor],
                outputs=outputs,
                request_compression_algorithm=compression,
                response_compression_algorithm=compression,
            )
            assert np.allclose(reply.as_numpy("probabilities"), expected, atol=1e-5)


def test_what_tools_for_triton_ask_before_they_measure(server):
    client_module = pytest.importorskip("tritonclient.http")
    client = client_module.InferenceServerClient(f"{server.host}:{server.port}")
    assert [each["name"] for each in client.get_model_repository_index()] == [served.NAME]
    known = client.get_model_config(served.NAME)
    assert known["input"] == [{"name": "pixels", "data_type": "TYPE_UINT8", "dims": [16, 16, 3]}]
    for name in ("", served.NAME):
        counts = []
        for _ in range(2):
            [found] = client.get_inference_statistics(name)["model_stats"]
            counts.append(found["inference_count"])
            httpx.post(server.address + "predict", content=png_of(7))
        assert counts[1] == counts[0] + 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"shape": [1, 16, 16, 4]}, "another shape than [N, 16, 16, 3] with N from 1 to 256"),
        ({"shape": [1, 8, 32, 3]}, "another shape than [N, 16, 16, 3] with N from 1 to 256"),
        ({"shape": [999_999_999] * 100_000}, "shape: List should have at most 4 items"),
        ({"shape": [True, 16, 16, 3]}, "shape.0: Input should be a valid integer"),
        ({"shape": [2, 16, 16, 3]}, "other than 1536 numbers"),
        ({"shape": [0, 16, 16, 3]}, "shape.0: Input should be greater than or equal to 1"),
        ({"shape": [-1, 16, 16, 3]}, "shape.0: Input should be greater"),
        ({"shape": [10**30, 16, 16, 3]}, "N from 1 to 256"),
        ({"shape": "16"}, "shape: Input should be a valid array"),
        ({"datatype": "FP32"}, "datatype: Input should be 'UINT8'"),
        ({"name": "image"}, "name: Input should be 'pixels'"),
        ({"data": [300] * 768}, "less than or equal to 255"),
        ({"data": [0.5] * 768}, "valid integer"),
        ({"data": ["x" * 100_000, *["x"] * 767]}, "valid integer"),
        ({"data": None}, "pixels has data, or a binary_data_size"),
        ({"data": [[0] * 768, 1]}, "data"),
        ({"parameters": {"binary_data_size": 10**400}}, "0 bytes follow"),
        ({"parameters": 3}, "parameters: Input should be an object"),
    ],
)
def test_wrong_tensors_are_refused(server, known, change, reason):
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1, 16, 16, 3], "data": [0] * 768}
    reply = httpx.post(
        server.address + f"v2/models/{served.NAME}/infer", json={"inputs": [{**tensor, **change}]}
    )
    assert reply.status_code == 400
    assert reason in reply.json()["error"]
    healthy(server, known)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b'{"inputs": []}', b'{"inputs": 3}', b"[" * 5000),
        b'{"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [Infinity, 16, 16, 3]}]}',
        b'{"id": 3, "inputs": [{}]}',
    ],
)
def test_what_is_not_the_protocol_is_refused(server, known, body):
    reply = httpx.post(server.address + f"v2/models/{served.NAME}/infer", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]
    healthy(server, known)


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 400), (b"nothing", 415), (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, 415)],
)
def test_what_is_no_picture_is_refused(server, known, content, status):
    reply = httpx.post(server.address + "predict", content=content)
    assert reply.status_code == status
    assert reply.json()["error"]
    healthy(server, known)


def chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png_file(width, height, rows, *more, mode=2):
    header = struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *more,
            chunk(b"IDAT", zlib.compress(rows, 9)),
            chunk(b"IEND", b""),
        ]
    )


def progressive(side):
    content = io.BytesIO()
    Image.new("RGB", (side, side), (200, 90, 30)).save(content, "JPEG", progressive=True)
    return content.getvalue()


def many_scans(number):
    """A progressive JPEG whose last scan comes `number` times more."""
    content = progressive(16)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * number + content[-2:]


BOMBS = {
    "more pixels than may be": png_file(60000, 60000, b"\0" * 1000),
    "more than are decoded": png_file(5000, 5000, b"\0" * (5000 * (4 * 5000 + 1)), mode=6),
    "text": png_file(
        16,
        16,
        b"\0" * (16 * 49),
        chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 100_000_000, 9)),
    ),
    "scans": many_scans(1000),
    "many pixels in several scans": progressive(8000),
}


def peak_bytes(server):
    """The most memory that the server's process ever held."""
    status = Path(f"/proc/{server.command.process.pid}/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status)[1])


@pytest.mark.parametrize("kind", BOMBS)
def test_row_39_bombs_are_refused(server, known, kind):
    before = served.figures(server)["process_resident_memory_bytes"]
    for _ in range(3):
        reply = httpx.post(server.address + "predict", content=BOMBS[kind], timeout=30)
        assert reply.status_code == 413
    assert peak_bytes(server) - before < 300e6
    healthy(server, known)


def test_row_39_pictures_as_large_as_may_be_stay_under_300_megabytes(model, folder):
    largest = png_file(2896, 2896, b"\0" * (2896 * (4 * 2896 + 1)), mode=6)
    frames = io.BytesIO()
    still = [Image.fromarray(np.full((500, 500), i, dtype=np.uint8)) for i in range(60)]
    still[0].save(frames, "GIF", save_all=True, append_images=still[1:])
    with served.serving(model, folder=folder) as running:
        before = served.figures(running)["process_resident_memory_bytes"]
        for content in (largest, frames.getvalue(), progressive(2896), largest):
            reply = httpx.post(running.address + "predict", content=content, timeout=30)
            assert reply.status_code == 200
        assert peak_bytes(running) - before < 300e6


FLOODS = {
    "markers": b"\xff\x01",
    "fill bytes": b"\xff",
    "stuffed bytes": b"\xff\0",
    "empty segments": b"\xff\xe0\0\0",
}


@pytest.mark.parametrize(
    "kind",
    ["markers", *(pytest.param(kind, marks=pytest.mark.long) for kind in list(FLOODS)[1:])],
)
def test_row_51_others_are_answered_while_a_long_body_is_looked_at(server, known, kind):
    content = b"\xff\xd8" + FLOODS[kind] * (2_000_000 // len(FLOODS[kind]))
    waited = []
    with concurrent.futures.ThreadPoolExecutor(4) as pool, httpx.Client(timeout=30) as client:
        address = server.address + "predict"
        sent = [pool.submit(httpx.post, address, content=content, timeout=60) for _ in range(4)]
        while not all(each.done() for each in sent) or len(waited) < 5:
            started = time.perf_counter()
            assert client.get(server.address + "v2/health/live").status_code == 200
            waited.append(time.perf_counter() - started)
    assert {each.result().status_code for each in sent} <= {413, 415}
    assert np.median(waited) < 0.25  # 0.05 where nobody else computes.
    healthy(server, known)


def test_row_51_what_depends_on_a_body_is_never_done_where_others_are_answered(model, monkeypatch):
    threads = []

    def noting(place, name):
        real = getattr(place, name)

        def noted(*arguments, **options):
            threads.append(threading.current_thread())
            return real(*arguments, **options)

        monkeypatch.setattr(place, name, noted)

    predictor = Predictor(model, threads=1)
    service = application.Service(predictor, limits=Limits())
    for name in ("uncompressed", "image_in", "count_scans"):
        noting(application, name)
    noting(predictor, "pixels")
    noting(application.protocol, "read_request")
    noting(application.protocol, "write_reply")
    app = application.create_application(service, name="m", max_bytes=1 << 20)
    tensor = {"name": "pixels", "shape": [1, 16, 16, 3], "datatype": "UINT8", "data": [7] * 768}

    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.post("/predict", content=progressive(64))).status_code == 200
            reply = await client.post("/v2/models/m/infer", json={"inputs": [tensor]})
            assert reply.status_code == 200

    asyncio.run(ask())
    service.stop()
    assert len(threads) == 7  # Both bodies may have been compressed.
    assert threading.current_thread() not in threads


def test_sets_are_part_of_the_answer_where_they_are_asked_for(model, known):
    predictor = Predictor(model, threads=1, sets=0.95)
    service = application.Service(predictor, limits=Limits())
    app = application.create_application(service, name="m", max_bytes=1 << 20)

    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for content, _ in known:
                reply = (await client.post("/predict", content=content)).json()
                assert reply["set"] == list(predictor.predict(content).conformal_set)
                assert reply["set"][0] == reply["label"]
            assert (await client.get("/model")).json()["sets"] == 0.95

    asyncio.run(ask())
    service.stop()


def test_what_goes_wrong_inside_is_said_in_json_and_logged(model, monkeypatch, caplog):
    predictor = Predictor(model, threads=1)
    monkeypatch.setattr(predictor, "pixels", lambda content, max_pixels: 1 / 0)
    service = application.Service(predictor, limits=Limits())
    guarded = _application(service, ServerOptions(), Limits(), "")

    async def ask():
        transport = httpx.ASGITransport(guarded)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/predict", content=b"x")

    reply = asyncio.run(ask())
    service.stop()
    assert (reply.status_code, set(reply.json())) == (500, {"error"})
    assert reply.headers["x-frame-options"] == "DENY"
    assert "ZeroDivisionError" in caplog.text


def test_a_client_that_leaves_in_mid_body_is_counted_and_no_error(server):
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\nabc"
        )
    name = 'tenfold_requests_total{path="/predict",status="499"}'
    deadline = time.monotonic() + 15
    while name not in served.figures(server):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "Traceback" not in server.command.output


@pytest.mark.parametrize("part", ["[],", "{},", '"",', "0,"])
def test_row_51_json_of_very_many_parts_is_refused_before_it_is_parsed(server, known, part):
    body = '{"inputs": [' + part * (3_900_000 // len(part)) + "0]}"
    address = f"{server.address}v2/models/{served.NAME}/infer"
    reply = httpx.post(address, content=body.encode(), timeout=30)
    assert reply.status_code == 400
    assert "send the pixels in binary" in reply.json()["error"]
    healthy(server, known)


def test_a_film_behind_a_photograph_is_no_bomb(server):
    photograph = progressive(64) + b"\xff\xda" * 1000
    reply = httpx.post(server.address + "predict", content=photograph, timeout=30)
    assert reply.status_code == 200


def test_row_41_bodies_that_are_too_large_or_lie_about_it(server, known):
    reply = server.send(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000000\r\n\r\n"
    )
    assert b" 413 " in reply.split(b"\r\n")[0]
    reply = server.send(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n")
    assert b" 400 " in reply.split(b"\r\n")[0]
    # Shorter than it says.
    reply = server.send(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\nabc"
    )
    assert b" 408 " in reply.split(b"\r\n")[0]
    healthy(server, known)


def test_row_41_a_body_without_end(server, known):
    with socket.create_connection((server.host, server.port), timeout=20) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        part = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        with contextlib.suppress(OSError):
            for _ in range(100):
                connection.sendall(part)
        with contextlib.suppress(OSError):
            assert b" 413 " in connection.recv(100)
    healthy(server, known)


GET = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    "begun",
    [
        GET + b"X-Endless: ",
        b"GET /",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    ],
    ids=["a field", "an address", "a field behind the body"],
)
def test_row_41_lines_without_end(server, known, begun):
    with socket.create_connection((server.host, server.port), timeout=20) as connection:
        connection.sendall(begun)
        number = 0
        with contextlib.suppress(ConnectionError):  # It is closed before all of this has gone.
            while number < 300:
                connection.sendall(b"a" * 1000)
                time.sleep(0.002)
                number += 1
    assert number < 300
    healthy(server, known)


def test_requests_in_a_row_are_answered_one_by_one(server, known):
    """Whoever asks faster than answers come fills no memory."""
    before = served.figures(server)["process_resident_memory_bytes"]
    stop = time.monotonic() + 2
    with socket.create_connection((server.host, server.port), timeout=20) as connection:
        connection.setblocking(False)
        while time.monotonic() < stop:
            with contextlib.suppress(BlockingIOError):
                connection.send((GET + b"\r\n") * 1000)
            with contextlib.suppress(BlockingIOError):
                connection.recv(1 << 20)
        assert served.figures(server)["process_resident_memory_bytes"] - before < 50e6
    healthy(server, known)


def test_who_offers_another_protocol_is_answered_in_this_one(server, known):
    content, expected = known[0]
    head = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        b"Content-Length: %d\r\n\r\n"
    )
    inner = GET + b"Connection: close\r\n\r\n"  # As a body, it is no picture and no request.
    reply = server.send(head % len(content) + content + head % len(inner) + inner + inner)
    statuses = re.findall(rb"HTTP/1.1 (\d+) ", reply)
    assert statuses == [b"200", b"415", b"200"]
    assert expected.label.encode() in reply


def test_a_request_behind_a_large_body_is_answered(server, known):
    body = b"\0" * 150_000
    first = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    reply = server.send(first + body + GET + b"Connection: close\r\n\r\n")
    assert reply.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 415 " in reply
    assert reply.endswith(b'{"live":true}')


def test_what_follows_a_body_in_parts_is_no_header(model, folder):
    (folder / "key").write_text("correct horse battery staple\n")
    with served.serving(model, "--key-file", "key", folder=folder) as running:
        reply = running.send(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Connection: close\r\n\r\n1\r\na\r\n0\r\n"
            b"X-API-Key: correct horse battery staple\r\n\r\n"
        )
    assert reply.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length : 3\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: -1\r\n",
    ],
)
def test_row_41_headers_that_can_be_read_in_two_ways(server, known, lines):
    reply = server.send(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n%s\r\nabc" % lines)
    assert reply.startswith(b"HTTP/1.1 400 ")
    healthy(server, known)


def test_row_41_a_length_beside_chunks_hides_no_request(server, known):
    """The chunks count, as RFC 9112 has it, and nothing behind them is read as a request."""
    hidden = GET + b"\r\n"
    reply = server.send(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n%s" % (11 + len(hidden), hidden)
    )
    assert reply.startswith(b"HTTP/1.1 415 ")
    assert reply.count(b"HTTP/1.1 ") == 1
    healthy(server, known)


def test_row_41_bodies_where_none_belong(server, known):
    for method, path in (("POST", ""), ("POST", "v2/health/live"), ("GET", "predict")):
        reply = httpx.request(method, server.address + path, content=b"x" * 1000)
        assert reply.status_code == 405
        assert "Method Not Allowed" in reply.json()["error"]
    healthy(server, known)


def test_unknown_paths_are_refused_in_the_protocols_form(server):
    for method, path in (("GET", "v2/models/nothing"), ("GET", "predict"), ("GET", "nowhere")):
        reply = httpx.request(method, server.address + path)
        assert reply.status_code in (404, 405)
        assert set(reply.json()) == {"error"}


def test_pages_of_named_sites_may_ask(model, folder, known):
    with served.serving(model, "--origin", "https://a.example/", folder=folder) as running:
        asks = {
            "Origin": "https://a.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        }
        reply = httpx.options(running.address + "predict", headers=asks)
        assert reply.status_code == 200
        assert reply.headers["access-control-allow-origin"] == "https://a.example"
        assert "content-type" in reply.headers["access-control-allow-headers"]
        content, expected = known[0]
        reply = httpx.post(
            running.address + "predict", content=content, headers={"Origin": "https://a.example"}
        )
        assert reply.json()["label"] == expected.label
        assert reply.headers["access-control-allow-origin"] == "https://a.example"
        other = {**asks, "Origin": "https://b.example"}
        reply = httpx.options(running.address + "predict", headers=other)
        assert reply.status_code == 400
        assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    "path", ["/../etc/passwd", "/%2e%2e/secret", "/predict/../x", "/page.html"]
)
def test_row_48_paths_lead_nowhere(server, path):
    reply = server.send(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )
    assert reply.split(b"\r\n")[0].split(b" ")[1] in (b"404", b"405", b"400")


def test_row_48_other_hosts_and_origins_are_refused(server, known):
    reply = httpx.get(server.address, headers={"Host": "evil.example"})
    assert reply.status_code == 421
    reply = httpx.post(
        server.address + "predict", content=known[0][0], headers={"Origin": "http://evil.example"}
    )
    assert reply.status_code == 403
    own = {"Origin": server.address.rstrip("/")}
    assert (
        httpx.post(server.address + "predict", content=known[0][0], headers=own).status_code == 200
    )


# -- the rest ------------------------------------------------------------------------------------


def test_the_page_and_what_it_needs(server):
    page = httpx.get(server.address)
    assert "What is in this image?" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    facts = httpx.get(server.address + "model").json()
    assert facts["class_names"] == ["red", "green", "blue", "grey"]
    assert len(facts["samples"]) == 4


def test_figures_for_prometheus(server, known):
    healthy(server, known)
    httpx.get(server.address + "nothing")
    values = served.figures(server)
    assert values['tenfold_requests_total{path="other",status="404"}'] >= 1
    assert values['tenfold_requests_total{path="/predict",status="200"}'] >= 1
    assert values["tenfold_pictures_total"] >= values["tenfold_batches_total"] >= 1


def test_the_description_names_all_endpoints(server):
    found = httpx.get(server.address + "openapi.json").json()
    assert {"/predict", "/v2/health/ready", "/metrics"} <= set(found["paths"])


def test_row_46_a_signal_lets_it_finish(model, folder):
    # Each takes a tenth of a second to decode, and has been received long before.
    content = png_file(2000, 2000, b"\0" * (2000 * (4 * 2000 + 1)), mode=6)
    request = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(content), content)
    )
    with (
        served.serving(model, folder=folder) as running,
        concurrent.futures.ThreadPoolExecutor(10) as pool,
    ):
        futures = [pool.submit(running.send, request) for _ in range(10)]
        concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_COMPLETED)
        are_left = sum(not future.done() for future in futures)
        started = time.monotonic()
        running.command.signal(15)
        assert running.command.wait(20) == 0
        assert time.monotonic() - started < 10
        replies = [future.result() for future in futures]
    assert are_left > 4
    assert all(reply.startswith(b"HTTP/1.1 200 ") for reply in replies)


def test_row_47_a_port_that_is_taken(server, model, folder):
    command = commands.run(["serve", str(model), "--port", str(server.port)], folder=folder)
    assert command.wait() == 2
    assert "can't be listened on" in command.output


def test_others_may_connect_only_with_a_key(model, folder, known):
    arguments = ["serve", str(model), "--port", "0", "--host", "0.0.0.0"]
    command = commands.run(arguments, folder=folder)
    assert command.wait() == 2
    assert "--allow-remote" in command.output
    command = commands.run([*arguments, "--allow-remote"], folder=folder)
    assert command.wait() == 2
    assert "a key is needed" in command.output
    (folder / "key").write_text("correct horse battery staple\n")
    extra = ["--host", "0.0.0.0", "--allow-remote", "--key-file", "key"]
    with served.serving(model, *extra, folder=folder) as running:
        address = f"http://127.0.0.1:{running.port}/"
        assert httpx.post(address + "predict", content=known[0][0]).status_code == 401
        assert httpx.get(address + "v2/health/live").status_code == 200
        headers = {"X-API-Key": "correct horse battery staple"}
        reply = httpx.post(address + "predict", content=known[0][0], headers=headers)
        assert reply.json()["label"] == known[0][1].label


@pytest.mark.parametrize("content", ["\ufeffKEY", "\ufeffKEY\r\n", " KEY\n", "KEY"])
def test_a_key_is_that_of_its_file_whatever_wrote_it(tmp_path, content):
    key = "a-key-of-seventeen"
    (tmp_path / "key").write_bytes(content.replace("KEY", key).encode())
    assert read_key(tmp_path / "key") == key


def test_a_run_that_was_not_exported_says_what_to_do(folder, tmp_path):
    (tmp_path / "run").mkdir()
    command = commands.run(["serve", str(tmp_path / "run")], folder=folder)
    assert command.wait() == 2
    assert "tenfold export" in command.output


def test_json_is_one_object_a_line(server):
    lines = server.command.output.splitlines()
    assert all(json.loads(line) for line in lines if line.startswith("{"))
