"""The service: one model, asked by programs and by people."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from tenfold import __version__
from tenfold.data.decoding import (
    BrokenPictureError,
    TooLargePictureError,
    count_scans,
)
from tenfold.data.encoding import png_data_uri
from tenfold.deployment import inference_protocol as protocol
from tenfold.deployment.aside import Aside
from tenfold.deployment.batching import Batcher, FullError, StoppedError
from tenfold.deployment.measuring import Measures
from tenfold.deployment.predictor import Predictor

PAGE = Path(__file__).with_name("page.html")
OUTPUTS = ("probabilities", "logits")
DECODING_THREADS = 2

MOST_SCANS = 100
"""Of a progressive JPEG; each takes a pass over all of its pixels, and cameras write ten or so."""

_BUSY = "Too many pictures wait; try again."
_GONE = "The model has stopped; the service is about to end."

T = TypeVar("T")


class Service:
    """A predictor behind a batcher, and whether it still answers."""

    def __init__(
        self, predictor: Predictor, *, max_pixels: int, on_death: Callable[[], None]
    ) -> None:
        self.predictor = predictor
        self.measures = Measures()
        self.batcher = Batcher(predictor.logits, on_death=on_death, seen=self.measures.computed)
        self._max_pixels = max_pixels
        self._aside = Aside(DECODING_THREADS)

    async def decode(self, content: bytes) -> NDArray[np.uint8]:
        """A picture's pixels at the model's size. Raises BrokenPictureError."""
        return await self.aside(lambda: self._decode(content))

    def _decode(self, content: bytes) -> NDArray[np.uint8]:
        if count_scans(content, most=MOST_SCANS) > MOST_SCANS:
            raise TooLargePictureError(f"has more than {MOST_SCANS} scans")
        return self.predictor.pixels(content, max_pixels=self._max_pixels)

    async def aside(self, work: Callable[[], T]) -> T:
        """What `work` returns, on a thread that holds up neither the others nor the end."""
        return await asyncio.wrap_future(self._aside.submit(work))

    async def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Of pixels (N, H, W, 3). Raises FullError and StoppedError."""
        return await self.batcher.answer(pixels)

    async def where(self, pixels: NDArray[np.uint8]) -> list[list[float]]:
        """Where the model looks in pixels (H, W, 3), from 0 to 1."""
        found = (await self.batcher.call(lambda: self.predictor.where(pixels[None])))[0]
        highest = float(found.max())
        scaled: list[list[float]] = (found / highest if highest > 0 else found).tolist()
        return scaled

    def stop(self, *, seconds: float) -> None:
        """Answer what waits, and end."""
        self.batcher.stop(seconds=seconds)


def create_application(service: Service, *, name: str) -> FastAPI:
    """The endpoints: a picture in and its class out, the open inference protocol, health, metrics
    and a page for people."""
    app = FastAPI(
        title=f"{name}, served by tenfold",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        description="Names the class of a picture.",
    )
    app.add_exception_handler(FullError, lambda request, error: _error(503, _BUSY, retry=True))
    app.add_exception_handler(StoppedError, lambda request, error: _error(503, _GONE, retry=True))
    app.add_exception_handler(BrokenPictureError, _refuse_picture)
    app.add_exception_handler(
        protocol.WrongRequestError, lambda request, error: _error(400, str(error))
    )
    app.add_exception_handler(HTTPException, _refuse_plainly)
    _add_people(app, service, name)
    _add_pictures(app, service)
    _add_health(app, service)
    _add_protocol(app, service, name)
    return app


def _refuse_picture(request: Request, error: Exception) -> JSONResponse:
    status = 413 if isinstance(error, TooLargePictureError) else 415
    return _error(status, f"The picture {error}.")


def _refuse_plainly(request: Request, error: Exception) -> JSONResponse:
    """Unknown paths and wrong methods, in the form of all other refusals."""
    assert isinstance(error, HTTPException)
    reply = _error(error.status_code, f"{error.detail}.")
    reply.headers.update(error.headers or {})
    return reply


def _add_people(app: FastAPI, service: Service, name: str) -> None:
    """The page, and what it needs to know."""
    predictor = service.predictor

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> str:
        return PAGE.read_text(encoding="utf-8")

    @app.get("/model", summary="What the model knows")
    async def facts() -> dict[str, Any]:
        known = predictor.facts
        return {
            "name": name,
            "class_names": predictor.class_names,
            "image_size": predictor.image_size,
            "threshold": predictor.threshold,
            "has_map": predictor.has_map,
            "accuracy": known["accuracy"],
            "data": known["data"],
            "samples": known.get("samples", []),
        }


