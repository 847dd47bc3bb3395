"""The service's endpoints: one model, asked by programs and by people."""

import asyncio
import base64
import html
import re
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, TypeVar

import prometheus_client as prometheus
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import AliasChoices, BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tenfold import __version__
from tenfold.data.decoding import BrokenImageError, TooLargeImageError, count_scans
from tenfold.data.encoding import png_data_uri
from tenfold.deployment import inference_protocol as protocol
from tenfold.deployment.batching import Batcher
from tenfold.deployment.options import Limits
from tenfold.deployment.predictor import Floats, Pixels, Predictor

PAGE = Path(__file__).with_name("page.html")

# Of a progressive JPEG; each takes a pass over all of its pixels, and cameras write ten or so.
MOST_SCANS = 100
MOST_MARKS = dict.fromkeys((b'"', b"[", b"{", b","), 50)  # In JSON around an image.
FIELDS = ("file", "image")  # What the part of a form, or of JSON, with the image may be called.

T = TypeVar("T")


class ImageRequest(BaseModel):
    """An image in JSON: a file's bytes in base64, or a data URI of them."""

    image: Annotated[str, Field(validation_alias=AliasChoices(*FIELDS), min_length=1)]


class Service:
    """A predictor behind a batcher, and figures of both for Prometheus."""

    def __init__(self, predictor: Predictor, *, limits: Limits) -> None:
        self.predictor, self._limits = predictor, limits
        self.batcher = Batcher(self._logits)
        self._threads = ThreadPoolExecutor(2, "decoding")
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        own: dict[str, Any] = {"namespace": "tenfold", "registry": self.registry}
        counter, labels = prometheus.Counter, ("path", "status")
        self._requests = counter("requests", "By path and status.", labels, **own)
        self._seconds = prometheus.Histogram("request_seconds", "Until an answer.", **own)
        self._images = counter("images", "Images that the model saw.", **own)
        self._batches = counter("batches", "That it computed.", **own)
        self._computing = counter("computing_seconds", "That it took.", **own)
        waiting = prometheus.Gauge("waiting", "Images that wait for the model.", **own)
        waiting.set_function(lambda: len(self.batcher.waiting))

    def _logits(self, pixels: Pixels) -> Floats:
        started = time.perf_counter()
        logits = self.predictor.logits(pixels)
        self._computing.inc(time.perf_counter() - started)
        self._images.inc(len(pixels))
        self._batches.inc()
        return logits

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request to `path` was answered."""
        self._requests.labels(path, status).inc()
        self._seconds.observe(seconds)

    def total(self, name: str) -> float:
        """What one of the counters has come to."""
        return self.registry.get_sample_value(f"tenfold_{name}_total") or 0.0

    async def aside(self, work: Callable[[], T]) -> T:
        """What `work` returns, on a thread that holds up nobody: all that depends on bytes."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def body(self, request: Request, read: Callable[[bytes], T]) -> T:
        """What `read` makes of a request's body, uncompressed."""
        body, most = await request.body(), self._limits.max_bytes
        encoding = request.headers.get("content-encoding", "").strip().lower()
        return await self.aside(lambda: read(uncompressed(body, encoding, most)))

    def pixels(self, content: bytes) -> Pixels:
        """A file's pixels at the model's size. Raises BrokenImageError."""
        if count_scans(content, most=MOST_SCANS) > MOST_SCANS:
            raise TooLargeImageError(f"has more than {MOST_SCANS} scans")
        return self.predictor.pixels(content, max_pixels=self._limits.max_pixels)

    async def reply(self, pixels: Pixels, *, details: bool) -> dict[str, Any]:
        """What is said of an image (H, W, 3); details: also what was seen of it, and where."""
        model, logits = self.predictor, await self.batcher.logits(pixels[None])
        found = model.prediction(model.softmax(logits)[0])
        reply = {"label": found.label, "confidence": found.confidence, "unsure": found.is_unsure}
        reply["probabilities"] = found.probabilities
        if found.positive:
            reply["positive"] = found.positive
        if model.sets is not None:
            reply["set"] = found.conformal_set
        if details:
            reply["seen"] = await self.aside(lambda: png_data_uri(pixels))
        if details and model.has_map:
            [where] = await self.aside(lambda: model.where(pixels[None]))
            reply["where"] = (where / (where.max() or 1)).tolist()
        return reply


