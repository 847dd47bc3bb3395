"""`tenfold export`, `serve`, `push` and `pull`: a run as a file, as a service, and on the hub."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tenfold.cli import options as cli
from tenfold.console.output import Output
from tenfold.deployment.options import ExportOptions, Limits, ServerOptions
from tenfold.errors import TenfoldError, require_packages
from tenfold.files import require_place
from tenfold.formatting import percent, rate
from tenfold.run import RunFolder, open_run

if TYPE_CHECKING:
    from tenfold.deployment.export import Export

HubName = Annotated[str, "Of the model on the hub, such as somebody/photos."]


def export(
    output: Output,
    run: cli.RunArgument,
    *,
    out: Annotated[Path | None, "The file to write.", require_place] = None,
    options: ExportOptions,
    bundle: Annotated[
        Path | None, "A new folder: model, card, and a script that needs no tenfold."
    ] = None,
    web: Annotated[Path | None, "A new folder: a page that classifies in the browser."] = None,
    runtime: Annotated[Path | None, "For --web, dist of onnxruntime-web, not through npm."] = None,
    threads: cli.ThreadsOption = None,
) -> None:
    """Write a run as one ONNX file, if it says the same as the run on real images."""
    from tenfold.data.writing import require_new
    from tenfold.deployment.bundle import find_runtime, write_bundle, write_web

    if runtime is not None and web is None:
        raise TenfoldError("--runtime is for --web; name the folder of the page, too.")
    for place in filter(None, (bundle, web)):
        require_new(place.absolute())

    from tenfold.deployment.export import export_run
    from tenfold.reporting.page import card_text

    folder, written = RunFolder(run), {}
    with cli.computing(output, threads) as progress, tempfile.TemporaryDirectory() as apart:
        if (bundle or web) and out is None:  # What the run has exported stays as it is.
            out = Path(apart) / "model.onnx"
        files = find_runtime(runtime, progress=progress) if web else []
        found = export_run(folder, out, options, progress=progress)
        if web is not None:
            written["web"] = web, write_web(found.path, web, files)
        if bundle is not None:
            files = write_bundle(folder, found, bundle, card=card_text(run))
            written["bundle"] = bundle, files
        for place, _ in written.values():
            found = found._replace(path=place / "model.onnx")
    _show_export(output, found)
    for kind, (place, files) in written.items():
        said = f"{place} holds {', '.join(path.name for path in files)}."
        cli.announce(output, kind, said, files=[str(path) for path in files])


def _show_export(output: Output, found: "Export") -> None:
    """What was written, how it compares with the run, and how fast it is."""
    gate = found.gate
    said = (
        f"{found.path}: {found.size / 1e6:.2f} MB, opset {found.opset}; on {gate.num_images:,} "
        f"images an accuracy of {percent(gate.accuracy, 2)} where the run has "
        f"{percent(gate.accuracy_before, 2)}, {percent(gate.same_class, 2)} of the classes the "
        f"same, logits within {gate.logit_error:.1e}."
    )
    cli.announce(output, "exported", said, **found.figures(str(found.path)))
    rows = []
    for size, *seconds, own, torch in (timing.values() for timing in found.timings):
        rows.append([str(size), *(f"{1000 * s:.2f} ms" for s in seconds), rate(own), rate(torch)])
    columns = ["batch", "median", "99 of 100 within", "images a second", "torch"]
    output.table("Speed on this machine", columns, rows)


def serve(
    output: Output,
    model: Annotated[Path, "A run, or a file that `tenfold export` wrote."],
    *,
    options: ServerOptions,
    limits: Limits,
) -> None:
    """Serve a model over HTTP, with a page for people and a protocol for programs."""
    needed = ("fastapi", "granian", "prometheus_client")
    require_packages(*needed, what="Serving needs FastAPI, granian and more", extra="serve")
    file = _model_file(model)

    from tenfold.deployment.server import serve as run_server

    def ready(address: str) -> None:
        cli.announce(output, "serving", f"Serving at {address}; Ctrl-C ends it.", address=address)

    run_server(file, options, limits=limits, ready=ready)


def _model_file(place: Path) -> Path:
    """The ONNX file that `place` names: itself, or what was exported from the run there."""
    if place.is_file():
        return place
    if not place.is_dir():
        raise TenfoldError(f"There is no run or model {place}; check the path.")
    for name in ("model.onnx", "model-int8.onnx"):
        for folder in (place / "export", place):  # A run, or a bundle.
            if (folder / name).exists():
                return folder / name
    open_run(place)  # Which says what is no run.
    raise TenfoldError(f"{place} was not exported yet; run `tenfold export {place}` first.")


def push(
    output: Output,
    run: Annotated[Path, "A run folder, such as runs/cnn/1.", open_run],
    name: HubName,
    *,
    private: Annotated[bool, "For your eyes only."] = False,
) -> None:
    """Put a run on the Hugging Face hub, with its card, scores and exports."""
    from tenfold.deployment.hub import push as push_run
    from tenfold.reporting.page import card_text

    address = push_run(RunFolder(run), name, card=card_text(run), private=private)
    said = f"{run} is at {address}; `tenfold pull {name}` brings it back."
    cli.announce(output, "pushed", said, run=str(run), name=name, address=address)


def pull(
    output: Output,
    name: HubName,
    *,
    revision: Annotated[str | None, "A branch, tag or commit of it."] = None,
    runs: cli.RunsOption = Path("runs"),
) -> None:
    """Fetch a run that was pushed to the Hugging Face hub; nothing in it is executed."""
    from tenfold.deployment.hub import pull as pull_run

    run = pull_run(name, runs, revision=revision)
    cli.announce(output, "pulled", f"{name} is in {run.path}.", name=name, run=str(run.path))
