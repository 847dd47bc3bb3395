"""A run as ONNX, in floats or in eight bits, and never without a comparison on real images."""

import contextlib
import json
import math
import tempfile
import timeit
from collections.abc import Callable
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
from tenfold.deployment.predictor import (
    FORMAT,
    METADATA_KEY,
    Floats,
    Pixels,
    Predictor,
    made_up_images,
    open_session,
)
from tenfold.errors import TenfoldError
from tenfold.evaluation.calibration import (
    find_threshold,
    fit_sets,
    fitted_of,
    operating_points_of,
    set_facts,
    why_unfitted,
    with_temperature,
)
from tenfold.evaluation.evaluate import open_data, split_of, use_of
from tenfold.evaluation.metrics import compute_metrics, wilson_interval
from tenfold.evaluation.predictions import Predictions, map_labels
from tenfold.evaluation.probabilities import softmax
from tenfold.evaluation.roc import levels_of, threshold_for
from tenfold.evaluation.trained import TrainedModel, load
from tenfold.files import read_json, write_bytes, write_json
from tenfold.progress import Progress
from tenfold.recipe import without_places
from tenfold.results.runs import OperatingPoint, Result, Unfitted, read_provenance, read_result
from tenfold.run import RunFolder, finished_run

NUM_CALIBRATED = 500  # Training images from which the ranges of eight-bit numbers are measured.
NUM_COMPARED = 10_000  # Images of a split in the gate, at most.
# Images in the file, to try it with, of data that anybody may have seen.
NUM_SAMPLES, PUBLIC = 8, ("cifar10", "cifar100", "digits")
LICENCE = "not stated; mind that of the training images"

# What the file says of each split besides the accuracy.
SCORES = {"num_images", "accuracy_interval", "macro_f1", "balanced_accuracy", "per_class"}
TIMED_BATCHES, TIMED_SECONDS = (1, 8, 64), 1.0
MOST_LOGIT_ERROR, MOST_POINTS_LOST = 1e-4, 0.01


