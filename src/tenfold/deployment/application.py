"""The service: one model, asked by programs and by people."""

import asyncio
import html
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tenfold import __version__
from tenfold.data.decoding import BrokenPictureError, TooLargePictureError, count_scans
from tenfold.data.encoding import png_data_uri
from tenfold.deployment import inference_protocol as protocol
from tenfold.deployment.batching import Batcher
from tenfold.deployment.guards import refusal
from tenfold.deployment.options import Limits
from tenfold.deployment.predictor import Predictor
from tenfold.deployment.request_bodies import ImageRequest, image_in, uncompressed
from tenfold.deployment.web import known_to_page

PAGE = Path(__file__).with_name("page.html")
DECODING_THREADS = 2

MOST_SCANS = 100
"""Of a progressive JPEG; each takes a pass over all of its pixels, and cameras write ten or so."""

T = TypeVar("T")


class Service:
    """A predictor behind a batcher, its figures, and what each request needs of them."""

    def __init__(self, predictor: Predictor, *, limits: Limits) -> None:
        self.predictor, self._limits = predictor, limits
        self.batcher = Batcher(predictor.logits, seen=self._computed)
        self._threads = ThreadPoolExecutor(DECODING_THREADS, "decoding")
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own: dict[str, Any] = {"namespace": "tenfold", "registry": self.registry}
        self._requests = Counter("requests", "By path and status.", ("path", "status"), **own)
        self._seconds = Histogram("request_seconds", "Until a request was answered.", **own)
        self._images = Counter("pictures", "That the model saw.", **own)
        self._batches = Counter("batches", "That it computed.", **own)
        self._computing = Counter("computing_seconds", "That it took.", **own)
        waiting = Gauge("waiting", "Images that wait for the model.", **own)
        waiting.set_function(lambda: self.batcher.num_waiting)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request to `path` was answered."""
        self._requests.labels(path, status).inc()
        self._seconds.observe(seconds)

    def _computed(self, number: int, seconds: float) -> None:
        self._images.inc(number)
        self._batches.inc()
        self._computing.inc(seconds)

    def total(self, name: str) -> float:
        """One of the counters that /metrics shows."""
        return self.registry.get_sample_value(f"tenfold_{name}_total") or 0.0

    async def aside(self, work: Callable[[], T]) -> T:
        """What `work` returns, on a thread that holds up nobody: all that depends on bytes."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def body(self, request: Request, read: Callable[[bytes], T]) -> T:
        """What `read` makes of a request's body, uncompressed. Raises HTTPException."""
        body = await request.body()
        encoding = request.headers.get("content-encoding", "")
        limit = self._limits.max_bytes
        try:
            return await self.aside(lambda: read(uncompressed(body, encoding, max_bytes=limit)))
        except TooLargePictureError as error:
            raise HTTPException(413, f"The image {error}") from error
        except BrokenPictureError as error:
            raise HTTPException(415, f"The image {error}") from error

    def pixels(self, content: bytes) -> NDArray[np.uint8]:
        """A file's pixels at the model's size. Raises BrokenPictureError."""
        if count_scans(content, most=MOST_SCANS) > MOST_SCANS:
            raise TooLargePictureError(f"has more than {MOST_SCANS} scans")
        return self.predictor.pixels(content, max_pixels=self._limits.max_pixels)

    async def where(self, pixels: NDArray[np.uint8]) -> list[list[float]]:
        """Where the model looks in pixels (H, W, 3), from 0 to 1."""
        found = (await self.batcher.call(lambda: self.predictor.where(pixels[None])))[0]
        highest = float(found.max())
        scaled: list[list[float]] = (found / highest if highest > 0 else found).tolist()
        return scaled

    def stop(self) -> None:
        """Begin nothing more."""
        self.batcher.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)


