"""The Open Inference Protocol, version 2, over HTTP: what clients of Triton and KServe speak.

https://github.com/kserve/open-inference-protocol, with its extension for binary tensors, and
what Triton's own tools ask for before they measure.
"""

import json
import math
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from starlette.exceptions import HTTPException

from tenfold.deployment.predictor import Floats, Pixels

MOST_IMAGES = 256  # In one request.
# What JSON may hold, for no other thread of Python runs while it is parsed.
MOST_JSON_BYTES = 4_000_000
MOST_OF = {b"{": 1_000, b'"': 10_000, b"[": 65_536, b",": 1_000_000}
REFERENCE = "#/components/schemas/{model}"
EXTENSIONS = ["binary_tensor_data", "model_configuration", "statistics", "model_repository"]

T = TypeVar("T")
Several = Annotated[list[T], Field(fail_fast=True)]
Side = Annotated[int, Field(ge=1, strict=True)]
Byte = Annotated[int, Field(ge=0, le=255, strict=True)]


class Parameters(BaseModel):
    """Of a request, an input or an output; others are ignored."""

    binary_data_size: Annotated[int, Field(strict=True)] | None = None
    binary_data: bool | None = None
    binary_data_output: bool = False


# Some clients send null where they have none.
Given = Annotated[Parameters, BeforeValidator(lambda given: {} if given is None else given)]


class Input(BaseModel):
    """The pixels, flat or nested as their shape, or in binary behind the JSON."""

    name: Literal["pixels"]
    datatype: Literal["UINT8"]
    shape: Annotated[Several[Side], Field(min_length=4, max_length=4)]
    data: Several[Byte] | Several[Several[Several[Several[Byte]]]] | None = None
    parameters: Given = Parameters()


class Output(BaseModel):
    """An output that is asked for."""

    name: Literal["probabilities", "logits"]
    parameters: Given = Parameters()


class InferenceRequest(BaseModel):
    """What is asked for; without outputs, all of them."""

    id: Annotated[str, Field(strict=True)] | None = None
    inputs: Annotated[Several[Input], Field(min_length=1, max_length=1)]
    outputs: Annotated[Several[Output], Field(max_length=8)] | None = None
    parameters: Given = Parameters()


def describe(
    name: str, *, size: tuple[int, int], num_classes: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the model takes and gives, and the same as a model configuration of Triton."""
    known = {"name": name, "platform": "onnxruntime_onnx"}
    pixels, outputs = {"name": "pixels"}, [{"name": "probabilities"}, {"name": "logits"}]
    model = {
        "versions": ["1"],
        "inputs": [{**pixels, "datatype": "UINT8", "shape": [-1, *size, 3]}],
        "outputs": [{**each, "datatype": "FP32", "shape": [-1, num_classes]} for each in outputs],
    }
    configuration = {
        "backend": "onnxruntime",
        "max_batch_size": MOST_IMAGES,
        "input": [{**pixels, "data_type": "TYPE_UINT8", "dims": [*size, 3]}],
        "output": [{**each, "data_type": "TYPE_FP32", "dims": [num_classes]} for each in outputs],
    }
    return known | model, known | configuration


def schemas(size: tuple[int, int]) -> dict[str, Any]:
    """The models above by name, for images of that size, as OpenAPI has them."""
    request = InferenceRequest.model_json_schema(ref_template=REFERENCE)
    found: dict[str, Any] = request.pop("$defs") | {"InferenceRequest": request}
    number = {"type": "integer", "minimum": 1, "maximum": MOST_IMAGES}
    shape = {"prefixItems": [number, *({"const": side} for side in (*size, 3))]}
    found["Input"]["properties"]["shape"].update(shape)
    return found


def require_few(text: bytes, most: dict[bytes, int], remedy: str) -> None:
    """Raise HTTPException where JSON holds more than `most` of what takes time to parse."""
    for sign, number in most.items():
        if text.count(sign) > number:
            raise HTTPException(400, f"The JSON has over {number:,} of {sign.decode()}; {remedy}")


def read_request(
    body: bytes, json_length: str | None, *, size: tuple[int, int]
) -> tuple[InferenceRequest, Pixels]:
    """What a body asks for, and its pixels (N, H, W, 3). json_length: the header
    Inference-Header-Content-Length. Raises HTTPException."""
    length, remedy = len(body), "send the pixels in binary"
    if json_length is not None:
        length = int(json_length) if json_length.isdecimal() and len(json_length) < 10 else 0
    if not 0 < length <= len(body):
        raise HTTPException(400, "Inference-Header-Content-Length is not within the body")
    if length > MOST_JSON_BYTES:
        raise HTTPException(400, f"The JSON has more than {MOST_JSON_BYTES:,} bytes; {remedy}")
    require_few(body[:length], MOST_OF, remedy)
    try:
        request = InferenceRequest.model_validate_json(body[:length])
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"][:4])
        raise HTTPException(400, f"{place or 'The body'}: {first['msg'][:200]}") from error
    return request, _pixels(request.inputs[0], body[length:], size=size)


def _pixels(tensor: Input, binary: bytes, *, size: tuple[int, int]) -> Pixels:
    if tensor.shape[1:] != [*size, 3] or tensor.shape[0] > MOST_IMAGES:
        wanted = f"[N, {size[0]}, {size[1]}, 3] with N from 1 to {MOST_IMAGES}"
        raise HTTPException(400, f"pixels has another shape than {wanted}")
    announced, expected = tensor.parameters.binary_data_size, math.prod(tensor.shape)
    if announced is not None:
        if announced != expected:
            raise HTTPException(400, f"binary_data_size should be {expected}, for that shape")
        if len(binary) != expected:
            raise HTTPException(400, f"{len(binary)} bytes follow where there should be {expected}")
        return np.frombuffer(binary, dtype=np.uint8).reshape(tensor.shape)
    if binary or tensor.data is None:
        raise HTTPException(400, "pixels has data, or a binary_data_size and bytes behind the JSON")
    try:
        return np.array(tensor.data, dtype=np.uint8).reshape(tensor.shape)
    except ValueError:
        wrong = f"data is nested unevenly or holds other than {expected} numbers"
        raise HTTPException(400, wrong) from None


def write_reply(
    name: str, request: InferenceRequest, tensors: dict[str, Floats]
) -> tuple[bytes, int | None]:
    """A body, and the length of its JSON part where binary tensors follow."""
    reply: dict[str, Any] = {"model_name": name, "model_version": "1", "outputs": []}
    if request.id is not None:
        reply["id"] = request.id
    binary = b""
    wanted: dict[str, bool | None] = dict.fromkeys(tensors)
    if request.outputs:
        wanted = {each.name: each.parameters.binary_data for each in request.outputs}
    for output, asked in wanted.items():
        values = np.ascontiguousarray(tensors[output], dtype=np.float32)
        entry: dict[str, Any] = {"name": output, "datatype": "FP32", "shape": values.shape}
        if request.parameters.binary_data_output if asked is None else asked:
            entry["parameters"] = {"binary_data_size": values.nbytes}
            binary += values.tobytes()
        else:
            entry["data"] = values.ravel().tolist()
        reply["outputs"].append(entry)
    head = json.dumps(reply).encode()
    return head + binary, len(head) if binary else None
