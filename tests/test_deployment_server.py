"""A real server over real sockets: what it answers, what it refuses, and how it ends."""

import base64
import concurrent.futures
import contextlib
import gzip
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
from starlette.testclient import TestClient

import commands
import served
from tenfold.deployment import application
from tenfold.deployment.options import Limits, ServerOptions
from tenfold.deployment.predictor import Predictor
from tenfold.deployment.server import Guards, read_key
from tenfold.errors import TenfoldError

KEY = "correct horse battery staple"
LOCAL = b"Host: localhost\r\n"
POST = b"POST /predict HTTP/1.1\r\n" + LOCAL
GET = b"GET /v2/health/live HTTP/1.1\r\n" + LOCAL
CLOSE = b"Connection: close\r\n\r\n"
NOISE = served.encoded(served.noise())


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
def locked(model, folder):
    """A server that others may ask with a key, from pages of one site."""
    (folder / "key").write_text(KEY + "\n")
    options = ["--host", "0.0.0.0", "--allow-remote", "--key-file", "key"]
    options += ["--origin", "https://a.example/"]
    with served.serving(model, *options, folder=folder) as running:
        yield running


@pytest.fixture(scope="module")
def known(model):
    """Some images, as files, with what an offline predictor says of them."""
    predictor = Predictor(model, threads=1)
    contents = [served.encoded(served.noise(seed)) for seed in range(20)]
    return list(zip(contents, predictor.predict_many(contents), strict=True))


@pytest.fixture
def predict(server, known):
    """A function that posts to /predict; in the end, the service must still answer as it should."""

    def post(content, *, query="", **options):
        address = server.address + "predict" + query
        return httpx.post(address, content=content, timeout=30, **options)

    yield post
    content, expected = known[0]
    reply = post(content)
    assert (reply.status_code, reply.json()["label"]) == (200, expected.label)


def infer_address(server):
    return server.address + f"v2/models/{served.NAME}/infer"


def tensor_of(pixels):
    data = pixels.ravel().tolist()
    return {"name": "pixels", "datatype": "UINT8", "shape": list(pixels.shape), "data": data}


def sized(content):
    return b"Content-Length: %d\r\n\r\n" % len(content) + content


# -- images --------------------------------------------------------------------------------------


def test_an_image_gets_the_prediction_of_the_model(predict, known):
    for content, expected in known:
        reply = predict(content).json()
        assert reply["label"] == expected.label
        assert reply["confidence"] == pytest.approx(expected.confidence, abs=1e-5)
        assert list(reply["probabilities"]) == list(expected.probabilities)
    reply = predict(known[0][0], query="?details=1").json()
    assert reply["seen"].startswith("data:image/png;base64,")
    assert max(max(row) for row in reply["where"]) <= 1


@pytest.mark.parametrize("field", ["file", "image"])
def test_an_image_in_a_form_or_in_json(server, known, field):
    address, (content, expected) = server.address + "predict", known[0]
    text = base64.b64encode(content).decode()
    for reply in (
        httpx.post(address, files={"note": b"x", field: ("a b.png", content, "image/png")}),
        httpx.post(address, files={field: content}, data={"other": "y"}),
        httpx.post(address, json={field: text}),
        httpx.post(address, json={field: "data:image/png;base64," + text, "id": 7}),
    ):
        assert reply.status_code == 200, reply.text
        assert reply.json()["confidence"] == pytest.approx(expected.confidence, abs=1e-5)


COMPRESSIONS = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}


@pytest.mark.parametrize("encoding", COMPRESSIONS)
def test_a_compressed_body(predict, known, encoding):
    content, expected = known[0]
    body = COMPRESSIONS[encoding](content)
    assert predict(body, headers={"Content-Encoding": encoding}).json()["label"] == expected.label


