"""The Open Inference Protocol, version 2, over HTTP: what clients of Triton and KServe speak.

https://github.com/kserve/open-inference-protocol, with its extension for binary tensors, and
what Triton's own tools ask for before they measure: configuration, statistics, the list of models.
"""

import json
import math
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

MOST_IMAGES = 256
"""In one request."""

MOST_JSON_BYTES = 4_000_000
"""Of the JSON part, for no other thread of Python runs while it is parsed."""

MOST_OF = {b"{": 1_000, b'"': 10_000, b"[": 65_536, b",": 1_000_000}
"""What it may hold of each, for what each takes."""

OUTPUTS = ("probabilities", "logits")

T = TypeVar("T")
Several = Annotated[list[T], Field(fail_fast=True)]
Side = Annotated[int, Field(ge=1, strict=True)]
Byte = Annotated[int, Field(ge=0, le=255, strict=True)]


class Parameters(BaseModel):
    """Of a request, an input or an output; others are ignored."""

    binary_data_size: Annotated[int, Field(strict=True)] | None = None
    binary_data: bool | None = None
    binary_data_output: bool = False


class Input(BaseModel):
    """The pixels, flat or nested as their shape, or in binary behind the JSON."""

    name: Literal["pixels"]
    datatype: Literal["UINT8"]
    shape: Annotated[Several[Side], Field(min_length=4, max_length=4)]
    data: Several[Byte] | Several[Several[Several[Several[Byte]]]] | None = None
    parameters: Parameters | None = None


class Output(BaseModel):
    """An output that is asked for."""

    name: Literal["probabilities", "logits"]
    parameters: Parameters | None = None


class InferenceRequest(BaseModel):
    """What is asked for."""

    id: Annotated[str, Field(strict=True)] | None = None
    inputs: Annotated[Several[Input], Field(min_length=1, max_length=1)]
    outputs: Annotated[Several[Output], Field(max_length=8)] | None = None
    parameters: Parameters | None = None


class Asked(NamedTuple):
    """A request: its id, pixels (N, H, W, 3) uint8, and for each output whether it is wanted in
    binary."""

    id: str | None
    pixels: NDArray[np.uint8]
    outputs: dict[str, bool]


def metadata(name: str, *, size: tuple[int, int], num_classes: int) -> dict[str, Any]:
    """What the model takes and gives."""
    return {
        "name": name,
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [-1, *size, 3]}],
        "outputs": [
            {"name": output, "datatype": "FP32", "shape": [-1, num_classes]} for output in OUTPUTS
        ],
    }


def configuration(name: str, *, size: tuple[int, int], num_classes: int) -> dict[str, Any]:
    """The same in the form of Triton's model configuration."""
    return {
        "name": name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": MOST_IMAGES,
        "input": [{"name": "pixels", "data_type": "TYPE_UINT8", "dims": [*size, 3]}],
        "output": [
            {"name": output, "data_type": "TYPE_FP32", "dims": [num_classes]} for output in OUTPUTS
        ],
    }


def statistics(name: str, num_images: int, num_batches: int, *, seconds: float) -> dict[str, Any]:
    """What was computed, in the form of Triton's statistics; seconds: that it took."""
    success = {"count": num_images, "ns": round(1e9 * seconds)}
    figures = {
        "name": name,
        "version": "1",
        "inference_count": num_images,
        "execution_count": num_batches,
        "inference_stats": {"success": success, "compute_infer": success},
    }
    return {"model_stats": [figures]}


def read_request(body: bytes, *, json_length: str | None, size: tuple[int, int]) -> Asked:
    """What a body asks for. json_length: the header Inference-Header-Content-Length.

    Raises HTTPException.
    """
    length = _length_of_json(body, json_length)
    try:
        request = InferenceRequest.model_validate_json(body[:length])
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"][:4])
        raise HTTPException(400, f"{place or 'The body'}: {first['msg'][:200]}") from error
    by_default = bool(request.parameters and request.parameters.binary_data_output)
    outputs = dict.fromkeys(OUTPUTS, by_default) if not request.outputs else {}
    for each in request.outputs or ():
        is_binary = each.parameters.binary_data if each.parameters else None
        outputs[each.name] = by_default if is_binary is None else is_binary
    return Asked(request.id, _pixels(request.inputs[0], body[length:], size=size), outputs)


def _length_of_json(body: bytes, stated: str | None) -> int:
    length = len(body)
    if stated is not None:
        length = int(stated) if stated.isascii() and stated.isdigit() and len(stated) < 10 else 0
    if not 0 < length <= len(body):
        raise HTTPException(400, "Inference-Header-Content-Length is not within the body")
    if length > MOST_JSON_BYTES:
        raise HTTPException(
            400,
            f"The JSON part has {length:,} bytes where {MOST_JSON_BYTES:,} are allowed; send the "
            "pixels in binary",
        )
    for sign, most in MOST_OF.items():
        if body.count(sign, 0, length) > most:
            raise HTTPException(
                400,
                f"The JSON part has more than {most:,} of {sign.decode()}; send the pixels in "
                "binary",
            )
    return length


def _pixels(tensor: Input, binary: bytes, *, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Whose number is known to be small before any is looked at."""
    if tensor.shape[1:] != [*size, 3] or tensor.shape[0] > MOST_IMAGES:
        raise HTTPException(
            400,
            f"pixels has another shape than [N, {size[0]}, {size[1]}, 3] with N from 1 to "
            f"{MOST_IMAGES}",
        )
    announced = tensor.parameters.binary_data_size if tensor.parameters else None
    expected = math.prod(tensor.shape)
    if announced is not None:
        if announced != expected or len(binary) != expected:
            raise HTTPException(400, f"{len(binary)} bytes follow where there should be {expected}")
        return np.frombuffer(binary, dtype=np.uint8).reshape(tensor.shape)
    if binary or tensor.data is None:
        raise HTTPException(400, "pixels has data, or a binary_data_size and bytes behind the JSON")
    try:
        return np.array(tensor.data, dtype=np.uint8).reshape(tensor.shape)
    except ValueError as error:
        raise HTTPException(
            400, f"data is nested unevenly or holds other than {expected} numbers"
        ) from error


def write_reply(
    name: str, asked: Asked, tensors: dict[str, NDArray[np.float32]]
) -> tuple[bytes, int | None]:
    """A body, and the length of its JSON part where binary tensors follow."""
    entries, blobs = [], []
    for output, is_binary in asked.outputs.items():
        values = np.ascontiguousarray(tensors[output], dtype=np.float32)
        entry: dict[str, Any] = {"name": output, "datatype": "FP32", "shape": list(values.shape)}
        if is_binary:
            blobs.append(values.tobytes())
            entry["parameters"] = {"binary_data_size": values.nbytes}
        else:
            entry["data"] = values.ravel().tolist()
        entries.append(entry)
    reply: dict[str, Any] = {"model_name": name, "model_version": "1", "outputs": entries}
    if asked.id is not None:
        reply["id"] = asked.id
    head = json.dumps(reply).encode()
    return b"".join([head, *blobs]), len(head) if blobs else None