class Gate(NamedTuple):
    """What the comparison of an exported file with the run came to, one view of each image.

    same_class: share of `num_images` of `split` with the same class, or with two that are as
    likely. logit_error, probability_error: the largest difference of two. accuracy: on the kind of
    processor where a file of eight bits does worse. num_judged: images by which such a file is
    judged, those of validation too; num_lost, num_gained: of them, those that only the run and
    only the file predicts correctly.
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

    def of_one_view(self) -> dict[str, Any]:
        """How the file does with one view of each image, for whoever uses it so."""
        num_right = round(self.accuracy * self.num_images)
        interval = wilson_interval(num_right, self.num_images)
        known = {"split": self.split, "num_images": self.num_images, "accuracy": self.accuracy}
        return {**known, "accuracy_interval": interval}


class Export(NamedTuple):
    """An exported file. size: in bytes. timings: for some sizes of a batch, its median seconds and
    those within which 99 of 100 are done, and images a second, of the file and of torch."""

    path: Path
    opset: int
    size: int
    gate: Gate
    timings: tuple[dict[str, float], ...]

    def figures(self, path: str) -> dict[str, Any]:
        """What is known of the file, which is called `path`, as JSON has it."""
        return {**self._asdict(), "path": path, "gate": self.gate._asdict()}


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
    run, options = finished_run(run.path), options or ExportOptions()
    int8, model, result = options.int8, load(run.path), read_result(run.result)
    dataset, own = open_data(run, model, options.data, skip_broken=True, progress=progress)
    compared = compared_images(dataset, model, own=own, int8=int8)
    path = path or run.path / "export" / ("model-int8.onnx" if int8 else "model.onnx")
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / "float.onnx"
        write_onnx(model, new, has_map=options.has_map, opset=options.opset)
        if int8:
            train = split_of(dataset, "train", model.recipe.data, own=own)
            new = quantise(new, drawn(train, NUM_CALIBRATED).pixels)
        gates = [
            compare(new, model, images, split=split, int8=int8, progress=progress)
            for split, images in compared.items()
        ]
        judged = ("num_judged", "num_lost", "num_gained")
        gate = gates[0]._replace(**{k: sum(getattr(each, k) for each in gates) for k in judged})
        require_parity(gate, int8=int8, force=options.force, path=path)
        samples = options.samples
        if samples is None:
            samples = NUM_SAMPLES if dataset.name in PUBLIC else 0
        shown = drawn(next(iter(compared.values())), samples).pixels
        known = {
            "data": read_provenance(run.provenance).data.name,
            "samples": [png_data_uri(image) for image in shown],
            "licence": options.licence or LICENCE,
            "one_view": gate.of_one_view(),
            "check": outputs_of(new, made_up_images(*model.image_size), exact=True)[0].tolist(),
        }
        _describe(new, known | _facts(model, result))
        if int8:
            result = in_eight_bits(result, Predictor(new), compared)
            _describe(new, known | _facts(model, result))
        timings = tuple(_timed(new, model, size) for size in TIMED_BATCHES)
        content = new.read_bytes()
    export = Export(path, options.opset, len(content), gate, timings)
    use = use_of(gate.split, gate.accuracy_before, purpose="tenfold export")
    figures = run.path / "export" / "exports.json"  # Of the run's own exports, for the page.
    with run.writer():
        write_bytes(path, content)
        if figures.parent.resolve() == path.parent.resolve():
            known = read_json(figures) if figures.exists() else {}
            kind = "int8" if int8 else "float"
            write_json(figures, known | {kind: export.figures(path.name)})
        read_result(run.result).with_use(use).write(run.result)
    return export


def in_eight_bits(result: Result, predictor: Predictor, compared: dict[str, Images]) -> Result:
    """`result` with the scores of a file of eight bits, and with sets and thresholds fitted on its
    own predictions of the validation images, for those of floats promise nothing for it."""
    names, found = predictor.class_names, dict[str, Predictions]()
    for split, images in compared.items():
        logits, labels = predictor.logits(images.pixels), map_labels(images, names)
        found[split] = Predictions(logits, labels, images.ids, names)
    splits = {split: compute_metrics(each) for split, each in found.items()}
    calibration, points, fitted = result.calibration, list[OperatingPoint](), fitted_of(result)
    if "validation" in found:
        own = with_temperature(found["validation"], predictor.facts["temperature"])
        for point in operating_points_of(result):
            index = names.index(point.class_name)
            levels = levels_of(own.probabilities[:, index], own.labels == index)
            if (threshold := threshold_for(levels, point.sensitivity)) is not None:
                points.append(point.model_copy(update={"threshold": threshold}))
        if fitted:
            thresholds = tuple(find_threshold(own, each.accuracy) for each in fitted.thresholds)
            sets = tuple((coverage, fit_sets(own, coverage)) for coverage, _ in fitted.sets)
            new = {"thresholds": thresholds, "sets": sets, "num_images": len(own.labels)}
            calibration = fitted.model_copy(update=new)
    elif fitted:
        wrong = "eight bits were compared on other images than the run's own validation images; "
        calibration = Unfitted(unfitted=wrong + "export with those, or in floats.")
    update = {"splits": splits, "calibration": calibration, "operating_points": tuple(points)}
    return result.model_copy(update=update)


def _facts(model: TrainedModel, result: Result) -> dict[str, Any]:
    """What a user of the file needs besides the graph, as far as model and result say it."""
    fitted, views, splits = fitted_of(result), model.recipe.evaluation, result.splits
    thresholds = fitted.thresholds if fitted else ()
    return {
        "format": FORMAT,
        "tenfold": __version__,
        "class_names": model.class_names,
        "image_size": model.image_size,
        "temperature": model.temperature,
        "window": model.window,
        "thresholds": [each.to_dict() for each in thresholds],
        "sets": set_facts(fitted),
        "unfitted": why_unfitted(result),
        "operating_points": [each.to_dict() for each in operating_points_of(result)],
        "scores": {k: split.model_dump(include=SCORES, mode="json") for k, split in splits.items()},
        "accuracy": {split: metrics.accuracy for split, metrics in splits.items()},
        "views": {"kind": views.views, "below": views.views_below},
        "recipe": without_places(model.recipe).to_dict(),
    }


def _describe(path: Path, facts: dict[str, Any]) -> None:
    """Put `facts` into the metadata of the file at `path`."""
    import onnx

    graph = onnx.load(str(path))
    del graph.metadata_props[:]
    entry = graph.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(facts)
    graph.producer_name, graph.producer_version = "tenfold", __version__
    onnx.save(graph, str(path))


def _timed(path: Path, model: TrainedModel, batch_size: int) -> dict[str, float]:
    """On the threads that torch has now."""

    def measure(function: Callable[[], Any]) -> NDArray[np.float64]:
        function()  # The first takes longer.
        number = int(TIMED_SECONDS / timeit.timeit(function, number=1))
        return np.array(timeit.repeat(function, number=1, repeat=min(max(number, 5), 20_000)))

    session = open_session(path, threads=torch.get_num_threads())
    pixels = np.zeros((batch_size, *model.image_size, 3), dtype=np.uint8)
    seconds = measure(lambda: session.run(None, {INPUT: pixels}))
    inputs = torch.zeros(batch_size, 3, *model.image_size).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        torch_seconds = measure(lambda: model.module(inputs))
    median = float(np.median(seconds))
    return {
        "batch_size": batch_size,
        "median": median,
        "p99": float(np.quantile(seconds, 0.99)),
        "images_per_second": batch_size / median,
        "torch_images_per_second": batch_size / float(np.median(torch_seconds)),
    }


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
    ways = [outputs_of(path, images.pixels, exact=exact) for exact in (False, True)[: 1 + int8]]
    logits, probabilities = min(ways, key=lambda way: (way[1].argmax(axis=1) == labels).mean())
    classes, before = probabilities.argmax(axis=1), expected.argmax(axis=1)
    second, first = np.sort(expected, axis=1)[:, -2:].T
    as_likely = first - second < 2 * MOST_LOGIT_ERROR
    right, right_before = classes == labels, before == labels
    shares = softmax(expected / np.float32(model.temperature))
    return Gate(
        num_images=len(images),
        split=split,
        same_class=float(((classes == before) | as_likely).mean()),
        logit_error=float(np.abs(logits - expected).max()),
        probability_error=float(np.abs(probabilities - shares).max()),
        accuracy=float(right.mean()),
        accuracy_before=float(right_before.mean()),
        num_judged=len(images),
        num_lost=int((right_before & ~right).sum()),
        num_gained=int((right & ~right_before).sum()),
    )


def outputs_of(path: Path, pixels: Pixels, *, exact: bool = False) -> tuple[Floats, Floats]:
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
    """Real images by split, NUM_COMPARED at most of each: test, or validation or training where
    there is none; for a file of eight bits, the run's own validation images as well."""
    found: dict[str, Images] = {}
    for split in ("test", "validation", "train"):
        if not found or (int8 and own and split == "validation"):
            with contextlib.suppress(TenfoldError):
                images = drawn(split_of(dataset, split, model.recipe.data, own=own), NUM_COMPARED)
                found[split if own else f"{split} of {dataset.name}"] = images
    if not found:
        raise TenfoldError(f"{dataset.name} has no images to compare the export on.")
    return found


