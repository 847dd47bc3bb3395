"""A run as ONNX, in floats or in eight bits, and never without a comparison on real images."""

import json
import tempfile
import timeit
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tenfold import __version__
from tenfold.data import Images
from tenfold.data.encoding import png_data_uri
from tenfold.deployment.graph import INPUT, write_onnx
from tenfold.deployment.int8 import quantise
from tenfold.deployment.options import ExportOptions
from tenfold.deployment.parity import (
    Gate,
    compare,
    compared_images,
    drawn,
    outputs_of,
    require_parity,
    with_validation,
)
from tenfold.deployment.predictor import FORMAT, METADATA_KEY, made_up_pictures, open_session
from tenfold.evaluation.calibration import fitted_of, why_unfitted
from tenfold.evaluation.evaluate import open_data, split_of, use_of
from tenfold.evaluation.trained import TrainedModel, load
from tenfold.files import read_json, write_bytes, write_json
from tenfold.progress import Progress
from tenfold.recipe import without_places
from tenfold.results.runs import read_provenance, read_result
from tenfold.run import RunFolder, finished_run

NUM_CALIBRATED = 500
"""Training images from which the ranges of eight-bit numbers are measured."""

NUM_SAMPLES = 8
"""Images in the file, to try it with, where the data is public."""

PUBLIC = ("cifar10", "cifar100", "digits")
"""Data sets whose images anybody may have seen."""

LICENCE = "not stated; mind that of the training pictures"

TIMED_BATCHES = (1, 8, 64)
TIMED_SECONDS = 1.0


class Timing(NamedTuple):
    """Seconds of a batch, and images a second, of the file and of torch."""

    batch_size: int
    median: float
    p99: float
    images_per_second: float
    torch_images_per_second: float


class Export(NamedTuple):
    """An exported file. size: in bytes."""

    path: Path
    opset: int
    is_int8: bool
    size: int
    gate: Gate
    timings: tuple[Timing, ...]

    def figures(self, path: str) -> dict[str, Any]:
        """What is known of the file, which is called `path`, as JSON has it."""
        timings = [timing._asdict() for timing in self.timings]
        known = {"path": path, "opset": self.opset, "size": self.size}
        return {**known, "gate": self.gate._asdict(), "timings": timings}


def export_run(
    run: RunFolder,
    path: Path | None = None,
    options: ExportOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Export:
    """Write the model of `run` as ONNX and return what was written.

    path: the file; `export/model.onnx` or `model-int8.onnx` in the run where None. Raises
    TenfoldError where the file says something else than the run, and writes none; where the run is
    not finished, or its data is not what it was.
    """
    run = finished_run(run.path)
    options = options or ExportOptions()
    int8, samples = options.int8, options.samples
    model = load(run.path)
    dataset, own = open_data(run, model, options.data, skip_broken=True, progress=progress)
    split, images = compared_images(dataset, model, own=own)
    if samples is None:
        samples = NUM_SAMPLES if dataset.name in PUBLIC else 0
    path = path or run.path / "export" / ("model-int8.onnx" if int8 else "model.onnx")
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / "float.onnx"
        write_onnx(model, new, has_map=options.has_map, opset=options.opset)
        if int8:
            train = split_of(dataset, "train", model.recipe.data, own=own)
            new = quantise(new, drawn(train, NUM_CALIBRATED).pixels)
        gate = compare(new, model, images, split=split, int8=int8, progress=progress)
        if int8:
            gate = with_validation(gate, new, model, dataset, own=own)
        require_parity(gate, int8=int8, force=options.force, path=path)
        facts = _facts(run, model, gate, int8=int8) | {
            "samples": _samples(images, samples),
            "licence": options.licence or LICENCE,
            "check": outputs_of(new, made_up_pictures(*model.image_size), exact=True)[0].tolist(),
        }
        _describe(new, facts)
        timings = tuple(_timed(new, model, size) for size in TIMED_BATCHES)
        content = new.read_bytes()
    export = Export(path, options.opset, int8, len(content), gate, timings)
    _keep(run, export, content)
    return export


def _keep(run: RunFolder, export: Export, content: bytes) -> None:
    """Write the file, its figures for the page, and that test images were looked at."""
    gate, known = export.gate, run.path / "export" / "exports.json"
    with run.writer():
        write_bytes(export.path, content)
        if known.parent.resolve() == export.path.parent.resolve():
            files = read_json(known) if known.exists() else {}
            kind = "int8" if export.is_int8 else "float"
            write_json(known, files | {kind: export.figures(export.path.name)})
        use = use_of(gate.split, gate.accuracy_before, purpose="tenfold export")
        read_result(run.result).with_use(use).write(run.result)


def _samples(images: Images, number: int) -> list[str]:
    """Images of as many classes as there are, as PNG in data URIs, for those who want to try."""
    first = np.sort(np.unique(images.labels, return_index=True)[1])
    others = np.setdiff1d(np.arange(len(images)), first)
    chosen = np.concatenate([first, others])[:number]
    return [png_data_uri(images.pixels[index]) for index in chosen]


def _facts(run: RunFolder, model: TrainedModel, gate: Gate, *, int8: bool) -> dict[str, Any]:
    """What a user of the file needs besides the graph."""
    result = read_result(run.result)
    fitted = fitted_of(result)
    evaluation = model.recipe.evaluation
    return {
        "format": FORMAT,
        "tenfold": __version__,
        "class_names": model.class_names,
        "image_size": model.image_size,
        "temperature": model.temperature,
        "white_level": model.white_level,
        "thresholds": [
            {name: getattr(each, name) for name in ("accuracy", "confidence", "num_images")}
            for each in (fitted.thresholds if fitted else ())
        ],
        "unfitted": why_unfitted(result),
        "views": {"kind": evaluation.views, "below": evaluation.views_below},
        "accuracy": {gate.split: gate.accuracy}
        if int8
        else {split: metrics.accuracy for split, metrics in result.splits.items()},
        "accuracy_of_one_view": gate.accuracy,
        "data": read_provenance(run.provenance).data.name,
        "recipe": without_places(model.recipe).to_dict(),
    }


def _describe(path: Path, facts: dict[str, Any]) -> None:
    """Put `facts` into the metadata of the file at `path`."""
    import onnx

    graph = onnx.load(str(path))
    entry = graph.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(facts)
    graph.producer_name, graph.producer_version = "tenfold", __version__
    onnx.save(graph, str(path))


def _timed(path: Path, model: TrainedModel, batch_size: int) -> Timing:
    """Of the file and of torch, on the threads that torch has now."""
    session = open_session(path, threads=torch.get_num_threads())
    pixels = np.zeros((batch_size, *model.image_size, 3), dtype=np.uint8)
    seconds = _measure(lambda: session.run(None, {INPUT: pixels}))
    inputs = torch.zeros(batch_size, 3, *model.image_size).to(memory_format=torch.channels_last)
    network = model.module.eval()
    with torch.inference_mode():
        own = _measure(lambda: network(inputs))
    median, p99 = (float(share) for share in np.quantile(seconds, (0.5, 0.99)))
    per_second = batch_size / median, batch_size / float(np.median(own))
    return Timing(batch_size, median, p99, *per_second)


def _measure(function: Any) -> list[float]:
    """Seconds of each call in about TIMED_SECONDS."""
    timeit.timeit(function, number=1)  # The first takes longer.
    number = int(TIMED_SECONDS / timeit.timeit(function, number=1))
    return timeit.repeat(function, number=1, repeat=min(max(number, 5), 20_000))