def peak_bytes(server):
    """The most memory that the server's process ever held."""
    status = Path(f"/proc/{server.command.process.pid}/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status)[1])


def test_row_41_the_limit_counts_what_comes_out_of_a_compressed_body(server, predict):
    before = served.figures(server)["process_resident_memory_bytes"]
    body = gzip.compress(bytes(500_000_000), 9)
    assert len(body) < 1_000_000
    reply = predict(body, headers={"Content-Encoding": "gzip"})
    assert reply.status_code == 413
    assert "uncompressed" in reply.json()["error"]
    assert peak_bytes(server) - before < 300e6
    for content, encoding, status in (
        (b"nothing", "br", 415),
        (b"nothing", "gzip", 400),
        (b"nothing", "deflate", 400),
        (gzip.compress(bytes(1000))[:-9], "gzip", 400),
    ):
        reply = predict(content, headers={"Content-Encoding": encoding})
        assert (reply.status_code, set(reply.json())) == (status, {"error"})


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("multipart/form-data", b"x", "no boundary"),
        ("multipart/form-data; boundary=b", b"x", "no part of the name file or image"),
        ("multipart/form-data; boundary=b", b"--b\r\n" * 200_000, "no part of the name"),
        ("application/json", b"{}", "in base64"),
        ("application/json", b'{"image": "*"}', "in base64"),
        ("application/json", b'{"image": null}', "in base64"),
        ("application/json", b"[" * 2_000_000, "send a file's bytes as they are"),
        ("application/json", b'{"image": "data:,"}', "no image in the body"),
    ],
)
def test_forms_and_json_without_an_image_are_refused(predict, kind, body, reason):
    reply = predict(body, headers={"Content-Type": kind})
    assert reply.status_code == 400
    assert reason in reply.json()["error"]


def test_details_are_asked_for_by_a_boolean(predict, known):
    for text in ("151052298670395", "", "maybe"):
        reply = predict(known[0][0], query=f"?details={text}")
        assert reply.status_code == 400
        assert "details" in reply.json()["error"]


def test_head_is_get_without_a_body_and_trace_is_not_allowed(server):
    for path in ("v2/health/live", "v2/health/ready", "metrics", ""):
        reply = httpx.head(server.address + path)
        assert (reply.status_code, reply.content) == (200, b"")
    assert httpx.head(server.address + "predict").status_code == 405
    assert httpx.request("TRACE", server.address + "v2/health/live").status_code == 405


# -- the open inference protocol -----------------------------------------------------------------


def test_health_and_metadata(server):
    base = server.address + "v2"
    assert httpx.get(base).json()["name"] == "tenfold"
    assert httpx.get(base + "/health/live").json() == {"live": True}
    for version in ("", "/versions/1"):
        at = f"{base}/models/{served.NAME}{version}"
        assert httpx.get(at + "/ready").status_code == 200
        [pixels] = httpx.get(at).json()["inputs"]
        assert pixels == {"name": "pixels", "datatype": "UINT8", "shape": [-1, 16, 16, 3]}


def test_tensors_as_json(server, model):
    pixels = np.stack([served.noise(seed) for seed in range(3)])
    request = {"id": "7", "inputs": [tensor_of(pixels)], "parameters": None, "outputs": None}
    reply = httpx.post(infer_address(server), json=request).json()
    assert reply["id"] == "7"
    outputs = {output["name"]: output for output in reply["outputs"]}
    assert set(outputs) == {"probabilities", "logits"}
    found = np.array(outputs["probabilities"]["data"]).reshape(outputs["probabilities"]["shape"])
    assert np.allclose(found, Predictor(model, threads=1).probabilities(pixels), atol=1e-5)


