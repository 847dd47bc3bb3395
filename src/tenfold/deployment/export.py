"""A run as ONNX, in floats or in eight bits, and never without a comparison on real images."""

import contextlib
import json
import math
import tempfile
import timeit
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tenfold import __version__
from tenfold.data import Dataset, Images
from tenfold.data.encoding import png_data_uri
from tenfold.deployment.graph import INPUT, quantise, write_onnx
from tenfold.deployment.options import ExportOptions
from tenfold.deployment.predictor import FORMAT, METADATA_KEY, made_up_images, open_session
from tenfold.errors import TenfoldError
from tenfold.evaluation.calibration import (
    fitted_of,
    operating_points_of,
    set_facts,
    why_unfitted,
)
from tenfold.evaluation.evaluate import open_data, split_of, use_of
from tenfold.evaluation.predictions import map_labels
from tenfold.evaluation.probabilities import softmax
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

SCORES = {"num_images", "macro_f1", "balanced_accuracy", "per_class"}
"""What the file says of the run besides its accuracy; of one of eight bits, what floats reach."""

LICENCE = "not stated; mind that of the training pictures"

TIMED_BATCHES = (1, 8, 64)
TIMED_SECONDS = 1.0

NUM_COMPARED = 10_000
"""Images of the gate at most: of the test split, or of another where there is none."""

MOST_LOGIT_ERROR = 1e-4
MOST_POINTS_LOST = 0.01


