"""The Open Inference Protocol, version 2, over HTTP: what clients of Triton and KServe speak.

https://github.com/kserve/open-inference-protocol, with its extension for binary tensors.
"""

import json
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import TenfoldError

MOST_PICTURES = 256
"""In one request."""

DATATYPES = {"UINT8": np.uint8, "FP32": np.float32}


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
    try:
        length = int(json_length) if json_length is not None else len(body)
        if not 0 < length <= len(body):
            raise WrongRequestError("Inference-Header-Content-Length is not within the body.")
        request = json.loads(body[:length])
        inputs = request["inputs"]
        [tensor] = inputs
        if tensor["name"] != "pixels":
            raise WrongRequestError(f"There is no input {tensor['name']!r}; there is: pixels.")
        pixels = _tensor(tensor, body[length:])
        asked = request.get("outputs") or [{"name": output} for output in outputs]
        by_default = bool((request.get("parameters") or {}).get("binary_data_output", False))
        wanted = {}
        for output in asked:
            if output["name"] not in outputs:
                raise WrongRequestError(
                    f"There is no output {output['name']!r}; there are: {', '.join(outputs)}."
                )
            parameters = output.get("parameters") or {}
            wanted[output["name"]] = bool(parameters.get("binary_data", by_default))
        identifier = str(request.get("id", ""))
    except WrongRequestError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WrongRequestError(
            f"The request is not in the protocol's form ({type(error).__name__}); it needs "
            "one input `pixels` with datatype, shape and data."
        ) from error
    expected = (*size, 3)
    if pixels.ndim != 4 or pixels.shape[1:] != expected:
        raise WrongRequestError(
            f"pixels has the shape {list(pixels.shape)} where [N, {size[0]}, {size[1]}, 3] is "
            "expected."
        )
    if not 1 <= len(pixels) <= MOST_PICTURES:
        raise WrongRequestError(
            f"pixels holds {len(pixels)} pictures where 1 to {MOST_PICTURES} are allowed."
        )
    return Asked(identifier, pixels, wanted)


def _tensor(tensor: dict[str, Any], binary: bytes) -> NDArray[np.uint8]:
    if tensor["datatype"] != "UINT8":
        raise WrongRequestError(f"pixels is of {tensor['datatype']!r} where UINT8 is expected.")
    shape = [int(side) for side in tensor["shape"]]
    if any(side < 0 for side in shape):
        raise WrongRequestError("A side of a shape is negative.")
    number = 1
    for side in shape:
        number *= side
    size = (tensor.get("parameters") or {}).get("binary_data_size")
    if size is not None:
        if int(size) != number or len(binary) != number:
            raise WrongRequestError(
                f"{len(binary)} bytes follow where a tensor of {number} is announced."
            )
        return np.frombuffer(binary, dtype=np.uint8).reshape(shape)
    values = np.asarray(tensor["data"])
    if values.size != number:
        raise WrongRequestError(f"data holds {values.size} numbers where {number} are announced.")
    if values.dtype.kind not in "iu" or (number and not 0 <= values.min() <= values.max() <= 255):
        raise WrongRequestError("data holds something else than whole numbers from 0 to 255.")
    return values.astype(np.uint8).reshape(shape)


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