def test_the_public_client_works_and_what_tools_for_triton_ask(server, model, predict):
    triton = pytest.importorskip("tritonclient.http")
    client = triton.InferenceServerClient(f"{server.host}:{server.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(served.NAME)
    pixels = np.stack([served.noise(seed) for seed in range(5)])
    tensor = triton.InferInput("pixels", list(pixels.shape), "UINT8")
    expected = Predictor(model, threads=1).probabilities(pixels)
    for binary in (True, False):
        tensor.set_data_from_numpy(pixels, binary_data=binary)
        options = {"outputs": [triton.InferRequestedOutput("probabilities", binary_data=binary)]}
        for kind in (None, "gzip", "deflate"):
            options["request_compression_algorithm"] = kind
            options["response_compression_algorithm"] = kind
            reply = client.infer(served.NAME, [tensor], **options)
            assert np.allclose(reply.as_numpy("probabilities"), expected, atol=1e-5)
    assert [each["name"] for each in client.get_model_repository_index()] == [served.NAME]
    known = client.get_model_config(served.NAME)
    assert known["input"] == [{"name": "pixels", "data_type": "TYPE_UINT8", "dims": [16, 16, 3]}]
    for name in ("", served.NAME):
        counts = []
        for _ in range(2):
            [found] = client.get_inference_statistics(name)["model_stats"]
            counts.append(found["inference_count"])
            predict(NOISE)
        assert counts[1] == counts[0] + 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"shape": [1, 16, 16, 4]}, "another shape than [N, 16, 16, 3] with N from 1 to 256"),
        ({"shape": [999_999_999] * 100_000}, "shape: List should have at most 4 items"),
        ({"shape": [True, 16, 16, 3]}, "shape.0: Input should be a valid integer"),
        ({"shape": [2, 16, 16, 3]}, "other than 1536 numbers"),
        ({"shape": [0, 16, 16, 3]}, "shape.0: Input should be greater than or equal to 1"),
        ({"shape": [10**30, 16, 16, 3]}, "N from 1 to 256"),
        ({"datatype": "FP32"}, "datatype: Input should be 'UINT8'"),
        ({"name": "image"}, "name: Input should be 'pixels'"),
        ({"data": [300] * 768}, "less than or equal to 255"),
        ({"data": [0.5] * 768}, "valid integer"),
        ({"data": ["x" * 100_000, *["x"] * 767]}, "valid integer"),
        ({"data": None}, "pixels has data, or a binary_data_size"),
        ({"data": [[0] * 768, 1]}, "data"),
        ({"parameters": {"binary_data_size": 10**400}}, "binary_data_size should be 768"),
        ({"parameters": 3}, "parameters: Input should be an object"),
        (b"", "not within the body"),
        *((body, "The body: ") for body in (b"{", b"[]", b"null", b"[" * 5000)),
        (b'{"inputs": []}', "inputs: List should have at least 1 item"),
        (b'{"inputs": 3}', "inputs: Input should be a valid array"),
        (b'{"id": 3, "inputs": [{}]}', "id: Input should be a valid string"),
    ],
)
def test_wrong_requests_are_refused(server, predict, change, reason):
    body = change
    if isinstance(change, dict):
        tensor = {**tensor_of(served.noise()[None]), **change}
        body = json.dumps({"inputs": [tensor]}).encode()
    reply = httpx.post(infer_address(server), content=body)
    assert reply.status_code == 400
    assert reason in reply.json()["error"]


@pytest.mark.parametrize("part", ["[],", "{},", '"",', "0,"])
def test_row_51_json_of_very_many_parts_is_refused_before_it_is_parsed(server, predict, part):
    body = '{"inputs": [' + part * (3_900_000 // len(part)) + "0]}"
    reply = httpx.post(infer_address(server), content=body.encode(), timeout=30)
    assert reply.status_code == 400
    assert "send the pixels in binary" in reply.json()["error"]


# -- what is refused -----------------------------------------------------------------------------


def chunk(kind, content):
    sum_ = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + sum_


def png_file(side, *more, mode=2, rows=None):
    """A square PNG of zeros, in RGB or, with mode 6, RGBA; `rows` bytes of it instead of all."""
    header = struct.pack(">IIBBBBB", side, side, 8, mode, 0, 0, 0)
    pixels = zlib.compress(bytes(rows or side * ((3 if mode == 2 else 4) * side + 1)), 9)
    parts = [chunk(b"IHDR", header), *more, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def progressive(side):
    pixels = np.broadcast_to(np.uint8([200, 90, 30]), (side, side, 3))
    return served.encoded(pixels, "JPEG", progressive=True)


def many_scans(number):
    """A progressive JPEG whose last scan comes `number` times more."""
    content = progressive(16)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * number + content[-2:]


BOMBS = {
    "more pixels than may be": png_file(60000, rows=1000),
    "more than are decoded": png_file(5000, mode=6),
    "text": png_file(16, chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 100_000_000, 9))),
    "scans": many_scans(1000),
    "many pixels in several scans": progressive(8000),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_row_39_bombs_are_refused(server, predict, kind):
    before = served.figures(server)["process_resident_memory_bytes"]
    for _ in range(3):
        assert predict(BOMBS[kind]).status_code == 413
    assert peak_bytes(server) - before < 300e6


def test_row_39_images_as_large_as_may_be_stay_under_300_megabytes(model, folder):
    largest = png_file(2896, mode=6)
    still = [Image.fromarray(np.full((500, 500), i, dtype=np.uint8)) for i in range(60)]
    frames = served.encoded(
        np.zeros((500, 500), np.uint8), "GIF", save_all=True, append_images=still
    )
    with served.serving(model, folder=folder) as running:
        before = served.figures(running)["process_resident_memory_bytes"]
        for content in (largest, frames, progressive(2896), largest):
            reply = httpx.post(running.address + "predict", content=content, timeout=30)
            assert reply.status_code == 200
        assert peak_bytes(running) - before < 300e6


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"nothing", 415),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), 415),
        # A film behind a photograph is no bomb.
        (progressive(64) + b"\xff\xda" * 1000, 200),
    ],
)
def test_what_is_no_image_is_refused(predict, content, status):
    reply = predict(content)
    assert reply.status_code == status
    assert ("error" in reply.json()) == (status != 200)