class Gate(NamedTuple):
    """What the comparison of an exported file with the run came to.

    num_images: images compared, of `split`. same_class: share with the same class, or with two
    that are as likely. logit_error, probability_error: the largest difference of two of them.
    accuracy, accuracy_before: of the file and of the run, one view each; of a file of eight bits
    on the kind of processor where it does worse. num_judged: images by which a file of eight
    bits is judged, those of the validation split too. num_lost, num_gained: of them, those that
    only the run and only the file gets right.
    """

    num_images: int
    split: str
    same_class: float
    logit_error: float
    probability_error: float
    accuracy: float
    accuracy_before: float
    num_judged: int
    num_lost: int
    num_gained: int

    @property
    def least_lost(self) -> float:
        """The lower end of the 95 % interval of the accuracy lost, for paired predictions (Agresti
        and Min 2005: half an image is added to each of the four kinds)."""
        lost, gained, number = self.num_lost + 0.5, self.num_gained + 0.5, self.num_judged + 2
        mean = (lost - gained) / number
        return mean - 1.96 * math.sqrt(((lost + gained) / number - mean**2) / number)


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
    compared = compared_images(dataset, model, own=own, int8=int8)
    if samples is None:
        samples = NUM_SAMPLES if dataset.name in PUBLIC else 0
    path = path or run.path / "export" / ("model-int8.onnx" if int8 else "model.onnx")
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / "float.onnx"
        write_onnx(model, new, has_map=options.has_map, opset=options.opset)
        if int8:
            train = split_of(dataset, "train", model.recipe.data, own=own)
            new = quantise(new, drawn(train, NUM_CALIBRATED).pixels)
        gate, *others = (
            compare(new, model, images, split=split, int8=int8, progress=progress)
            for split, images in compared.items()
        )
        for other in others:
            judged = ("num_judged", "num_lost", "num_gained")
            gate = gate._replace(**{k: getattr(gate, k) + getattr(other, k) for k in judged})
        require_parity(gate, int8=int8, force=options.force, path=path)
        facts = _facts(run, model, gate, int8=int8) | {
            "samples": _samples(next(iter(compared.values())), samples),
            "licence": options.licence or LICENCE,
            "check": outputs_of(new, made_up_images(*model.image_size), exact=True)[0].tolist(),
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
        "window": model.window,
        "thresholds": [
            {name: getattr(each, name) for name in ("accuracy", "confidence", "num_images")}
            for each in (fitted.thresholds if fitted else ())
        ],
        "sets": set_facts(fitted),
        "unfitted": why_unfitted(result),
        "operating_points": [
            {name: getattr(each, name) for name in ("class_name", "sensitivity", "threshold")}
            for each in operating_points_of(result)
        ],
        "scores": {
            split: metrics.model_dump(include=SCORES, mode="json")
            for split, metrics in result.splits.items()
        },
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


def compare(
    path: Path,
    model: TrainedModel,
    images: Images,
    *,
    split: str = "test",
    int8: bool = False,
    progress: Progress | None = None,
) -> Gate:
    """The predictions of the file at `path` beside those of `model`, one view of each image.

    int8: compute it both as this processor does and as the best do, and take the worse.
    """
    labels = map_labels(images, model.class_names)
    one_view = model.recipe.but(evaluation=model.recipe.evaluation.but(views="one"))
    expected = replace(model, recipe=one_view).logits(images.pixels, progress=progress)
    ways = (outputs_of(path, images.pixels, exact=exact) for exact in ((False, True)[: 1 + int8]))
    logits, probabilities = min(
        ways, key=lambda found: float((found[1].argmax(axis=1) == labels).mean())
    )
    classes, before = probabilities.argmax(axis=1), expected.argmax(axis=1)
    two = np.sort(expected, axis=1)[:, -2:]
    as_likely = two[:, 1] - two[:, 0] < 2 * MOST_LOGIT_ERROR
    right, right_before = classes == labels, before == labels
    shares = softmax(expected / np.float32(model.temperature))
    return Gate(
        len(images),
        split,
        float(((classes == before) | as_likely).mean()),
        float(np.abs(logits - expected).max()),
        float(np.abs(probabilities - shares).max()),
        float(right.mean()),
        float(right_before.mean()),
        len(images),
        int((right_before & ~right).sum()),
        int((right & ~right_before).sum()),
    )


def outputs_of(
    path: Path, pixels: NDArray[np.uint8], *, exact: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits and probabilities of the file at `path`."""
    session = open_session(path, exact=exact)
    parts = [
        session.run(["logits", "probabilities"], {INPUT: pixels[start : start + 64]})
        for start in range(0, len(pixels), 64)
    ]
    logits, probabilities = (np.concatenate(each) for each in zip(*parts, strict=True))
    return logits, probabilities


def compared_images(
    dataset: Dataset, model: TrainedModel, *, own: bool, int8: bool
) -> dict[str, Images]:
    """Real images by split: test, or validation or training where there is none. A file of eight
    bits is judged by the run's own validation images, too, as far as there is room."""
    found: dict[str, Images] = {}
    room = NUM_COMPARED
    for split in ("test", "validation", "train"):
        is_wanted = not found or (int8 and own and [*found, split] == ["test", "validation"])
        if is_wanted and room > 0:
            with contextlib.suppress(TenfoldError):
                images = drawn(split_of(dataset, split, model.recipe.data, own=own), room)
                found[split if own else f"{split} of {dataset.name}"] = images
                room -= len(images)
    if not found:
        raise TenfoldError(f"{dataset.name} has no pictures to compare the export on.")
    return found


def drawn(images: Images, number: int) -> Images:
    """At most so many of them, always the same."""
    if len(images) <= number:
        return images
    chosen = np.random.default_rng(0).choice(len(images), number, replace=False)
    return images.take(np.sort(chosen).astype(np.int64))


def require_parity(gate: Gate, *, int8: bool, force: bool, path: Path) -> None:
    """Raise TenfoldError where the file loses too much, or says something else."""
    if int8:
        if gate.least_lost > MOST_POINTS_LOST and not force:
            raise TenfoldError(
                f"{path} is not written: in eight bits {100 * gate.accuracy:.2f} % of "
                f"{gate.num_images:,} pictures are right and {100 * gate.accuracy_before:.2f} % in "
                f"floats; of {gate.num_judged:,}, {gate.num_lost:,} are lost and "
                f"{gate.num_gained:,} gained, which is at least {100 * gate.least_lost:.1f} points "
                "where one may be lost; export floats, or add --force."
            )
        return
    # So written that what is no number fails too.
    errors = (gate.logit_error, gate.probability_error)
    if gate.same_class < 1 or not all(error <= MOST_LOGIT_ERROR for error in errors):
        raise TenfoldError(
            f"{path} is not written: of {gate.num_images:,} pictures "
            f"{100 * gate.same_class:.2f} % have the class that the run gives, and logits differ "
            f"by up to {gate.logit_error:.1e}; please report this with the run's recipe."
        )
