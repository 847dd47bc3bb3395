"""A run as ONNX, in floats or in eight bits, and never without a comparison on real pictures."""

import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tenfold import __version__
from tenfold.data import Dataset, Images
from tenfold.deployment.graph import INPUT, write_onnx
from tenfold.deployment.predictor import (
    FORMAT,
    METADATA_KEY,
    made_up_pictures,
    open_session,
)
from tenfold.errors import TenfoldError
from tenfold.evaluation.calibration import fitted_of, why_unfitted
from tenfold.evaluation.evaluate import open_data, split_of, use_of
from tenfold.evaluation.predictions import map_labels
from tenfold.evaluation.probabilities import softmax
from tenfold.evaluation.trained import TrainedModel, load
from tenfold.files import read_json, write_bytes, write_json
from tenfold.progress import Progress
from tenfold.recipe import without_places
from tenfold.results.runs import read_provenance, read_result
from tenfold.run import RunFolder

NUM_COMPARED = 10_000
"""Pictures of the gate at most: of the test split, or of another where there is none."""

NUM_CALIBRATED = 500
"""Training pictures from which the ranges of eight-bit numbers are measured."""

NUM_SAMPLES = 8
"""Pictures in the file, to try it with, where the data is public."""

PUBLIC = ("cifar10", "cifar100", "digits")
"""Data sets whose pictures anybody may have seen."""

LICENCE = "not stated; mind that of the training pictures"

MOST_LOGIT_ERROR = 1e-4
MOST_POINTS_LOST = 0.01

EIGHT_BIT_OPERATIONS = (
    "Conv", "Gemm", "MatMul", "Add", "Concat", "Reshape", "Flatten",
    "MaxPool", "AveragePool", "GlobalAveragePool", "Relu", "Clip",
)  # fmt: skip
"""What is computed in eight bits; not temperature and softmax, which would have 256 values."""

TIMED_BATCHES = (1, 8, 64)
TIMED_SECONDS = 1.0


class Gate(NamedTuple):
    """What the comparison of an exported file with the run came to.

    num_images: pictures compared, of `split`. same_class: share with the same guess, or with two
    that are as likely. logit_error, probability_error: the largest difference of two of them.
    accuracy, accuracy_before: of the file and of the run, one view each; of a file of eight bits
    on the kind of processor where it does worse. num_judged: pictures by which a file of eight
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
        """The lower end of the 95 % interval of the accuracy lost, for paired answers (Agresti and
        Min 2005: half a picture is added to each of the four kinds)."""
        lost, gained, number = self.num_lost + 0.5, self.num_gained + 0.5, self.num_judged + 2
        mean = (lost - gained) / number
        return mean - 1.96 * math.sqrt(((lost + gained) / number - mean**2) / number)


class Timing(NamedTuple):
    """Seconds of a batch, and pictures a second, of the file and of torch."""

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


def export_run(
    run: RunFolder,
    path: Path | None = None,
    *,
    int8: bool = False,
    has_map: bool = False,
    opset: int | None = None,
    force: bool = False,
    data: str | None = None,
    samples: int | None = None,
    licence: str = LICENCE,
    progress: Progress | None = None,
) -> Export:
    """Write the model of `run` as ONNX and return what was written.

    path: the file; `export/model.onnx` or `model-int8.onnx` in the run where None. has_map: with an
    output that says where it looked. opset: of ONNX; None for the lowest that will do, which the
    most programs read. force: write a file of eight bits even if it loses more than a point. data:
    where the run's images are now, or others of its classes to compare it on. samples: pictures of
    the data that go into the file; None for some where the data is public and none where it may not
    be. licence: of the weights, for whoever gets the file.

    Raises TenfoldError where the file says something else than the run, and writes none; where the
    run is not finished, or its data is not what it was.
    """
    if not run.is_finished():
        raise TenfoldError(
            f"{run.path} is not finished; run its `tenfold train` command again to finish it."
        )
    model = load(run.path)
    dataset, own = open_data(run, model, data, skip_broken=True, progress=progress)
    split, images = _compared(dataset, model, own=own)
    if samples is None:
        samples = NUM_SAMPLES if dataset.name in PUBLIC else 0
    path = path or run.path / "export" / ("model-int8.onnx" if int8 else "model.onnx")
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / "float.onnx"
        opset = write_onnx(model, new, has_map=has_map, opset=opset)
        if int8:
            train = split_of(dataset, "train", model.recipe.data, own=own)
            new = quantise(new, _drawn(train, NUM_CALIBRATED).pixels)
        gate = compare(new, model, images, split=split, int8=int8, progress=progress)
        if int8:
            gate = _judged_on_more(gate, new, model, dataset, own=own, progress=progress)
        _require_parity(gate, int8=int8, force=force, path=path)
        some = images.pixels[: TIMED_BATCHES[-1]]
        before = open_session(new).run(None, {INPUT: some})
        facts = _facts(run, model, gate, int8=int8) | {
            "samples": _samples(images, samples),
            "licence": licence,
            "check": _answers(new, made_up_pictures(*model.image_size), exact=True)[0].tolist(),
        }
        _describe(new, facts)
        _require_same(new, some, before, path_meant=path)
        timings = tuple(_timed(new, model, size) for size in TIMED_BATCHES)
        content = new.read_bytes()
    export = Export(path, opset, int8, len(content), gate, timings)
    _keep(run, export, content)
    return export


def _keep(run: RunFolder, export: Export, content: bytes) -> None:
    """Write the file, its figures and that test pictures were looked at."""
    with run.writer():
        write_bytes(export.path, content)
        _remember(run, export)
        gate = export.gate
        use = use_of(gate.split, gate.accuracy_before, purpose="tenfold export")
        read_result(run.result).with_use(use).write(run.result)


def quantise(path: Path, pixels: NDArray[np.uint8]) -> Path:
    """`path` in eight bits, beside it: weights by channel, ranges measured on `pixels`."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pictures(CalibrationDataReader):  # type: ignore[misc]
        """The pictures in batches, each once."""

        def __init__(self) -> None:
            self._batches: Iterator[NDArray[np.uint8]] = iter(np.array_split(pixels, 20))

        def get_next(self) -> dict[str, Any] | None:
            """The next batch, or None."""
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    swapped, prepared, small = (
        path.with_name(f"{name}.onnx") for name in ("swapped", "prepared", "int8")
    )
    _relu_before_pooling(path, swapped)
    # Folds the norms into the convolutions, so that each is one operation of eight bits.
    quant_pre_process(str(swapped), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(small),
        Pictures(),
        op_types_to_quantize=list(EIGHT_BIT_OPERATIONS),
        nodes_to_exclude=_last_sum(prepared),
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        # Seven bits: two products of eight are too large a sum for processors without VNNI.
        reduce_range=True,
    )
    return small