def create_application(service: Service, *, name: str, max_bytes: int) -> FastAPI:
    """The endpoints: an image in and its class out, the Open Inference Protocol, health, metrics
    and a page for people."""
    app = FastAPI(
        title=f"{name}, served by tenfold",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        description="Names the class of an image.",
        max_body_size=max_bytes,
    )

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        return refusal(error)

    @app.exception_handler(RequestValidationError)
    async def refuse_query(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return refusal(HTTPException(400, f"{first['loc'][-1]}: {first['msg']}"))

    @app.exception_handler(ClientDisconnect)
    async def nobody(request: Request, error: ClientDisconnect) -> Response:
        return refusal(HTTPException(499, "The client has gone"))

    @app.exception_handler(Exception)  # Which `Guards` writes into the log.
    async def fail(request: Request, error: Exception) -> Response:
        return refusal(HTTPException(500, "Something went wrong here; it is in the service's log"))

    _add_people(app, service, name)
    _add_images(app, service)
    _add_health(app, service, name)
    _add_protocol(app, service, name)
    schema = app.openapi()  # Made once, and kept.
    request = protocol.InferenceRequest.model_json_schema(ref_template=_REFERENCE)
    schema["components"]["schemas"] |= request.pop("$defs") | {"InferenceRequest": request}
    return app


def _add_people(app: FastAPI, service: Service, name: str) -> None:
    """The page, what it needs to know, and what programs can ask."""
    predictor = service.predictor

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> str:
        return PAGE.read_text(encoding="utf-8")

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> str:
        rows = [
            f"<dt><code>{method.upper()} {html.escape(path)}</code></dt>"
            f"<dd>{html.escape(operation['summary'])}</dd>"
            for path, operations in app.openapi()["paths"].items()
            for method, operation in operations.items()
        ]
        title = html.escape(app.title)
        return (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
            f"<h1>{title}</h1><dl>{''.join(rows)}</dl>"
            "<p>In full: <a href=openapi.json>openapi.json</a></p></html>"
        )

    @app.get("/model", summary="What the model knows")
    async def facts() -> dict[str, Any]:
        return known_to_page(predictor, name)


def _add_images(app: FastAPI, service: Service) -> None:
    """A file's bytes in, its class out."""
    predictor = service.predictor

    @app.post(
        "/predict",
        summary="The class of an image: a file's bytes, a form or JSON",
        openapi_extra=_IMAGE_BODY,
        responses=_REFUSALS,
    )
    async def predict(request: Request, details: bool = False) -> Response:
        """details: also what the model saw, and where it looked."""
        kind = request.headers.get("content-type", "")
        pixels = await service.body(request, lambda body: service.pixels(image_in(body, kind)))
        logits = await service.batcher.logits(pixels[None])
        prediction = predictor.prediction(predictor.softmax(logits)[0])
        reply: dict[str, Any] = {
            "label": prediction.label,
            "confidence": prediction.confidence,
            "unsure": prediction.is_unsure,
            "probabilities": prediction.probabilities,
        }
        if prediction.positive:
            reply["positive"] = prediction.positive
        if predictor.sets is not None:
            reply["set"] = prediction.conformal_set
        if details:
            reply["seen"] = await service.aside(lambda: png_data_uri(pixels))
            if predictor.has_map:
                reply["where"] = await service.where(pixels)
        return JSONResponse(reply)


def _add_health(app: FastAPI, service: Service, name: str) -> None:
    """Whether it lives and answers, and figures of how."""

    @app.get("/v2/health/live", summary="Whether the server runs")
    async def live() -> dict[str, bool]:
        return {"live": True}

    async def ready() -> JSONResponse:
        is_ready = service.batcher.is_alive
        return JSONResponse({"ready": is_ready}, status_code=200 if is_ready else 503)

    for path in ("/v2/health", *_prefixes(name)):
        app.get(f"{path}/ready", summary="Whether it answers")(ready)

    @app.get("/metrics", response_class=PlainTextResponse, summary="Figures for Prometheus")
    async def metrics() -> bytes:
        return generate_latest(service.registry)


def _add_protocol(app: FastAPI, service: Service, name: str) -> None:
    """The Open Inference Protocol."""
    predictor = service.predictor
    size, num_classes = predictor.image_size, len(predictor.class_names)

    @app.get("/v2", summary="The server, in the Open Inference Protocol")
    async def server() -> dict[str, Any]:
        extensions = ["binary_tensor_data", "model_configuration", "statistics", "model_repository"]
        return {"name": "tenfold", "version": __version__, "extensions": extensions}

    @app.post("/v2/repository/index", summary="The models there are")
    async def index() -> list[dict[str, str]]:
        return [{"name": name, "version": "1", "state": "READY", "reason": ""}]

    async def model() -> dict[str, Any]:
        return protocol.metadata(name, size=size, num_classes=num_classes)

    async def configuration() -> dict[str, Any]:
        return protocol.configuration(name, size=size, num_classes=num_classes)

    async def statistics() -> dict[str, Any]:
        total = service.total
        num_images, num_batches = int(total("pictures")), int(total("batches"))
        return protocol.statistics(
            name, num_images, num_batches, seconds=total("computing_seconds")
        )

    async def infer(request: Request) -> Response:
        length = request.headers.get("inference-header-content-length")
        asked = await service.body(
            request, lambda body: protocol.read_request(body, json_length=length, size=size)
        )
        logits = await service.batcher.logits(asked.pixels)
        tensors = {"logits": logits, "probabilities": predictor.softmax(logits)}
        body, json_length = await service.aside(lambda: protocol.write_reply(name, asked, tensors))
        if json_length is None:
            return Response(body, media_type="application/json")
        header = {"Inference-Header-Content-Length": str(json_length)}
        return Response(body, headers=header, media_type="application/octet-stream")

    app.get("/v2/models/stats", summary="How much was computed")(statistics)
    for prefix in _prefixes(name):
        app.get(prefix, summary="What the model takes and gives")(model)
        app.get(f"{prefix}/config", summary="The same, as Triton has it")(configuration)
        app.get(f"{prefix}/stats", summary="How much was computed")(statistics)
        app.post(
            f"{prefix}/infer",
            summary="Pixels in, probabilities out",
            responses={400: {"description": "not in the protocol's form"}},
            openapi_extra=_INFER_BODY,
        )(infer)


def _prefixes(name: str) -> tuple[str, str]:
    return f"/v2/models/{name}", f"/v2/models/{name}/versions/1"


def _body(content: dict[str, Any]) -> dict[str, Any]:
    schemas = {kind: {"schema": schema} for kind, schema in content.items()}
    return {"requestBody": {"required": True, "content": schemas}}


_REFERENCE = "#/components/schemas/{model}"
_FILE = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "required": ["image"], "properties": {"image": _FILE}}
_JSON = ImageRequest.model_json_schema(by_alias=False)
_IMAGE_BODY = _body({"image/*": _FILE, "multipart/form-data": _FORM, "application/json": _JSON})
_INFER_BODY = _body({"application/json": {"$ref": _REFERENCE.format(model="InferenceRequest")}})

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "no image in the body"},
    408: {"description": "the body did not come in time"},
    413: {"description": "more bytes or pixels than are allowed"},
    415: {"description": "nothing that can be read as an image"},
    503: {"description": "too many requests; try again"},
}
