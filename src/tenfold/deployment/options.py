"""How a run is exported and served; each field is an option of `tenfold export` or `serve`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

SetsOption = Annotated[
    int | None,
    "90, 95 or 99: also name the classes that hold the true one in so many cases of a hundred.",
]


@dataclass(frozen=True)
class ExportOptions:
    """How a run is exported. data: may also be others of its classes to compare the file on."""

    int8: Annotated[bool, "Compute in eight bits, and lose at most a point."] = False
    has_map: Annotated[
        bool, typer.Option("--maps", help="With an output that says where the model looked.")
    ] = False
    opset: Annotated[int, "Of ONNX, from 18; a newer one needs a newer runtime."] = 18
    force: Annotated[bool, "Write eight bits even if they lose more than a point."] = False
    data: Annotated[str | None, "Where the run's images are now, if not where they were."] = None
    samples: Annotated[
        int | None,
        typer.Option(
            min=0, max=50, help="Test images to put into the file; 8 of public data, else none."
        ),
    ] = None
    licence: Annotated[str | None, "Of the weights, for whoever gets the file."] = None


@dataclass(frozen=True)
class ServerOptions:
    """Where a service listens, and to whom it answers how."""

    host: Annotated[str, "Where to listen."] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8000
    allow_remote: Annotated[bool, "Let others than this machine connect."] = False
    one_view: Annotated[bool, "Use one view of each image, whatever the recipe has."] = False
    key_file: Annotated[Path | None, "A file with the key that X-API-Key must say."] = None
    host_name: Annotated[list[str] | None, "A further name of this host."] = None
    origin: Annotated[list[str] | None, "A site whose pages may ask, such as https://a.org."] = None
    accuracy: Annotated[
        int | None,
        "95 or 99: call predictions unsure where fewer in a hundred would be right; "
        "otherwise where they are likelier wrong than right.",
    ] = None
    sets: SetsOption = None
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with; results depend on it.")
    ] = None


@dataclass(frozen=True)
class Limits:
    """What a request may ask for."""

    max_bytes: Annotated[
        int, typer.Option(min=1, help="Of a request's body, compressed or not.")
    ] = 20_000_000
    max_pixels: Annotated[int, typer.Option(min=1, help="Of an image that is decoded.")] = 1 << 23
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Until an answer has gone.")] = 30.0
    max_requests: Annotated[int, typer.Option(min=1, help="That are worked on at once.")] = 1024