def _relu_before_pooling(path: Path, out: Path) -> None:
    """Write `path` to `out`, every ReLU behind a max pooling before it, which changes no answer.

    It then ends the convolution before, and the pooling has the same range before and after, as it
    must for ONNX Runtime to do it in eight bits.
    """
    import onnx

    model = onnx.load(str(path))
    nodes = list(model.graph.node)
    readers = Counter(name for node in nodes for name in node.input)
    readers.update(output.name for output in model.graph.output)
    pools = {node.output[0]: node for node in nodes if node.op_type == "MaxPool"}
    for relu in [node for node in nodes if node.op_type == "Relu"]:
        between = relu.input[0]
        pool = pools.get(between)
        if pool is None or readers[between] > 1 or len(pool.output) > 1:
            continue
        pool.output[0], relu.output[0] = relu.output[0], between
        relu.input[0], pool.input[0] = pool.input[0], between
        nodes.remove(relu)  # Nodes stand in the order in which they are computed.
        nodes.insert(nodes.index(pool), relu)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]  # The shapes between them are others now.
    onnx.save(model, str(out))


def _last_sum(path: Path) -> list[str]:
    """The addition that gives the logits, if it is one: the answers themselves stay in floats."""
    import onnx

    nodes = onnx.load(str(path)).graph.node
    return [node.name for node in nodes if "logits" in node.output and node.op_type == "Add"]


def compare(
    path: Path,
    model: TrainedModel,
    images: Images,
    *,
    split: str = "test",
    int8: bool = False,
    progress: Progress | None = None,
) -> Gate:
    """The answers of the file at `path` beside those of `model`, one view of each picture.

    int8: compute it both as this processor does and as the best do, and take the worse.
    """
    labels = map_labels(images, model.class_names)
    plain = _plain_logits(model, images.pixels, progress)
    ways = (_answers(path, images.pixels, exact=exact) for exact in ((False, True)[: 1 + int8]))
    logits, probabilities = min(
        ways, key=lambda found: float((found[1].argmax(axis=1) == labels).mean())
    )
    expected = softmax(plain / np.float32(model.temperature))
    guesses, before = probabilities.argmax(axis=1), plain.argmax(axis=1)
    two = np.sort(plain, axis=1)[:, -2:]
    as_likely = two[:, 1] - two[:, 0] < 2 * MOST_LOGIT_ERROR
    right, right_before = guesses == labels, before == labels
    return Gate(
        len(images),
        split,
        float(((guesses == before) | as_likely).mean()),
        float(np.abs(logits - plain).max()),
        float(np.abs(probabilities - expected).max()),
        float(right.mean()),
        float(right_before.mean()),
        len(images),
        int((right_before & ~right).sum()),
        int((right & ~right_before).sum()),
    )