def uncompressed(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """What gzip or deflate made `body` of. Raises HTTPException, and for more than `max_bytes`."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise HTTPException(415, "Bodies may be compressed by gzip or deflate")
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)  # Either of them, by its header.
    try:
        found = decompressor.decompress(body, max_bytes + 1)
    except zlib.error:
        found = b""
    if len(found) > max_bytes:
        raise HTTPException(413, f"A body may have {max_bytes:,} bytes, uncompressed too")
    if not decompressor.eof:
        raise HTTPException(400, f"The body is not in {encoding}, as its header says")
    return found


def image_in(body: bytes, content_type: str) -> bytes:
    """A file's bytes in a body: as it is, in a form, or in JSON. Raises HTTPException where there
    are none."""
    kind = content_type.split(";", 1)[0].strip().lower()
    if kind == "multipart/form-data":
        body = _in_form(body, content_type)
    elif kind == "application/json":
        protocol.require_few(body, MOST_MARKS, "send a file's bytes as they are")
        try:
            text = ImageRequest.model_validate_json(body).image
            body = base64.b64decode(text.rpartition(",")[2], validate=True)
        except ValueError:  # Of which pydantic's are a kind.
            wrong = 'JSON should be {"image": a file\'s bytes in base64}'
            raise HTTPException(400, wrong) from None
    if not body:
        raise HTTPException(400, "There is no image in the body; send a file's bytes")
    return body


def _in_form(body: bytes, content_type: str) -> bytes:
    boundary = re.search(r'boundary="?([^";]{1,70})', content_type)
    if boundary is None:
        raise HTTPException(400, "The form's type names no boundary")
    # No more parts are split off than anybody sends.
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary[1].strip().encode(), 20)[1:]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'\bname="?([^";\r\n]*)', head[:1000], re.IGNORECASE)
        if name and name[1].decode("latin-1") in FIELDS:
            return content
    raise HTTPException(400, f"The form has no part of the name {' or '.join(FIELDS)}")


def refusal(error: Exception) -> JSONResponse:
    """What a request is answered that `error` ends; the form of all of them."""
    status, detail, headers = 500, "Something went wrong here; it is in the service's log", None
    if isinstance(error, HTTPException):
        status, detail, headers = error.status_code, error.detail, error.headers
    elif isinstance(error, RequestValidationError):
        first = error.errors()[0]
        status, detail = 400, f"{first['loc'][-1]}: {first['msg']}"
    elif isinstance(error, BrokenImageError):
        status = 413 if isinstance(error, TooLargeImageError) else 415
        detail = f"The image {error}"
    elif isinstance(error, ClientDisconnect):
        status, detail = 499, "The client has gone"
    return JSONResponse({"error": f"{detail}."}, status, headers)


async def _refuse(request: Request, error: Exception) -> Response:
    return refusal(error)


def create_application(service: Service, *, name: str, max_bytes: int) -> FastAPI:
    """The endpoints: an image in and its class out, the Open Inference Protocol, health, metrics
    and a page for people. name: the model's, which is part of addresses."""
    kinds = (HTTPException, RequestValidationError, BrokenImageError, ClientDisconnect, Exception)
    app = FastAPI(
        title=f"{name}, served by tenfold",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        exception_handlers=dict.fromkeys(kinds, _refuse),
        max_body_size=max_bytes,
    )
    _add_endpoints(app, service, name)
    _add_protocol(app, service, name)
    # Made once, and kept.
    app.openapi()["components"] = {"schemas": protocol.schemas(service.predictor.image_size)}
    return app


def _add_endpoints(app: FastAPI, service: Service, name: str) -> None:
    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> str:
        return PAGE.read_text(encoding="utf-8")

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> str:
        title = f"<title>{html.escape(app.title)}</title><h1>{html.escape(app.title)}</h1>"
        rows = "".join(
            f"<li><code>{method.upper()} {html.escape(path)}</code>: {operation['summary']}"
            for path, operations in app.openapi()["paths"].items()
            for method, operation in operations.items()
        )
        link = "<p>In full: <a href=openapi.json>openapi.json</a>"
        return f"<!doctype html><html lang=en><meta charset=utf-8>{title}<ul>{rows}</ul>{link}"

    @app.get("/model", summary="What the model knows")
    async def facts() -> dict[str, Any]:
        return service.predictor.known_to_page(name)

    @app.get("/metrics", response_class=PlainTextResponse, summary="Figures for Prometheus")
    async def metrics() -> bytes:
        return prometheus.generate_latest(service.registry)

    summary = "The class of an image: a file's bytes, a form or JSON"

    @app.post("/predict", summary=summary, openapi_extra=_IMAGE_BODY, responses=_REFUSALS)
    async def predict(request: Request, details: bool = False) -> JSONResponse:
        kind = request.headers.get("content-type", "")
        pixels = await service.body(request, lambda body: service.pixels(image_in(body, kind)))
        return JSONResponse(await service.reply(pixels, details=details))


def _add_protocol(app: FastAPI, service: Service, name: str) -> None:
    """The Open Inference Protocol, and what Triton's tools ask for before they measure."""
    predictor = service.predictor
    size, num_classes = predictor.image_size, len(predictor.class_names)

    def add(path: str, summary: str, value: Callable[[], Any], method: str = "GET") -> None:
        async def endpoint() -> Any:
            return value()

        app.add_api_route(path, endpoint, methods=[method], summary=summary, response_model=None)

    def ready() -> JSONResponse:
        is_ready = service.batcher.is_alive
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    def statistics() -> dict[str, Any]:
        images, batches = int(service.total("images")), int(service.total("batches"))
        success = {"count": images, "ns": round(1e9 * service.total("computing_seconds"))}
        done: dict[str, Any] = {"inference_count": images, "execution_count": batches}
        done["inference_stats"] = {"success": success, "compute_infer": success}
        return {"model_stats": [{"name": name, "version": "1", **done}]}

    async def infer(request: Request) -> Response:
        length = request.headers.get("inference-header-content-length")
        asked, pixels = await service.body(
            request, lambda body: protocol.read_request(body, length, size=size)
        )
        logits = await service.batcher.logits(pixels)
        tensors = {"probabilities": predictor.softmax(logits), "logits": logits}
        body, json_length = await service.aside(lambda: protocol.write_reply(name, asked, tensors))
        if json_length is None:
            return Response(body, media_type="application/json")
        header = {"Inference-Header-Content-Length": str(json_length)}
        return Response(body, headers=header, media_type="application/octet-stream")

    server = {"name": "tenfold", "version": __version__, "extensions": protocol.EXTENSIONS}
    index = [{"name": name, "version": "1", "state": "READY", "reason": ""}]
    add("/v2", "The server, in the Open Inference Protocol", lambda: server)
    add("/v2/health/live", "Whether the server runs", lambda: {"live": True})
    add("/v2/health/ready", "Whether it answers", ready)
    add("/v2/models/stats", "How much was computed", statistics)
    add("/v2/repository/index", "The models there are", lambda: index, "POST")
    known, config = protocol.describe(name, size=size, num_classes=num_classes)
    for at in (f"/v2/models/{name}", f"/v2/models/{name}/versions/1"):
        add(at, "What the model takes and gives", lambda: known)
        add(f"{at}/config", "The same, as Triton has it", lambda: config)
        add(f"{at}/ready", "Whether it answers", ready)
        add(f"{at}/stats", "How much was computed", statistics)
        summary, path = "Pixels in, probabilities out", f"{at}/infer"
        app.post(path, summary=summary, openapi_extra=_INFER_BODY, responses=_REFUSALS)(infer)


def _body(content: dict[str, Any]) -> dict[str, Any]:
    schemas = {kind: {"schema": schema} for kind, schema in content.items()}
    return {"requestBody": {"required": True, "content": schemas}}


_FILE = {"type": "string", "format": "binary", "minLength": 1}
_FORM = {"type": "object", "required": ["image"], "properties": {"image": _FILE}}
_JSON = ImageRequest.model_json_schema(by_alias=False)
_IMAGE_BODY = _body({"image/*": _FILE, "multipart/form-data": _FORM, "application/json": _JSON})
_REQUEST = {"$ref": protocol.REFERENCE.format(model="InferenceRequest")}
_INFER_BODY = _body({"application/json": _REQUEST})
_REFUSALS: Any = {"default": {"description": "Why not, in the field `error`."}}