def _add_pictures(app: FastAPI, service: Service) -> None:
    """A picture's bytes in, its class out."""
    predictor = service.predictor

    @app.post(
        "/predict",
        summary="The class of a picture, sent as it is",
        openapi_extra=_PICTURE_BODY,
        responses={status: {"description": text} for status, text in _REFUSALS.items()},
    )
    async def predict(request: Request) -> Any:
        content = await _body(request)
        if not content:
            return _error(400, "The body is empty; send a picture's bytes.")
        pixels = await service.decode(content)
        logits = await service.logits(pixels[None])
        prediction = predictor.prediction(predictor.softmax(logits)[0])
        reply: dict[str, Any] = {
            "label": prediction.label,
            "confidence": prediction.confidence,
            "unsure": prediction.is_unsure,
            "probabilities": prediction.probabilities,
        }
        if request.query_params.get("details", "").lower() in ("1", "true"):
            reply["seen"] = await service.aside(lambda: png_data_uri(pixels))
            if predictor.has_map:
                reply["where"] = await service.where(pixels)
        return JSONResponse(reply)


async def _body(request: Request) -> bytes:
    """What was sent, which `Guards` has made one message of; request.body() would copy it."""
    parts, is_more = [], True
    while is_more:
        message = await request.receive()
        parts.append(message.get("body", b""))
        is_more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _add_health(app: FastAPI, service: Service) -> None:
    """Whether it lives and answers, and figures of how."""

    @app.get("/v2/health/live", summary="Whether the server runs")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready", summary="Whether it answers")
    async def ready() -> JSONResponse:
        return _readiness(service)

    @app.get("/metrics", response_class=PlainTextResponse, summary="Figures for Prometheus")
    async def metrics() -> str:
        return service.measures.text(waiting=service.batcher.num_waiting)


def _readiness(service: Service) -> JSONResponse:
    is_ready = service.batcher.is_alive
    return JSONResponse({"ready": is_ready}, status_code=200 if is_ready else 503)


def _add_protocol(app: FastAPI, service: Service, name: str) -> None:
    """The open inference protocol."""
    predictor = service.predictor

    @app.get("/v2", summary="The server, in the open inference protocol")
    async def server() -> dict[str, Any]:
        return {"name": "tenfold", "version": __version__, "extensions": ["binary_tensor_data"]}

    async def ready() -> JSONResponse:
        return _readiness(service)

    async def model() -> dict[str, Any]:
        return protocol.metadata(
            name, size=predictor.image_size, num_classes=len(predictor.class_names)
        )

    async def infer(request: Request) -> Response:
        body = await _body(request)
        length = request.headers.get("inference-header-content-length")
        asked = await service.aside(
            lambda: protocol.read_request(
                body, json_length=length, size=predictor.image_size, outputs=OUTPUTS
            )
        )
        logits = await service.logits(asked.pixels)
        tensors = {"logits": logits, "probabilities": predictor.softmax(logits)}
        reply = await service.aside(lambda: protocol.write_reply(name, asked, tensors))
        if reply.json_length is None:
            return Response(reply.body, media_type="application/json")
        return Response(
            reply.body,
            media_type="application/octet-stream",
            headers={"Inference-Header-Content-Length": str(reply.json_length)},
        )

    for prefix in (f"/v2/models/{name}", f"/v2/models/{name}/versions/1"):
        app.get(f"{prefix}/ready", summary="Whether the model answers")(ready)
        app.get(prefix, summary="What the model takes and gives")(model)
        app.post(
            f"{prefix}/infer",
            summary="Pixels in, probabilities out",
            responses={400: {"description": "not in the protocol's form"}},
            openapi_extra=_INFER_BODY,
        )(infer)


_PICTURE_BODY = {
    "requestBody": {
        "required": True,
        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
    },
    "parameters": [
        {
            "name": "details",
            "in": "query",
            "schema": {"type": "boolean", "default": False},
            "description": "also what the model saw, and where it looked",
        }
    ],
}

_REFUSALS: dict[int | str, str] = {
    400: "no picture in the body",
    408: "the body did not come in time",
    413: "more bytes or pixels than are allowed",
    415: "nothing that can be read as a picture",
    503: "too many requests; try again",
}

_INFER_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {"inputs": {"type": "array", "minItems": 1, "maxItems": 1}},
                }
            }
        },
    }
}


def _error(status: int, reason: str, *, retry: bool = False) -> JSONResponse:
    headers = {"Retry-After": "1"} if retry else None
    return JSONResponse({"error": reason}, status_code=status, headers=headers)