def _answers(
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


def _judged_on_more(
    gate: Gate,
    path: Path,
    model: TrainedModel,
    dataset: Dataset,
    *,
    own: bool,
    progress: Progress | None,
) -> Gate:
    """`gate` with pictures of the validation split among those that it is judged by."""
    room = NUM_COMPARED - gate.num_images
    if gate.split != "test" or room <= 0:
        return gate
    try:
        images = _drawn(split_of(dataset, "validation", model.recipe.data, own=own), room)
    except TenfoldError:
        return gate
    more = compare(path, model, images, split="validation", int8=True, progress=progress)
    return gate._replace(
        num_judged=gate.num_judged + more.num_judged,
        num_lost=gate.num_lost + more.num_lost,
        num_gained=gate.num_gained + more.num_gained,
    )


def _plain_logits(
    model: TrainedModel, pixels: NDArray[np.uint8], progress: Progress | None
) -> NDArray[np.float32]:
    """Of one view, whatever the recipe's evaluation has."""
    from dataclasses import replace

    evaluation = model.recipe.evaluation.but(views="one")
    plain = replace(model, recipe=model.recipe.but(evaluation=evaluation))
    return plain.logits(pixels, progress=progress)


def _require_parity(gate: Gate, *, int8: bool, force: bool, path: Path) -> None:
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
    is_same = all(error <= MOST_LOGIT_ERROR for error in errors)
    if gate.same_class < 1 or not is_same:
        raise TenfoldError(
            f"{path} is not written: of {gate.num_images:,} pictures "
            f"{100 * gate.same_class:.2f} % have the class that the run gives, and logits differ "
            f"by up to {gate.logit_error:.1e}; please report this with the run's recipe."
        )


def _require_same(
    path: Path, pixels: NDArray[np.uint8], before: list[NDArray[Any]], *, path_meant: Path
) -> None:
    """Raise TenfoldError where the file that will be kept says something else than the one that
    was compared."""
    found = open_session(path).run(None, {INPUT: pixels})
    if not all(np.array_equal(one, other) for one, other in zip(found, before, strict=True)):
        raise TenfoldError(
            f"{path_meant} is not written: with its description it answers otherwise; please "
            "report this with the run's recipe."
        )


def _compared(dataset: Dataset, model: TrainedModel, *, own: bool) -> tuple[str, Images]:
    """Real pictures: of the test split, or of validation or training where there is none."""
    for split in ("test", "validation", "train"):
        try:
            images = split_of(dataset, split, model.recipe.data, own=own)
        except TenfoldError:
            continue
        return split if own else f"{split} of {dataset.name}", _drawn(images, NUM_COMPARED)
    raise TenfoldError(f"{dataset.name} has no pictures to compare the export on.")


def _drawn(images: Images, number: int) -> Images:
    if len(images) <= number:
        return images
    chosen = np.random.default_rng(0).choice(len(images), number, replace=False)
    return images.take(np.sort(chosen).astype(np.int64))


def _samples(images: Images, number: int) -> list[str]:
    """Pictures of as many classes as there are, as PNG in data URIs, for those who want to try."""
    from tenfold.data.encoding import png_data_uri

    first = np.array([np.flatnonzero(images.labels == label)[0] for label in set(images.labels)])
    others = np.setdiff1d(np.arange(len(images)), first)
    chosen = np.concatenate([np.sort(first), others])[:number]
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
    model.module.eval()

    def forward() -> None:
        with torch.inference_mode():
            model.module(inputs)

    own = _measure(forward)
    return Timing(
        batch_size,
        float(np.median(seconds)),
        float(np.quantile(seconds, 0.99)),
        batch_size / float(np.median(seconds)),
        batch_size / float(np.median(own)),
    )


def _measure(function: Any) -> list[float]:
    function()
    seconds: list[float] = []
    end = time.perf_counter() + TIMED_SECONDS
    while time.perf_counter() < end or len(seconds) < 5:
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return seconds


def _remember(run: RunFolder, export: Export) -> None:
    """Keep the figures of a file in the run folder there, where the page finds them."""
    path = run.path / "export" / "exports.json"
    if path.parent.resolve() != export.path.parent.resolve():
        return
    known = read_json(path) if path.exists() else {}
    kind = "int8" if export.is_int8 else "float"
    known[kind] = {
        "path": export.path.name,
        "opset": export.opset,
        "size": export.size,
        "gate": export.gate._asdict(),
        "timings": [timing._asdict() for timing in export.timings],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, known)
