"""The Open Inference Protocol, version 2, over HTTP: what clients of Triton and KServe speak.

https://github.com/kserve/open-inference-protocol, with its extension for binary tensors.
"""

import json
import math
import reprlib
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import TenfoldError

MOST_PICTURES = 256
"""In one request."""

MOST_JSON_BYTES = 4_000_000
"""Of the JSON part: a picture's number takes up to four letters and much of Python's time."""


MOST_OF = {b"{": 1_000, b'"': 10_000, b"[": 65_536, b",": 1_000_000}
"""What the JSON part may hold of each, for no other thread of Python runs while it is parsed."""


class WrongRequestError(TenfoldError):
    """A request that isn't in the protocol's form, or about something else; says what is wrong."""


class Asked(NamedTuple):
    """A request: its id, pixels (N, H, W, 3) uint8, and for each output whether it is wanted in
    binary."""

    id: str
    pixels: NDArray[np.uint8]
    outputs: dict[str, bool]


class Reply(NamedTuple):
    """A body, and the length of its JSON part where binary tensors follow."""

    body: bytes
    json_length: int | None


def metadata(name: str, *, size: tuple[int, int], num_classes: int) -> dict[str, Any]:
    """What the model takes and gives."""
    outputs = [
        {"name": output, "datatype": "FP32", "shape": [-1, num_classes]}
        for output in ("probabilities", "logits")
    ]
    return {
        "name": name,
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [-1, *size, 3]}],
        "outputs": outputs,
    }


def read_request(
    body: bytes, *, json_length: str | None, size: tuple[int, int], outputs: tuple[str, ...]
) -> Asked:
    """What a body asks for. json_length: the header Inference-Header-Content-Length.

    Raises WrongRequestError.
    """
    length = _length_of_json(body, json_length)
    try:
        request = _object(json.loads(body[:length]), "the request")
    except (ValueError, RecursionError) as error:
        raise WrongRequestError("The body does not begin with JSON.") from error
    inputs = _list(request.get("inputs"), "inputs")
    if len(inputs) != 1:
        raise WrongRequestError(f"There are {len(inputs)} inputs where one, pixels, is expected.")
    pixels = _tensor(_object(inputs[0], "an input"), body[length:], size=size)
    identifier = request.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise WrongRequestError("id is no text.")
    return Asked(identifier or "", pixels, _wanted(request, outputs))


def _length_of_json(body: bytes, stated: str | None) -> int:
    length = len(body)
    if stated is not None:
        if not (stated.isascii() and stated.isdigit() and len(stated) < 10):
            raise WrongRequestError("Inference-Header-Content-Length is not a number.")
        length = int(stated)
    if not 0 < length <= len(body):
        raise WrongRequestError("Inference-Header-Content-Length is not within the body.")
    if length > MOST_JSON_BYTES:
        raise WrongRequestError(
            f"The JSON part has {length:,} bytes where {MOST_JSON_BYTES:,} are allowed; send the "
            "pixels in binary."
        )
    for sign, most in MOST_OF.items():
        if body.count(sign, 0, length) > most:
            raise WrongRequestError(
                f"The JSON part has more than {most:,} of {sign.decode()}; send the pixels in "
                "binary."
            )
    return length


def _wanted(request: dict[str, Any], outputs: tuple[str, ...]) -> dict[str, bool]:
    """The outputs that are asked for, and whether each is wanted in binary."""
    asked = _list(request.get("outputs") or [{"name": each} for each in outputs], "outputs")
    by_default = _parameters(request).get("binary_data_output", False) is True
    wanted = {}
    for output in (_object(each, "an output") for each in asked):
        name = output.get("name")
        if name not in outputs:
            raise WrongRequestError(
                f"There is no output {_shown(name)}; there are: {', '.join(outputs)}."
            )
        wanted[name] = _parameters(output).get("binary_data", by_default) is True
    return wanted


def _tensor(tensor: dict[str, Any], binary: bytes, *, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The pixels, whose number is known to be small before any is looked at."""
    if tensor.get("name") != "pixels":
        raise WrongRequestError(
            f"There is no input {_shown(tensor.get('name'))}; there is: pixels."
        )
    if tensor.get("datatype") != "UINT8":
        raise WrongRequestError(
            f"pixels is of {_shown(tensor.get('datatype'))} where UINT8 is expected."
        )
    shape, expected = _list(tensor.get("shape"), "shape"), [*size, 3]
    if any(type(side) is not int for side in shape) or shape[1:] != expected or len(shape) != 4:
        raise WrongRequestError(
            f"pixels has the shape {_shown(shape)} where [N, {size[0]}, {size[1]}, 3] is expected."
        )
    if not 1 <= shape[0] <= MOST_PICTURES:
        raise WrongRequestError(
            f"pixels holds {_shown(shape[0])} pictures where 1 to {MOST_PICTURES} are allowed."
        )
    number = math.prod(shape)
    announced = _parameters(tensor).get("binary_data_size")
    if announced is not None:
        if announced != number or len(binary) != number:
            raise WrongRequestError(f"{len(binary)} bytes follow where there should be {number}.")
        return np.frombuffer(binary, dtype=np.uint8).reshape(shape)
    if binary:
        raise WrongRequestError("Bytes follow the JSON that no input announces.")
    values = _flat(_list(tensor.get("data"), "data"), number)
    if len(values) != number:
        raise WrongRequestError(f"data holds {len(values)} numbers where there should be {number}.")
    if not all(type(value) is int and 0 <= value <= 255 for value in values):
        raise WrongRequestError("data holds something else than whole numbers from 0 to 255.")
    return np.array(values, dtype=np.uint8).reshape(shape)


def _flat(values: list[Any], number: int) -> list[Any]:
    """Nested lists as one, as deep as pixels are and no longer than is of use."""
    for _ in range(3):
        if not any(isinstance(value, list) for value in values):
            break
        if not all(isinstance(value, list) for value in values):
            raise WrongRequestError("data is nested unevenly.")
        values = list(islice(chain.from_iterable(values), number + 1))
    return values


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WrongRequestError(f"{what[0].upper()}{what[1:]} is no JSON object.")
    return value


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise WrongRequestError(f"{what} is missing or no JSON list.")
    return value


def _parameters(of: dict[str, Any]) -> dict[str, Any]:
    return _object(of.get("parameters") or {}, "parameters")


def _shown(value: object) -> str:
    """`value` in a message, of which no more than is of use."""
    return reprlib.repr(value)


def write_reply(name: str, asked: Asked, tensors: dict[str, NDArray[np.float32]]) -> Reply:
    """The answer to `asked`."""
    entries, blobs = [], []
    for output, is_binary in asked.outputs.items():
        values = np.ascontiguousarray(tensors[output], dtype=np.float32)
        entry: dict[str, Any] = {
            "name": output,
            "datatype": "FP32",
            "shape": list(values.shape),
        }
        if is_binary:
            blobs.append(values.tobytes())
            entry["parameters"] = {"binary_data_size": values.nbytes}
        else:
            entry["data"] = values.ravel().tolist()
        entries.append(entry)
    reply: dict[str, Any] = {"model_name": name, "model_version": "1", "outputs": entries}
    if asked.id:
        reply["id"] = asked.id
    head = json.dumps(reply).encode()
    return Reply(b"".join([head, *blobs]), len(head) if blobs else None)
