"""Whatever comes over the wire, the service answers with something below 500 and goes on."""

import json

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error

import served

RELAXED = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def server(made_once):
    place = made_once(served.make_run, served.make_model)
    with served.serving(place / served.MODEL, folder=place) as running:
        yield running
        assert httpx.get(running.address + "v2/health/ready").json() == {"ready": True}


@pytest.fixture(scope="module")
def client():
    with httpx.Client(timeout=30) as found:
        yield found


KINDS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")
FILES = [served.encoded(served.noise(0, 20, 24), kind) for kind in KINDS]


@st.composite
def damaged(draw):
    """An image with bytes changed, cut out, doubled or added."""
    content = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(0, 8))):
        place = draw(st.integers(0, len(content) - 1))
        length = draw(st.integers(0, 40))
        content[place : place + length] = draw(st.binary(max_size=40))
        if not content:
            content = bytearray(b"\0")
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


@RELAXED
@given(content=damaged())
def test_row_40_damaged_images(server, client, content):
    reply = client.post(server.address + "predict", content=content)
    assert reply.status_code in (200, 400, 413, 415)
    assert "label" in reply.json() or "error" in reply.json()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


LENGTHS = st.text(alphabet="0123456789-+ x", min_size=1, max_size=12).filter(
    lambda text: text == text.strip()
)


@st.composite
def requests(draw):
    """A request of the inference protocol in which some things are others than they should be."""
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1, 16, 16, 3], "data": [0] * 768}
    request = {"id": "a", "inputs": [tensor], "outputs": [{"name": "logits"}]}
    for place in (tensor, request, request["outputs"][0]):
        if draw(st.booleans()):
            place[draw(st.sampled_from([*place, "parameters"]))] = draw(JSON)
    return request


@RELAXED
@given(request=requests(), length=st.none() | LENGTHS)
def test_row_40_requests_of_the_protocol(server, client, request, length):
    headers = {} if length is None else {"Inference-Header-Content-Length": length}
    reply = client.post(
        server.address + f"v2/models/{served.NAME}/infer",
        content=json.dumps(request).encode(),
        headers=headers,
    )
    assert reply.status_code in (200, 400, 413)
    assert "outputs" in reply.json() or "error" in reply.json()


@settings(RELAXED, max_examples=25)
@given(content=st.binary(max_size=400))
def test_row_40_bytes_that_are_no_http(server, content):
    reply = server.send(content + b"\r\n\r\n", seconds=15)
    assert not reply or int(reply.split(b" ")[1]) < 500


def test_row_40_every_endpoint_by_its_description(server):
    """What the description allows, and what it doesn't, at every endpoint."""
    schema = schemathesis.openapi.from_url(server.address + "openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 10
    for operation in operations:

        @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def call(case):
            case.call_and_validate(checks=[not_a_server_error])

        call()