def drawn(images: Images, number: int) -> Images:
    """At most so many of them, always the same."""
    if len(images) <= number:
        return images
    chosen = np.random.default_rng(0).choice(len(images), number, replace=False)
    return images.take(np.sort(chosen).astype(np.int64))


def require_parity(gate: Gate, *, int8: bool, force: bool, path: Path) -> None:
    """Raise TenfoldError where the file loses too much, or says something else."""
    remedy = "please report this with the run's recipe"
    if int8:
        is_near = force or gate.least_lost <= MOST_POINTS_LOST
        remedy = f"it loses at least {100 * gate.least_lost:.1f} points where one may be lost"
        remedy += "; export floats, or add --force"
    else:  # So written that what is no number fails too.
        errors = (gate.logit_error, gate.probability_error)
        is_near = gate.same_class == 1 and all(error <= MOST_LOGIT_ERROR for error in errors)
    if not is_near:
        raise TenfoldError(
            f"{path} is not written: of {gate.num_images:,} images {100 * gate.accuracy:.2f} % are "
            f"right where the run has {100 * gate.accuracy_before:.2f} %, "
            f"{100 * gate.same_class:.2f} % have the same class, and logits differ by up to "
            f"{gate.logit_error:.1e}; of {gate.num_judged:,}, {gate.num_lost:,} are lost and "
            f"{gate.num_gained:,} gained: {remedy}."
        )
