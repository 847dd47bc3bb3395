"""The network that is exported, in floats or in eight bits: pixels in, probabilities out.

N images of H by W pixels, C classes.
"""

import copy
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

OPSET = 18  # The exporter's own, which ONNX Runtime has read since 2022.
INPUT = "pixels"
# What is computed in eight bits; not temperature and softmax, which would have 256 values.
EIGHT_BIT_OPERATIONS = [
    *("Conv", "Gemm", "MatMul", "Add", "Concat", "Reshape", "Flatten", "Relu", "Clip"),
    *("MaxPool", "AveragePool", "GlobalAveragePool"),
]


class Exported(nn.Module):
    """Normalisation, network, temperature and softmax as one.

    Shape: `(N, H, W, 3)` uint8 -> probabilities and logits, both `(N, C)` float32, and with
    `has_map` where it looked, `(N, h, w)` from 0 up: what each place adds to the logit, where the
    head sees the channels of the maps; otherwise how strongly the last layer answers there.
    """

    def __init__(self, model: TrainedModel, *, has_map: bool) -> None:
        super().__init__()
        self.network, self.temperature = copy.deepcopy(model.module), model.temperature
        mean, std = (torch.tensor(values)[None, :, None, None] for values in model.normalisation)
        self.register_buffer("mean", 255 * mean)
        self.register_buffer("scale", 1 / (255 * std))
        self._maps: list[Tensor] = []
        if not has_map:
            return
        parts = parts_of(self.network, model.image_size)
        if (last := parts.last) is None:
            name = model.recipe.model.name
            raise TenfoldError(f"A {name} network has no maps; export it without --maps.")
        self._head, to_maps = parts.head, last.as_maps or (lambda output: output)
        last.module.register_forward_hook(
            lambda module, inputs, output: self._maps.append(to_maps(output))
        )

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        inputs = pixels.permute(0, 3, 1, 2).to(torch.float32)
        inputs = (inputs - self.mean) * self.scale  # type: ignore[operator]
        self._maps.clear()
        logits = self.network(inputs)
        outputs = (logits / self.temperature).softmax(dim=1), logits
        if not self._maps:
            return outputs
        [maps] = self._maps
        if self._head is None or self._head.in_features != maps.shape[1]:
            return *outputs, maps.abs().mean(dim=1)
        weights = self._head.weight[logits.argmax(dim=1)]
        return *outputs, torch.einsum("nc,nchw->nhw", weights, maps).relu()


def write_onnx(
    model: TrainedModel, path: Path, *, has_map: bool = False, opset: int = OPSET
) -> None:
    """Write the graph with `opset` of ONNX. Raises TenfoldError where that can't be."""
    # torch.onnx needs onnxscript, and says so in a traceback.
    needed = ("onnx", "onnxruntime", "onnxscript")
    require_packages(*needed, what="Exports need onnx, onnxscript and ONNX Runtime", extra="export")
    import onnx
    import onnxruntime
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    newest = onnx.defs.onnx_opset_version()
    if not OPSET <= opset <= newest:
        wrong = f"Opset {opset} can't be written here"
        raise TenfoldError(f"{wrong}; choose one from {OPSET} to {newest}.")
    exported = Exported(model, has_map=has_map).cpu().eval()
    example = torch.zeros(2, *model.image_size, 3, dtype=torch.uint8)
    wanted: dict[str, Any] = {
        "dynamo": True,
        "opset_version": opset,
        "input_names": [INPUT],
        "output_names": ["probabilities", "logits", *["where"] * has_map],
        "dynamic_shapes": {INPUT: {0: torch.export.Dim("batch", min=1)}},
    }
    logging.getLogger("onnxscript").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(exported, (example,), verbose=False, **wanted)
        assert program is not None
        # The exporter notes beside each node where in whose files it was made.
        ClearMetadataAndDocStringPass()(program.model)
        program.save(str(path))
        if program.model.opset_imports[""] != opset:
            raise ValueError("the exporter fell back to another opset")
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except OSError:  # Such as a full disk.
        raise
    except Exception as error:  # Whatever exporter or runtime can't do in this opset.
        raise TenfoldError(
            f"{model.recipe.model.name} can't be written as ONNX of opset {opset} "
            f"({type(error).__name__}: {first_line(error)}); try another --opset."
        ) from error


def quantise(path: Path, pixels: NDArray[np.uint8]) -> Path:
    """`path` in eight bits, beside it: weights by channel, ranges measured on `pixels`."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = iter(np.array_split(pixels, 20))

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(({INPUT: batch} for batch in batches), None)

    swapped, prepared, small = (
        path.with_name(f"{n}.onnx") for n in ("swapped", "prepared", "int8")
    )
    relu_before_pooling(path, swapped)
    # Folds the norms into the convolutions, so that each is one operation of eight bits.
    quant_pre_process(str(swapped), str(prepared), skip_symbolic_shape=True)
    nodes = onnx.load(str(prepared)).graph.node
    quantize_static(
        str(prepared),
        str(small),
        Images(),
        op_types_to_quantize=EIGHT_BIT_OPERATIONS,
        # An addition that gives the logits: they themselves stay in floats.
        nodes_to_exclude=[n.name for n in nodes if "logits" in n.output and n.op_type == "Add"],
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
    nodes = model.graph.node
    readers = Counter(name for node in nodes for name in node.input)
    readers.update(output.name for output in model.graph.output)
    pools = {node.output[0]: node for node in nodes if node.op_type == "MaxPool"}
    for relu in [node for node in nodes if node.op_type == "Relu"]:
        pool = pools.get(relu.input[0])
        if pool is not None and readers[pool.output[0]] == 1 and len(pool.output) == 1:
            relu.attribute.extend(pool.attribute)  # The two nodes change their roles.
            del pool.attribute[:]
            pool.op_type, relu.op_type = "Relu", "MaxPool"
    del model.graph.value_info[:]  # The shapes between them are others now.
    onnx.save(model, str(out))