def test_what_is_damaged_fills_no_log(server, predict):
    whole = served.encoded(served.noise(), "TIFF")
    channels = struct.pack("<HHII", 277, 3, 1, 3)
    assert channels in whole
    for wrong in ((277, 3, 10**6, 3), (277, 3, 1, 4572)):  # Of which Pillow warns.
        assert predict(whole.replace(channels, struct.pack("<HHII", *wrong))).status_code == 415
    assert len(server.command.output.splitlines()) == 1


FLOODS = {"markers": b"\xff\x01", "fill": b"\xff", "stuffed": b"\xff\0", "empty": b"\xff\xe0\0\0"}


@pytest.mark.parametrize(
    "kind",
    ["markers", *(pytest.param(kind, marks=pytest.mark.long) for kind in list(FLOODS)[1:])],
)
def test_row_51_others_are_answered_while_a_long_body_is_looked_at(server, predict, kind):
    content = b"\xff\xd8" + FLOODS[kind] * (2_000_000 // len(FLOODS[kind]))
    waited = []
    with concurrent.futures.ThreadPoolExecutor(4) as pool, httpx.Client(timeout=30) as client:
        sent = [pool.submit(predict, content) for _ in range(4)]
        while not all(each.done() for each in sent) or len(waited) < 5:
            started = time.perf_counter()
            assert client.get(server.address + "v2/health/live").status_code == 200
            waited.append(time.perf_counter() - started)
    assert {each.result().status_code for each in sent} <= {413, 415}
    assert np.median(waited) < 0.25  # 0.05 where nobody else computes.


def test_row_51_what_depends_on_a_body_is_never_done_where_others_are_answered(model, monkeypatch):
    threads = []

    def noting(place, name):
        real = getattr(place, name)

        def noted(*arguments, **options):
            threads.append(threading.current_thread().name)
            return real(*arguments, **options)

        monkeypatch.setattr(place, name, noted)

    predictor = Predictor(model, threads=1)
    for name in ("uncompressed", "image_in", "count_scans"):
        noting(application, name)
    noting(predictor, "pixels")
    noting(application.protocol, "read_request")
    noting(application.protocol, "write_reply")
    with served.in_process(predictor) as client:
        assert client.post("/predict", content=progressive(64)).status_code == 200
        request = {"inputs": [tensor_of(served.noise()[None])]}
        assert client.post("/v2/models/model/infer", json=request).status_code == 200
    assert len(threads) == 7  # Both bodies may have been compressed.
    assert all(name.startswith("decoding") for name in threads)


def test_sets_are_part_of_the_reply_where_they_are_asked_for(model, known):
    predictor = Predictor(model, threads=1, sets=0.95)
    with served.in_process(predictor) as client:
        for content, _ in known:
            reply = client.post("/predict", content=content).json()
            assert reply["set"] == list(predictor.predict(content).conformal_set)
            assert reply["set"][0] == reply["label"]
        assert client.get("/model").json()["sets"] == 0.95


def test_what_goes_wrong_inside_is_said_in_json_and_logged(model, monkeypatch, caplog):
    predictor = Predictor(model, threads=1)
    monkeypatch.setattr(predictor, "pixels", lambda content, max_pixels: 1 / 0)
    service = application.Service(predictor, limits=Limits())
    client = TestClient(Guards(service, ServerOptions(), limits=Limits()), "http://localhost")
    reply = client.post("/predict", content=b"x")
    assert (reply.status_code, set(reply.json())) == (500, {"error"})
    assert reply.headers["x-frame-options"] == "DENY"
    assert "ZeroDivisionError" in caplog.text


# -- over the wire -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"Content-Length: 900000000\r\n", 413),
        (b"Content-Length: -5\r\n", 400),
        (b"Content-Length: 500\r\n", 408),  # More than comes.
        (b"Content-Length: 3\r\nContent-Length: 4\r\n", 400),
        (b"Content-Length : 3\r\n", 400),
        (b"Content-Length: +3\r\n", 400),
        (b"Transfer-Encoding: chunked, identity\r\n", 400),
    ],
)
def test_row_41_lengths_that_are_too_large_or_lie(server, predict, lines, status):
    reply = server.send(POST + lines + b"\r\nabc")
    assert reply.startswith(b"HTTP/1.1 %d " % status)


