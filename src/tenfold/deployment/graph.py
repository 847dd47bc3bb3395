"""The network that is exported, in floats or in eight bits: pixels in, probabilities out.

N images of H by W pixels, C classes.
"""

import logging
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tenfold.errors import TenfoldError, first_line, require_packages
from tenfold.evaluation.trained import TrainedModel
from tenfold.models.parts import parts_of

OPSET = 18
"""The exporter's own, which ONNX Runtime has read since 2022."""

INPUT = "pixels"
OUTPUTS = ("probabilities", "logits")
MAP_OUTPUT = "where"

EIGHT_BIT_OPERATIONS = (
    "Conv", "Gemm", "MatMul", "Add", "Concat", "Reshape", "Flatten",
    "MaxPool", "AveragePool", "GlobalAveragePool", "Relu", "Clip",
)  # fmt: skip
"""What is computed in eight bits; not temperature and softmax, which would have 256 values."""


class Exported(nn.Module):
    """Normalisation, network, temperature and softmax as one.

    Shape: `(N, H, W, 3)` uint8 -> probabilities and logits, both `(N, C)` float32, and with
    `has_map` where it looked, `(N, h, w)` from 0 up.
    """

    def __init__(self, model: TrainedModel, *, has_map: bool = False) -> None:
        super().__init__()
        self.network = model.module
        self.temperature = model.temperature
        mean, std = (torch.tensor(values)[None, :, None, None] for values in model.normalisation)
        self.register_buffer("mean", 255 * mean)
        self.register_buffer("scale", 1 / (255 * std))
        self._maps: list[Tensor] = []
        self.has_map = has_map
        if has_map:
            parts = parts_of(model.module, model.image_size)
            if parts.last is None:
                raise TenfoldError(
                    f"A {model.recipe.model.name} network has no maps of where something is; "
                    "export it without --maps."
                )
            self._layer, self._head = parts.last, parts.head
            self._handle = parts.last.module.register_forward_hook(self._record)

    def release(self) -> None:
        """Leave the network as it was."""
        if self.has_map:
            self._handle.remove()
            self._maps.clear()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        inputs = pixels.permute(0, 3, 1, 2).to(torch.float32)
        inputs = (inputs - self.mean) * self.scale  # type: ignore[operator]
        self._maps.clear()
        logits = self.network(inputs)
        probabilities = (logits / self.temperature).softmax(dim=1)
        if not self.has_map:
            return probabilities, logits
        return probabilities, logits, self._where(logits)

    def _record(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._maps.append(output if self._layer.as_maps is None else self._layer.as_maps(output))

    def _where(self, logits: Tensor) -> Tensor:
        """What each place adds to the logit, where the head sees the maps' channels; otherwise how
        strongly the layer answers there."""
        [maps] = self._maps
        if self._head is None or self._head.in_features != maps.shape[1]:
            return maps.abs().mean(dim=1)
        weights = self._head.weight[logits.argmax(dim=1)]
        return torch.einsum("nc,nchw->nhw", weights, maps).relu()


def write_onnx(
    model: TrainedModel, path: Path, *, has_map: bool = False, opset: int = OPSET
) -> None:
    """Write the graph with `opset` of ONNX. Raises TenfoldError where that can't be."""
    # torch.onnx needs onnxscript, and says so in a traceback.
    needed = ("onnx", "onnxruntime", "onnxscript")
    require_packages(*needed, what="Exports need onnx, onnxscript and ONNX Runtime", extra="export")
    import onnx
    import onnxruntime

    newest = onnx.defs.onnx_opset_version()
    if not OPSET <= opset <= newest:
        raise TenfoldError(
            f"Opset {opset} can't be written here; choose one from {OPSET} to {newest}."
        )
    exported = Exported(model, has_map=has_map).cpu().eval()
    example = torch.zeros(2, *model.image_size, 3, dtype=torch.uint8)
    logging.getLogger("onnxscript").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                exported,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[*OUTPUTS, *([MAP_OUTPUT] if has_map else [])],
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1)}},
                verbose=False,
            )
        assert program is not None
        written = program.model_proto
        _forget_the_machine(written)
        onnx.save(written, str(path))
        if {entry.domain: entry.version for entry in written.opset_import}[""] != opset:
            raise ValueError("the exporter fell back to another opset")
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # Whatever exporter or runtime can't do in this opset.
        raise TenfoldError(
            f"{model.recipe.model.name} can't be written as ONNX of opset {opset} "
            f"({type(error).__name__}: {first_line(error)}); try another --opset."
        ) from error
    finally:
        exported.release()


def _forget_the_machine(model: Any) -> None:
    """Take out where in whose files each node was made, which the exporter notes beside it."""
    graph, functions = model.graph, model.functions
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    inner = (node for function in functions for node in function.node)
    for part in (model, graph, *graph.node, *values, *functions, *inner):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def quantise(path: Path, pixels: NDArray[np.uint8]) -> Path:
    """`path` in eight bits, beside it: weights by channel, ranges measured on `pixels`."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = iter(np.array_split(pixels, 20))

    class Images(CalibrationDataReader):  # type: ignore[misc]
        """The images in batches, each once."""

        def get_next(self) -> dict[str, Any] | None:
            """The next batch, or None."""
            return next(({INPUT: batch} for batch in batches), None)

    swapped, prepared, small = (
        path.with_name(f"{name}.onnx") for name in ("swapped", "prepared", "int8")
    )
    relu_before_pooling(path, swapped)
    # Folds the norms into the convolutions, so that each is one operation of eight bits.
    quant_pre_process(str(swapped), str(prepared), skip_symbolic_shape=True)
    nodes = onnx.load(str(prepared)).graph.node
    # An addition that gives the logits: they themselves stay in floats.
    kept = [node.name for node in nodes if "logits" in node.output and node.op_type == "Add"]
    quantize_static(
        str(prepared),
        str(small),
        Images(),
        op_types_to_quantize=list(EIGHT_BIT_OPERATIONS),
        nodes_to_exclude=kept,
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        # Seven bits: two products of eight are too large a sum for processors without VNNI.
        reduce_range=True,
    )
    return small


def relu_before_pooling(path: Path, out: Path) -> None:
    """Write `path` to `out`, every ReLU behind a max pooling before it, which changes no logit.

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
