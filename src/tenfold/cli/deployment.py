"""`tenfold export` and `tenfold serve`: a run as a file that runs anywhere, and as a service."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold.cli.options import RunArgument, RunsOption, ThreadsOption
from tenfold.console.output import Output
from tenfold.deployment.options import ExportOptions, Limits, ServerOptions
from tenfold.errors import TenfoldError, require_packages
from tenfold.formatting import percent, rate

if TYPE_CHECKING:
    from tenfold.deployment.export import Export


def export(
    output: Output,
    run: RunArgument,
    out: Annotated[Path | None, "The file to write."] = None,
    *,
    options: ExportOptions,
    bundle: Annotated[
        Path | None, "A new folder: model, card, and a script that needs no tenfold."
    ] = None,
    web: Annotated[Path | None, "A new folder: a page that classifies in the browser."] = None,
    runtime: Annotated[Path | None, "For --web, dist of onnxruntime-web, not through npm."] = None,
    threads: ThreadsOption = None,
) -> None:
    """Write a run as one ONNX file, if it says the same as the run on real images."""
    from tenfold.deployment.bundle import find_runtime, require_new, write_bundle, write_web
    from tenfold.files import require_place
    from tenfold.run import finished_run

    folder = finished_run(run)
    require_place(out)
    if runtime is not None and web is None:
        raise TenfoldError("--runtime is for --web; name the folder of the page, too.")
    for place in filter(None, (bundle, web)):
        require_new(place)

    from tenfold.deployment.export import export_run
    from tenfold.reporting.page import card_text
    from tenfold.training.process import prepare_process

    prepare_process(threads)
    written: dict[Path, list[Path]] = {}
    with output.progress() as progress, tempfile.TemporaryDirectory() as apart:
        if (bundle or web) and out is None:  # What the run has exported stays as it is.
            out = Path(apart) / "model.onnx"
        files = find_runtime(runtime, progress=progress) if web else []
        found = export_run(folder, out, options, progress=progress)
        if web is not None:
            written[web] = write_web(found.path, web, files)
        if bundle is not None:
            card = card_text(folder.path)
            written[bundle] = write_bundle(folder, found, bundle, card=card)
        for place in written:
            found = found._replace(path=place / "model.onnx")
    _show_export(output, found)
    for place, files in written.items():
        kind = "bundle" if place == bundle else "web"
        output.record(kind, files=[str(path) for path in files])
        output.say(f"{place} holds {', '.join(path.name for path in files)}.")


def _show_export(output: Output, found: "Export") -> None:
    """What was written, how it compares with the run, and how fast it is."""
    gate = found.gate
    output.record("exported", **found.figures(str(found.path)))
    output.say(
        f"{found.path}: {found.size / 1e6:.2f} MB, opset {found.opset}; on {gate.num_images:,} "
        f"pictures {percent(gate.accuracy, 2)} right where the run has "
        f"{percent(gate.accuracy_before, 2)}, {percent(gate.same_class, 2)} of the classes the "
        f"same, logits within {gate.logit_error:.1e}."
    )
    rows = []
    for size, *seconds, own, torch in (timing.values() for timing in found.timings):
        rows.append([str(size), *(f"{1000 * s:.2f} ms" for s in seconds), rate(own), rate(torch)])
    columns = ["batch", "median", "99 of 100 within", "pictures a second", "torch"]
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
        output.record("serving", address=address)
        output.say(f"Serving at {address}; Ctrl-C ends it.")

    raise typer.Exit(run_server(file, options, limits=limits, ready=ready))


def push(
    output: Output,
    run: RunArgument,
    name: Annotated[str, "Of the model on the hub, such as somebody/photos."],
    private: Annotated[bool, "For your eyes only."] = False,
) -> None:
    """Put a run on the Hugging Face hub, with its card, scores and exports."""
    from tenfold.deployment.hub import push as push_run
    from tenfold.reporting.page import card_text
    from tenfold.run import open_run

    folder = open_run(run)
    address = push_run(folder, name, card=card_text(folder.path), private=private)
    output.record("pushed", run=str(run), name=name, address=address)
    output.say(f"{run} is at {address}; `tenfold pull {name}` brings it back.")


def pull(
    output: Output,
    name: Annotated[str, "Of the model on the hub, such as somebody/photos."],
    revision: Annotated[str | None, "A branch, tag or commit of it."] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Fetch a run that was pushed to the Hugging Face hub; nothing in it is executed."""
    from tenfold.deployment.hub import pull as pull_run

    run = pull_run(name, runs, revision=revision)
    output.record("pulled", name=name, run=str(run.path))
    output.say(f"{name} is in {run.path}.")


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
    raise TenfoldError(f"{place} was not exported yet; run `tenfold export {place}` first.")