def test_row_41_a_body_without_end(server, predict):
    with socket.create_connection((server.host, server.port), timeout=20) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        part = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        with contextlib.suppress(OSError):
            for _ in range(100):
                connection.sendall(part)
        with contextlib.suppress(OSError):
            assert b" 413 " in connection.recv(100)


@pytest.mark.parametrize(
    "begun",
    [GET + b"X-Endless: ", b"GET /", POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: "],
    ids=["a field", "an address", "a field behind the body"],
)
def test_row_41_lines_without_end(server, predict, begun):
    with socket.create_connection((server.host, server.port), timeout=20) as connection:
        connection.sendall(begun)
        number = 0
        with contextlib.suppress(ConnectionError):  # It is closed before all of this has gone.
            while number < 300:
                connection.sendall(b"a" * 1000)
                time.sleep(0.002)
                number += 1
    assert number < 300


def test_requests_in_a_row_are_answered_one_by_one(server, predict):
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


@pytest.mark.parametrize(
    ("request_", "statuses", "said"),
    [
        # Another protocol is offered; a request in a body is none.
        (
            POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + sized(NOISE)
            + POST + sized(GET + CLOSE) + GET + CLOSE,
            [b"200", b"415", b"200"],
            b"label",
        ),
        (POST + sized(bytes(150_000)) + GET + CLOSE, [b"415", b"200"], b'{"live":true}'),
        # Chunks count, as RFC 9112 has it, and nothing behind them is read as a request.
        (
            POST + b"Transfer-Encoding: chunked\r\nContent-Length: 77\r\n\r\n1\r\na\r\n0\r\n\r\n"
            + GET + b"\r\n",
            [b"415"],
            b"error",
        ),
    ],
    ids=["upgrade", "behind a large body", "a length beside chunks"],
)  # fmt: skip
def test_row_41_requests_end_where_they_end(server, predict, request_, statuses, said):
    reply = server.send(request_)
    assert re.findall(rb"HTTP/1.1 (\d+) ", reply) == statuses
    assert said in reply


def test_what_follows_a_body_in_parts_is_no_header(locked):
    reply = locked.send(
        POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\na\r\n0\r\n"
        b"X-API-Key: " + KEY.encode() + b"\r\n\r\n"
    )
    assert reply.startswith(b"HTTP/1.1 401 ")


def test_row_41_what_leads_nowhere_is_refused_in_the_protocols_form(server, predict):
    for method, path, status in (
        ("POST", "", 405),
        ("POST", "v2/health/live", 405),
        ("GET", "predict", 405),
        ("GET", "v2/models/nothing", 404),
        ("GET", "nowhere", 404),
    ):
        reply = httpx.request(method, server.address + path, content=b"x" * 1000)
        assert (reply.status_code, set(reply.json())) == (status, {"error"})


def test_a_client_that_leaves_in_mid_body_is_counted_and_no_error(server):
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(POST + b"Content-Length: 500\r\n\r\nabc")
    name = 'tenfold_requests_total{path="/predict",status="499"}'
    deadline = time.monotonic() + 15
    while name not in served.figures(server):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "Traceback" not in server.command.output


def test_pages_of_named_sites_may_ask_and_others_with_a_key(locked, known):
    base, (content, expected) = f"http://127.0.0.1:{locked.port}/", known[0]
    address, ours = base + "predict", {"Origin": "https://a.example"}
    asks = {"Access-Control-Request-Method": "POST"}
    asks["Access-Control-Request-Headers"] = "content-type"
    for reply in (
        httpx.options(address, headers=asks | ours),
        httpx.post(address, content=content, headers=ours | {"X-API-Key": KEY}),
    ):
        assert reply.status_code == 200
        assert reply.headers["access-control-allow-origin"] == "https://a.example"
    assert reply.json()["label"] == expected.label
    reply = httpx.options(address, headers=asks | {"Origin": "https://b.example"})
    assert reply.status_code == 400
    assert "access-control-allow-origin" not in reply.headers
    assert httpx.post(address, content=content).status_code == 401
    assert httpx.get(base + "v2/health/live").status_code == 200


@pytest.mark.parametrize(
    "path", ["/../etc/passwd", "/%2e%2e/secret", "/predict/../x", "/page.html"]
)
def test_row_48_paths_lead_nowhere(server, path):
    reply = server.send(f"GET {path} HTTP/1.1\r\n".encode() + LOCAL + CLOSE)
    assert reply.split(b"\r\n")[0].split(b" ")[1] in (b"404", b"405", b"400")


def test_row_48_other_hosts_and_origins_are_refused(server, predict, known):
    reply = httpx.get(server.address, headers={"Host": "evil.example"})
    assert reply.status_code == 421
    for origin, status in (("http://evil.example", 403), (server.address.rstrip("/"), 200)):
        assert predict(known[0][0], headers={"Origin": origin}).status_code == status


# -- the rest ------------------------------------------------------------------------------------


def test_the_page_the_lists_and_the_figures(server, predict):
    page = httpx.get(server.address)
    assert "What is in this image?" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    facts = httpx.get(server.address + "model").json()
    assert facts["class_names"] == ["red", "green", "blue", "grey"]
    assert len(facts["samples"]) == 4
    low, high = facts["scores"]["test"]["accuracy_interval"]
    assert low < facts["accuracy"]["test"] < high
    page = httpx.get(server.address + "docs").text
    assert "POST /predict" in page
    assert "https:" not in page  # It needs no network.
    found = httpx.get(server.address + "openapi.json").json()
    assert {"/predict", "/v2/health/ready", "/metrics"} <= set(found["paths"])
    # What is refused for being empty is also none by its description.
    bodies = found["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert bodies["image/*"]["schema"]["minLength"] == 1
    assert bodies["application/json"]["schema"]["properties"]["image"]["minLength"] == 1
    shape = found["components"]["schemas"]["Input"]["properties"]["shape"]["prefixItems"]
    assert [shape[0]["minimum"], *(side["const"] for side in shape[1:])] == [1, 16, 16, 3]
    predict(NOISE)
    httpx.get(server.address + "nothing")
    values = served.figures(server)
    assert values['tenfold_requests_total{path="other",status="404"}'] >= 1
    assert values['tenfold_requests_total{path="/predict",status="200"}'] >= 1
    assert values["tenfold_images_total"] >= values["tenfold_batches_total"] >= 1
    lines = server.command.output.splitlines()
    assert all(json.loads(line) for line in lines if line.startswith("{"))


def test_row_46_a_signal_lets_it_finish(model, folder):
    # Each takes a tenth of a second to decode, and has been received long before.
    request = POST + b"Connection: close\r\n" + sized(png_file(2000, mode=6))
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["MODEL", "--port", "PORT"], "can't be listened on"),  # FAULTS.md, row 47.
        (["MODEL", "--port", "0", "--host", "0.0.0.0"], "--allow-remote"),
        (["MODEL", "--port", "0", "--host", "0.0.0.0", "--allow-remote"], "a key is needed"),
        (["empty"], "is not a run folder"),
    ],
)
def test_what_can_not_be_served_is_said(server, model, folder, arguments, said):
    (folder / "empty").mkdir(exist_ok=True)
    named = {"MODEL": str(model), "PORT": str(server.port)}
    command = commands.run(["serve", *(named.get(a, a) for a in arguments)], folder=folder)
    assert command.wait() == 2
    assert said in command.output


@pytest.mark.parametrize("content", ["\ufeffKEY", "\ufeffKEY\r\n", " KEY\n", "KEY"])
def test_a_key_is_that_of_its_file_whatever_wrote_it(tmp_path, content):
    (tmp_path / "key").write_bytes(content.replace("KEY", KEY).encode())
    assert read_key(ServerOptions(key_file=tmp_path / "key")) == KEY


@pytest.mark.parametrize("content", [f"{KEY}é", f"{KEY}\n{KEY}", f"{KEY}\t{KEY}"])
def test_a_key_that_no_header_can_hold_is_refused(tmp_path, content):
    (tmp_path / "key").write_text(content, encoding="utf-8")
    with pytest.raises(TenfoldError, match="one line of ASCII letters"):
        read_key(ServerOptions(key_file=tmp_path / "key"))
